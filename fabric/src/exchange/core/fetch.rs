//! A blob that is being fetched: what is missing, what has been asked for.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::message::Run;
use super::grid::{Grid, run};
use super::peer::Slot;
use super::time::{SECOND, Time};
use super::view::View;
use super::{Order, Priority};
use crate::bitfield::Bitfield;
use crate::id::BlobId;

/// Names a request; answers carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The state of one fetch. Requests themselves are [`Flight`]s, kept for all blobs together.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) priority: Priority,
    pub(crate) order: Order,
    /// Cells not held wholly.
    pub(crate) missing: Bitfield,
    /// Cells asked for, and how many requests there are for each.
    pub(crate) busy: Bitfield,
    racing: BTreeMap<u32, u32>,
    /// When bytes last came.
    pub(crate) progress: Time,
    /// When it was last looked whether the neighbours are enough.
    pub(crate) sought: Time,
    /// Neighbours that have something of it and may be asked, unless they have to be counted anew.
    pub(crate) givers: Option<u32>,
    /// The neighbours that fetch it too hold more of it than we do, as of when all of them were looked at.
    pub(crate) behind: bool,
}

impl Fetch {
    pub(crate) fn new(now: Time, priority: Priority, order: Order, cells: &Bitfield) -> Self {
        let mut missing = Bitfield::full(cells.len());
        for cell in cells.iter() {
            missing.remove(cell);
        }
        let busy = Bitfield::empty(cells.len());
        Self {
            priority,
            order,
            missing,
            busy,
            racing: BTreeMap::new(),
            progress: now,
            sought: now,
            givers: None,
            behind: false,
        }
    }

    /// Every missing cell has been asked for.
    pub(crate) fn all_asked(&self) -> bool {
        self.missing.words().iter().zip(self.busy.words()).all(|(missing, busy)| missing & !busy == 0)
    }

    /// Cells to choose among now.
    pub(crate) fn window(&self) -> Range<u32> {
        match self.order {
            Order::Rarest => 0..self.missing.len(),
            Order::Window(cells) => {
                let first = self.missing.iter().next().unwrap_or(0);
                first..first.saturating_add(cells.max(1))
            }
        }
    }

    /// `cells` have been asked for (once more).
    pub(crate) fn asked(&mut self, cells: Range<u32>) {
        for cell in cells {
            if !self.busy.insert(cell) {
                *self.racing.entry(cell).or_default() += 1;
            }
        }
    }

    /// A request for `cells` is over.
    pub(crate) fn over(&mut self, cells: Range<u32>) {
        for cell in cells {
            match self.racing.get_mut(&cell) {
                Some(more) if *more > 1 => *more -= 1,
                Some(_) => {
                    self.racing.remove(&cell);
                }
                None => {
                    self.busy.remove(cell);
                }
            }
        }
    }

    /// Cells with more than one request.
    pub(crate) fn races(&self) -> usize {
        self.racing.len()
    }

    /// Whether one of `cells` has more than one request.
    pub(crate) fn raced(&self, mut cells: Range<u32>) -> bool {
        cells.any(|cell| self.racing.contains_key(&cell))
    }
}

/// A request under way.
#[derive(Debug, Clone)]
pub(crate) struct Flight {
    pub(crate) slot: Slot,
    pub(crate) blob: BlobId,
    pub(crate) cells: Range<u32>,
    pub(crate) run: Run,
    pub(crate) bytes: u64,
    pub(crate) asked: Time,
    /// When it should be here; later it may be raced.
    pub(crate) expected: Time,
    /// When it is given up.
    pub(crate) deadline: Time,
}

/// How long a request may take before it is given up: several times what it should, and never less than a slow start or a
/// busy queue can take.
pub(crate) fn patience(expected: u64) -> u64 {
    (2 * SECOND).saturating_add(expected.saturating_mul(4))
}

/// The first run of chunks in `cells` that is missing here and held by the peer.
pub(crate) fn span(grid: &Grid, have: &Bitfield, view: &View, cells: Range<u32>) -> Option<Run> {
    let chunks = grid.chunks_of(cells);
    let wanted = |chunk: &u32| !have.has(*chunk) && view.have.has(*chunk);
    let first = chunks.clone().find(wanted)?;
    let end = (first..chunks.end).find(|chunk| !wanted(chunk)).unwrap_or(chunks.end);
    Some(run(first..end))
}
