//! Goes through a tar member by member.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use super::BLOCK;
use super::header::{Kind, checksum_holds, flag, header_name, number, until_nul};
use super::pax::Extended;
use super::sparse::Map;
use super::writer::moved;

/// Most bytes of headers that may precede one member: long names and extended attributes. More is no honest archive.
const MAX_EXTENDED: u64 = 1 << 20;

/// Longest name, in bytes: Linux' PATH_MAX.
const MAX_NAME: usize = 4096;

/// Why a tar is refused.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// No tar at all.
    #[error("not a tar archive (plain, or compressed with gzip, xz or zstd)")]
    NotATar,
    /// It ends too early.
    #[error("the archive is cut off after `{after}`: get it again")]
    Truncated {
        /// The last member that was begun.
        after: String,
    },
    /// A header that makes no sense.
    #[error("the archive is damaged after `{after}`: {what}")]
    Damaged {
        /// The last member that was whole.
        after: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A name that leads out of the root.
    #[error("the archive is refused: its member `{member}` leads out of the root (absolute, or with `..`)")]
    Outside {
        /// The member.
        member: String,
    },
    /// A hard link that leads out of the root.
    #[error(
        "the archive is refused: its member `{member}` is a hard link to `{target}`, which leads out of the root"
    )]
    LinkOutside {
        /// The member.
        member: String,
        /// What it links to.
        target: String,
    },
    /// A kind of member that no root has.
    #[error("the archive is refused: its member `{member}` is of the unknown kind `{kind}`")]
    Kind {
        /// The member.
        member: String,
        /// The type flag.
        kind: char,
    },
    /// A member is placed below something that is no directory of the root.
    #[error("the archive is refused: its member `{member}` is placed through `{through}`, {why}")]
    Through {
        /// The member.
        member: String,
        /// The link or file on its way.
        through: String,
        /// What is wrong with that.
        why: &'static str,
    },
    /// A hard link to nothing.
    #[error(
        "the archive is refused: its member `{member}` is a hard link to `{target}`, which is no file that it has"
    )]
    LinkToNothing {
        /// The member.
        member: String,
        /// What it links to.
        target: String,
    },
    /// Reading failed.
    #[error("cannot read the archive")]
    Io(#[from] io::Error),
}

/// A member of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::image) struct Member {
    /// Where it is in the root: parts joined by `/`, none of them empty, `.` or `..`. Empty for the root itself.
    pub(in crate::image) path: Vec<u8>,
    pub(in crate::image) kind: Kind,
    /// Where a link leads: for a hard link a path like [`path`](Self::path), for a symbolic one its text.
    pub(in crate::image) link: Vec<u8>,
    /// Bytes of its content.
    pub(in crate::image) size: u64,
    /// Seconds since 1970.
    pub(in crate::image) mtime: i64,
}

impl Member {
    /// A directory that is implied by what is in it.
    pub(in crate::image) fn directory(path: &[u8]) -> Self {
        let (path, link) = (path.to_vec(), Vec::new());
        Self { path, kind: Kind::Directory, link, size: 0, mtime: 0 }
    }
}

/// An archive being read.
pub(in crate::image) struct TarReader<R> {
    input: R,
    /// The header blocks of the current member, those that precede it included.
    headers: Vec<u8>,
    /// Where in these the member's own header begins.
    own_header: usize,
    /// What precedes the member's own header, as pax records.
    records: Vec<u8>,
    /// Stored bytes of the current member that were not read yet, and the padding after them.
    left: u64,
    padding: u64,
    /// Where these belong, if the member is a file with holes.
    map: Option<Map>,
    /// The last member's name, for errors.
    after: String,
}

impl<R: Read> TarReader<R> {
    pub(in crate::image) fn new(input: R) -> Self {
        let after = "its beginning".into();
        let (headers, records) = (Vec::new(), Vec::new());
        Self { input, headers, own_header: 0, records, left: 0, padding: 0, map: None, after }
    }

    /// Goes to the next member; what is left of the current one is skipped. `None` at the end of the archive.
    pub(in crate::image) fn next(&mut self) -> Result<Option<Member>, TarError> {
        self.map = None;
        self.copy(&mut io::sink())?;
        self.headers.clear();
        self.records.clear();
        let mut extended = Extended::default();
        loop {
            let Some(block) = self.read_block()? else { return Ok(None) };
            if block.iter().all(|&byte| byte == 0) {
                return Ok(None);
            }
            if !checksum_holds(&block) {
                let first = self.headers.is_empty() && self.after == "its beginning";
                return Err(if first {
                    TarError::NotATar
                } else {
                    self.damaged("a header's check sum is wrong")
                });
            }
            self.own_header = self.headers.len();
            self.headers.extend_from_slice(&block);
            let size = number(block.get(124..136).unwrap_or_default());
            let size = size.and_then(|size| u64::try_from(size).ok());
            let size = size.ok_or_else(|| self.damaged("a size is malformed"))?;
            match flag(&block) {
                b'x' => {
                    let data = self.read_extended(size)?;
                    extended.read(&data).ok_or_else(|| self.damaged("an extended header is malformed"))?;
                    self.records.extend_from_slice(&data);
                }
                b'g' => drop(self.read_extended(size)?),
                b'L' => extended.path = Some(until_nul(&self.read_extended(size)?).to_vec()),
                b'K' => extended.link = Some(until_nul(&self.read_extended(size)?).to_vec()),
                _ => return self.member(&block, size, extended).map(Some),
            }
        }
    }

    /// The header blocks of the current member, `member`, at `path`: what to pass on, followed by its content and zeros up
    /// to a full block. As they are in the archive, if that can be.
    pub(in crate::image) fn headers(&self, member: &Member, path: &[u8]) -> Cow<'_, [u8]> {
        if self.map.is_none() && member.path == path {
            return Cow::Borrowed(&self.headers);
        }
        let own = self.headers.get(self.own_header..).unwrap_or_default();
        Cow::Owned(moved(own, &self.records, path, &member.link, member.size))
    }

    /// Reads the first bytes of the current member, at most `length`; [`copy`](Self::copy) copies the rest. None of a file with
    /// holes.
    pub(in crate::image) fn head(&mut self, length: u64) -> Result<Vec<u8>, TarError> {
        let length = if self.map.is_some() { 0 } else { length };
        let mut head = Vec::new();
        let read = self.input.by_ref().take(length.min(self.left)).read_to_end(&mut head)?;
        self.left -= read as u64;
        Ok(head)
    }

    /// Copies the current member's content.
    pub(in crate::image) fn copy(&mut self, out: &mut impl Write) -> Result<(), TarError> {
        if let Some(map) = self.map.take() {
            let mut at = 0;
            for (offset, length) in map.pieces {
                io::copy(&mut io::repeat(0).take(offset - at), out)?;
                self.copy_stored(length, out)?;
                at = offset + length;
            }
            io::copy(&mut io::repeat(0).take(map.size - at), out)?;
        }
        self.copy_stored(self.left, out)?;
        let skipped = io::copy(&mut self.input.by_ref().take(self.padding), &mut io::sink())?;
        if skipped != self.padding {
            return Err(self.truncated());
        }
        self.padding = 0;
        Ok(())
    }

    fn copy_stored(&mut self, length: u64, out: &mut impl Write) -> Result<(), TarError> {
        if io::copy(&mut self.input.by_ref().take(length), out)? != length {
            return Err(self.truncated());
        }
        self.left -= length;
        Ok(())
    }

    /// What the archive is read from.
    pub(in crate::image) fn into_inner(self) -> R {
        self.input
    }

    fn member(&mut self, block: &[u8; BLOCK], size: u64, mut extended: Extended) -> Result<Member, TarError> {
        let raw = extended.sparse_name.take().or(extended.path.take()).unwrap_or_else(|| header_name(block));
        let name = || String::from_utf8_lossy(&raw).into_owned();
        let flag = flag(block);
        let kind = match flag {
            b'0' | 0 if raw.ends_with(b"/") => Kind::Directory,
            b'0' | b'7' | b'S' | 0 => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Character,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(TarError::Kind { member: name(), kind: char::from(other) }),
        };
        let path = inside(&raw).ok_or_else(|| TarError::Outside { member: name() })?;
        let link = match kind {
            Kind::HardLink | Kind::Symlink => extended.link.take(),
            _ => Some(Vec::new()),
        };
        let mut link = link.unwrap_or_else(|| until_nul(block.get(157..257).unwrap_or_default()).to_vec());
        if kind == Kind::HardLink {
            link = inside(&link).filter(|link| !link.is_empty()).ok_or_else(|| TarError::LinkOutside {
                member: name(),
                target: String::from_utf8_lossy(&link).into_owned(),
            })?;
        }
        let stored = extended.size.unwrap_or(size);
        if kind != Kind::File && stored != 0 {
            return Err(self.damaged("a member that is no file has content"));
        }
        let mtime = extended.mtime.or_else(|| number(block.get(136..148).unwrap_or_default()));
        self.left = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;
        self.after = name();
        self.map = self.sparse_map(block, &extended)?;
        let size = self.map.as_ref().map_or(stored, |map| map.size);
        Ok(Member { path, kind, link, size, mtime: mtime.unwrap_or(0) })
    }

    /// Where the pieces of the current member belong, if it is a file with holes.
    fn sparse_map(&mut self, block: &[u8; BLOCK], extended: &Extended) -> Result<Option<Map>, TarError> {
        let map = if flag(block) == b'S' {
            self.read_sparse_map(block)?;
            Map::from_header(self.headers.get(self.own_header..).unwrap_or_default())
        } else if extended.sparse_size.is_some() {
            let found = Map::from_extended(extended, &mut self.input.by_ref().take(self.left));
            found.map(|(map, taken)| {
                self.left -= taken;
                map
            })
        } else {
            return Ok(None);
        };
        let map = map.filter(|map| map.holds(self.left));
        map.map(Some)
            .ok_or_else(|| self.damaged("the map of a sparse file is wrong, or the file larger than 64 GiB"))
    }

    /// GNU's old sparse files: blocks with the rest of the map follow the header.
    fn read_sparse_map(&mut self, header: &[u8; BLOCK]) -> Result<(), TarError> {
        let mut more = header.get(482) == Some(&1);
        while more {
            let block = self.read_block()?.ok_or_else(|| self.truncated())?;
            self.headers.extend_from_slice(&block);
            if self.headers.len() as u64 > MAX_EXTENDED {
                return Err(self.damaged("the map of a sparse file is too long"));
            }
            more = block.get(504) == Some(&1);
        }
        Ok(())
    }

    /// The data of a header that precedes a member.
    fn read_extended(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size.saturating_add(self.headers.len() as u64) > MAX_EXTENDED {
            return Err(self.damaged("extended headers are too long"));
        }
        let mut data = Vec::new();
        for _ in 0..size.div_ceil(BLOCK as u64) {
            let block = self.read_block()?.ok_or_else(|| self.truncated())?;
            data.extend_from_slice(&block);
        }
        self.headers.extend_from_slice(&data);
        data.truncate(usize::try_from(size).unwrap_or(0));
        Ok(data)
    }

    /// The next block; `None` if the input is over.
    fn read_block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = Vec::with_capacity(BLOCK);
        self.input.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        match <[u8; BLOCK]>::try_from(block) {
            Ok(block) => Ok(Some(block)),
            Err(part) if part.is_empty() && self.headers.is_empty() => Ok(None),
            Err(_) if self.headers.is_empty() && self.after == "its beginning" => Err(TarError::NotATar),
            Err(_) => Err(self.truncated()),
        }
    }

    fn truncated(&self) -> TarError {
        TarError::Truncated { after: self.after.clone() }
    }

    fn damaged(&self, what: &'static str) -> TarError {
        TarError::Damaged { after: self.after.clone(), what }
    }
}

/// Where `name` is in the root, if it is there: neither absolute nor with `..`.
fn inside(name: &[u8]) -> Option<Vec<u8>> {
    if name.starts_with(b"/") || name.len() > MAX_NAME || name.contains(&0) {
        return None;
    }
    let parts: Vec<&[u8]> =
        name.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    (!parts.contains(&b"..".as_slice())).then(|| parts.join(&b'/'))
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
