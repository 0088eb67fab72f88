//! Telling the neighbours: announcements of new cells, interest, offers in a flash crowd.

use std::collections::BTreeMap;

use super::super::event::ExchangeEvent;
use super::super::message::{Message, Run};
use super::governor::{Candidate, crowd_has};
use super::grid::{Grid, run};
use super::peer::{Slot, Standing};
use super::share::RULE;
use super::time::Time;
use super::view::View;
use super::{Core, Output};
use crate::id::BlobId;

/// Runs in one message: with its framing about 20 KiB, well below what a message may take.
const MAX_RUNS: usize = 4096;

/// Neighbours in a crowd, for each seeder, from which on the seeders give out different chunks first. One alone may have
/// whatever it likes.
const CROWD: usize = 2;

impl Core {
    /// Sends what has become due about `id`.
    pub(super) fn spread(&mut self, now: Time, id: BlobId) {
        self.announce(now, id);
        self.govern(now, id);
        self.update_interest(id);
    }

    fn announce(&mut self, now: Time, id: BlobId) {
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        let Some(mut cells) = blob.announcer.take(now) else { return };
        cells.retain(|&cell| blob.cells.has(cell));
        for (slot, view) in blob.views.iter().filter(|(_, view)| view.interested) {
            let Some(peer) = self.peers.get(slot) else { continue };
            // A neighbour that has everything and still listens watches its copy spread; one that shares counts on ours.
            let listens = view.complete() || view.sharing && blob.share.is_some();
            let new_to_it = |cell: &u32| listens || !view.cells.has(*cell);
            let news = runs_of(&blob.grid, cells.iter().copied().filter(new_to_it));
            for runs in news.chunks(MAX_RUNS) {
                let message = Message::Have { blob: id, runs: runs.to_vec() };
                self.outputs.push_back(Output::Send { to: peer.key, message });
            }
        }
    }

    /// The seeder's part: see [`governor`](super::governor).
    fn govern(&mut self, now: Time, id: BlobId) {
        let Some(blob) = self.blobs.get_mut(&id).filter(|blob| blob.complete() && !blob.views.is_empty())
        else {
            return;
        };
        let fetchers = blob.views.iter().filter(|(_, view)| view.fetching());
        let crowd: BTreeMap<Slot, Candidate<'_>> = fetchers
            .filter_map(|(&slot, view)| {
                let peer = self.peers.get(&slot).filter(|peer| peer.standing != Standing::Banned)?;
                Some((slot, Candidate { view, rack: peer.hint.rack }))
            })
            .collect();
        if crowd.is_empty() {
            blob.governor.rest();
        }
        let seeders = 1 + blob.views.values().filter(|view| view.complete()).count();
        let wanted = !blob.governor.done() && crowd.len() >= CROWD * seeders;
        if wanted && !blob.governor.governing() {
            let out = crowd_has(&blob.views, &blob.grid);
            blob.governor.start(now, out, &mut self.rng);
        }
        if wanted && blob.governor.governing() {
            let offers = blob.governor.offers(now, &crowd);
            for (slot, mut cells) in offers {
                let Some(peer) = self.peers.get(&slot) else { continue };
                cells.sort_unstable();
                let runs = runs_of(&blob.grid, cells.into_iter());
                let message = Message::Offer { blob: id, runs };
                self.outputs.push_back(Output::Send { to: peer.key, message });
            }
        } else if blob.governor.governing() {
            for slot in blob.governor.stop() {
                if let Some(peer) = self.peers.get(&slot) {
                    let message = Message::Open { blob: id };
                    self.outputs.push_back(Output::Send { to: peer.key, message });
                }
            }
        }
    }

    /// Wants to hear of the blob while fetching it, keeping a share of it or watching its first copy spread.
    fn update_interest(&mut self, id: BlobId) {
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        let out = blob.unheld == 0;
        let watching =
            blob.complete() && (!out || blob.governor.governing()) && blob.views.values().any(View::fetching);
        let wanted = blob.fetch.is_some() || blob.share.is_some() || watching;
        if blob.complete() && out && blob.interested && !std::mem::replace(&mut blob.copied, true) {
            self.outputs.push_back(Output::Event(ExchangeEvent::FirstCopyOut { blob: id }));
        }
        if wanted == blob.interested {
            return;
        }
        blob.interested = wanted;
        for peer in self.peers.values() {
            let message =
                if wanted { Message::Interested { blob: id } } else { Message::NotInterested { blob: id } };
            self.outputs.push_back(Output::Send { to: peer.key, message });
        }
    }

    /// Neighbour `slot` wants to hear of `id`, or no more.
    pub(super) fn interest(&mut self, slot: Slot, id: BlobId, wanted: bool) {
        let Some(peer) = self.peers.get_mut(&slot) else { return };
        let Some(blob) = self.blobs.get_mut(&id) else {
            if wanted {
                peer.remember(id);
            } else {
                peer.interests.remove(&id);
            }
            return;
        };
        blob.view(slot).interested = wanted;
        if wanted {
            if blob.share.is_some() {
                let message = Message::Sharing { blob: id, rule: RULE };
                self.outputs.push_back(Output::Send { to: peer.key, message });
            }
            let message = Message::Bitfield { blob: id, have: blob.have.clone() };
            self.outputs.push_back(Output::Send { to: peer.key, message });
        }
    }
}

/// The chunks of ascending `cells` as runs, neighbouring cells joined.
fn runs_of(grid: &Grid, cells: impl Iterator<Item = u32>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for cell in cells {
        let next = run(grid.chunks_of(cell..cell + 1));
        match runs.last_mut() {
            Some(last) if last.first + last.count == next.first => last.count += next.count,
            _ => runs.push(next),
        }
    }
    runs
}
