//! Writes initramfs archives: cpio, format "newc".
//!
//! Owns the byte layout (Linux, Documentation/driver-api/early-userspace/buffer-format.rst) and what makes archives
//! reproducible: entries sorted by name, all owned by root, no times, inode numbers counted up. Never reads files.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Write};

/// Longest name, without its NUL: the kernel refuses what is longer than its `PATH_MAX` of 4096.
const MAX_NAME: usize = 4095;

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";

const TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// What an archive refuses to hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CpioError {
    /// A name that is empty, absolute, too long, or has `.`, `..`, empty or NUL parts.
    #[error("`{0}` cannot be the name of a file in the first stage")]
    Name(String),
    /// Two entries with one name.
    #[error("the first stage would hold `{0}` twice")]
    Twice(String),
    /// An entry below something that is no directory.
    #[error("`{0}` in the first stage is no directory, but something is to go below it")]
    NotADirectory(String),
    /// The format counts in 32 bits.
    #[error("`{0}` is too large for an initramfs: 4 GiB is the limit")]
    TooLarge(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    mode: u32,
    device: (u32, u32),
    content: Vec<u8>,
}

impl Node {
    fn is_directory(&self) -> bool {
        self.mode & TYPE == DIRECTORY
    }
}

/// An archive being put together in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Archive {
    // Sorted by bytes, so every directory comes before what is in it.
    nodes: BTreeMap<String, Node>,
}

impl Archive {
    /// Adds a directory, mode 0755, and those above it. One that is there already is fine.
    pub(super) fn directory(&mut self, name: &str) -> Result<(), CpioError> {
        check(name)?;
        let ends = name.char_indices().filter(|&(_, c)| c == '/').map(|(at, _)| at).chain([name.len()]);
        for end in ends {
            let part = name.get(..end).unwrap_or(name);
            match self.nodes.entry(part.to_owned()) {
                Entry::Vacant(free) => {
                    free.insert(Node { mode: DIRECTORY | 0o755, device: (0, 0), content: Vec::new() });
                }
                Entry::Occupied(node) if node.get().is_directory() => {}
                Entry::Occupied(_) => return Err(CpioError::NotADirectory(part.to_owned())),
            }
        }
        Ok(())
    }

    /// Adds a regular file and the directories above it; `mode` are its permissions.
    pub(super) fn file(&mut self, name: &str, mode: u32, content: Vec<u8>) -> Result<(), CpioError> {
        self.add(name, Node { mode: FILE | (mode & 0o7777), device: (0, 0), content })
    }

    /// Adds a symbolic link.
    pub(super) fn symlink(&mut self, name: &str, target: &str) -> Result<(), CpioError> {
        self.add(name, Node { mode: SYMLINK | 0o777, device: (0, 0), content: target.as_bytes().to_vec() })
    }

    /// Adds a character device.
    pub(super) fn character_device(
        &mut self,
        name: &str,
        mode: u32,
        device: (u32, u32),
    ) -> Result<(), CpioError> {
        self.add(name, Node { mode: CHARACTER | (mode & 0o7777), device, content: Vec::new() })
    }

    /// Whether something by that name is in the archive.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.nodes.contains_key(name)
    }

    /// How many entries that are no directories there are, and the bytes of their contents.
    pub(super) fn content(&self) -> (usize, u64) {
        let files = || self.nodes.values().filter(|node| !node.is_directory());
        (files().count(), files().map(|node| node.content.len() as u64).sum())
    }

    /// The same for those whose names begin with `prefix`.
    pub(super) fn content_below(&self, prefix: &str) -> (usize, u64) {
        let nodes = self.nodes.iter().filter(|(name, node)| name.starts_with(prefix) && !node.is_directory());
        nodes.fold((0, 0), |(files, bytes), (_, node)| (files + 1, bytes + node.content.len() as u64))
    }

    fn add(&mut self, name: &str, node: Node) -> Result<(), CpioError> {
        check(name)?;
        if u32::try_from(node.content.len()).is_err() {
            return Err(CpioError::TooLarge(name.to_owned()));
        }
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent)?;
        }
        match self.nodes.entry(name.to_owned()) {
            Entry::Vacant(free) => {
                free.insert(node);
                Ok(())
            }
            Entry::Occupied(_) => Err(CpioError::Twice(name.to_owned())),
        }
    }

    /// Writes the archive.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (inode, (name, node)) in (1..).zip(&self.nodes) {
            write_node(out, inode, name, node)?;
        }
        write_node(out, 0, TRAILER, &Node { mode: 0, device: (0, 0), content: Vec::new() })
    }
}

fn check(name: &str) -> Result<(), CpioError> {
    let good = name.len() <= MAX_NAME
        && !name.contains('\0')
        && name != TRAILER
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if good { Ok(()) } else { Err(CpioError::Name(name.chars().take(80).collect())) }
}

fn write_node(out: &mut impl Write, inode: u32, name: &str, node: &Node) -> io::Result<()> {
    let links: u32 = if node.is_directory() { 2 } else { 1 };
    let size = u32::try_from(node.content.len()).map_err(io::Error::other)?;
    let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
    let (major, minor) = node.device;
    // inode, mode, uid, gid, links, mtime, size, device of the file system, device, name size, check sum (unused)
    let fields = [inode, node.mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0];
    out.write_all(MAGIC.as_bytes())?;
    for field in fields {
        write!(out, "{field:08x}")?;
    }
    out.write_all(name.as_bytes())?;
    out.write_all(&[0])?;
    pad(out, MAGIC.len() + fields.len() * 8 + name.len() + 1)?;
    out.write_all(&node.content)?;
    pad(out, node.content.len())
}

/// Fills up to a multiple of four bytes after `written`.
fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    const ZEROS: [u8; 4] = [0; 4];
    out.write_all(ZEROS.get(..written.next_multiple_of(4) - written).unwrap_or_default())
}

#[cfg(test)]
#[path = "cpio_tests.rs"]
pub(super) mod tests;
