//! Blocks of metadata, and the numbers in them.

use std::collections::HashMap;

use zstd::bulk::Decompressor;

use super::{SquashfsError, Superblock};

/// Bytes of a block of metadata, uncompressed.
const BLOCK: usize = 8192;
/// Marks a block that is kept as it is; the rest of the number is its length.
const PLAIN: u16 = 1 << 15;
/// Most bytes that the tables may have uncompressed: compressed they are at most half of it.
const MAX: usize = 256 << 20;

/// Little-endian numbers, one behind the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], SquashfsError> {
        let (bytes, rest) =
            self.0.split_at_checked(count).ok_or(SquashfsError::Damaged("a table ends early"))?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(super) fn skip(&mut self, count: usize) -> Result<(), SquashfsError> {
        self.bytes(count).map(drop)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SquashfsError> {
        let bytes = self.bytes(N)?;
        bytes.try_into().map_err(|_| SquashfsError::Damaged("a table ends early"))
    }

    pub(super) fn u16(&mut self) -> Result<u16, SquashfsError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, SquashfsError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, SquashfsError> {
        self.array().map(u64::from_le_bytes)
    }
}

/// A place in a table: where its block begins on disk, counted from the table's beginning, and the byte in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Reference {
    pub(super) block: u64,
    pub(super) offset: u16,
}

impl From<u64> for Reference {
    fn from(number: u64) -> Self {
        Self { block: number >> 16, offset: number as u16 }
    }
}

/// All tables, as they are on disk.
pub(super) struct Tables<'a> {
    start: u64,
    bytes: &'a [u8],
}

impl<'a> Tables<'a> {
    /// `bytes` are those of [`Superblock::tables`].
    pub(super) fn new(superblock: &Superblock, bytes: &'a [u8]) -> Self {
        Self { start: superblock.inode_table, bytes }
    }

    /// What lies from `offset` of the file on.
    pub(super) fn at(&self, offset: u64) -> Result<Cursor<'a>, SquashfsError> {
        let at = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let rest = at.and_then(|at| self.bytes.get(at..));
        rest.map(Cursor::new).ok_or(SquashfsError::Damaged("a table lies elsewhere"))
    }

    /// The blocks from `start` on, up to `end`, uncompressed.
    pub(super) fn metadata(&self, start: u64, end: u64) -> Result<Metadata, SquashfsError> {
        let mut cursor = self.at(start)?;
        let length = end.checked_sub(start).and_then(|length| usize::try_from(length).ok());
        cursor = Cursor::new(cursor.bytes(length.ok_or(SquashfsError::Damaged("a table's length"))?)?);
        let mut metadata = Metadata::default();
        let mut decompressor = Decompressor::new()?;
        let all = cursor.0.len();
        while !cursor.is_empty() {
            let at = (all - cursor.0.len()) as u64;
            metadata.blocks.insert(at, metadata.bytes.len());
            metadata.take(&mut cursor, &mut decompressor)?;
        }
        Ok(metadata)
    }

    /// A table of `count` entries of `size` bytes in blocks of metadata, whose places are listed at `list`.
    pub(super) fn listed(&self, list: u64, count: u64, size: u64) -> Result<Vec<u8>, SquashfsError> {
        let length = usize::try_from(count.saturating_mul(size)).unwrap_or(usize::MAX);
        if length > MAX {
            return Err(SquashfsError::Damaged("a table's length"));
        }
        let mut places = self.at(list)?;
        let mut metadata = Metadata::default();
        let mut decompressor = Decompressor::new()?;
        while metadata.bytes.len() < length {
            metadata.take(&mut self.at(places.u64()?)?, &mut decompressor)?;
        }
        metadata.bytes.truncate(length);
        Ok(metadata.bytes)
    }
}

/// Blocks of metadata, uncompressed and put together.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    bytes: Vec<u8>,
    /// Where blocks begin, by where they begin on disk.
    blocks: HashMap<u64, usize>,
}

impl Metadata {
    /// What is at `place`, and all behind it.
    pub(super) fn at(&self, place: Reference) -> Result<Cursor<'_>, SquashfsError> {
        let block = self.blocks.get(&place.block);
        // Further on is another block's place: each thing has one reference.
        let block = block.filter(|_| usize::from(place.offset) < BLOCK);
        let rest = block.and_then(|block| self.bytes.get(block + usize::from(place.offset)..));
        rest.map(Cursor::new).ok_or(SquashfsError::Damaged("a reference leads nowhere"))
    }

    /// Takes the next block.
    fn take(
        &mut self,
        cursor: &mut Cursor<'_>,
        decompressor: &mut Decompressor<'_>,
    ) -> Result<(), SquashfsError> {
        let head = cursor.u16()?;
        let block = cursor.bytes(usize::from(head & !PLAIN))?;
        if head & PLAIN != 0 {
            self.bytes.extend_from_slice(block);
        } else {
            self.bytes.extend(decompressor.decompress(block, BLOCK)?);
        }
        // An empty block would let a table go on for ever.
        if block.is_empty() || self.bytes.len() > MAX {
            return Err(SquashfsError::Damaged("a block of metadata"));
        }
        Ok(())
    }
}
