//! Nodes that keep shares, against a model that knows what each of them really has: nothing falls below k by what is given
//! back, whatever is delayed, and no more than k stay.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;
use crate::exchange::core::time::SECOND;

const CHUNKS: u32 = 300;

/// A node: its core, and what is really in its store.
struct Node {
    core: Core,
    store: Bitfield,
    links: BTreeSet<usize>,
    alive: bool,
    sharing: bool,
}

/// All nodes and what is between them. The first is the one that the others began with; it shares nothing.
struct Swarm {
    now: Time,
    grid: Arc<Grid>,
    copies: u8,
    nodes: Vec<Node>,
    mail: BTreeMap<(usize, usize), VecDeque<Message>>,
    asked: Vec<(usize, RequestId, usize, Run)>,
    /// Deaths that some may not have heard of.
    unheard: usize,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Boots,
    Delivered(usize, u8),
    Answered(usize),
    Reviews(usize),
    Shares(usize),
    Flaps(usize, usize),
    Passes(u64),
    /// A sharer dies; how it was chosen.
    Dies(usize),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => Just(Event::Boots),
        12 => (any::<usize>(), 1_u8..30).prop_map(|(which, count)| Event::Delivered(which, count)),
        12 => any::<usize>().prop_map(Event::Answered),
        6 => any::<usize>().prop_map(Event::Reviews),
        2 => any::<usize>().prop_map(Event::Shares),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Event::Flaps(one, other)),
        3 => (0..8 * SECOND).prop_map(Event::Passes),
    ]
}

fn key(node: usize) -> PeerKey {
    NodeId(Hash::of(&node.to_be_bytes()))
}

impl Swarm {
    fn new(copies: u8) -> Self {
        let grid = grid(1, CHUNKS);
        let mut swarm = Self {
            now: Time(1),
            grid,
            copies,
            nodes: Vec::new(),
            mail: BTreeMap::new(),
            asked: Vec::new(),
            unheard: 0,
        };
        swarm.join(Bitfield::full(CHUNKS));
        swarm
    }

    fn id(&self) -> BlobId {
        self.grid.blob()
    }

    fn join(&mut self, store: Bitfield) -> usize {
        let number = self.nodes.len();
        let mut core = Core::new(number as u64 + 1);
        core.seed(self.now, &self.grid, &store);
        self.nodes.push(Node { core, store, links: BTreeSet::new(), alive: true, sharing: false });
        for other in 0..number {
            if self.nodes[other].alive {
                self.connect(number, other);
            }
        }
        number
    }

    fn connect(&mut self, one: usize, other: usize) {
        for (node, peer) in [(one, other), (other, one)] {
            self.nodes[node].links.insert(peer);
            self.nodes[node].core.peer_up(self.now, key(peer), PeerHint::default());
            self.act(node);
        }
    }

    fn disconnect(&mut self, one: usize, other: usize) {
        for (node, peer) in [(one, other), (other, one)] {
            self.mail.remove(&(node, peer));
            self.asked.retain(|(asker, _, asked, _)| (*asker, *asked) != (node, peer));
            self.nodes[node].links.remove(&peer);
            if self.nodes[node].alive {
                self.nodes[node].core.peer_down(self.now, key(peer));
                self.act(node);
            }
        }
    }

    fn boot(&mut self) {
        let number = self.join(Bitfield::empty(CHUNKS));
        let grid = Arc::clone(&self.grid);
        let node = &mut self.nodes[number];
        node.core.fetch(self.now, &grid, &node.store, Priority::Root, Order::Rarest);
        self.act(number);
    }

    fn act(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].core.poll() {
            let number = |swarm: &Self, peer: PeerKey| {
                (0..swarm.nodes.len()).find(|&other| key(other) == peer).unwrap()
            };
            match output {
                Output::Request { id, peer, run, .. } => {
                    let peer = number(self, peer);
                    self.asked.push((node, id, peer, run));
                }
                Output::Cancel(id) => self.asked.retain(|(asker, asked, ..)| (*asker, *asked) != (node, id)),
                Output::Send { to, message } => {
                    let to = number(self, to);
                    if self.nodes[node].links.contains(&to) {
                        self.mail.entry((node, to)).or_default().push_back(message);
                    }
                }
                Output::Event(ExchangeEvent::PeerBanned { why, .. }) => {
                    panic!("an honest node is banned: {why}")
                }
                Output::Event(_) => {}
            }
        }
    }

    fn deliver(&mut self, which: usize, count: u8) {
        let ways: Vec<_> =
            self.mail.iter().filter(|(_, mail)| !mail.is_empty()).map(|(way, _)| *way).collect();
        if ways.is_empty() {
            return;
        }
        let (from, to) = ways[which % ways.len()];
        for _ in 0..count {
            let Some(message) = self.mail.get_mut(&(from, to)).and_then(VecDeque::pop_front) else { return };
            self.nodes[to].core.message(self.now, key(from), &message);
            self.act(to);
        }
    }

    fn answer(&mut self, which: usize) {
        if self.asked.is_empty() {
            return;
        }
        let (node, id, peer, run) = self.asked.swap_remove(which % self.asked.len());
        let held = self.nodes[peer].store.has_all(run.chunks());
        let (now, blob, asker) = (self.now, self.id(), &mut self.nodes[node]);
        if held {
            run.chunks().for_each(|chunk| {
                asker.store.insert(chunk);
            });
            asker.core.stored(now, blob, run);
        }
        asker.core.finished(now, id, if held { Ok(()) } else { Err(Failure::NotHeld) });
        self.act(node);
    }

    fn share(&mut self, which: usize) {
        let blob = self.id();
        let ready = |node: &Node| node.alive && !node.sharing;
        let ready: Vec<_> = (1..self.nodes.len()).filter(|&node| ready(&self.nodes[node])).collect();
        if ready.is_empty() {
            return;
        }
        let node = ready[which % ready.len()];
        self.nodes[node].sharing = true;
        // One that its process before left with a part has no fetch either.
        self.nodes[node].core.stop(self.now, blob);
        self.nodes[node].core.share(self.now, blob, key(node), self.copies);
        self.act(node);
    }

    fn sharers(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].alive && self.nodes[node].sharing).collect()
    }

    fn holders(&self, chunk: u32) -> usize {
        self.sharers().iter().filter(|&&node| self.nodes[node].store.has(chunk)).count()
    }

    fn review(&mut self, node: usize) {
        let (now, blob) = (self.now, self.id());
        let Some(review) = self.nodes[node].core.review(now, blob, u64::MAX) else { return };
        for chunk in review.release.iter().flat_map(|run| run.chunks()) {
            assert!(self.nodes[node].store.remove(chunk), "given back twice");
            let left = self.holders(chunk);
            assert!(left + self.unheard >= usize::from(self.copies), "chunk {chunk} is left to {left}");
        }
        self.act(node);
    }

    fn happens(&mut self, event: Event) {
        let sharers = self.sharers();
        match event {
            Event::Boots if self.nodes.len() < 9 => self.boot(),
            Event::Boots => {}
            Event::Delivered(which, count) => self.deliver(which, count),
            Event::Answered(which) => self.answer(which),
            Event::Shares(which) => self.share(which),
            Event::Reviews(which) if !sharers.is_empty() => self.review(sharers[which % sharers.len()]),
            Event::Flaps(one, other) if sharers.len() > 1 => {
                let (one, other) = (sharers[one % sharers.len()], sharers[other % sharers.len()]);
                if one != other {
                    self.disconnect(one, other);
                    self.connect(one, other);
                }
            }
            Event::Dies(which) if !sharers.is_empty() => {
                self.die(sharers[which % sharers.len()]);
                self.unheard += 1;
            }
            Event::Reviews(_) | Event::Flaps(..) | Event::Dies(_) => {}
            Event::Passes(time) => self.pass(time),
        }
    }

    fn pass(&mut self, time: u64) {
        self.now = self.now.after(time);
        for node in (0..self.nodes.len()).filter(|&node| self.nodes[node].alive).collect::<Vec<_>>() {
            self.nodes[node].core.tick(self.now);
            self.act(node);
        }
    }

    fn die(&mut self, node: usize) {
        self.nodes[node].alive = false;
        for other in self.nodes[node].links.clone() {
            self.disconnect(node, other);
        }
    }

    fn arrive(&mut self) {
        while !self.mail.values().all(VecDeque::is_empty) || !self.asked.is_empty() {
            self.deliver(0, 255);
            self.answer(0);
        }
    }

    /// Everything that is under way arrives, and time passes until nothing happens any more.
    fn settle(&mut self) {
        let blob = self.id();
        let fetches = |node: &Node| node.alive && !node.sharing && !node.core.complete(&blob);
        while self.nodes.iter().any(fetches) {
            self.arrive();
            self.pass(SECOND / 10);
        }
        for _ in 0..25 {
            self.arrive();
            self.share(0);
            self.sharers().into_iter().for_each(|node| self.review(node));
            self.pass(5 * SECOND);
        }
        self.unheard = 0;
    }

    /// Each chunk is where it should be, and nowhere else.
    fn settled(&mut self) {
        self.settle();
        let sharers = self.sharers();
        let expected = sharers.len().min(usize::from(self.copies));
        for chunk in 0..CHUNKS {
            assert_eq!(self.holders(chunk), expected, "chunk {chunk} of {} sharers", sharers.len());
        }
        for node in sharers {
            let state = &mut self.nodes[node];
            let (blob, now) = (self.grid.blob(), self.now);
            let report = state.core.review(now, blob, u64::MAX).unwrap().report;
            assert_eq!((report.lacking, report.wanted), (0, report.held));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// However late news are, and whoever comes: what is given back is never missed.
    #[test]
    fn giving_back_leaves_k_copies(
        copies in 1_u8..4,
        first in 1_usize..6,
        events in prop::collection::vec(any_event(), 0..400),
    ) {
        let mut swarm = Swarm::new(copies);
        for _ in 0..first {
            swarm.boot();
        }
        events.into_iter().for_each(|event| swarm.happens(event));
        swarm.settled();
    }

    /// Deaths one at a time, amid anything: the blob lives on without the node that brought it, and each chunk has its copies again.
    #[test]
    fn what_the_dead_held_is_fetched_again(
        rounds in prop::collection::vec((prop::collection::vec(any_event(), 0..60), any::<usize>(), any::<bool>()), 1..6),
    ) {
        let mut swarm = Swarm::new(2);
        (0..4).for_each(|_| swarm.boot());
        swarm.settled();
        swarm.die(0);
        for (events, who, boots) in rounds {
            let at = events.len() / 2;
            for (number, event) in events.into_iter().enumerate() {
                if number == at && swarm.sharers().len() > 2 {
                    swarm.happens(Event::Dies(who));
                }
                swarm.happens(event);
            }
            if boots {
                swarm.boot();
            }
            swarm.settled();
        }
    }
}

/// A neighbour that hands over to its next process is away for a moment: nobody fetches for that.
#[test]
fn a_short_absence_moves_nothing() {
    let mut swarm = Swarm::new(2);
    (0..4).for_each(|_| swarm.boot());
    swarm.settled();
    let before: Vec<_> = swarm.nodes.iter().map(|node| node.store.count()).collect();
    for other in [0, 2, 3, 4] {
        swarm.disconnect(1, other);
    }
    for _ in 0..3 {
        swarm.pass(5 * SECOND);
        swarm.sharers().into_iter().for_each(|node| swarm.review(node));
        assert!(swarm.asked.is_empty());
    }
    for other in [0, 2, 3, 4] {
        swarm.connect(1, other);
    }
    swarm.settled();
    assert_eq!(before, swarm.nodes.iter().map(|node| node.store.count()).collect::<Vec<_>>());
}

#[test]
fn without_room_nothing_is_fetched_and_it_is_said() {
    let mut swarm = Swarm::new(2);
    (0..3).for_each(|_| swarm.boot());
    swarm.settled();
    swarm.die(3);
    swarm.pass(40 * SECOND);
    let (now, blob) = (swarm.now, swarm.id());
    let report = swarm.nodes[1].core.review(now, blob, 0).unwrap().report;
    assert!(report.lacking > 0 && report.no_room == report.lacking, "{report:?}");
    swarm.act(1);
    assert!(swarm.asked.is_empty());
    swarm.settled();
}
