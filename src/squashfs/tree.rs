//! All names of a squashfs, and all pieces of content in the order of their bytes.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::inode::{Content, Inode, Kind, block_length};
use super::metadata::{Cursor, Metadata, Reference, Tables};
use super::xattr::{self, Attributes, Xattrs};
use super::{SquashfsError, Superblock};

/// Names at most: a root has some ten or hundred thousand.
const MAX_NAMES: usize = 16 << 20;
/// Longest path (linux/limits.h, `PATH_MAX`).
const MAX_PATH: usize = 4096;
/// What the length of a directory's listing says too much: `.` and `..`, which are not in it.
const DOTS: u32 = 3;
/// Bytes of an entry of the table of fragments.
const FRAGMENT: u64 = 16;
/// A page of memory: what content is counted in.
const PAGE: u64 = 4096;
/// Bytes of memory that all that is read may take: so much, and so many for each byte of the tables. A Debian takes about four.
const ROOM: usize = 64 << 20;
const ROOM_PER_BYTE: usize = 32;

/// A squashfs, except for its content.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Parents before what is in them; first the top, whose path is empty.
    pub(super) directories: Vec<Entry>,
    /// All else.
    pub(super) entries: Vec<Entry>,
    /// Further names of entries.
    pub(super) links: Vec<(PathBuf, usize)>,
    /// Content, in the order in which it lies in the squashfs.
    pub(super) pieces: Vec<Piece>,
    /// Bytes of a piece, uncompressed, at most.
    pub(super) block_size: u32,
    bytes: u64,
}

/// A file of whatever kind, under its first name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) mode: u16,
    pub(super) owner: u32,
    pub(super) group: u32,
    /// Seconds since 1970.
    pub(super) modified: u32,
    pub(super) attributes: Attributes,
    pub(super) node: Node,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    File {
        size: u64,
        /// Pieces of content that it gets.
        pieces: u32,
    },
    Symlink(PathBuf),
    Block(u64),
    Character(u64),
    Fifo,
    Socket,
}

/// Content that is read and uncompressed at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it begins in the squashfs.
    pub(super) start: u64,
    pub(super) length: u32,
    pub(super) packed: bool,
    /// Whose content it is: files that are alike share it.
    pub(super) parts: Vec<Part>,
}

/// Content of one file in a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// Number of the file.
    pub(super) entry: usize,
    /// Where it begins in the file.
    pub(super) at: u64,
    /// Where it begins in the piece.
    pub(super) from: u32,
    pub(super) length: u32,
}

impl Tree {
    /// Reads it; `tables` are the bytes of [`Superblock::tables`].
    ///
    /// # Errors
    /// [`SquashfsError`].
    pub(crate) fn read(superblock: &Superblock, tables: &[u8]) -> Result<Self, SquashfsError> {
        let room = ROOM.saturating_add(tables.len().saturating_mul(ROOM_PER_BYTE));
        Self::read_within(superblock, tables, room)
    }

    /// Reads it into at most `room` bytes of memory.
    pub(super) fn read_within(
        superblock: &Superblock,
        tables: &[u8],
        room: usize,
    ) -> Result<Self, SquashfsError> {
        let mut reader = Reader::new(superblock, &Tables::new(superblock, tables), room)?;
        let top = reader.inode(superblock.root.into())?;
        if !matches!(top.kind, Kind::Directory { .. }) {
            return Err(SquashfsError::Damaged("its top is no directory"));
        }
        reader.note(PathBuf::new(), superblock.root.into(), top)?;
        let mut next = 0;
        while let Some(&(block, offset, length)) = reader.listings.get(next) {
            let path = reader.tree.directories.get(next).map(|entry| entry.path.clone()).unwrap_or_default();
            reader.list(&path, Reference { block: block.into(), offset }, length)?;
            next += 1;
        }
        let mut tree = reader.tree;
        tree.pieces.sort_by_key(|piece| piece.start);
        Ok(tree)
    }

    /// Bytes of all files, in whole pages: what they take uncompressed, holes included.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Files, directories and all else.
    pub(crate) fn count(&self) -> usize {
        self.directories.len() + self.entries.len()
    }

    /// Bytes that are written when it is made anew.
    pub(crate) fn content(&self) -> u64 {
        self.pieces.iter().flat_map(|piece| &piece.parts).map(|part| u64::from(part.length)).sum()
    }
}

/// The tree in the making.
struct Reader {
    block_size: u32,
    content: std::ops::Range<u64>,
    inodes: Metadata,
    names: Metadata,
    ids: Vec<u8>,
    fragments: Vec<u8>,
    xattrs: Xattrs,
    tree: Tree,
    /// Where the listing of each directory is, and its length.
    listings: Vec<(u32, u16, u32)>,
    directories: HashSet<Reference>,
    files: HashMap<Reference, usize>,
    /// Pieces by what they are in the squashfs.
    pieces: HashMap<(u64, u32), usize>,
    /// Bytes of memory that what is still to come may take.
    room: usize,
}

impl Reader {
    fn new(superblock: &Superblock, tables: &Tables<'_>, room: usize) -> Result<Self, SquashfsError> {
        // The listings end where the first table begins that is behind them.
        let mut end = tables.at(superblock.id_table)?.u64()?;
        if superblock.fragments > 0 {
            end = end.min(tables.at(superblock.fragment_table)?.u64()?);
        }
        if superblock.export_table != super::NONE {
            end = end.min(tables.at(superblock.export_table)?.u64()?);
        }
        let fragments = match superblock.fragments {
            0 => vec![],
            count => tables.listed(superblock.fragment_table, count.into(), FRAGMENT)?,
        };
        Ok(Self {
            block_size: superblock.block_size,
            content: Superblock::RANGE.end..superblock.inode_table,
            inodes: tables.metadata(superblock.inode_table, superblock.directory_table)?,
            names: tables.metadata(superblock.directory_table, end)?,
            ids: tables.listed(superblock.id_table, superblock.ids.into(), 4)?,
            fragments,
            xattrs: Xattrs::read(superblock, tables)?,
            tree: Tree { block_size: superblock.block_size, ..Tree::default() },
            listings: Vec::new(),
            directories: HashSet::new(),
            files: HashMap::new(),
            pieces: HashMap::new(),
            room,
        })
    }

    /// Notes that so many bytes of memory are taken: a few bytes of a table can say the same of many files.
    fn take(&mut self, bytes: usize) -> Result<(), SquashfsError> {
        self.room =
            self.room.checked_sub(bytes).ok_or(SquashfsError::Damaged("more is in it than there can be"))?;
        Ok(())
    }

    fn inode(&self, place: Reference) -> Result<Inode, SquashfsError> {
        Inode::read(&mut self.inodes.at(place)?, self.block_size)
    }

    /// Takes all that is in the directory at `path`.
    fn list(&mut self, path: &Path, place: Reference, length: u32) -> Result<(), SquashfsError> {
        let length = length.saturating_sub(DOTS) as usize;
        if length == 0 {
            return Ok(());
        }
        let listing = self.names.at(place)?.bytes(length)?.to_vec();
        let mut at = Cursor::new(&listing);
        let mut last: &[u8] = &[];
        while !at.is_empty() {
            let (count, block) = (at.u32()?, at.u32()?);
            at.skip(4)?;
            for _ in 0..=count {
                let offset = at.u16()?;
                at.skip(4)?;
                let length = usize::from(at.u16()?) + 1;
                let name = OsStr::from_bytes(at.bytes(length)?);
                // Listings are sorted: so is it seen that no name comes twice.
                if name.as_bytes() <= std::mem::replace(&mut last, name.as_bytes()) {
                    return Err(SquashfsError::Damaged("the order of names"));
                }
                let path = path.join(checked(name)?);
                let place = Reference { block: block.into(), offset };
                match self.files.get(&place) {
                    Some(&first) => {
                        self.take(size_of::<(PathBuf, usize)>() + path.as_os_str().len())?;
                        self.tree.links.push((path, first));
                    }
                    None => self.note(path, place, self.inode(place)?)?,
                }
                if self.tree.count() + self.tree.links.len() > MAX_NAMES {
                    return Err(SquashfsError::Damaged("the number of its names"));
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, path: PathBuf, place: Reference, inode: Inode) -> Result<(), SquashfsError> {
        if path.as_os_str().len() > MAX_PATH {
            return Err(SquashfsError::Damaged("the length of a path"));
        }
        self.take(size_of::<Entry>() + path.as_os_str().len())?;
        let attributes = inode.attributes.map_or(Ok(vec![]), |number| self.xattrs.of(number, self.room))?;
        self.take(attributes.iter().map(xattr::bytes).sum())?;
        let (owner, group) = (self.id(inode.owner.0)?, self.id(inode.owner.1)?);
        let number = self.tree.entries.len();
        let node = match inode.kind {
            Kind::Directory { block, offset, length } => {
                self.listings.push((block, offset, length));
                if !self.directories.insert(place) {
                    return Err(SquashfsError::Damaged("a directory with two names"));
                }
                Node::Directory
            }
            Kind::File(content) => self.content(number, &content)?,
            Kind::Symlink(target) => {
                self.take(target.len())?;
                Node::Symlink(std::ffi::OsString::from_vec(target).into())
            }
            Kind::Block(number) => Node::Block(device(number)),
            Kind::Character(number) => Node::Character(device(number)),
            Kind::Fifo => Node::Fifo,
            Kind::Socket => Node::Socket,
        };
        let Inode { mode, modified, .. } = inode;
        let entry = Entry { path, mode, owner, group, modified, attributes, node };
        if entry.node == Node::Directory {
            self.tree.directories.push(entry);
        } else {
            self.files.insert(place, number);
            self.tree.entries.push(entry);
        }
        Ok(())
    }

    fn id(&self, number: u16) -> Result<u32, SquashfsError> {
        let at = usize::from(number) * 4;
        Cursor::new(self.ids.get(at..).unwrap_or_default()).u32()
    }

    /// Takes the content of the file `entry`.
    fn content(&mut self, entry: usize, content: &Content) -> Result<Node, SquashfsError> {
        let size = content.size;
        self.tree.bytes = self.tree.bytes.saturating_add(size.next_multiple_of(PAGE));
        let (mut start, mut at, mut pieces) = (content.start, 0, 0);
        for &word in &content.blocks {
            let length = u64::from(self.block_size).min(size.saturating_sub(at));
            let (stored, _) = block_length(word);
            if stored > 0 {
                self.part(start, word, Part { entry, at, from: 0, length: length as u32 })?;
                pieces += 1;
            }
            start += u64::from(stored);
            at += length;
        }
        if let Some((number, from)) = content.fragment {
            let place = u64::from(number).saturating_mul(FRAGMENT);
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            let mut fragment = Cursor::new(self.fragments.get(place..).unwrap_or_default());
            let (start, word) = (fragment.u64()?, fragment.u32()?);
            let length = u32::try_from(size.saturating_sub(at)).unwrap_or(u32::MAX);
            if length > 0 {
                self.part(start, word, Part { entry, at, from, length })?;
                pieces += 1;
            }
        }
        Ok(Node::File { size, pieces })
    }

    fn part(&mut self, start: u64, word: u32, part: Part) -> Result<(), SquashfsError> {
        let (length, packed) = block_length(word);
        let end = start.saturating_add(length.into());
        if start < self.content.start || end > self.content.end || length > self.block_size {
            return Err(SquashfsError::Damaged("the place of a file's content"));
        }
        self.take(size_of::<Part>())?;
        let pieces = &mut self.tree.pieces;
        let known = *self.pieces.entry((start, word)).or_insert(pieces.len());
        match pieces.get_mut(known) {
            Some(piece) => piece.parts.push(part),
            None => pieces.push(Piece { start, length, packed, parts: vec![part] }),
        }
        Ok(())
    }
}

/// A name that stays in its directory.
fn checked(name: &OsStr) -> Result<&OsStr, SquashfsError> {
    let bytes = name.as_bytes();
    if matches!(bytes, b"." | b"..") || bytes.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Err(SquashfsError::Damaged("a name"));
    }
    Ok(name)
}

/// A device's number as the system knows it (linux/kdev_t.h, `new_decode_dev`).
fn device(number: u32) -> u64 {
    let (major, minor) = ((number & 0xf_ff00) >> 8, (number & 0xff) | ((number >> 12) & 0xf_ff00));
    nix::sys::stat::makedev(major.into(), minor.into())
}
