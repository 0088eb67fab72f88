//! Property tests of the core: hostile neighbours, lost peers, and that every fetch ends while one honest peer lives.

mod first;
mod racks;
mod shares;
mod sharing;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::exchange::ban::BadChunk;
use crate::id::Hash;

fn peer(number: u8) -> PeerKey {
    NodeId(Hash::of(&[number]))
}

fn blob(number: u8) -> BlobId {
    BlobId(Hash::of(&[number, 0]))
}

fn grid(number: u8, chunks: u32) -> Arc<Grid> {
    Arc::new(Grid::new(blob(number), vec![20_000; chunks as usize]))
}

fn bad_chunk(blob: BlobId, chunk: u32) -> BadChunk {
    BadChunk { blob, chunk, expected: Hash::of(b"true"), got: Hash::of(b"false") }
}

fn drain(core: &mut Core) -> Vec<Output> {
    std::iter::from_fn(|| core.poll()).collect()
}

fn any_run() -> impl Strategy<Value = Run> {
    prop_oneof![
        (0_u32..120, 0_u32..120).prop_map(|(first, count)| Run { first, count }),
        (any::<u32>(), any::<u32>()).prop_map(|(first, count)| Run { first, count }),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    let runs = prop::collection::vec(any_run(), 0..6);
    (0_u8..3, runs, 0_u32..140, 0_u8..9).prop_map(|(number, runs, len, kind)| {
        let blob = blob(number);
        match kind {
            0 => Message::Bitfield { blob, have: Bitfield::full(if len > 70 { 100 } else { len }) },
            1 => Message::Have { blob, runs },
            2 => Message::Interested { blob },
            3 => Message::NotInterested { blob },
            4 => Message::Fetching { blob, runs },
            5 => Message::Dropped { blob },
            6 => Message::Offer { blob, runs },
            7 => Message::Open { blob },
            _ => Message::Sharing { blob, rule: u8::from(len < 100) },
        }
    })
}

/// Something that happens to a core.
#[derive(Debug, Clone)]
enum Step {
    Says(u8, Message),
    Up(u8),
    Down(u8),
    /// The oldest request ends so.
    Ends(u8),
    Passes(u64),
    Fetch(u8),
    Stop(u8),
    Share(u8),
    Review(u8, u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..5, any_message()).prop_map(|(peer, message)| Step::Says(peer, message)),
        2 => (0_u8..5).prop_map(Step::Up),
        1 => (0_u8..5).prop_map(Step::Down),
        6 => (0_u8..8).prop_map(Step::Ends),
        2 => (0_u64..5_000_000).prop_map(Step::Passes),
        1 => (0_u8..2).prop_map(Step::Fetch),
        1 => (0_u8..2).prop_map(Step::Stop),
        1 => (0_u8..2).prop_map(Step::Share),
        2 => (0_u8..2, 0_u64..3_000_000).prop_map(|(blob, room)| Step::Review(blob, room)),
    ]
}

/// A core and the requests that it has made and not taken back.
struct World {
    core: Core,
    now: Time,
    requests: BTreeMap<RequestId, (PeerKey, BlobId, Run)>,
}

impl World {
    fn new() -> Self {
        Self { core: Core::new(7), now: Time(1), requests: BTreeMap::new() }
    }

    /// Takes the outputs in; every request must be one that can be made.
    fn settle(&mut self) -> Vec<Output> {
        let outputs = drain(&mut self.core);
        for output in &outputs {
            match output {
                Output::Request { id, peer, blob, run, bytes } => {
                    assert!(run.count > 0 && !bytes.is_empty() && run.chunks().end <= 100, "{output:?}");
                    assert!(self.requests.insert(*id, (*peer, *blob, *run)).is_none(), "{id:?} twice");
                }
                Output::Cancel(id) => assert!(self.requests.remove(id).is_some(), "{id:?} was not under way"),
                Output::Send { .. } | Output::Event(_) => {}
            }
        }
        outputs
    }

    fn step(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Says(from, message) => self.core.message(now, peer(from), &message),
            Step::Up(number) => self.core.peer_up(now, peer(number), PeerHint::default()),
            Step::Down(number) => self.core.peer_down(now, peer(number)),
            Step::Ends(how) => {
                let Some((id, (_, blob, run))) = self.requests.pop_first() else { return };
                let result = match how {
                    0 => Err(Failure::NotHeld),
                    1 => Err(Failure::Refused { retry_after: std::time::Duration::from_secs(1) }),
                    2 => Err(Failure::Transport("gone".into())),
                    3 => Err(Failure::Protocol("nonsense".into())),
                    4 => Err(Failure::BadChunk(bad_chunk(blob, run.first))),
                    _ => {
                        self.core.stored(now, blob, run);
                        Ok(())
                    }
                };
                self.core.finished(now, id, result);
            }
            Step::Passes(micros) => {
                self.now = now.after(micros);
                self.core.tick(self.now);
            }
            Step::Fetch(number) => {
                let have = Bitfield::empty(100);
                self.core.fetch(now, &grid(number, 100), &have, Priority::Root, Order::Rarest);
            }
            Step::Stop(number) => self.core.stop(now, blob(number)),
            Step::Share(number) => self.core.share(now, blob(number), peer(100), 2),
            Step::Review(number, room) => drop(self.core.review(now, blob(number), room)),
        }
        self.settle();
    }

    /// Answers everything honestly until nothing is left to do.
    fn finish(&mut self, honest: PeerKey, id: BlobId) {
        for _ in 0..10_000 {
            self.settle();
            if self.core.complete(&id) {
                return;
            }
            let now = self.now;
            match self.requests.pop_first() {
                Some((request, (from, blob, run))) if from == honest => {
                    self.core.stored(now, blob, run);
                    self.core.finished(now, request, Ok(()));
                }
                Some((request, _)) => {
                    self.core.finished(now, request, Err(Failure::Transport("silence".into())));
                }
                None => {
                    let deadline = self.core.deadline().expect("nothing under way and nothing to wait for");
                    self.now = deadline.max(now.after(1));
                    self.core.tick(self.now);
                }
            }
        }
        panic!("not complete: {:?}", self.core.blob_reports());
    }
}

proptest! {
    #[test]
    fn anything_may_happen_and_the_fetch_still_ends(steps in prop::collection::vec(any_step(), 0..120)) {
        let mut world = World::new();
        world.step(Step::Fetch(0));
        for step in steps {
            world.step(step);
        }
        // Then one honest peer that holds everything, among whoever is left.
        world.step(Step::Fetch(0));
        let honest = peer(99);
        world.core.peer_up(world.now, honest, PeerHint::default());
        world.core.message(world.now, honest, &Message::Bitfield { blob: blob(0), have: Bitfield::full(100) });
        world.finish(honest, blob(0));
    }

    /// What is looked at after each input is less than everything, and must be enough.
    #[test]
    fn nothing_that_could_be_asked_is_left(steps in prop::collection::vec(any_step(), 0..120)) {
        let mut world = World::new();
        world.step(Step::Fetch(0));
        for step in steps {
            world.step(step.clone());
            world.core.schedule(world.now);
            let more = world.settle().into_iter().find(|output| matches!(output, Output::Request { .. }));
            prop_assert_eq!(more, None, "after {:?}", step);
        }
    }

    #[test]
    fn the_same_inputs_give_the_same_outputs(steps in prop::collection::vec(any_step(), 0..60)) {
        let run = || {
            let mut world = World::new();
            steps.iter().cloned().for_each(|step| world.step(step));
            world.core.tick(world.now.after(1_000_000));
            world.settle()
        };
        prop_assert_eq!(run(), run());
    }
}

/// A core that fetches blob 0 and knows `peers` neighbours.
fn fetching(peers: u8) -> World {
    let mut world = World::new();
    for number in 0..peers {
        world.step(Step::Up(number));
    }
    world.step(Step::Fetch(0));
    world
}

fn says(world: &mut World, from: u8, message: Message) {
    world.step(Step::Says(from, message));
}

#[test]
fn chunks_that_no_peer_holds_in_one_piece_are_put_together() {
    let mut world = fetching(2);
    // Cells are two chunks here: one peer has the even ones, the other the odd ones.
    for number in 0..2_u8 {
        let mut have = Bitfield::empty(100);
        (0..100).filter(|chunk| chunk % 2 == u32::from(number)).for_each(|chunk| {
            have.insert(chunk);
        });
        says(&mut world, number, Message::Bitfield { blob: blob(0), have });
    }
    for _ in 0..200 {
        world.step(Step::Ends(7));
    }
    assert!(world.core.complete(&blob(0)));
}

#[test]
fn a_governing_seeder_is_asked_for_what_it_offers_only() {
    let mut world = fetching(1);
    says(&mut world, 0, Message::Offer { blob: blob(0), runs: vec![] });
    says(&mut world, 0, Message::Bitfield { blob: blob(0), have: Bitfield::full(100) });
    assert!(world.requests.is_empty());
    says(&mut world, 0, Message::Offer { blob: blob(0), runs: vec![Run { first: 10, count: 2 }] });
    assert_eq!(
        world.requests.values().map(|request| request.2).collect::<Vec<_>>(),
        [Run { first: 10, count: 2 }]
    );
    says(&mut world, 0, Message::Open { blob: blob(0) });
    assert!(world.requests.len() > 1);
}

#[test]
fn who_is_behind_asks_for_more_at_once() {
    for (held, requests) in [(1, 1), (40, 2)] {
        let mut world = fetching(5);
        for number in 0..5_u8 {
            let mut have = Bitfield::empty(100);
            (0..held).for_each(|chunk| {
                have.insert(chunk);
            });
            // One that has all is no measure.
            let have = if number == 4 { Bitfield::full(100) } else { have };
            says(&mut world, number, Message::Interested { blob: blob(0) });
            says(&mut world, number, Message::Bitfield { blob: blob(0), have });
        }
        let asked = world.requests.values().filter(|request| request.0 == peer(4)).count();
        assert_eq!(asked, requests, "{:?}", world.requests);
    }
}

#[test]
fn a_flood_of_offences_is_the_end() {
    let mut world = fetching(1);
    for _ in 0..100 {
        says(&mut world, 0, Message::Bitfield { blob: blob(0), have: Bitfield::full(7) });
    }
    assert!(world.core.peer_reports()[0].banned);
    says(&mut world, 0, Message::Bitfield { blob: blob(0), have: Bitfield::full(100) });
    assert!(world.requests.is_empty());
}

#[test]
fn interest_in_an_unknown_blob_is_remembered() {
    let mut core = Core::new(1);
    core.peer_up(Time(0), peer(1), PeerHint::default());
    core.message(Time(0), peer(1), &Message::Interested { blob: blob(0) });
    assert!(drain(&mut core).is_empty());
    core.seed(Time(1), &grid(0, 100), &Bitfield::full(100));
    let have = Message::Bitfield { blob: blob(0), have: Bitfield::full(100) };
    assert!(drain(&mut core).contains(&Output::Send { to: peer(1), message: have }));
}

#[test]
fn what_is_urgent_does_not_wait_for_what_is_not() {
    let mut world = World::new();
    let wanted = [(0, Priority::Root), (1, Priority::Boot)];
    world.step(Step::Up(0));
    for (number, priority) in wanted {
        world.core.fetch(world.now, &grid(number, 1000), &Bitfield::empty(1000), priority, Order::Rarest);
    }
    for (number, _) in wanted {
        let have = Bitfield::full(1000);
        world.core.message(world.now, peer(0), &Message::Bitfield { blob: blob(number), have });
    }
    let mut early = 0;
    while !world.core.complete(&blob(1)) {
        for output in drain(&mut world.core) {
            if let Output::Request { id, peer, blob, run, .. } = output {
                world.requests.insert(id, (peer, blob, run));
            }
        }
        let (id, (_, from, run)) = world.requests.pop_first().expect("something is under way");
        early += u32::from(from == blob(0)) * run.count;
        world.now = world.now.after(1000);
        world.core.stored(world.now, from, run);
        world.core.finished(world.now, id, Ok(()));
    }
    assert!(early < 200, "{early} chunks of the root came before the boot blob was complete");
}

#[test]
fn a_liar_is_banned_with_proof_and_nobody_else_is() {
    let mut world = fetching(2);
    for number in 0..2 {
        says(&mut world, number, Message::Bitfield { blob: blob(0), have: Bitfield::full(100) });
    }
    let (id, run) = request_of(&world, peer(0)).expect("the liar is asked");
    let proof = bad_chunk(blob(0), run.first);
    world.requests.remove(&id);
    world.core.finished(world.now, id, Err(Failure::BadChunk(proof)));
    let outputs = world.settle();
    let told = ExchangeEvent::BadChunk {
        blob: blob(0),
        peer: peer(0),
        chunk: run.first,
        expected: proof.expected,
        got: proof.got,
    };
    assert!(outputs.contains(&Output::Event(told)), "{outputs:?}");
    // What it was asked for besides is taken back; what the other one was asked for is not.
    assert!(request_of(&world, peer(0)).is_none() && request_of(&world, peer(1)).is_some());
    for round in 0..3 {
        let bans = world.core.bans();
        assert_eq!(bans.keys().collect::<Vec<_>>(), [&peer(0)], "round {round}");
        assert_eq!(bans.values().map(|ban| ban.proof).collect::<Vec<_>>(), [Some(proof)]);
        world.step(Step::Down(0));
        assert_eq!(world.core.peer_reports().len(), 1, "who is gone takes no place");
        world.step(Step::Up(0));
        says(&mut world, 0, Message::Bitfield { blob: blob(0), have: Bitfield::full(100) });
        assert!(request_of(&world, peer(0)).is_none());
    }
    world.finish(peer(1), blob(0));
}

/// A request under way at `of`.
fn request_of(world: &World, of: PeerKey) -> Option<(RequestId, Run)> {
    world.requests.iter().find(|(_, (peer, ..))| *peer == of).map(|(&id, &(.., run))| (id, run))
}

/// Two peers are asked for the same cells, as at the end of a fetch; the one that lies is found out first or last.
#[test]
fn in_a_race_only_the_liar_is_blamed() {
    for liar_first in [true, false] {
        let mut world = fetching(1);
        says(&mut world, 0, Message::Bitfield { blob: blob(0), have: Bitfield::full(100) });
        // Peer 0 brings all but what it is asked for last, and is late with that.
        while !world.core.blobs[&blob(0)].fetch.as_ref().unwrap().all_asked() {
            world.step(Step::Ends(7));
        }
        world.step(Step::Up(1));
        says(&mut world, 1, Message::Bitfield { blob: blob(0), have: Bitfield::full(100) });
        world.step(Step::Passes(1_900_000));
        let (race, raced) = request_of(&world, peer(1)).expect("what is late is raced");
        let late = world
            .requests
            .iter()
            .find(|(_, (of, _, run))| *of == peer(0) && run.chunks().contains(&raced.first));
        let late = *late.expect("peer 0 is not given up yet").0;
        let (liar, honest) = if liar_first { (late, race) } else { (race, late) };
        let (liars, honests) = if liar_first { (peer(0), peer(1)) } else { (peer(1), peer(0)) };
        let lie = Err(Failure::BadChunk(bad_chunk(blob(0), raced.first)));
        world.requests.remove(&liar);
        world.core.finished(world.now, liar, lie);
        world.settle();
        assert!(world.requests.contains_key(&honest), "the honest request goes on");
        assert_eq!(world.core.bans().into_keys().collect::<Vec<_>>(), [liars]);
        world.finish(honests, blob(0));
    }
}

#[test]
fn what_is_denied_together_is_one_offence_and_a_liar_is_found_out_all_the_same() {
    let mut world = fetching(1);
    let full = Message::Bitfield { blob: blob(0), have: Bitfield::full(100) };
    says(&mut world, 0, full.clone());
    let asked = world.requests.len();
    assert!(asked > 1);
    let offences = |world: &World| world.core.peer_reports().first().map(|peer| (peer.offences, peer.banned));
    for _ in 0..asked {
        world.step(Step::Ends(0));
    }
    assert_eq!(offences(&world), Some((1, false)));
    // It goes on saying that it holds everything, and denies whatever it is asked for.
    for _ in 0..1000 {
        if world.requests.is_empty() {
            says(&mut world, 0, full.clone());
        }
        world.step(Step::Ends(0));
    }
    assert_eq!(offences(&world).map(|(_, banned)| banned), Some(true));
}
