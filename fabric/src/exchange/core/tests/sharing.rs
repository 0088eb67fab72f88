//! One node fetches from peers of different speeds, in virtual time: slow and stalled peers, several blobs at once.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::exchange::core::time::{MS, SECOND};

/// Bytes of a chunk, and of a cell.
const CHUNK: u32 = 32 * 1024;
/// Bytes per second of a peer that is well.
const FAST: u64 = 10_000_000;
/// From a request's leaving to its peer's hearing of it.
const LATENCY: u64 = MS / 2;

/// A peer: answers requests one after the other.
struct Giver {
    /// Bytes per second; a stalled one takes requests and never answers.
    rate: Option<u64>,
    free_at: Time,
    asked: u32,
    gave: BTreeMap<BlobId, u64>,
}

/// A request on its way.
struct Way {
    peer: PeerKey,
    blob: BlobId,
    run: Run,
    bytes: u64,
    comes: Option<Time>,
}

/// The node that fetches, and its peers.
struct Fetcher {
    core: Core,
    now: Time,
    givers: BTreeMap<PeerKey, Giver>,
    ways: BTreeMap<RequestId, Way>,
    /// The blobs that are complete, in that order, and when.
    complete: Vec<(BlobId, Time)>,
}

fn blob_of(number: u8, megabytes: u64) -> Arc<Grid> {
    let chunks = megabytes * 1_000_000 / u64::from(CHUNK);
    Arc::new(Grid::new(blob(number), vec![CHUNK; usize::try_from(chunks).unwrap()]))
}

impl Fetcher {
    fn new(rates: &[Option<u64>]) -> Self {
        let (mut core, mut givers) = (Core::new(3), BTreeMap::new());
        for (number, &rate) in (0..).zip(rates) {
            core.peer_up(Time(0), peer(number), PeerHint::default());
            let giver = Giver { rate, free_at: Time(0), asked: 0, gave: BTreeMap::new() };
            givers.insert(peer(number), giver);
        }
        Self { core, now: Time(0), givers, ways: BTreeMap::new(), complete: Vec::new() }
    }

    fn fetch(&mut self, grid: &Arc<Grid>, priority: Priority, held_by: &[u8]) {
        let chunks = grid.chunks();
        self.core.fetch(self.now, grid, &Bitfield::empty(chunks), priority, Order::Rarest);
        for &number in held_by {
            let message = Message::Bitfield { blob: grid.blob(), have: Bitfield::full(chunks) };
            self.core.message(self.now, peer(number), &message);
        }
    }

    fn take(&mut self, output: Output) {
        match output {
            Output::Request { id, peer, blob, run, bytes } => {
                let bytes = bytes.end - bytes.start;
                let giver = self.givers.get_mut(&peer).unwrap();
                giver.asked += 1;
                let comes = giver.rate.map(|rate| {
                    let begins = giver.free_at.max(self.now.after(LATENCY));
                    giver.free_at = begins.after(bytes * SECOND / rate);
                    giver.free_at
                });
                self.ways.insert(id, Way { peer, blob, run, bytes, comes });
            }
            Output::Cancel(id) => drop(self.ways.remove(&id)),
            Output::Event(ExchangeEvent::BlobComplete { blob }) => self.complete.push((blob, self.now)),
            Output::Send { .. } | Output::Event(_) => {}
        }
    }

    /// Goes on until `blobs` blobs are complete; the microseconds it took.
    fn run(&mut self, blobs: usize) -> u64 {
        self.run_until(|fetcher| fetcher.complete.len() == blobs)
    }

    fn run_until(&mut self, end: impl Fn(&Self) -> bool) -> u64 {
        loop {
            while let Some(output) = self.core.poll() {
                self.take(output);
            }
            if end(self) {
                return self.now.0;
            }
            let next = self.ways.iter().filter_map(|(&id, way)| Some((way.comes?, id))).min();
            let due = self.core.deadline().unwrap_or(Time(u64::MAX));
            match next.filter(|(at, _)| *at <= due) {
                Some((at, id)) => {
                    self.now = self.now.max(at);
                    let Way { peer, blob, run, bytes, .. } = self.ways.remove(&id).unwrap();
                    *self.givers.get_mut(&peer).unwrap().gave.entry(blob).or_default() += bytes;
                    self.core.stored(self.now, blob, run);
                    self.core.finished(self.now, id, Ok(()));
                }
                None => {
                    assert!(due < Time(3600 * SECOND), "nothing will happen: {:?}", self.core.blob_reports());
                    self.now = due.max(self.now.after(1));
                    self.core.tick(self.now);
                }
            }
        }
    }

    /// From now on `number` gives `rate` bytes per second, what it was asked for included.
    fn slow_down(&mut self, number: u8, rate: u64) {
        let mut free_at = self.now;
        for way in self.ways.values_mut().filter(|way| way.peer == peer(number)) {
            free_at = free_at.after(way.bytes * SECOND / rate);
            way.comes = Some(free_at);
        }
        let giver = self.givers.get_mut(&peer(number)).unwrap();
        (giver.rate, giver.free_at) = (Some(rate), free_at);
    }

    fn gave(&self, number: u8) -> u64 {
        self.giver(number).gave.values().sum()
    }

    fn giver(&self, number: u8) -> &Giver {
        &self.givers[&peer(number)]
    }

    fn order(&self) -> Vec<BlobId> {
        self.complete.iter().map(|(blob, _)| *blob).collect()
    }
}

/// Microseconds in which peers of these speeds together bring `megabytes`.
fn ideal(megabytes: u64, rates: &[u64]) -> u64 {
    megabytes * 1_000_000 * SECOND / rates.iter().sum::<u64>()
}

#[track_caller]
fn assert_about(took: u64, ideal: u64) {
    assert!(took * 10 <= ideal * 11, "{took} µs, more than a tenth over {ideal} µs");
}

#[test]
fn a_stalled_peer_is_asked_seldom_and_holds_nothing_up() {
    let mut fetcher = Fetcher::new(&[Some(FAST), None, Some(FAST)]);
    fetcher.fetch(&blob_of(0, 400), Priority::Root, &[0, 1, 2]);
    let took = fetcher.run(1);
    assert_about(took, ideal(400, &[FAST, FAST]));
    let asked = fetcher.giver(1).asked;
    assert!(asked <= 6, "a peer that never answers was asked {asked} times");
    assert!(fetcher.giver(0).asked > 100);
}

#[test]
fn a_peer_that_stalls_in_the_middle_is_left() {
    let mut fetcher = Fetcher::new(&[Some(FAST), Some(FAST)]);
    fetcher.fetch(&blob_of(0, 100), Priority::Root, &[0, 1]);
    fetcher.fetch(&blob_of(1, 400), Priority::Prefetch, &[0, 1]);
    fetcher.run(1);
    let before = fetcher.now;
    let stalled = fetcher.givers.get_mut(&peer(1)).unwrap();
    (stalled.rate, stalled.asked) = (None, 0);
    fetcher.ways.values_mut().filter(|way| way.peer == peer(1)).for_each(|way| way.comes = None);
    fetcher.run(2);
    assert_about(fetcher.now.since(before), ideal(400, &[FAST]));
    let asked = fetcher.giver(1).asked;
    assert!(asked <= 16, "a peer that never answers was asked {asked} times");
}

#[test]
fn a_peer_twenty_times_slower_brings_what_it_can() {
    let slow = FAST / 20;
    let mut fetcher = Fetcher::new(&[Some(slow), Some(FAST), Some(FAST)]);
    fetcher.fetch(&blob_of(0, 200), Priority::Root, &[0, 1, 2]);
    let took = fetcher.run(1);
    assert_about(took, ideal(200, &[slow, FAST, FAST]));
    let gave = fetcher.giver(0).gave[&blob(0)];
    assert!(gave * SECOND / took >= slow / 2, "it was idle: {gave} bytes");
}

#[test]
fn a_peer_whose_queues_made_it_look_fast_holds_nothing_up() {
    for burst in [100_000, 1_000_000, 10_000_000] {
        let mut fetcher = Fetcher::new(&[Some(100 * FAST), Some(FAST), Some(FAST)]);
        fetcher.fetch(&blob_of(0, 100), Priority::Root, &[0]);
        fetcher.run_until(|fetcher| fetcher.gave(0) >= burst);
        let before = fetcher.now;
        fetcher.slow_down(0, FAST / 40);
        let under_way: u64 = fetcher.ways.values().map(|way| way.bytes).sum();
        let gave = fetcher.gave(0);
        assert!(under_way <= 2 * gave, "{under_way} bytes asked of a peer that has given {gave}");
        for number in [1, 2] {
            let have = Bitfield::full(blob_of(0, 100).chunks());
            fetcher.core.message(before, peer(number), &Message::Bitfield { blob: blob(0), have });
        }
        fetcher.run(1);
        assert_about(fetcher.now.since(before), ideal(100, &[FAST; 2]));
    }
}

#[test]
fn blobs_of_different_priority_finish_in_that_order_and_use_all_peers() {
    let mut fetcher = Fetcher::new(&[Some(FAST); 3]);
    for (number, priority) in [(0, Priority::Prefetch), (1, Priority::Root), (2, Priority::Boot)] {
        fetcher.fetch(&blob_of(number, 30), priority, &[0, 1, 2]);
    }
    let took = fetcher.run(3);
    assert_eq!(fetcher.order(), [blob(2), blob(1), blob(0)]);
    assert_about(took, ideal(90, &[FAST; 3]));
    for number in 0..3 {
        let gave: u64 = fetcher.giver(number).gave.values().sum();
        assert!(gave >= 90_000_000 / 5, "peer {number} gave {gave} bytes");
    }
}

#[test]
fn blobs_of_equal_priority_all_finish_and_use_all_peers() {
    let mut fetcher = Fetcher::new(&[Some(FAST); 3]);
    for number in 0..3 {
        fetcher.fetch(&blob_of(number, 30), Priority::Root, &[0, 1, 2]);
    }
    assert_about(fetcher.run(3), ideal(90, &[FAST; 3]));
    assert_eq!(fetcher.order().into_iter().collect::<BTreeSet<_>>().len(), 3);
    for number in 0..3 {
        let gave: u64 = fetcher.giver(number).gave.values().sum();
        assert!(gave >= 90_000_000 / 5, "peer {number} gave {gave} bytes");
    }
}

#[test]
fn peers_that_hold_one_of_several_blobs_bring_that_one() {
    let mut fetcher = Fetcher::new(&[Some(FAST); 3]);
    for number in 0..3 {
        fetcher.fetch(&blob_of(number, 30), Priority::Root, &[number]);
    }
    assert_about(fetcher.run(3), ideal(30, &[FAST]));
}

#[test]
fn an_urgent_blob_that_nobody_brings_holds_no_other_up() {
    let mut fetcher = Fetcher::new(&[None, Some(FAST)]);
    fetcher.fetch(&blob_of(0, 100), Priority::Root, &[0, 1]);
    fetcher.fetch(&blob_of(1, 30), Priority::Boot, &[0]);
    let took = fetcher.run(1);
    assert_eq!(fetcher.order(), [blob(0)]);
    assert_about(took, ideal(100, &[FAST]));
}
