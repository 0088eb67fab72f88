//! Keeping a share: a node that need not hold a blob any more keeps a part of it, so that all chunks stay in the swarm.
//!
//! Nobody coordinates. A blob has *parts*, and for each part one hash ranks all nodes (rendezvous hashing: Thaler, Ravishankar 1998).
//! A node that shares
//! - wants the parts for which fewer than k of the neighbours that share rank above it, and fetches what it lacks of them;
//! - gives a part back only when k neighbours that share, rank above it, and *say that they hold it*.
//!
//! **Why nothing falls below k.** Consider the k holders of a part that rank highest among all that share. None of them may give it
//! back: too few holders rank above it. Old news change nothing: a holder that has given the part back since it was heard of did so
//! because of k holders above itself, which rank above whoever relies on it too. So any view, however partial or late, is good
//! enough to give back by; only death takes holders away, and those who then rank among the k fetch the part again. By induction
//! over what is given back; the tests check it against a model.
//!
//! **Patience.** A neighbour that went counts as one that will hold its parts for [`ABSENCE`]: one that hands over to its next
//! process is back by then. What is given back is first said to be gone, and goes [`GRACE`] later: whoever has asked for it by
//! then is still served.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::message::{Message, Run};
use super::blob::Blob;
use super::fetch::Fetch;
use super::grid::{Grid, run};
use super::lot::{lot, name};
use super::peer::{Peer, Slot};
use super::time::{SECOND, Time};
use super::{Core, Order, Output, PeerKey, Priority};
use crate::bitfield::Bitfield;
use crate::id::{BlobId, NodeId};

/// How parts are cut and nodes ranked. Only those that do it alike count each other; the number changes whenever either does.
pub(crate) const RULE: u8 = 1;
/// Bytes of a part, about: what is given back are whole pages, so short pieces would keep a page at each end.
const PART: u64 = 256 * 1024;
/// Neighbours that count. Whoever has more counts some of them alone, so that it keeps as much as if it had these: every node finds
/// about k copies of each chunk among as many neighbours, whoever has been looking for more of them.
const COUNTED: usize = 32;
/// How long a neighbour that went still counts as one that keeps its share.
const ABSENCE: u64 = 30 * SECOND;
/// From saying that chunks are gone to giving them back.
const GRACE: u64 = 3 * SECOND;

/// The share of a blob that this node keeps.
#[derive(Debug)]
pub(crate) struct Share {
    me: PeerKey,
    copies: u8,
    /// The cells of each part.
    parts: Vec<Range<u32>>,
    /// Neighbours that went, and until when they count.
    absent: BTreeMap<PeerKey, Time>,
    /// Chunks said to be gone, and since when.
    leaving: Vec<(Time, Range<u32>)>,
}

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

/// A neighbour that shares, and what it says it holds.
struct Sharer<'a> {
    key: PeerKey,
    /// Cells; `None` while it is away.
    cells: Option<&'a Bitfield>,
}

impl Share {
    fn new(me: PeerKey, copies: u8, grid: &Grid) -> Self {
        Self { me, copies, parts: parts(grid), absent: BTreeMap::new(), leaving: Vec::new() }
    }

    /// Neighbour `key` is gone.
    pub(crate) fn lost(&mut self, now: Time, key: PeerKey) {
        self.absent.insert(key, now.after(ABSENCE));
    }

    /// Neighbour `key` shares.
    pub(crate) fn found(&mut self, key: PeerKey) {
        self.absent.remove(&key);
    }
}

/// What is to be done about each part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// To be held.
    Wanted,
    /// Others hold it.
    Spare,
    /// Others should hold it and do not say so yet: kept if it is here.
    Pending,
}

/// The parts of a blob: runs of whole cells.
fn parts(grid: &Grid) -> Vec<Range<u32>> {
    let mut parts: Vec<Range<u32>> = Vec::new();
    let mut number = None;
    for cell in 0..grid.cells() {
        let at = grid.bytes_of(grid.chunks_of(cell..cell + 1)).start / PART;
        match parts.last_mut() {
            Some(part) if number == Some(at) => part.end = cell + 1,
            _ => parts.push(cell..cell + 1),
        }
        number = Some(at);
    }
    parts
}

/// The rank of a node for a part of a blob: the highest hold it.
fn rank(node: PeerKey, blob: BlobId, part: u32) -> (u64, PeerKey) {
    (lot(name(node) ^ name(NodeId(blob.0)), part), node)
}

fn judge(share: &Share, blob: BlobId, part: u32, cells: &Range<u32>, sharers: &[Sharer<'_>]) -> Verdict {
    let ours = rank(share.me, blob, part);
    let above = || sharers.iter().filter(|sharer| rank(sharer.key, blob, part) > ours);
    let copies = usize::from(share.copies);
    if above().count() < copies {
        return Verdict::Wanted;
    }
    let holds = |sharer: &&Sharer<'_>| sharer.cells.is_some_and(|held| held.has_all(cells.clone()));
    if above().filter(holds).count() >= copies { Verdict::Spare } else { Verdict::Pending }
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
        let verdicts = verdicts(&share, blob, peers);
        blob.return_to(now, &mut share, &verdicts);
        let leaves =
            if blob.governor.governing() { Vec::new() } else { blob.leave(now, &mut share, &verdicts) };
        let release = due(now, blob, &mut share);
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

/// The neighbours that count.
fn sharers<'a>(share: &Share, blob: &'a Blob, peers: &BTreeMap<Slot, Peer>) -> Vec<Sharer<'a>> {
    let here = blob.views.iter().filter(|(_, view)| view.sharing);
    let here =
        here.filter_map(|(slot, view)| Some(Sharer { key: peers.get(slot)?.key, cells: Some(&view.cells) }));
    here.chain(share.absent.keys().map(|&key| Sharer { key, cells: None })).collect()
}

fn verdicts(share: &Share, blob: &Blob, peers: &BTreeMap<Slot, Peer>) -> Vec<Verdict> {
    let (id, mut sharers) = (blob.grid.blob(), sharers(share, blob, peers));
    if sharers.len() > COUNTED {
        // The same ones each time, and others for each node.
        sharers.sort_by_cached_key(|sharer| lot(name(share.me) ^ name(sharer.key), 0));
        sharers.truncate(COUNTED);
    }
    (0..).zip(&share.parts).map(|(part, cells)| judge(share, id, part, cells, &sharers)).collect()
}

/// Chunks that were said to be gone long enough ago.
fn due(now: Time, blob: &Blob, share: &mut Share) -> Vec<Run> {
    let (due, still): (Vec<_>, Vec<_>) =
        share.leaving.drain(..).partition(|(since, _)| now.since(*since) >= GRACE);
    share.leaving = still;
    let gone = |chunks: &Range<u32>| !chunks.clone().any(|chunk| blob.have.has(chunk));
    due.into_iter().map(|(_, chunks)| chunks).filter(gone).map(run).collect()
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
            left.extend(super::blob::runs_in(&self.have, chunks));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Hash;

    fn node(number: u32) -> PeerKey {
        NodeId(Hash::of(&number.to_be_bytes()))
    }

    fn any_blob() -> BlobId {
        BlobId(Hash::of(b"blob"))
    }

    /// Nodes of all versions with this [`RULE`] must agree: whoever changes one of these figures changes its number.
    #[test]
    fn the_rule_is_what_it_was() {
        let lengths = (0..3000_u32).map(|n| 1000 + n * 7919 % 60_000);
        let grid = Grid::new(any_blob(), lengths);
        let parts = parts(&grid);
        assert_eq!((RULE, grid.size(), grid.cells(), parts.len()), (1, 92_941_500, 2064, 355));
        assert_eq!((parts[0].clone(), parts[1].clone(), parts[354].clone()), (0..6, 6..12, 2061..2064));
        let order = |part| {
            let mut nodes: Vec<u32> = (0..8).collect();
            nodes.sort_by_key(|&number| std::cmp::Reverse(rank(node(number), any_blob(), part)));
            nodes
        };
        assert_eq!((order(0), order(7)), (vec![0, 7, 2, 4, 6, 1, 5, 3], vec![3, 5, 0, 2, 7, 4, 6, 1]));
    }

    #[test]
    fn parts_are_runs_of_cells_without_gaps() {
        for length in [300, 40_000, 131_072] {
            let grid = Grid::new(any_blob(), vec![length; 5000]);
            let parts = parts(&grid);
            assert_eq!(parts.first().map(|part| part.start), Some(0));
            assert_eq!(parts.last().map(|part| part.end), Some(grid.cells()));
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
        assert_eq!(parts(&Grid::new(any_blob(), [])), []);
    }

    /// Of many nodes each has to hold about as much.
    #[test]
    fn ranks_are_spread_evenly() {
        let (nodes, parts, copies) = (12_u32, 2000_u32, 2_usize);
        let mut held = vec![0_u32; nodes as usize];
        for part in 0..parts {
            let mut order: Vec<u32> = (0..nodes).collect();
            order.sort_by_key(|&number| std::cmp::Reverse(rank(node(number), any_blob(), part)));
            order.iter().take(copies).for_each(|&number| held[number as usize] += 1);
        }
        let mean = parts * 2 / nodes;
        assert!(held.iter().all(|&held| held.abs_diff(mean) < mean / 5), "{held:?}");
    }
}
