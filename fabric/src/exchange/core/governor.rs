//! A seeder under a flash crowd: gives every neighbour different cells until one copy is out.
//!
//! While the crowd asks for more than the seeder can give, each byte that it sends twice delays the last node. So it offers
//! each cell to one neighbour, and that neighbour is the seeder of it for the others. When every cell has been seen in the
//! crowd, everybody may ask for anything again.
//!
//! A cell that only the neighbour it was given to has, when others should have fetched it, is given to somebody else too, and a
//! neighbour with which that happens again and again gets no more offers: it may lie, and the seeder, who never fetches from
//! it, would not know.
//!
//! Offers under way are worth about [`AHEAD`] of sending: enough that the uplink never idles, and few, because a cell that
//! shares the uplink with many others reaches its first neighbour late.

use std::collections::{BTreeMap, VecDeque};

use super::grid::Grid;
use super::peer::Slot;
use super::rng::Rng;
use super::time::{MS, SECOND, Time};
use super::view::View;
use crate::bitfield::Bitfield;

/// Time's worth of sending that is offered ahead.
const AHEAD: u64 = 400 * MS;
/// How often the pace is measured.
const SAMPLE: u64 = 30 * MS;
/// Offers under way at least, in all and for each neighbour, also before anything has been measured: fewer leave the uplink
/// idle while the first of them are fetched and announced; with two for each of 32 neighbours on slow links the last of them
/// wait longer than [`MIN_PATIENCE`], and a third of a copy leaves twice (measured).
const MIN_OFFERS: u32 = 12;
const MIN_PER_PEER: u32 = 1;
/// Offers under way at most for each neighbour.
const MAX_PER_PEER: u32 = 8;
/// An offer not seen fulfilled after this time, or after a few times the usual one, is made to somebody else.
const MIN_PATIENCE: u64 = SECOND;
/// A cell still at one neighbour only after this time, or after a few times the usual one, is stuck there.
const MIN_HOP: u64 = 500 * MS;
/// Stuck cells after which a neighbour gets no more offers.
const MAX_STUCK: u32 = 4;
/// How many times the usual time an offer may take.
const PATIENCE: u64 = 6;

/// A neighbour in the crowd: what it holds, and in which rack.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate<'a> {
    pub(crate) view: &'a View,
    pub(crate) rack: u64,
}

/// Offers of one blob. Does nothing before [`Governor::start`].
#[derive(Debug, Default)]
pub(crate) struct Governor {
    active: Option<Active>,
    /// One copy has been seen in this crowd: governing is over until the next one comes.
    done: bool,
}

#[derive(Debug)]
struct Active {
    /// Cells not offered yet, in random order; those taken back are put in front.
    fresh: VecDeque<u32>,
    /// Cells offered and not seen in the crowd: to whom and when.
    given: BTreeMap<u32, (Slot, Time)>,
    /// Offers under way of each neighbour that knows it is governed.
    load: BTreeMap<Slot, u32>,
    /// Cells seen in the crowd.
    out: Bitfield,
    /// Those seen at one neighbour only: where and since when.
    single: BTreeMap<u32, (Slot, Time)>,
    /// Cells offered to each rack so far.
    racks: BTreeMap<u64, u32>,
    /// How often a cell got stuck at a neighbour.
    stuck: BTreeMap<Slot, u32>,
    /// Microseconds from the first sight of a cell to the second, smoothed.
    hop: u64,
    now: Time,
    /// Cells per second seen coming out, and microseconds from offer to sight, smoothed.
    pace: u64,
    delay: u64,
    sample: (Time, u32),
}

impl Governor {
    pub(crate) fn governing(&self) -> bool {
        self.active.is_some()
    }

    pub(crate) fn done(&self) -> bool {
        self.done
    }

    /// Begins to govern, unless it is too late: `out` are the cells that the crowd has. With half a copy it feeds itself, and a
    /// node that has just finished must not slow down those that lag behind.
    pub(crate) fn start(&mut self, now: Time, out: Bitfield, rng: &mut Rng) {
        if out.count() >= out.len() / 2 {
            self.done = true;
            return;
        }
        let mut fresh: Vec<u32> = (0..out.len()).filter(|&cell| !out.has(cell)).collect();
        rng.shuffle(&mut fresh);
        self.active = Some(Active {
            fresh: fresh.into(),
            given: BTreeMap::new(),
            load: BTreeMap::new(),
            out,
            single: BTreeMap::new(),
            racks: BTreeMap::new(),
            stuck: BTreeMap::new(),
            hop: 0,
            now,
            pace: 0,
            delay: 0,
            sample: (now, 0),
        });
    }

    /// There is no crowd (any more): the next one will be governed anew.
    pub(crate) fn rest(&mut self) {
        self.done = false;
    }

    /// Ends it; the neighbours that knew they were governed.
    pub(crate) fn stop(&mut self) -> Vec<Slot> {
        self.active.take().map(|active| active.load.into_keys().collect()).unwrap_or_default()
    }

    /// Neighbour `slot` in the crowd has `cell`.
    pub(crate) fn seen(&mut self, slot: Slot, cell: u32) {
        let Some(active) = &mut self.active else { return };
        if active.out.insert(cell) {
            active.sample.1 += 1;
            active.single.insert(cell, (slot, active.now));
            if active.out.is_full() {
                self.done = true;
            }
        } else if let Some(&(first, since)) = active.single.get(&cell)
            && first != slot
        {
            active.single.remove(&cell);
            active.hop = smooth(active.hop, active.now.since(since));
        }
    }

    /// `slot` is gone: what it was offered is offered to others.
    pub(crate) fn lost(&mut self, slot: Slot) {
        let Some(active) = &mut self.active else { return };
        active.load.remove(&slot);
        let back: Vec<u32> =
            active.given.iter().filter(|(_, given)| given.0 == slot).map(|(&cell, _)| cell).collect();
        for cell in back {
            active.given.remove(&cell);
            active.fresh.push_front(cell);
        }
    }

    /// Some of the crowd may be gone: what only they had must go out again.
    pub(crate) fn recount(&mut self, views: &BTreeMap<Slot, View>, grid: &Grid) {
        let Some(active) = &mut self.active else { return };
        let out = crowd_has(views, grid);
        let lost: Vec<u32> = active.out.iter().filter(|&cell| !out.has(cell)).collect();
        for cell in lost {
            active.out.remove(cell);
            active.fresh.push_front(cell);
        }
    }

    /// The offers to make now: for each neighbour the cells, ascending. A neighbour that did not know yet that it is governed
    /// gets an empty offer at least.
    pub(crate) fn offers(
        &mut self,
        now: Time,
        crowd: &BTreeMap<Slot, Candidate<'_>>,
    ) -> BTreeMap<Slot, Vec<u32>> {
        let mut offers = BTreeMap::new();
        let Some(active) = &mut self.active else { return offers };
        active.settle(now);
        for &slot in crowd.keys() {
            if let std::collections::btree_map::Entry::Vacant(entry) = active.load.entry(slot) {
                entry.insert(0);
                offers.insert(slot, Vec::new());
            }
        }
        let limit = active.limit(u32::try_from(crowd.len()).unwrap_or(u32::MAX));
        while active.given.len() < limit as usize {
            let Some(cell) = active.next_fresh() else { break };
            let willing = active.load.iter().filter(|&(&slot, &load)| {
                load < active.most(slot)
                    && crowd.get(&slot).is_some_and(|candidate| !candidate.view.cells.has(cell))
            });
            let rack = |slot| crowd.get(&slot).map_or(0, |candidate| candidate.rack);
            let given = |slot| active.racks.get(&rack(slot)).copied().unwrap_or(0);
            let next = willing.min_by_key(|&(&slot, &load)| (given(slot), load));
            let Some(slot) = next.map(|(&slot, _)| slot) else {
                active.fresh.push_front(cell);
                break;
            };
            *active.racks.entry(rack(slot)).or_default() += 1;
            active.given.insert(cell, (slot, now));
            *active.load.entry(slot).or_default() += 1;
            offers.entry(slot).or_default().push(cell);
        }
        offers
    }

    /// When an offer will have waited too long.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let active = self.active.as_ref()?;
        let oldest = active.given.values().map(|given| given.1).min()?;
        Some(oldest.after(active.patience()))
    }
}

impl Active {
    fn limit(&self, crowd: u32) -> u32 {
        let ahead = u32::try_from(self.pace.saturating_mul(AHEAD) / SECOND).unwrap_or(u32::MAX);
        let least = crowd.saturating_mul(MIN_PER_PEER).max(MIN_OFFERS);
        ahead.clamp(least, crowd.saturating_mul(MAX_PER_PEER).max(least))
    }

    /// Offers that `slot` may have under way.
    fn most(&self, slot: Slot) -> u32 {
        let stuck = self.stuck.get(&slot).copied().unwrap_or(0);
        if stuck < MAX_STUCK { MAX_PER_PEER } else { 0 }
    }

    fn patience(&self) -> u64 {
        self.delay.saturating_mul(PATIENCE).max(MIN_PATIENCE)
    }

    fn next_fresh(&mut self) -> Option<u32> {
        loop {
            let cell = self.fresh.pop_front()?;
            if !self.out.has(cell) {
                return Some(cell);
            }
        }
    }

    /// Gives cells that do not leave their first neighbour to others.
    fn unstick(&mut self, now: Time) {
        let wait = self.hop.saturating_mul(PATIENCE).max(MIN_HOP);
        let stuck: Vec<(u32, Slot)> = self
            .single
            .iter()
            .filter(|(_, (_, since))| now.since(*since) >= wait)
            .map(|(&cell, &(slot, _))| (cell, slot))
            .collect();
        for (cell, slot) in stuck {
            self.single.remove(&cell);
            self.out.remove(cell);
            self.fresh.push_front(cell);
            *self.stuck.entry(slot).or_default() += 1;
        }
    }

    /// Strikes off what has been seen, takes back what waited too long, and measures the pace.
    fn settle(&mut self, now: Time) {
        self.now = now;
        let (patience, out) = (self.patience(), &self.out);
        let mut over = Vec::new();
        for (&cell, &(slot, at)) in &self.given {
            if out.has(cell) {
                over.push((cell, slot, Some(now.since(at))));
            } else if now.since(at) >= patience {
                over.push((cell, slot, None));
            }
        }
        for (cell, slot, delay) in over {
            self.given.remove(&cell);
            if let Some(load) = self.load.get_mut(&slot) {
                *load = load.saturating_sub(1);
            }
            match delay {
                Some(delay) => self.delay = smooth(self.delay, delay),
                None => self.fresh.push_back(cell),
            }
        }
        self.unstick(now);
        let (since, count) = self.sample;
        let elapsed = now.since(since);
        if elapsed >= SAMPLE {
            let pace = u64::from(count) * SECOND / elapsed;
            self.pace = if self.pace == 0 { pace } else { self.pace - self.pace / 4 + pace / 4 };
            self.sample = (now, 0);
        }
    }
}

fn smooth(old: u64, sample: u64) -> u64 {
    if old == 0 { sample } else { old - old / 8 + sample / 8 }
}

/// The cells that at least one neighbour without a whole copy has.
pub(crate) fn crowd_has(views: &BTreeMap<Slot, View>, grid: &Grid) -> Bitfield {
    let mut out = Bitfield::empty(grid.cells());
    for view in views.values().filter(|view| !view.complete()) {
        view.cells.iter().for_each(|cell| {
            out.insert(cell);
        });
    }
    out
}
