//! Inodes: what one file is, and where its content lies.

use super::metadata::Cursor;
use super::{NONE, SquashfsError};

/// There is no fragment, or no attribute.
const NOTHING: u32 = u32::MAX;
/// Longest target of a symbolic link (linux/limits.h, `PATH_MAX`).
const MAX_TARGET: u32 = 4096;
/// Most blocks of a file for which memory is taken at once.
const MAX_RESERVED: usize = 1 << 16;

/// A file of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inode {
    /// Permissions, with the set-id and sticky bits.
    pub(super) mode: u16,
    /// Numbers of its owner and group in the table of ids.
    pub(super) owner: (u16, u16),
    /// Seconds since 1970.
    pub(super) modified: u32,
    /// Number of its attributes' entry.
    pub(super) attributes: Option<u32>,
    pub(super) kind: Kind,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Directory {
        /// Place of its listing in the table of directories.
        block: u32,
        offset: u16,
        /// Bytes of the listing.
        length: u32,
    },
    File(Content),
    Symlink(Vec<u8>),
    Block(u32),
    Character(u32),
    Fifo,
    Socket,
}

/// Where the content of a file lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) size: u64,
    /// Where its first block begins; the others follow.
    pub(super) start: u64,
    /// Length of each block on disk, as [`block_length`] understands it.
    pub(super) blocks: Vec<u32>,
    /// Number of the fragment that holds its end, and where in it.
    pub(super) fragment: Option<(u32, u32)>,
}

/// Bytes of a block on disk, and whether it is compressed.
pub(super) fn block_length(word: u32) -> (u32, bool) {
    const PLAIN: u32 = 1 << 24;
    (word & (PLAIN - 1), word & PLAIN == 0)
}

impl Inode {
    /// Reads one.
    pub(super) fn read(at: &mut Cursor<'_>, block_size: u32) -> Result<Self, SquashfsError> {
        let (number, mode) = (at.u16()?, at.u16()?);
        let owner = (at.u16()?, at.u16()?);
        let modified = at.u32()?;
        at.skip(4)?;
        let mut attributes = NOTHING;
        let kind = match number {
            1 => {
                let block = at.u32()?;
                at.skip(4)?;
                let length = u32::from(at.u16()?);
                Kind::Directory { block, offset: at.u16()?, length }
            }
            8 => {
                at.skip(4)?;
                let (length, block) = (at.u32()?, at.u32()?);
                at.skip(6)?;
                let offset = at.u16()?;
                attributes = at.u32()?;
                Kind::Directory { block, offset, length }
            }
            2 => {
                let start = u64::from(at.u32()?);
                let fragment = (at.u32()?, at.u32()?);
                let size = u64::from(at.u32()?);
                Kind::File(Content::read(at, block_size, size, start, fragment)?)
            }
            9 => {
                let (start, size) = (at.u64()?, at.u64()?);
                at.skip(12)?;
                let fragment = (at.u32()?, at.u32()?);
                attributes = at.u32()?;
                Kind::File(Content::read(at, block_size, size, start, fragment)?)
            }
            3 | 10 => {
                at.skip(4)?;
                let length = at.u32()?;
                if length > MAX_TARGET {
                    return Err(SquashfsError::Damaged("the target of a symbolic link"));
                }
                let target = at.bytes(length as usize)?.to_vec();
                if number == 10 {
                    attributes = at.u32()?;
                }
                Kind::Symlink(target)
            }
            4 | 5 | 11 | 12 => {
                at.skip(4)?;
                let device = at.u32()?;
                if number > 10 {
                    attributes = at.u32()?;
                }
                if number == 4 || number == 11 { Kind::Block(device) } else { Kind::Character(device) }
            }
            6 | 7 | 13 | 14 => {
                at.skip(4)?;
                if number > 10 {
                    attributes = at.u32()?;
                }
                if number == 6 || number == 13 { Kind::Fifo } else { Kind::Socket }
            }
            _ => return Err(SquashfsError::Damaged("a kind of file that there is not")),
        };
        let attributes = (attributes != NOTHING).then_some(attributes);
        Ok(Self { mode: mode & 0o7777, owner, modified, attributes, kind })
    }
}

impl Content {
    fn read(
        at: &mut Cursor<'_>,
        block_size: u32,
        size: u64,
        start: u64,
        (fragment, offset): (u32, u32),
    ) -> Result<Self, SquashfsError> {
        let block_size = u64::from(block_size);
        let fragment = (fragment != NOTHING).then_some((fragment, offset));
        let count = if fragment.is_some() { size / block_size } else { size.div_ceil(block_size) };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut blocks = Vec::with_capacity(count.min(MAX_RESERVED));
        for _ in 0..count {
            blocks.push(at.u32()?);
        }
        if start == NONE || size > i64::MAX as u64 {
            return Err(SquashfsError::Damaged("the size of a file"));
        }
        Ok(Self { size, start, blocks, fragment })
    }
}
