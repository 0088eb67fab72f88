//! What a rack has yet to import of a blob, and who of the rack does it.
//!
//! Racks share their uplinks, so each cell should come in about once. A node asks a neighbour in another rack only for what no
//! neighbour in its own holds or is importing already. A cell that comes within reach is given to one node after the other, in
//! an order that all compute alike from its number and their names: the first may import it at once, each further one a step
//! later, and whoever begins tells the rack. Of two that began before they heard of each other one gives way. A node that has
//! enough to import lets its turns pass.
//!
//! Nothing here is trusted for longer than it holds good: a claim ends after [`CLAIM`], a neighbour that fails counts as one that
//! holds nothing until it delivers again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::peer::Slot;
use super::time::{MS, SECOND, Time};
use super::view::Side;
use crate::bitfield::Bitfield;

/// Time for a node's turn. A claim takes longer than that where ports queue; who began at once then gives way ([`Core::give_way`](super::Core::give_way)).
/// Waiting for the claims instead, 30 ms for each turn, still lets a tenth come in twice, and the last node is done 4 per cent later.
const STEP: u64 = 5 * MS;
/// After so many turns everybody may import: most nodes see only some of the other racks, and those whose turn comes first may not be
/// among them.
const MAX_TURNS: u64 = 10;
/// A claim that nothing has come of ends after this time.
const CLAIM: u64 = 3 * SECOND;

/// The state for one blob. There is none while no neighbour stands in another rack.
#[derive(Debug)]
pub(crate) struct Imports {
    /// For each cell, neighbours in our rack and in others that hold it wholly.
    near: Vec<u16>,
    far: Vec<u16>,
    /// Cells that may be imported now.
    ripe: Bitfield,
    /// Cells whose turn comes, in its order, and when.
    due: BTreeSet<(Time, u32)>,
    waiting: BTreeMap<u32, Time>,
    /// Cells that neighbours in our rack are importing: who, and until when that counts.
    claims: BTreeMap<u32, (Slot, Time)>,
    ends: VecDeque<(Time, u32)>,
    /// Cells to look at again.
    changed: Vec<u32>,
    /// Requests under way to other racks.
    pub(crate) under_way: u32,
}

impl Imports {
    pub(crate) fn new(cells: u32) -> Self {
        Self {
            near: vec![0; cells as usize],
            far: vec![0; cells as usize],
            ripe: Bitfield::empty(cells),
            due: BTreeSet::new(),
            waiting: BTreeMap::new(),
            claims: BTreeMap::new(),
            ends: VecDeque::new(),
            changed: Vec::new(),
            under_way: 0,
        }
    }

    /// Cells that may be imported now.
    pub(crate) fn ripe(&self) -> &Bitfield {
        &self.ripe
    }

    /// Neighbours in our rack that hold `cell`.
    pub(crate) fn near(&self, cell: u32) -> u16 {
        self.near.get(cell as usize).copied().unwrap_or(0)
    }

    /// The same of all cells.
    pub(crate) fn all_near(&self) -> &[u16] {
        &self.near
    }

    pub(crate) fn is_near(&self, cell: u32) -> bool {
        self.near(cell) > 0
    }

    /// A neighbour that counts as being on `side` holds `cell` now.
    pub(crate) fn gained(&mut self, cell: u32, side: Side) {
        if add(self.count(side), cell, 1) != Some(1) {
            return;
        }
        match side {
            Side::Near => self.settled(cell),
            Side::Far => self.changed.push(cell),
            Side::Nowhere => {}
        }
    }

    /// A neighbour that counted as being on `side` no longer holds `cell`.
    pub(crate) fn lost(&mut self, cell: u32, side: Side) {
        if add(self.count(side), cell, -1) != Some(0) {
            return;
        }
        match side {
            Side::Near => self.changed.push(cell),
            Side::Far => self.out_of_reach(cell),
            Side::Nowhere => {}
        }
    }

    fn count(&mut self, side: Side) -> &mut [u16] {
        match side {
            Side::Near => &mut self.near,
            Side::Far => &mut self.far,
            Side::Nowhere => &mut [],
        }
    }

    /// `cell` cannot be had from other racks now, or need not.
    fn out_of_reach(&mut self, cell: u32) {
        self.ripe.remove(cell);
        if let Some(due) = self.waiting.remove(&cell) {
            self.due.remove(&(due, cell));
        }
    }

    /// Neighbour `slot` in our rack imports `cell`.
    pub(crate) fn claim(&mut self, now: Time, slot: Slot, cell: u32) {
        let until = now.after(CLAIM);
        self.settled(cell);
        self.claims.insert(cell, (slot, until));
        self.ends.push_back((until, cell));
    }

    /// Neighbour `slot` is gone: what it imports has to be imported by somebody else.
    pub(crate) fn unclaim(&mut self, slot: Slot) {
        let Self { claims, changed, .. } = self;
        claims.retain(|&cell, claim| {
            let kept = claim.0 != slot;
            if !kept {
                changed.push(cell);
            }
            kept
        });
    }

    /// There is nothing to import of `cell` any more, or somebody does it.
    pub(crate) fn settled(&mut self, cell: u32) {
        self.out_of_reach(cell);
        self.claims.remove(&cell);
    }

    /// A request for these cells is over: what it did not bring has to be imported by somebody.
    pub(crate) fn reconsider(&mut self, cells: impl Iterator<Item = u32>) {
        self.changed.extend(cells);
    }

    /// Something may have become ripe by `now`.
    pub(crate) fn restless(&self, now: Time) -> bool {
        !self.changed.is_empty() || self.deadline().is_some_and(|at| at <= now)
    }

    /// When something becomes ripe or a claim ends.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let due = self.due.first().map(|&(at, _)| at);
        let ends = self.ends.front().map(|&(at, _)| at);
        [due, ends].into_iter().flatten().min()
    }

    /// Lets cells ripen; true if one did. `turn` gives the turns to wait for a cell that is missing and within reach.
    pub(crate) fn ripen(&mut self, now: Time, turn: impl Fn(u32) -> Option<u64>) -> bool {
        while let Some(&(at, cell)) = self.ends.front().filter(|&&(at, _)| at <= now) {
            self.ends.pop_front();
            if self.claims.get(&cell).is_some_and(|claim| claim.1 == at) {
                self.claims.remove(&cell);
                self.changed.push(cell);
            }
        }
        for cell in std::mem::take(&mut self.changed) {
            let open = self.far.get(cell as usize).is_some_and(|&count| count > 0)
                && !self.is_near(cell)
                && !self.claims.contains_key(&cell)
                && !self.ripe.has(cell)
                && !self.waiting.contains_key(&cell);
            if let Some(turns) = open.then(|| turn(cell)).flatten() {
                let at = now.after(turns.min(MAX_TURNS) * STEP);
                self.waiting.insert(cell, at);
                self.due.insert((at, cell));
            }
        }
        let mut ripened = false;
        while let Some(&(at, cell)) = self.due.first().filter(|&&(at, _)| at <= now) {
            self.due.remove(&(at, cell));
            self.waiting.remove(&cell);
            ripened |= self.ripe.insert(cell);
        }
        ripened
    }
}

/// The count of `cell` after adding to it, if it is counted.
fn add(counts: &mut [u16], cell: u32, more: i16) -> Option<u16> {
    let count = counts.get_mut(cell as usize)?;
    *count = count.saturating_add_signed(more);
    Some(*count)
}
