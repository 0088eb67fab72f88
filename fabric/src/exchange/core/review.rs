//! Looking after a share: who shares it now, what is given back, what is fetched for it.
//!
//! The rule is that of [`share`](super::share).

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::message::{Message, Run};
use super::blob::Blob;
use super::fetch::Fetch;
use super::peer::{Peer, Slot};
use super::share::{RULE, Share, Sharer, Verdict};
use super::time::Time;
use super::{Core, Order, Output, PeerKey, Priority};
use crate::bitfield::Bitfield;
use crate::id::BlobId;

/// A share as it is after a look at the neighbours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShareReport {
    /// Nodes that share the blob, as far as this one sees, itself included.
    pub sharers: u32,
    /// How many of them are to hold each chunk.
    pub copies: u8,
    /// Verified bytes held.
    pub held: u64,
    /// Bytes that this node ought to hold by its rank.
    pub wanted: u64,
    /// Bytes among them that it lacks.
    pub lacking: u64,
    /// Bytes that it lacks and does not fetch, as there is no room for them.
    pub no_room: u64,
}

/// What came of a look at the neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// Chunks that are to be given back now. Nobody has been told of late that they are here.
    pub release: Vec<Run>,
    /// The share.
    pub report: ShareReport,
}

impl Core {
    /// From now on this node, which its neighbours know as `me`, keeps a share of a blob that it holds, so that `copies` nodes
    /// hold each chunk. [`Core::review`] says what to give back, and fetches what is missing. Fetching the whole blob ends it.
    pub fn share(&mut self, now: Time, id: BlobId, me: PeerKey, copies: u8) {
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        blob.share = Some(Box::new(Share::new(me, copies.max(1), &blob.grid)));
        for (slot, _) in blob.views.iter().filter(|(_, view)| view.interested) {
            if let Some(peer) = self.peers.get(slot) {
                let message = Message::Sharing { blob: id, rule: RULE };
                self.outputs.push_back(Output::Send { to: peer.key, message });
            }
        }
        self.tell_all(id);
        self.spread(now, id);
    }

    /// Looks at who shares a blob and what they hold: says that what others keep is gone here, fetches what this node should keep as
    /// far as it fits into `room` bytes. To be called every few seconds; `None` if no share of the blob is kept.
    pub fn review(&mut self, now: Time, id: BlobId, room: u64) -> Option<Review> {
        let Self { blobs, peers, .. } = self;
        let blob = blobs.get_mut(&id)?;
        let mut share = blob.share.take()?;
        share.absent.retain(|_, until| *until > now);
        let verdicts = share.verdicts(id, sharers(&share, blob, peers));
        blob.return_to(now, &mut share, &verdicts);
        let leaves =
            if blob.governor.governing() { Vec::new() } else { blob.leave(now, &mut share, &verdicts) };
        let release = share.due(now, &blob.have);
        let mut report = ShareReport {
            sharers: u32::try_from(1 + sharers(&share, blob, peers).len()).unwrap_or(u32::MAX),
            copies: share.copies,
            ..ShareReport::default()
        };
        let missing = blob.lacks(&share, &verdicts, room, &mut report);
        report.held = blob.held;
        blob.share = Some(share);
        if !leaves.is_empty() {
            self.tell_all(id);
        }
        self.fetch_only(now, id, missing);
        Some(Review { release, report })
    }

    /// Tells the neighbours that listen what is held.
    fn tell_all(&mut self, id: BlobId) {
        let Some(blob) = self.blobs.get(&id) else { return };
        let keys = blob
            .views
            .iter()
            .filter(|(_, view)| view.interested)
            .filter_map(|(slot, _)| self.peers.get(slot));
        let have = &blob.have;
        let messages = keys.map(|peer| Output::Send {
            to: peer.key,
            message: Message::Bitfield { blob: id, have: have.clone() },
        });
        self.outputs.extend(messages);
    }

    /// Fetches the cells `missing` of a blob and nothing else of it.
    fn fetch_only(&mut self, now: Time, id: BlobId, missing: Bitfield) {
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        if missing.count() == 0 {
            if blob.fetch.take().is_some() {
                self.drop_flights_for(id);
                self.fetches.retain(|_, other| *other != id);
            }
        } else if let Some(fetch) = &mut blob.fetch {
            fetch.missing = missing;
        } else {
            let mut fetch = Fetch::new(now, Priority::Prefetch, Order::Rarest, &blob.cells);
            fetch.missing = missing;
            blob.fetch = Some(fetch);
            blob.views.values_mut().for_each(|view| view.exhausted = false);
            self.next_id += 1;
            self.fetches.insert((std::cmp::Reverse(Priority::Prefetch), self.next_id), id);
        }
        self.spread(now, id);
        self.schedule(now);
    }
}

/// The neighbours that share.
fn sharers<'a>(share: &Share, blob: &'a Blob, peers: &BTreeMap<Slot, Peer>) -> Vec<Sharer<'a>> {
    let here = blob.views.iter().filter(|(_, view)| view.sharing);
    let here =
        here.filter_map(|(slot, view)| Some(Sharer { key: peers.get(slot)?.key, cells: Some(&view.cells) }));
    here.chain(share.absent.keys().map(|&key| Sharer { key, cells: None })).collect()
}

impl Blob {
    /// What was to leave and is wanted again stays.
    fn return_to(&mut self, now: Time, share: &mut Share, verdicts: &[Verdict]) {
        let Share { parts, leaving, .. } = share;
        for (cells, _) in parts.iter().zip(verdicts).filter(|(_, verdict)| **verdict == Verdict::Wanted) {
            let chunks = self.grid.chunks_of(cells.clone());
            let back: Vec<_> = leaving.extract_if(.., |(_, left)| chunks.contains(&left.start)).collect();
            for (_, chunks) in back {
                self.keep(chunks, |announcer, cell, holders| announcer.add(now, cell, holders));
            }
        }
    }

    /// Lets go of what others keep: the chunks.
    fn leave(&mut self, now: Time, share: &mut Share, verdicts: &[Verdict]) -> Vec<Range<u32>> {
        let mut left = Vec::new();
        for (cells, _) in share.parts.iter().zip(verdicts).filter(|(_, verdict)| **verdict == Verdict::Spare)
        {
            let chunks = self.grid.chunks_of(cells.clone());
            left.extend(self.have.runs_in(chunks));
        }
        for chunks in &left {
            self.lose(chunks.clone());
            share.leaving.push((now, chunks.clone()));
        }
        left
    }

    /// The cells to fetch; what is wanted and lacking is counted.
    fn lacks(&self, share: &Share, verdicts: &[Verdict], room: u64, report: &mut ShareReport) -> Bitfield {
        let mut missing = Bitfield::empty(self.grid.cells());
        for (cells, _) in share.parts.iter().zip(verdicts).filter(|(_, verdict)| **verdict == Verdict::Wanted)
        {
            for cell in cells.clone() {
                let bytes = self.grid.bytes_of(self.grid.chunks_of(cell..cell + 1));
                let size = bytes.end - bytes.start;
                report.wanted += size;
                if self.cells.has(cell) {
                    continue;
                }
                report.lacking += size;
                if report.lacking - report.no_room <= room {
                    missing.insert(cell);
                } else {
                    report.no_room += size;
                }
            }
        }
        missing
    }
}
