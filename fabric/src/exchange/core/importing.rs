//! Importing: what the neighbours say and do about cells from other racks, and what this node does about it.
//!
//! The rule is that of [`imports`](super::imports).

use std::ops::Range;

use super::blob::Blob;
use super::imports::Imports;
use super::lot::{self, lot};
use super::peer::Slot;
use super::time::{MS, Time};
use super::view::{Side, View};
use super::{Core, Output};
use crate::exchange::message::{Message, Run};
use crate::id::BlobId;

/// A claim that comes so soon after our own request crossed ours: both began at once.
const CROSSING: u64 = 150 * MS;

/// Requests to other racks that come before all others: the rack waits for what only this node was to fetch.
const URGENT: u32 = 2;

impl Blob {
    /// Whether `slot` stands in another rack.
    pub(crate) fn is_far(&self, slot: Slot) -> bool {
        self.views.get(&slot).is_some_and(|view| view.far)
    }

    /// Something may be imported, and little is.
    pub(crate) fn imports_wait(&self) -> bool {
        let wait = |imports: &Imports| imports.under_way < URGENT && imports.ripe().count() > 0;
        self.imports.as_deref().is_some_and(wait)
    }

    pub(crate) fn imports_ripe(&self) -> bool {
        self.imports.as_deref().is_none_or(|imports| imports.ripe().count() > 0)
    }

    pub(crate) fn imports_restless(&self, now: Time) -> bool {
        self.imports.as_deref().is_some_and(|imports| imports.restless(now))
    }

    /// Neighbour `slot` says that it fetches `chunks`; counts if it stands in our rack and can be believed.
    pub(crate) fn claimed(&mut self, now: Time, slot: Slot, chunks: Range<u32>) {
        let near = self.views.get(&slot).is_some_and(|view| view.side() == Side::Near);
        let Some(imports) = self.imports.as_mut().filter(|_| near) else { return };
        for cell in self.grid.cells_of(chunks) {
            if !self.cells.has(cell) && !imports.is_near(cell) {
                imports.claim(now, slot, cell);
            }
        }
    }

    /// A request for `cells` to `slot` is over.
    pub(crate) fn import_over(&mut self, slot: Slot, cells: Range<u32>) {
        let far = self.is_far(slot);
        if let Some(imports) = &mut self.imports {
            imports.under_way -= u32::from(far && imports.under_way > 0);
            imports.reconsider(cells.filter(|&cell| far || !self.cells.has(cell)));
        }
    }
}

impl Core {
    /// Lets cells of `id` ripen: whoever has them in other racks may be asked for them.
    pub(super) fn ripen(&mut self, now: Time, id: BlobId) {
        let Self { blobs, peers, name, .. } = self;
        let Some(blob) = blobs.get_mut(&id).filter(|blob| blob.imports_restless(now)) else { return };
        let (Some(imports), Some(fetch)) = (&mut blob.imports, &blob.fetch) else { return };
        let fetches = |view: &View| view.side() == Side::Near && view.fetching();
        let mates = blob.views.iter().filter(|(_, view)| fetches(view));
        let mates: Vec<u64> =
            mates.filter_map(|(slot, _)| peers.get(slot)).map(|peer| lot::name(peer.key)).collect();
        let ripened = imports.ripen(now, |cell| {
            let wanted = fetch.missing.has(cell) && !fetch.busy.has(cell);
            let ours = lot(*name, cell);
            wanted.then(|| mates.iter().filter(|&&mate| lot(mate, cell) < ours).count() as u64)
        });
        if ripened {
            blob.views.values_mut().filter(|view| view.far).for_each(|view| view.exhausted = false);
        }
    }

    /// Tells our rack what is fetched from another, if `slot` stands there.
    pub(super) fn tell_import(&mut self, id: BlobId, slot: Slot, run: Run) {
        let Some(blob) = self.blobs.get_mut(&id).filter(|blob| blob.is_far(slot)) else { return };
        let cells = blob.grid.cells_of(run.chunks());
        let Some(imports) = &mut blob.imports else { return };
        imports.under_way += 1;
        cells.for_each(|cell| imports.settled(cell));
        let mates = blob.views.iter().filter(|(_, view)| !view.far && view.fetching());
        for (mate, _) in mates {
            if let Some(peer) = self.peers.get(mate) {
                let message = Message::Fetching { blob: id, runs: vec![run] };
                self.outputs.push_back(Output::Send { to: peer.key, message });
            }
        }
    }

    /// Neighbour `slot` fetches `run` as we do, each of us before it heard of the other: who comes later in the order of the rack gives
    /// up. The answer has hardly begun, as the neighbours' uplinks are busy.
    pub(super) fn give_way(&mut self, now: Time, id: BlobId, slot: Slot, run: Run) {
        let (Some(blob), Some(mate)) = (self.blobs.get(&id), self.peers.get(&slot)) else { return };
        let Some(fetch) = blob.fetch.as_ref().filter(|_| !blob.is_far(slot)) else { return };
        let (cells, mate) = (blob.grid.cells_of(run.chunks()), lot::name(mate.key));
        if !cells.clone().any(|cell| fetch.busy.has(cell)) {
            return;
        }
        let imported = |slot: Slot| blob.views.get(&slot).is_some_and(|view| view.far && !view.governed);
        let theirs = |cell: u32| cells.contains(&cell) && lot(mate, cell) < lot(self.name, cell);
        let crossed = self.flights.iter().filter(|(_, flight)| {
            flight.blob == id
                && now.since(flight.asked) < CROSSING
                && imported(flight.slot)
                && flight.cells.clone().all(theirs)
        });
        let crossed = crossed.map(|(&id, _)| id).collect();
        self.cancel(crossed);
    }

    /// When something becomes ripe or a claim ends, over all fetches.
    pub(super) fn import_deadline(&self) -> Option<Time> {
        let blobs = self.fetches.values().filter_map(|id| self.blobs.get(id));
        blobs.filter_map(|blob| blob.imports.as_deref()?.deadline()).min()
    }
}
