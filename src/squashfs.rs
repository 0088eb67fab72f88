//! Reading a squashfs whose bytes may still be on their way.
//!
//! Owns the format, as far as our own images and those of other builders use it: version 4.0, zstd
//! (linux/Documentation/filesystems/squashfs.rst, linux/fs/squashfs/squashfs_fs.h). What is read is checked: a number that
//! leads outside of the file, or to more memory than it may, is an error and never a panic. Never writes; [`unpack`] does.
//!
//! | module | owns |
//! |---|---|
//! | [`metadata`] | blocks of metadata, and numbers in them |
//! | [`inode`] | what one file is and where its content lies |
//! | [`xattr`] | extended attributes |
//! | [`tree`] | all names, and all pieces of content in the order of their bytes |
//! | [`unpack`] | the tree made anew elsewhere, by all processors, as the bytes arrive |

mod inode;
mod metadata;
mod tree;
pub(crate) mod unpack;
mod xattr;

use std::io;
use std::ops::Range;

pub(crate) use tree::Tree;

/// Bytes of the superblock.
const SUPERBLOCK: u64 = 96;
/// `hsqs`.
const MAGIC: u32 = 0x7371_7368;
/// The number by which the superblock calls zstd.
const ZSTD: u16 = 6;
/// Largest tables that are read, as they are on disk. A root of 10 GB has about 20 MB.
const MAX_TABLES: u64 = 128 << 20;
/// No such table.
const NONE: u64 = u64::MAX;

/// Something is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SquashfsError {
    /// The bytes cannot be had.
    #[error("cannot read the squashfs")]
    Read(#[from] io::Error),
    /// It is none, or of a kind that this reader leaves to the kernel.
    #[error("not a squashfs that is read here: {0}")]
    Unsupported(&'static str),
    /// It contradicts itself.
    #[error("the squashfs is damaged: {0}")]
    Damaged(&'static str),
}

/// Bytes that are there, or will be.
pub(crate) trait Source: Sync {
    /// Whether all bytes of `range` are there.
    fn holds(&self, range: Range<u64>) -> bool;
    /// Fills `buffer` with the bytes from `offset` on, which are there.
    ///
    /// # Errors
    /// Those of reading.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Blocks until more is there than when it returned last.
    ///
    /// # Errors
    /// If nothing will come any more.
    fn wait(&self) -> io::Result<()>;
}

/// The part of the superblock that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Superblock {
    block_size: u32,
    fragments: u32,
    ids: u16,
    root: u64,
    bytes: u64,
    id_table: u64,
    xattr_table: u64,
    inode_table: u64,
    directory_table: u64,
    fragment_table: u64,
    export_table: u64,
}

impl Superblock {
    /// Where it lies.
    pub(crate) const RANGE: Range<u64> = 0..SUPERBLOCK;

    /// Reads it from `source`, which holds [`Superblock::RANGE`].
    ///
    /// # Errors
    /// [`SquashfsError`].
    pub(crate) fn read(source: &impl Source) -> Result<Self, SquashfsError> {
        let mut bytes = [0; SUPERBLOCK as usize];
        source.read(&mut bytes, 0)?;
        let mut at = metadata::Cursor::new(&bytes);
        if at.u32()? != MAGIC {
            return Err(SquashfsError::Unsupported("no squashfs at all"));
        }
        at.skip(8)?;
        let (block_size, fragments) = (at.u32()?, at.u32()?);
        if at.u16()? != ZSTD {
            return Err(SquashfsError::Unsupported("not compressed with zstd"));
        }
        at.skip(4)?;
        let ids = at.u16()?;
        if (at.u16()?, at.u16()?) != (4, 0) {
            return Err(SquashfsError::Unsupported("another version than 4.0"));
        }
        let (root, bytes, id_table, xattr_table) = (at.u64()?, at.u64()?, at.u64()?, at.u64()?);
        let (inode_table, directory_table) = (at.u64()?, at.u64()?);
        let (fragment_table, export_table) = (at.u64()?, at.u64()?);
        let this = Self {
            block_size,
            fragments,
            ids,
            root,
            bytes,
            id_table,
            xattr_table,
            inode_table,
            directory_table,
            fragment_table,
            export_table,
        };
        // The limits of linux/fs/squashfs/squashfs_fs.h.
        if !block_size.is_power_of_two() || !(4096..=1 << 20).contains(&block_size) {
            return Err(SquashfsError::Damaged("its block size"));
        }
        let tables = this.tables();
        if inode_table < SUPERBLOCK || tables.is_empty() || tables.end - tables.start > MAX_TABLES {
            return Err(SquashfsError::Damaged("the place of its tables"));
        }
        Ok(this)
    }

    /// Where all its tables lie: behind the content.
    pub(crate) fn tables(&self) -> Range<u64> {
        self.inode_table..self.bytes
    }
}

#[cfg(test)]
pub(crate) mod tests;
