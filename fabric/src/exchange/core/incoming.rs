//! What neighbours say: checked against the index of the blob, then taken into the views.

use super::super::ban::Ban;
use super::super::event::ExchangeEvent;
use super::super::message::{Message, Run};
use super::peer::{Slot, Standing};
use super::share::RULE;
use super::time::Time;
use super::{Core, PeerKey};
use crate::id::BlobId;

/// Runs looked at in one message; honest ones have fewer.
const MAX_RUNS: usize = 8192;

impl Core {
    /// A message from `key` has come. Messages of unknown peers and about unknown blobs are ignored, except that interest is
    /// remembered.
    pub fn message(&mut self, now: Time, key: PeerKey, message: &Message) {
        let Some(&slot) = self.slots.get(&key) else { return };
        if self.peers.get(&slot).is_none_or(|peer| peer.standing == Standing::Banned) {
            return;
        }
        let id = message.blob();
        let gave = self.gives(slot, id);
        match message {
            Message::Interested { .. } => self.interest(slot, id, true),
            Message::NotInterested { .. } => self.interest(slot, id, false),
            Message::Bitfield { have, .. } => {
                let Some(blob) = self.blobs.get_mut(&id) else { return };
                if have.len() != blob.grid.chunks() {
                    return self.offence(slot, "a bitfield of the wrong length");
                }
                blob.replace(slot, have);
            }
            Message::Have { runs, .. } => self.for_runs(slot, id, runs, |core, run| {
                if let Some(blob) = core.blobs.get_mut(&id) {
                    blob.learn(slot, run.chunks(), true);
                }
            }),
            Message::Offer { runs, .. } => {
                if let Some(blob) = self.blobs.get_mut(&id) {
                    blob.view(slot);
                    blob.regard(slot, |view| view.governed = true);
                }
                self.for_runs(slot, id, runs, |core, run| {
                    let Some(blob) = core.blobs.get_mut(&id) else { return };
                    let cells = blob.grid.cells_of(run.chunks());
                    blob.view(slot).offer(cells);
                });
            }
            Message::Open { .. } => {
                if let Some(blob) = self.blobs.get_mut(&id) {
                    blob.regard(slot, |view| {
                        view.opened |= std::mem::take(&mut view.governed);
                        view.offers.clear();
                        view.exhausted = false;
                    });
                }
            }
            Message::Sharing { rule, .. } => {
                if let Some(blob) = self.blobs.get_mut(&id) {
                    blob.view(slot).sharing = *rule == RULE;
                    if let Some(share) = &mut blob.share {
                        share.found(key);
                    }
                }
            }
            Message::Dropped { .. } => {
                if let Some(blob) = self.blobs.get_mut(&id) {
                    blob.view(slot).sharing = false;
                    let chunks = blob.grid.chunks();
                    blob.unlearn(slot, 0..chunks);
                }
            }
            Message::Fetching { runs, .. } => self.for_runs(slot, id, runs, |core, run| {
                core.give_way(now, id, slot, run);
                if let Some(blob) = core.blobs.get_mut(&id) {
                    blob.claimed(now, slot, run.chunks());
                }
            }),
        }
        self.spread(now, id);
        if gave && self.gives(slot, id) {
            self.schedule_one(now, id, slot);
        } else {
            self.schedule(now);
        }
    }

    /// Whether `slot` has something of `id`.
    fn gives(&self, slot: Slot, id: BlobId) -> bool {
        self.blobs.get(&id).and_then(|blob| blob.views.get(&slot)).is_some_and(|view| view.have.count() > 0)
    }

    fn for_runs(&mut self, slot: Slot, id: BlobId, runs: &[Run], mut act: impl FnMut(&mut Self, Run)) {
        let Some(blob) = self.blobs.get(&id) else { return };
        if runs.len() > MAX_RUNS || runs.iter().any(|&run| !blob.grid.contains(run)) {
            return self.offence(slot, "a run outside the blob");
        }
        for &run in runs {
            act(self, run);
        }
    }

    /// Counts a broken promise or a malformed message; too many are the end.
    pub(super) fn offence(&mut self, slot: Slot, why: &str) {
        if self.peers.get_mut(&slot).is_some_and(super::peer::Peer::offended) {
            self.ban(slot, Ban { why: format!("too many offences, the last: {why}"), proof: None });
        }
    }

    /// Never asks `slot` again, nor whoever comes back under its key.
    pub(super) fn ban(&mut self, slot: Slot, ban: Ban) {
        let Some(peer) = self.peers.get_mut(&slot) else { return };
        if peer.standing == Standing::Banned {
            return;
        }
        peer.standing = Standing::Banned;
        let peer = peer.key;
        self.drop_flights_of(slot);
        for blob in self.blobs.values_mut() {
            blob.forget(slot);
        }
        self.event(ExchangeEvent::PeerBanned { peer, why: ban.why.clone() });
        self.bans.insert(peer, ban);
    }
}
