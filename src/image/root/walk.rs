//! A root that is a directory: everything in it, sorted, as tar members.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::pack::Stream;
use super::{RootError, rules};
use crate::image::progress::Progress;
use crate::image::tar::{Kind, Member, NewMember};

/// Something in a directory.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Relative to the root.
    pub(super) path: Vec<u8>,
    metadata: Metadata,
    kind: Kind,
    /// Where the same file came up before.
    linked: Option<Vec<u8>>,
}

impl Found {
    /// What a survey wants to know.
    pub(super) fn member(&self) -> Member {
        Member {
            path: self.path.clone(),
            kind: self.kind,
            link: Vec::new(),
            size: self.size(),
            mtime: self.metadata.mtime(),
        }
    }

    /// The first bytes of a file below `root`, at most `length`; none of anything else.
    pub(super) fn head(&self, root: &Path, length: usize) -> Result<Vec<u8>, RootError> {
        let mut head = Vec::new();
        if self.kind == Kind::File {
            let path = below(root, &self.path);
            let read = File::open(&path).and_then(|file| file.take(length as u64).read_to_end(&mut head));
            read.map_err(|source| RootError::Read { path, source })?;
        }
        Ok(head)
    }

    fn size(&self) -> u64 {
        if self.kind == Kind::File { self.metadata.size() } else { 0 }
    }
}

/// Everything below `root` that goes into an image, parents first, sorted by name. `skip` is left out.
pub(super) fn walk(root: &Path, skip: &Path) -> Result<Vec<Found>, RootError> {
    let skip = fs::metadata(skip).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let mut walk = Walk { root, skip, found: Vec::new(), linked: BTreeMap::new() };
    walk.directory(b"")?;
    Ok(walk.found)
}

struct Walk<'a> {
    root: &'a Path,
    skip: Option<(u64, u64)>,
    found: Vec<Found>,
    /// Files with several names, by device and inode, with the name that came up first.
    linked: BTreeMap<(u64, u64), Vec<u8>>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &[u8]) -> Result<(), RootError> {
        let absolute = below(self.root, path);
        let names = fs::read_dir(&absolute).and_then(|entries| {
            entries.map(|entry| Ok(entry?.file_name().into_vec())).collect::<io::Result<Vec<_>>>()
        });
        let mut names = names.map_err(|source| RootError::Read { path: absolute, source })?;
        names.sort_unstable();
        for name in names {
            let path = if path.is_empty() { name } else { [path, b"/", &name].concat() };
            if !rules::is_left_out(&path) {
                self.entry(path)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: Vec<u8>) -> Result<(), RootError> {
        let absolute = below(self.root, &path);
        let metadata =
            fs::symlink_metadata(&absolute).map_err(|source| RootError::Read { path: absolute, source })?;
        let id = (metadata.dev(), metadata.ino());
        let Some(kind) = kind(&metadata).filter(|_| self.skip != Some(id)) else { return Ok(()) };
        if kind == Kind::Directory {
            self.found.push(Found { path: path.clone(), metadata, kind, linked: None });
            return self.directory(&path);
        }
        let before = if metadata.nlink() > 1 { self.linked.get(&id).cloned() } else { None };
        if before.is_none() && metadata.nlink() > 1 {
            self.linked.insert(id, path.clone());
        }
        let kind = if before.is_some() { Kind::HardLink } else { kind };
        self.found.push(Found { path, metadata, kind, linked: before });
        Ok(())
    }
}

/// The kind of member that a file becomes; sockets become none, as they mean nothing without their process.
fn kind(metadata: &Metadata) -> Option<Kind> {
    let kind = metadata.file_type();
    Some(match () {
        () if kind.is_file() => Kind::File,
        () if kind.is_dir() => Kind::Directory,
        () if kind.is_symlink() => Kind::Symlink,
        () if kind.is_char_device() => Kind::Character,
        () if kind.is_block_device() => Kind::Block,
        () if kind.is_fifo() => Kind::Fifo,
        () => return None,
    })
}

/// Writes what was found below `root`.
pub(super) fn write(
    root: &Path,
    found: &[Found],
    stream: &mut Stream,
    progress: &dyn Progress,
) -> Result<(), RootError> {
    for entry in found {
        let path = below(root, &entry.path);
        let error = |source| RootError::Read { path: path.clone(), source };
        let link = match (&entry.linked, entry.kind) {
            (Some(linked), _) => linked.clone(),
            (None, Kind::Symlink) => fs::read_link(&path).map_err(error)?.into_os_string().into_vec(),
            (None, _) => Vec::new(),
        };
        let xattrs = if entry.linked.is_some() { Vec::new() } else { attributes(&path).map_err(error)? };
        let device = entry.metadata.rdev();
        let header = NewMember {
            path: &entry.path,
            kind: entry.kind,
            mode: entry.metadata.mode(),
            uid: entry.metadata.uid(),
            gid: entry.metadata.gid(),
            size: entry.size(),
            mtime: entry.metadata.mtime(),
            link: &link,
            device: (nix::sys::stat::major(device), nix::sys::stat::minor(device)),
            xattrs: &xattrs,
        };
        stream.begin(&header.header())?;
        if entry.kind == Kind::File {
            copy_exactly(&path, entry.size(), stream)?;
        }
        stream.end(entry.size())?;
        progress.advance(entry.size());
    }
    Ok(())
}

/// Copies a file that must have `size` bytes.
pub(super) fn copy_exactly(path: &Path, size: u64, out: &mut impl io::Write) -> Result<(), RootError> {
    let error = |source| RootError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(error)?;
    let copied = io::copy(&mut (&file).take(size), out).map_err(error)?;
    let length = file.metadata().map_err(error)?.len();
    if copied == size && length == size { Ok(()) } else { Err(RootError::Changed { path: path.to_owned() }) }
}

fn attributes(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let names = match xattr::list(path) {
        Ok(names) => names,
        // A file system without them.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut attributes = Vec::new();
    for name in names.filter(|name| rules::keeps_attribute(name.as_bytes())) {
        if let Some(value) = xattr::get(path, &name)? {
            attributes.push((name.into_vec(), value));
        }
    }
    attributes.sort_unstable();
    Ok(attributes)
}

fn below(root: &Path, path: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(path))
}
