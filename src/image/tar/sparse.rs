//! Files stored in pieces, without their holes: the four ways that GNU tar has had for it (GNU tar manual, appendix
//! "Storing Sparse Files").
//!
//! Holes become zeros again on the way, as `mksquashfs` reads few of these formats, and finds holes by itself.

use std::io::Read;

use super::BLOCK;
use super::header::number;
use super::pax::Extended;

/// Largest file with holes that is filled, in bytes: zeros take time too.
const MAX_SIZE: u64 = 64 << 30;

/// Longest map at the beginning of a file's data, in bytes: a million pieces.
const MAX_MAP: usize = 1 << 20;

/// Where a file's stored bytes belong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Map {
    /// Offset and length of each piece, in order, without overlap.
    pub(super) pieces: Vec<(u64, u64)>,
    /// Length of the file.
    pub(super) size: u64,
}

impl Map {
    /// The map in an old GNU header: the header itself, then the blocks that go on with it.
    pub(super) fn from_header(blocks: &[u8]) -> Option<Self> {
        let size = number(blocks.get(483..495)?)?.try_into().ok()?;
        let mut fields: Vec<&[u8]> = blocks.get(386..482)?.chunks_exact(24).collect();
        for block in blocks.get(BLOCK..)?.chunks_exact(BLOCK) {
            fields.extend(block.get(..504)?.chunks_exact(24));
        }
        let mut pieces = Vec::new();
        for field in fields.into_iter().take_while(|field| field.first() != Some(&0)) {
            let (offset, length) = field.split_at_checked(12)?;
            pieces.push((number(offset)?.try_into().ok()?, number(length)?.try_into().ok()?));
        }
        Some(Self { pieces, size })
    }

    /// The map in pax headers, or, for version 1.0, at the beginning of `data`. Returns it with the bytes that it took there.
    pub(super) fn from_extended(extended: &Extended, data: &mut impl Read) -> Option<(Self, u64)> {
        let size = extended.sparse_size?;
        if !extended.sparse_map_in_data {
            let numbers = extended.sparse_numbers.chunks_exact(2);
            let whole = numbers.remainder().is_empty();
            let pieces = numbers.filter_map(|pair| Some((*pair.first()?, *pair.get(1)?))).collect();
            return whole.then_some((Self { pieces, size }, 0));
        }
        let mut text = Vec::new();
        let numbers = loop {
            let mut block = [0; BLOCK];
            data.read_exact(&mut block).ok()?;
            text.extend_from_slice(&block);
            // The last one may go on in the next block.
            let whole = text.iter().rposition(|&byte| byte == b'\n').and_then(|end| text.get(..end));
            let lines = whole.unwrap_or_default().split(|&byte| byte == b'\n');
            let mut lines = lines.map(|line| std::str::from_utf8(line).ok()?.parse::<u64>().ok());
            let count = lines.next()??.checked_mul(2)?;
            let numbers = lines.take(usize::try_from(count).ok()?).collect::<Option<Vec<_>>>()?;
            if numbers.len() as u64 == count {
                break numbers;
            }
            if text.len() > MAX_MAP {
                return None;
            }
        };
        let pieces =
            numbers.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?))).collect();
        Some((Self { pieces, size }, text.len() as u64))
    }

    /// Whether the pieces are in order, within the file, and `stored` bytes together.
    pub(super) fn holds(&self, stored: u64) -> bool {
        let (mut end, mut sum) = (0u64, 0u64);
        let in_order = self.pieces.iter().all(|&(offset, length)| {
            let starts = offset >= end;
            end = offset.saturating_add(length);
            sum = sum.saturating_add(length);
            starts && end <= self.size
        });
        in_order && sum == stored && self.size <= MAX_SIZE
    }
}
