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

use super::super::message::Run;
use super::PeerKey;
use super::grid::{Grid, run};
use super::lot::{lot, name};
use super::time::{SECOND, Time};
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
    pub(super) copies: u8,
    /// The cells of each part.
    pub(super) parts: Vec<Range<u32>>,
    /// Neighbours that went, and until when they count.
    pub(super) absent: BTreeMap<PeerKey, Time>,
    /// Chunks said to be gone, and since when.
    pub(super) leaving: Vec<(Time, Range<u32>)>,
}

/// A neighbour that shares, and what it says it holds.
pub(super) struct Sharer<'a> {
    pub(super) key: PeerKey,
    /// Cells; `None` while it is away.
    pub(super) cells: Option<&'a Bitfield>,
}

impl Share {
    pub(super) fn new(me: PeerKey, copies: u8, grid: &Grid) -> Self {
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

    /// What is to be done about each part, seeing these neighbours.
    pub(super) fn verdicts(&self, id: BlobId, mut sharers: Vec<Sharer<'_>>) -> Vec<Verdict> {
        if sharers.len() > COUNTED {
            // The same ones each time, and others for each node.
            sharers.sort_by_cached_key(|sharer| lot(name(self.me) ^ name(sharer.key), 0));
            sharers.truncate(COUNTED);
        }
        (0..).zip(&self.parts).map(|(part, cells)| judge(self, id, part, cells, &sharers)).collect()
    }

    /// Chunks that were said to be gone long enough ago, and are not in `have` again.
    pub(super) fn due(&mut self, now: Time, have: &Bitfield) -> Vec<Run> {
        let (due, still): (Vec<_>, Vec<_>) =
            self.leaving.drain(..).partition(|(since, _)| now.since(*since) >= GRACE);
        self.leaving = still;
        let gone = |chunks: &Range<u32>| !chunks.clone().any(|chunk| have.has(chunk));
        due.into_iter().map(|(_, chunks)| chunks).filter(gone).map(run).collect()
    }
}

/// What is to be done about a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
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
