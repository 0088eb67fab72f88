//! One blob as this node knows it: what is held here and by whom among the neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::announce::Announcer;
use super::fetch::Fetch;
use super::governor::Governor;
use super::grid::Grid;
use super::imports::Imports;
use super::peer::Slot;
use super::share::Share;
use super::view::{Side, View};
use crate::bitfield::Bitfield;

/// A blob held, partly held, or wanted.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) grid: Arc<Grid>,
    /// Chunks held here, verified.
    pub(crate) have: Bitfield,
    /// Their bytes.
    pub(crate) held: u64,
    /// Cells held here wholly.
    pub(crate) cells: Bitfield,
    pub(crate) views: BTreeMap<Slot, View>,
    /// For each cell, how many neighbours hold it wholly.
    pub(crate) holders: Vec<u16>,
    /// Cells that no neighbour holds wholly.
    pub(crate) unheld: u32,
    /// Neighbours in other racks, and what has to come from there.
    far: BTreeSet<Slot>,
    pub(crate) imports: Option<Box<Imports>>,
    pub(crate) fetch: Option<Fetch>,
    /// Cells that are asked for before all others.
    pub(crate) first: Range<u32>,
    /// What is kept if not all is to be held.
    pub(crate) share: Option<Box<Share>>,
    pub(crate) governor: Governor,
    pub(crate) announcer: Announcer,
    /// We told the neighbours that we want to hear what they hold.
    pub(crate) interested: bool,
    /// [`FirstCopyOut`](super::super::event::ExchangeEvent::FirstCopyOut) has been said.
    pub(crate) copied: bool,
}

impl Blob {
    pub(crate) fn new(grid: Arc<Grid>, have: Bitfield) -> Self {
        let cells = grid.whole_cells(&have);
        let (holders, unheld) = (vec![0; grid.cells() as usize], grid.cells());
        let held = have.runs().map(|run| grid.bytes_of(run)).map(|bytes| bytes.end - bytes.start).sum();
        Self {
            grid,
            have,
            held,
            cells,
            views: BTreeMap::new(),
            holders,
            unheld,
            far: BTreeSet::new(),
            imports: None,
            fetch: None,
            first: 0..0,
            share: None,
            governor: Governor::default(),
            announcer: Announcer::default(),
            interested: false,
            copied: false,
        }
    }

    pub(crate) fn complete(&self) -> bool {
        self.have.is_full()
    }

    /// Bytes that are not held.
    pub(crate) fn missing_bytes(&self) -> u64 {
        self.grid.size().saturating_sub(self.held)
    }

    /// Mean bytes of a cell.
    pub(crate) fn cell_bytes(&self) -> u64 {
        self.grid.size() / u64::from(self.grid.cells().max(1))
    }

    /// The view of `slot`, begun if there is none.
    pub(crate) fn view(&mut self, slot: Slot) -> &mut View {
        self.views.entry(slot).or_insert_with(|| View::new(&self.grid, self.far.contains(&slot)))
    }

    /// Neighbour `slot` also holds `chunks`. `crowd`: it fetched them, so they are out in the crowd.
    pub(crate) fn learn(&mut self, slot: Slot, chunks: Range<u32>, crowd: bool) {
        let Self { grid, views, holders, unheld, governor, far, imports, .. } = self;
        let view = views.entry(slot).or_insert_with(|| View::new(grid, far.contains(&slot)));
        let side = view.counted;
        view.learn(grid, chunks, |cell| {
            if let Some(imports) = imports {
                imports.gained(cell, side);
            }
            if let Some(count) = holders.get_mut(cell as usize) {
                *unheld -= u32::from(*count == 0);
                *count += 1;
            }
            if crowd {
                governor.seen(slot, cell);
            }
        });
    }

    /// Neighbour `slot` holds exactly `have`.
    pub(crate) fn replace(&mut self, slot: Slot, have: &Bitfield) {
        self.unlearn(slot, 0..self.grid.chunks());
        for run in have.runs() {
            // A seeder's copy says nothing about what has reached the crowd.
            self.learn(slot, run, !have.is_full());
        }
    }

    /// Neighbour `slot` does not hold `chunks`.
    pub(crate) fn unlearn(&mut self, slot: Slot, chunks: Range<u32>) {
        let Self { grid, views, holders, unheld, imports, .. } = self;
        if let Some(view) = views.get_mut(&slot) {
            let side = view.counted;
            view.unlearn(grid, chunks, |cell| {
                if let Some(imports) = imports {
                    imports.lost(cell, side);
                }
                if let Some(count) = holders.get_mut(cell as usize) {
                    *count -= 1;
                    *unheld += u32::from(*count == 0);
                }
            });
        }
    }

    /// Forgets neighbour `slot`.
    pub(crate) fn forget(&mut self, slot: Slot) {
        self.unlearn(slot, 0..self.grid.chunks());
        self.views.remove(&slot);
        self.far.remove(&slot);
        if let Some(imports) = &mut self.imports {
            imports.unclaim(slot);
        }
        self.governor.lost(slot);
        if self.governor.governing() {
            self.governor.recount(&self.views, &self.grid);
        }
    }

    /// Neighbour `slot` stands in another rack, or in ours.
    pub(crate) fn place(&mut self, slot: Slot, far: bool) {
        if far {
            self.far.insert(slot);
        } else {
            self.far.remove(&slot);
        }
        if far && self.imports.is_none() {
            let mut imports = Imports::new(self.grid.cells());
            for view in self.views.values() {
                view.cells.iter().for_each(|cell| imports.gained(cell, view.counted));
            }
            self.imports = Some(Box::new(imports));
        }
        self.regard(slot, |view| view.far = far);
    }

    /// Changes what neighbour `slot` is like, and so perhaps where what it holds counts.
    pub(crate) fn regard(&mut self, slot: Slot, change: impl FnOnce(&mut View)) {
        let Some(view) = self.views.get_mut(&slot) else { return };
        change(view);
        let (before, now) = (view.counted, view.side());
        if before == now {
            return;
        }
        view.counted = now;
        if let Some(imports) = &mut self.imports {
            for cell in view.cells.iter() {
                imports.lost(cell, before);
                imports.gained(cell, now);
            }
            if now == Side::Nowhere {
                imports.unclaim(slot);
            }
        }
    }

    /// These chunks are now held here; calls `gained` for each cell that thereby is held wholly.
    pub(crate) fn keep(&mut self, chunks: Range<u32>, mut gained: impl FnMut(&mut Announcer, u32, u16)) {
        for chunk in chunks.clone() {
            if self.have.insert(chunk) {
                let bytes = self.grid.bytes_of(chunk..chunk + 1);
                self.held += bytes.end - bytes.start;
            }
        }
        for cell in self.grid.cells_of(chunks) {
            if !self.cells.has(cell) && self.have.has_all(self.grid.chunks_of(cell..cell + 1)) {
                self.cells.insert(cell);
                if let Some(imports) = &mut self.imports {
                    imports.settled(cell);
                }
                if let Some(fetch) = &mut self.fetch {
                    fetch.missing.remove(cell);
                }
                // Where there are other racks, those of our own count, and one for all the others.
                let near = self.imports.as_ref().map(|imports| imports.near(cell));
                let counted = near.map(|near| if near == 0 { 0 } else { near.saturating_add(1) });
                let holders =
                    counted.or_else(|| self.holders.get(cell as usize).copied().map(|all| all.max(1)));
                gained(&mut self.announcer, cell, holders.unwrap_or(1));
            }
        }
    }

    /// These chunks are no longer held here.
    pub(crate) fn lose(&mut self, chunks: Range<u32>) {
        for chunk in chunks.clone() {
            if self.have.remove(chunk) {
                let bytes = self.grid.bytes_of(chunk..chunk + 1);
                self.held -= bytes.end - bytes.start;
            }
        }
        for cell in self.grid.cells_of(chunks) {
            self.cells.remove(cell);
        }
    }
}
