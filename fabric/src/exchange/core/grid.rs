//! The division of a blob into cells, the units in which availability is counted and work is given out.
//!
//! A cell is a run of consecutive chunks of about 1/2048 of the blob. Every node computes the same cells from the same
//! index, but messages speak of chunks, so nodes with another division still understand each other.
//!
//! Why 1/2048: with P pieces, a copy reaches N nodes in (S/B)(1 + log2(N)/P) at best (Mundinger, Weber, Weiss 2008), and
//! each node passes a cell to all others one after the other, which costs N cells at the end of the transfer.

use std::ops::Range;

use super::super::message::Run;
use crate::bitfield::Bitfield;
use crate::id::BlobId;

/// Cells that a blob is divided into, about, between the two bounds below.
const CELLS: u64 = 2048;
/// A smaller cell costs more in requests and announcements than it gains in spreading.
const MIN_CELL: u64 = 32 * 1024;
/// A larger request gains nothing in CPU time and holds a buffer for longer.
pub(crate) const MAX_CELL: u64 = 1024 * 1024;

/// Chunks, their offsets, and the cells they form. Immutable; shared by everybody who knows the blob.
#[derive(Debug)]
pub struct Grid {
    blob: BlobId,
    /// Offset of each chunk, then the size of the blob.
    offsets: Box<[u64]>,
    /// First chunk of each cell, then the number of chunks.
    firsts: Box<[u32]>,
    /// Cell of each chunk.
    cells: Box<[u32]>,
}

impl Grid {
    /// The cells of the blob that has chunks of these lengths in bytes.
    #[must_use]
    pub fn new(blob: BlobId, lengths: impl IntoIterator<Item = u32>) -> Self {
        let mut offsets = vec![0];
        let mut end = 0_u64;
        for length in lengths {
            end = end.saturating_add(u64::from(length));
            offsets.push(end);
        }
        let target = (end / CELLS).clamp(MIN_CELL, MAX_CELL);
        let (mut firsts, mut cells) = (Vec::new(), Vec::with_capacity(offsets.len()));
        let mut start = None;
        for (chunk, pair) in (0_u32..).zip(offsets.windows(2)) {
            let [from, to] = *pair else { continue };
            // A cell ends where the next chunk would carry it further from the target than it is now.
            let full = start.is_some_and(|start| {
                let (now, then) = (from - start, to - start);
                then > target && then - target > target.saturating_sub(now)
            });
            if full || start.is_none() {
                start = Some(from);
                firsts.push(chunk);
            }
            cells.push(u32::try_from(firsts.len() - 1).unwrap_or(u32::MAX));
        }
        firsts.push(u32::try_from(cells.len()).unwrap_or(u32::MAX));
        Self { blob, offsets: offsets.into(), firsts: firsts.into(), cells: cells.into() }
    }

    /// The blob.
    #[must_use]
    pub fn blob(&self) -> BlobId {
        self.blob
    }

    /// Bytes of the blob.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Number of chunks.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        u32::try_from(self.cells.len()).unwrap_or(u32::MAX)
    }

    /// Number of cells.
    #[must_use]
    pub fn cells(&self) -> u32 {
        u32::try_from(self.firsts.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// The chunks of `cells`; empty for cells that do not exist.
    #[must_use]
    pub fn chunks_of(&self, cells: Range<u32>) -> Range<u32> {
        match (self.firsts.get(cells.start as usize), self.firsts.get(cells.end as usize)) {
            (Some(&first), Some(&end)) if cells.start < cells.end => first..end,
            _ => 0..0,
        }
    }

    /// The cells that have chunks in `chunks`, clipped to the blob.
    #[must_use]
    pub fn cells_of(&self, chunks: Range<u32>) -> Range<u32> {
        let last = chunks.end.min(self.chunks()).saturating_sub(1);
        match (self.cells.get(chunks.start as usize), self.cells.get(last as usize)) {
            (Some(&first), Some(&last)) if chunks.start < chunks.end => first..last + 1,
            _ => 0..0,
        }
    }

    /// The bytes of `chunks`, clipped to the blob.
    #[must_use]
    pub fn bytes_of(&self, chunks: Range<u32>) -> Range<u64> {
        let at = |chunk: u32| self.offsets.get(chunk as usize).copied().unwrap_or(self.size());
        at(chunks.start)..at(chunks.end.max(chunks.start))
    }

    /// Whether `run` is a run of this blob.
    #[must_use]
    pub fn contains(&self, run: Run) -> bool {
        run.count > 0 && run.first.checked_add(run.count).is_some_and(|end| end <= self.chunks())
    }

    /// The cells all of whose chunks are in `have`.
    #[must_use]
    pub fn whole_cells(&self, have: &Bitfield) -> Bitfield {
        if have.is_full() {
            return Bitfield::full(self.cells());
        }
        let mut cells = Bitfield::empty(self.cells());
        for cell in 0..self.cells() {
            if have.has_all(self.chunks_of(cell..cell + 1)) {
                cells.insert(cell);
            }
        }
        cells
    }
}

/// The run of consecutive chunks.
pub(crate) fn run(chunks: Range<u32>) -> Run {
    Run { first: chunks.start, count: chunks.end.saturating_sub(chunks.start) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::Hash;

    fn grid(lengths: Vec<u32>) -> Grid {
        Grid::new(BlobId(Hash::of(b"blob")), lengths)
    }

    #[test]
    fn a_blob_of_128_mib_has_two_thousand_cells() {
        let grid = grid(vec![32 * 1024; 4096]);
        assert_eq!((grid.cells(), grid.chunks(), grid.size()), (2048, 4096, 128 << 20));
        assert_eq!(grid.chunks_of(3..5), 6..10);
        assert_eq!(grid.cells_of(7..9), 3..5);
        assert_eq!(grid.bytes_of(2..4), 65_536..131_072);
    }

    #[test]
    fn what_lies_outside_is_empty() {
        let grid = grid(vec![1000; 3]);
        assert_eq!((grid.chunks_of(0..9), grid.cells_of(7..9)), (0..0, 0..0));
        assert!(
            !grid.contains(Run { first: 2, count: 2 }) && !grid.contains(Run { first: u32::MAX, count: 2 })
        );
        assert!(!grid.contains(Run { first: 0, count: 0 }) && grid.contains(Run { first: 0, count: 3 }));
        assert_eq!(super::Grid::new(grid.blob(), []).cells(), 0);
    }

    proptest! {
        #[test]
        fn cells_tile_the_chunks(lengths in prop::collection::vec(1_u32..=131_072, 1..400)) {
            let grid = grid(lengths.clone());
            let mut next = 0;
            for cell in 0..grid.cells() {
                let chunks = grid.chunks_of(cell..cell + 1);
                prop_assert_eq!(chunks.start, next);
                prop_assert!(!chunks.is_empty());
                prop_assert_eq!(grid.cells_of(chunks.clone()), cell..cell + 1);
                next = chunks.end;
            }
            prop_assert_eq!(next, grid.chunks());
            prop_assert_eq!(grid.size(), lengths.iter().map(|&length| u64::from(length)).sum::<u64>());
        }
    }
}
