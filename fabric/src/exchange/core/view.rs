//! What one neighbour holds of one blob, as far as it told us.

use std::collections::VecDeque;
use std::ops::Range;

use super::grid::Grid;
use crate::bitfield::Bitfield;

/// Offers of one seeder that are kept. It offers only what takes part of a second.
const MAX_OFFERS: usize = 4096;

/// Where a cell can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// In our rack.
    Near,
    /// In another.
    Far,
    Nowhere,
}

/// A neighbour's part of a blob. Changes go through [`Blob`](super::blob::Blob), which counts holders.
#[derive(Debug)]
pub(crate) struct View {
    /// Chunks that it holds.
    pub(crate) have: Bitfield,
    /// Cells that it holds wholly.
    pub(crate) cells: Bitfield,
    /// Chunks in those cells.
    whole: u32,
    /// It wants to hear what we hold.
    pub(crate) interested: bool,
    /// It keeps a share of the blob, by the rule that we keep ours by.
    pub(crate) sharing: bool,
    /// It said to ask only for what it offers.
    pub(crate) governed: bool,
    /// It once said so: a copy of all that it holds is out.
    pub(crate) opened: bool,
    /// Cells it offered, in its order.
    pub(crate) offers: VecDeque<u32>,
    /// Nothing to ask of it until something changes.
    pub(crate) exhausted: bool,
    /// It stands in another rack.
    pub(crate) far: bool,
    /// It has failed and not delivered since.
    pub(crate) failing: bool,
    /// Where what it holds has been counted.
    pub(crate) counted: Side,
}

impl View {
    pub(crate) fn new(grid: &Grid, far: bool) -> Self {
        Self {
            have: Bitfield::empty(grid.chunks()),
            cells: Bitfield::empty(grid.cells()),
            whole: 0,
            interested: false,
            sharing: false,
            governed: false,
            opened: false,
            offers: VecDeque::new(),
            exhausted: false,
            far,
            failing: false,
            counted: if far { Side::Far } else { Side::Near },
        }
    }

    /// Where what it holds counts. A seeder that says what to ask of it holds, for all others, nothing; nor does it when it has done so:
    /// its rack would wait for its uplink alone, while all others hold together what it does.
    pub(crate) fn side(&self) -> Side {
        match (self.failing || self.governed || self.opened, self.far) {
            (true, _) => Side::Nowhere,
            (false, true) => Side::Far,
            (false, false) => Side::Near,
        }
    }

    /// Whether it fetches the whole blob.
    pub(crate) fn fetching(&self) -> bool {
        self.interested && !self.complete() && !self.sharing
    }

    /// Whether it holds the whole blob.
    pub(crate) fn complete(&self) -> bool {
        self.have.is_full()
    }

    /// Whether it holds chunks in cells that it does not hold wholly.
    pub(crate) fn strays(&self) -> bool {
        self.have.count() > self.whole
    }

    /// It holds `chunks`; calls `gained` for each cell that it now holds wholly.
    pub(crate) fn learn(&mut self, grid: &Grid, chunks: Range<u32>, mut gained: impl FnMut(u32)) {
        let mut news = false;
        for chunk in chunks.clone() {
            news |= self.have.insert(chunk);
        }
        if !news {
            return;
        }
        self.exhausted = false;
        for cell in grid.cells_of(chunks) {
            let chunks = grid.chunks_of(cell..cell + 1);
            if !self.cells.has(cell) && self.have.has_all(chunks.clone()) {
                self.cells.insert(cell);
                self.whole += chunks.end - chunks.start;
                gained(cell);
            }
        }
    }

    /// It holds none of `chunks`; calls `lost` for each cell that it no longer holds wholly.
    pub(crate) fn unlearn(&mut self, grid: &Grid, chunks: Range<u32>, mut lost: impl FnMut(u32)) {
        for chunk in chunks.clone() {
            self.have.remove(chunk);
        }
        for cell in grid.cells_of(chunks) {
            if self.cells.remove(cell) {
                let chunks = grid.chunks_of(cell..cell + 1);
                self.whole -= chunks.end - chunks.start;
                lost(cell);
            }
        }
    }

    /// It offers `cells`.
    pub(crate) fn offer(&mut self, cells: Range<u32>) {
        let room = MAX_OFFERS.saturating_sub(self.offers.len());
        self.offers.extend(cells.take(room));
        self.exhausted = false;
    }
}
