//! Whom to ask now, and for what.
//!
//! For each fetch, the most urgent first, every neighbour with room is asked for the rarest cell that it holds. The poorest
//! neighbours come first: they are the ones whom others ask least, and so the seeder, richest of all, is asked last. Of a
//! seeder that governs a crowd only what it offers is asked.

use std::collections::BTreeSet;

use super::blob::Blob;
use super::fetch::{Flight, RequestId, patience, span};
use super::peer::{Slot, Work};
use super::picker::Choice;
use super::time::{MS, SECOND, Time};
use super::view::View;
use super::{Core, Output};
use crate::exchange::message::Run;
use crate::id::BlobId;

/// Bytes under way at most, over all peers and blobs: what buffers may take.
const MAX_IN_FLIGHT: u64 = 16 * 1024 * 1024;
/// Time's worth of bytes under way over all peers: what is asked for earlier than that only waits in queues, and what waits
/// cannot be passed on.
const HORIZON: u64 = 400 * MS;
/// Cells under way at least, so that a fetch can find out how fast it is.
const MIN_CELLS: u64 = 16;
/// With nothing under way and no bytes for this long, a governing seeder is asked for what it did not offer.
pub(super) const STARVING: u64 = SECOND;
/// Cells that may be asked of two peers at once, at the end of a fetch.
const MAX_RACES: usize = 4;
/// A request is not raced before it is this much later than it should be.
const RACE_GRACE: u64 = 100 * MS;

/// Classes of wealth among neighbours: within one, whoever has the least to do is asked first.
const WEALTH_CLASSES: u64 = 8;

/// The order in which neighbours are asked.
#[derive(Debug, PartialEq, Eq)]
struct Turn {
    /// It offers something: the swarm waits for what only this peer was told to take.
    offered: bool,
    /// It stands in another rack, and has what our rack waits for.
    import: bool,
    origin: bool,
    wealth: u64,
    load: u64,
    slot: Slot,
}

impl Turn {
    fn key(&self) -> (bool, bool, bool, u64, u64, Slot) {
        (!self.offered, !self.import, self.origin, self.wealth, self.load, self.slot)
    }

    /// Others wait for it: it is not held up by what is under way already.
    fn urgent(&self) -> bool {
        self.offered || self.import
    }
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Core {
    /// Makes all requests that can be made.
    pub(super) fn schedule(&mut self, now: Time) {
        self.seen = self.seen.max(now);
        let fetches: Vec<BlobId> = self.fetches.values().copied().collect();
        let mut fetches = fetches.into_iter().peekable();
        let mut reserved = BTreeSet::new();
        while let Some(id) = fetches.next() {
            self.ripen(now, id);
            self.fill(now, id, &reserved);
            self.race(now, id);
            if fetches.peek().is_some() {
                self.reserve(id, &mut reserved);
            }
        }
    }

    /// As [`Core::schedule`], when nothing has changed since but what `slot` says about blob `id`, of which it gives as
    /// before, or that it has answered: everybody else has been asked for all that may be. Neither costs a look at each
    /// neighbour.
    pub(super) fn schedule_one(&mut self, now: Time, id: BlobId, slot: Slot) {
        let Some(blob) = self.blobs.get(&id) else { return };
        let shifted = blob.fetch.as_ref().is_some_and(|fetch| fetch.behind != behind(blob));
        if self.fetches.len() != 1 || shifted || self.starving(now, id) || blob.imports_restless(now) {
            return self.schedule(now);
        }
        self.seen = self.seen.max(now);
        let Some(fetch) = &blob.fetch else { return };
        let work = self.work(blob, fetch.givers.unwrap_or_else(|| self.givers(now, blob)));
        let turns = self.turn(now, blob, slot, &work).into_iter().collect();
        self.take_turns(now, id, &work, turns);
        self.race(now, id);
    }

    /// Nothing of the fetch of `id` is under way and nothing has come for long.
    fn starving(&self, now: Time, id: BlobId) -> bool {
        let fetch = self.blobs.get(&id).and_then(|blob| blob.fetch.as_ref());
        self.in_flight == 0 && fetch.is_some_and(|fetch| now.since(fetch.progress) >= STARVING)
    }

    /// Keeps the neighbours that have more for this fetch from being asked for what is less urgent: their queues are short, and
    /// would be full of it when there is room again.
    fn reserve(&self, id: BlobId, reserved: &mut BTreeSet<Slot>) {
        let Some(blob) = self.blobs.get(&id) else { return };
        let more = |view: &View| !view.exhausted && !view.governed && view.have.count() > 0;
        reserved.extend(blob.views.iter().filter(|(_, view)| more(view)).map(|(&slot, _)| slot));
    }

    /// Asks until every neighbour has enough to do or nothing that could be asked.
    fn fill(&mut self, now: Time, id: BlobId, reserved: &BTreeSet<Slot>) {
        let starving = self.starving(now, id);
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        if starving {
            blob.views.values_mut().for_each(|view| view.exhausted = false);
        }
        let behind = behind(blob);
        if let Some(fetch) = &mut blob.fetch {
            fetch.givers = None;
            fetch.behind = behind;
        }
        let Some(blob) = self.blobs.get(&id) else { return };
        let offered = |view: &View| view.governed && !view.offers.is_empty();
        let urgent = blob.imports_wait() || blob.views.values().any(offered);
        if !urgent && self.busy(self.budget(blob.cell_bytes())) {
            return;
        }
        let work = self.work(blob, self.givers(now, blob));
        let free = blob.views.keys().filter(|slot| !reserved.contains(slot));
        let turns = free.filter_map(|&slot| self.turn(now, blob, slot, &work)).collect();
        self.take_turns(now, id, &work, turns);
        if let Some(fetch) = self.blobs.get_mut(&id).and_then(|blob| blob.fetch.as_mut()) {
            fetch.givers = Some(work.givers);
        }
    }

    fn givers(&self, now: Time, blob: &Blob) -> u32 {
        let usable = |slot: &Slot| self.peers.get(slot).is_some_and(|peer| peer.ready(now));
        let givers = blob.views.iter().filter(|(slot, view)| view.have.count() > 0 && usable(slot)).count();
        u32::try_from(givers).unwrap_or(u32::MAX)
    }

    fn work(&self, blob: &Blob, givers: u32) -> Work {
        Work {
            cell: blob.cell_bytes(),
            missing: blob.missing_bytes(),
            rate: self.rate.per_second().unwrap_or(0),
            givers,
            behind: blob.fetch.as_ref().is_some_and(|fetch| fetch.behind),
        }
    }

    /// Asks whose turn it is, again and again, until nobody is left or enough is under way.
    fn take_turns(&mut self, now: Time, id: BlobId, work: &Work, mut turns: BTreeSet<Turn>) {
        let budget = self.budget(work.cell);
        while self.in_flight < MAX_IN_FLIGHT {
            if turns.first().is_none_or(|turn| !turn.urgent()) && self.busy(budget) {
                break;
            }
            let Some(turn) = turns.pop_first() else { break };
            if self.ask(now, id, turn.slot, work)
                && let Some(blob) = self.blobs.get(&id)
            {
                turns.extend(self.turn(now, blob, turn.slot, work));
            }
        }
    }

    /// Bytes that may be under way now.
    pub(super) fn budget(&self, cell: u64) -> u64 {
        let worth = self.rate.per_second().map_or(0, |rate| rate.saturating_mul(HORIZON) / SECOND);
        worth.max(cell.saturating_mul(MIN_CELLS)).min(MAX_IN_FLIGHT)
    }

    /// As much is under way as should be. What one neighbour was asked for counts as a quarter of it at most, so that one that has
    /// become slow does not hold up the others.
    fn busy(&self, budget: u64) -> bool {
        self.in_flight >= budget
            && self.peers.values().map(|peer| peer.bytes.min(budget / 4)).sum::<u64>() >= budget
    }

    /// When `slot` has its turn to be asked; `None` if it must not be asked now or has nothing.
    fn turn(&self, now: Time, blob: &Blob, slot: Slot, work: &Work) -> Option<Turn> {
        let view = blob.views.get(&slot).filter(|view| !view.exhausted && view.have.count() > 0)?;
        let offered = view.governed && !view.offers.is_empty();
        let peer = self.peers.get(&slot).filter(|peer| peer.takes_more(now, work, offered))?;
        let wealth = u64::from(view.have.count()) * WEALTH_CLASSES / u64::from(blob.grid.chunks().max(1));
        let import = view.far && blob.imports_wait();
        if view.far && !offered && !import && !self.starving(now, blob.grid.blob()) && !blob.imports_ripe() {
            return None;
        }
        Some(Turn { offered, import, origin: peer.hint.origin || view.far, wealth, load: peer.bytes, slot })
    }

    /// Asks `slot` for one more run; false if there is nothing to ask of it.
    fn ask(&mut self, now: Time, id: BlobId, slot: Slot, work: &Work) -> bool {
        let start = self.rng.below(u32::MAX);
        let Some(blob) = self.blobs.get_mut(&id) else { return false };
        let (Some(fetch), Some(view)) = (&blob.fetch, blob.views.get_mut(&slot)) else { return false };
        let offered = view.governed && !view.offers.is_empty();
        let Some(peer) = self.peers.get(&slot).filter(|peer| peer.takes_more(now, work, offered)) else {
            return false;
        };
        // What our own rack has once is rare in it, however many hold it in others.
        let holders = match blob.imports.as_deref().filter(|_| !view.far) {
            Some(imports) => imports.all_near(),
            None => &blob.holders,
        };
        let choice = Choice {
            missing: &fetch.missing,
            busy: &fetch.busy,
            held: &view.cells,
            holders,
            window: fetch.window(),
            only: None,
        };
        let starving = self.in_flight == 0 && now.since(fetch.progress) >= STARVING;
        let imports = blob.imports.as_ref().filter(|_| view.far && !starving);
        let choice = Choice { only: imports.map(|imports| imports.ripe()), ..choice };
        let start = start % blob.grid.cells().max(1);
        let picked = if view.governed && !starving {
            let choice = Choice { only: None, ..choice.clone() };
            std::iter::from_fn(|| view.offers.pop_front()).find(|&cell| choice.allows(cell))
        } else {
            let first = Choice { window: blob.first.clone(), ..choice.clone() };
            let pressing = (!blob.first.is_empty()).then(|| first.rarest(start)).flatten();
            pressing.or_else(|| choice.rarest(start))
        };
        let mut cells = match picked {
            Some(cell) => cell..cell + 1,
            None => {
                // Cells that no neighbour holds wholly may still come in parts.
                let stray = (view.strays() && imports.is_none()).then(|| {
                    fetch.missing.iter().find(|&cell| {
                        !fetch.busy.has(cell)
                            && blob.holders.get(cell as usize) == Some(&0)
                            && span(&blob.grid, &blob.have, view, cell..cell + 1).is_some()
                    })
                });
                let Some(cell) = stray.flatten() else {
                    view.exhausted = true;
                    return false;
                };
                cell..cell + 1
            }
        };
        // A fast peer is asked for more at once, as long as what follows is as rare.
        let limit = peer.request_size(work);
        let rarity = |cell: u32| holders.get(cell as usize).copied();
        while !view.governed
            && choice.allows(cells.end)
            && choice.window.contains(&cells.end)
            && rarity(cells.end) == rarity(cells.start)
            && bytes(&blob.grid.bytes_of(blob.grid.chunks_of(cells.start..cells.end + 1))) <= limit
        {
            cells.end += 1;
        }
        let Some(run) = span(&blob.grid, &blob.have, view, cells.clone()) else { return false };
        // Only the cells that the run touches are asked for.
        let cells = blob.grid.cells_of(run.chunks());
        self.request(now, id, slot, cells, run);
        true
    }

    fn request(&mut self, now: Time, blob: BlobId, slot: Slot, cells: std::ops::Range<u32>, run: Run) {
        let Some(entry) = self.blobs.get_mut(&blob) else { return };
        let (Some(peer), Some(fetch)) = (self.peers.get_mut(&slot), &mut entry.fetch) else { return };
        let range = entry.grid.bytes_of(run.chunks());
        let size = bytes(&range);
        let expected = peer.expected(size);
        let id = RequestId(self.next_id);
        self.next_id += 1;
        if self.in_flight == 0 {
            self.rate.resumed(now);
        }
        fetch.asked(cells.clone());
        peer.asked(now, size);
        self.in_flight += size;
        let flight = Flight {
            slot,
            blob,
            cells,
            run,
            bytes: size,
            asked: now,
            expected: now.after(expected.saturating_mul(2).saturating_add(RACE_GRACE)),
            deadline: now.after(patience(expected)),
        };
        self.expiries.insert((flight.deadline, id));
        self.flights.insert(id, flight);
        self.outputs.push_back(Output::Request { id, peer: peer.key, blob, run, bytes: range });
        self.tell_import(blob, slot, run);
    }

    /// At the end, asks idle peers for what others are late with.
    fn race(&mut self, now: Time, id: BlobId) {
        let Some(blob) = self.blobs.get(&id) else { return };
        let Some(fetch) = blob.fetch.as_ref().filter(|fetch| fetch.all_asked() && fetch.races() < MAX_RACES)
        else {
            return;
        };
        let mut late: Vec<&Flight> = self
            .flights
            .values()
            .filter(|flight| {
                flight.blob == id && flight.expected <= now && !fetch.raced(flight.cells.clone())
            })
            .collect();
        late.sort_by_key(|flight| flight.expected);
        let mut asks: Vec<(Slot, std::ops::Range<u32>, Run)> = Vec::new();
        for flight in late.into_iter().take(MAX_RACES - fetch.races()) {
            let idle = blob.views.iter().find(|(slot, view)| {
                **slot != flight.slot
                    && !view.governed
                    // What should come from our own rack is not imported because it is late.
                    && (!view.far || blob.is_far(flight.slot))
                    && !asks.iter().any(|(asked, ..)| asked == *slot)
                    && self.peers.get(slot).is_some_and(|peer| peer.requests == 0 && peer.ready(now))
                    && view.have.has_all(flight.run.chunks())
            });
            if let Some((&slot, view)) = idle
                && let Some(run) = span(&blob.grid, &blob.have, view, flight.cells.clone())
            {
                asks.push((slot, blob.grid.cells_of(run.chunks()), run));
            }
        }
        for (slot, cells, run) in asks {
            self.request(now, id, slot, cells, run);
        }
    }
}

/// Whether the neighbours that are fetching `blob` too hold more of it than we do, by a hundredth of it.
fn behind(blob: &Blob) -> bool {
    let (mut held, mut fetching) = (0_u64, 0_u64);
    for view in blob.views.values().filter(|view| view.fetching()) {
        held += u64::from(view.have.count());
        fetching += 1;
    }
    (u64::from(blob.have.count()) + u64::from(blob.grid.chunks()) / 100) * fetching < held
}

fn bytes(range: &std::ops::Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}
