//! Replicas that talk over links which lose messages and break, in virtual time.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::id::Hash;

fn node(n: usize) -> NodeId {
    NodeId(Hash::of(&n.to_be_bytes()))
}

fn record(key: u8, counter: u64, author: usize) -> Record {
    Record { topic: 1, key: vec![key], counter, author: node(author), value: vec![key], age: Duration::ZERO }
}

struct Net {
    now: Instant,
    replicas: Vec<Replica>,
    links: BTreeSet<(usize, usize)>,
    wire: VecDeque<(usize, usize, Words)>,
    sent: usize,
    records_sent: usize,
}

impl Net {
    fn new(nodes: usize) -> Self {
        let replicas = (0..nodes).map(|_| Replica::new(Table::with_capacity(64))).collect();
        Self {
            now: Instant::now(),
            replicas,
            links: BTreeSet::new(),
            wire: VecDeque::new(),
            sent: 0,
            records_sent: 0,
        }
    }

    fn full(nodes: usize) -> Self {
        let mut net = Self::new(nodes);
        for a in 0..nodes {
            for b in a + 1..nodes {
                net.link(a, b);
            }
        }
        net
    }

    fn link(&mut self, a: usize, b: usize) {
        if a != b && self.links.insert((a.min(b), a.max(b))) {
            let (da, db) = (self.replicas[a].digest(), self.replicas[b].digest());
            self.replicas[a].peer_up(node(b), db);
            self.replicas[b].peer_up(node(a), da);
            self.tell_neighbours();
        }
    }

    fn cut(&mut self, a: usize, b: usize) {
        if self.links.remove(&(a.min(b), a.max(b))) {
            self.replicas[a].peer_down(node(b));
            self.replicas[b].peer_down(node(a));
            self.wire.retain(|(from, to, _)| (from.min(to), from.max(to)) != (&a.min(b), &a.max(b)));
            self.tell_neighbours();
        }
    }

    fn tell_neighbours(&mut self) {
        let of = |n: usize| -> BTreeSet<NodeId> {
            self.links
                .iter()
                .filter(|l| l.0 == n || l.1 == n)
                .map(|l| node(if l.0 == n { l.1 } else { l.0 }))
                .collect()
        };
        for (a, b) in self.links.clone() {
            let (na, nb) = (of(a), of(b));
            self.replicas[a].neighbours_of(node(b), nb);
            self.replicas[b].neighbours_of(node(a), na);
        }
    }

    fn act(&mut self, from: usize, actions: Vec<Action>) {
        for action in actions {
            if let Action::Send(to, words) = action {
                for to in to {
                    let to = (0..self.replicas.len()).find(|n| node(*n) == to).unwrap();
                    self.sent += 1;
                    if let Words::Records { records, .. } = &words {
                        self.records_sent += records.len();
                    }
                    self.wire.push_back((from, to, words.clone()));
                }
            }
        }
    }

    fn deliver(&mut self, mut lose: impl FnMut() -> bool) {
        while let Some((from, to, words)) = self.wire.pop_front() {
            if !lose() {
                let actions = self.replicas[to].hear(node(from), words, self.now);
                self.act(to, actions);
            }
        }
    }

    fn step(&mut self, by: Duration, mut lose: impl FnMut() -> bool) {
        self.now += by;
        for n in 0..self.replicas.len() {
            let actions = self.replicas[n].poll(self.now);
            self.act(n, actions);
        }
        self.deliver(&mut lose);
    }

    fn ping(&mut self) {
        for (a, b) in self.links.clone() {
            let (da, db) = (self.replicas[a].digest(), self.replicas[b].digest());
            self.replicas[a].digest_of(node(b), db);
            self.replicas[b].digest_of(node(a), da);
        }
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            self.ping();
            self.step(PULL_AGAIN, || false);
        }
    }

    fn digests(&self) -> BTreeSet<u64> {
        self.replicas.iter().map(Replica::digest).collect()
    }
}

#[test]
fn in_a_full_mesh_a_record_crosses_each_link_of_its_author_once() {
    let mut net = Net::full(10);
    net.replicas[3].put(record(1, 1, 3), net.now).unwrap();
    net.step(BATCH, || false);
    net.step(BATCH, || false);
    assert_eq!(net.digests().len(), 1);
    assert_eq!(net.records_sent, 9);
}

#[test]
fn along_a_chain_a_record_reaches_the_end() {
    let mut net = Net::new(8);
    for n in 1..8 {
        net.link(n - 1, n);
    }
    net.replicas[0].put(record(1, 1, 0), net.now).unwrap();
    for _ in 0..8 {
        net.step(BATCH, || false);
    }
    assert_eq!(net.digests().len(), 1);
    assert_eq!(net.records_sent, 7);
}

#[test]
fn a_newcomer_with_many_neighbours_fetches_the_table_once() {
    let mut net = Net::full(12);
    for key in 0..40 {
        net.replicas[0].put(record(key, 1, 0), net.now).unwrap();
    }
    net.settle();
    net.replicas.push(Replica::new(Table::with_capacity(64)));
    net.records_sent = 0;
    for n in 0..12 {
        net.link(n, 12);
    }
    net.settle();
    assert_eq!(net.digests().len(), 1);
    assert_eq!(net.records_sent, 40);
    net.sent = 0;
    net.settle();
    assert_eq!(net.sent, 0, "agreement is silent");
}

#[test]
fn islands_that_meet_over_one_link_agree() {
    let mut net = Net::new(8);
    for (a, b) in [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7)] {
        net.link(a, b);
    }
    for n in 0..8 {
        net.replicas[n].put(record(7, n as u64, n), net.now).unwrap();
        net.replicas[n].put(record(10 + n as u8, 1, n), net.now).unwrap();
    }
    net.settle();
    assert_eq!(net.digests().len(), 2);
    net.link(3, 4);
    net.settle();
    assert_eq!(net.digests().len(), 1);
}

#[test]
fn a_pull_is_answered_within_bounds_and_not_again_at_once() {
    let now = Instant::now();
    let mut replica = Replica::new(Table::default());
    let put = |replica: &mut Replica, key: u32| {
        let record = Record { key: key.to_be_bytes().to_vec(), value: vec![0; 256], ..record(0, 1, 0) };
        replica.put(record, now).unwrap();
    };
    for key in 0..8000 {
        put(&mut replica, key);
    }
    replica.peer_up(node(1), 0);
    let answer = replica.hear(node(1), Words::Pull(Box::new(Digests([0; BUCKETS]))), now);
    let len: usize = answer
        .iter()
        .map(|action| match action {
            Action::Send(_, Words::Records { records, .. }) => {
                let len = records.iter().map(Record::wire_len).sum::<usize>();
                assert!(len <= MAX_BATCH_LEN);
                len
            }
            _ => 0,
        })
        .sum();
    assert!(len > MAX_ANSWER_LEN / 2 && len <= MAX_ANSWER_LEN);
    assert!(matches!(answer.last(), Some(Action::Send(_, Words::PullEnd { complete: false, .. }))));
    assert_eq!(replica.hear(node(1), Words::Pull(Box::new(Digests([0; BUCKETS]))), now), []);
}

#[derive(Debug, Clone)]
enum Event {
    Put(usize, u8, u64),
    Link(usize, usize),
    Cut(usize, usize),
    Step(u64),
    Ping,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..5usize, 0..8u8, 0..4u64).prop_map(|(n, key, counter)| Event::Put(n, key, counter)),
        2 => (0..5usize, 0..5usize).prop_map(|(a, b)| Event::Link(a, b)),
        1 => (0..5usize, 0..5usize).prop_map(|(a, b)| Event::Cut(a, b)),
        4 => (1..4000u64).prop_map(Event::Step),
        1 => Just(Event::Ping),
    ]
}

proptest! {
    #[test]
    fn replicas_agree_after_loss_and_reconnection(
        events in prop::collection::vec(event(), 0..60),
        losses in prop::collection::vec(any::<bool>(), 1..40),
    ) {
        let mut net = Net::new(5);
        let mut losses = losses.into_iter().cycle();
        for event in events {
            match event {
                Event::Put(n, key, counter) => { let _ = net.replicas[n].put(record(key, counter, n), net.now); }
                Event::Link(a, b) => net.link(a, b),
                Event::Cut(a, b) => net.cut(a, b),
                Event::Step(ms) => net.step(Duration::from_millis(ms), || losses.next() == Some(true)),
                Event::Ping => net.ping(),
            }
        }
        for n in 1..5 {
            net.link(n - 1, n);
        }
        net.settle();
        prop_assert_eq!(net.digests().len(), 1);
    }
}

#[test]
fn a_lost_answer_is_asked_for_again() {
    let mut net = Net::new(2);
    net.replicas[0].put(record(0, 0, 0), net.now).unwrap();
    net.step(BATCH, || false);
    net.link(0, 1);
    let mut deliveries = 0;
    net.step(BATCH, || {
        deliveries += 1;
        deliveries == 2
    });
    assert_eq!(net.digests().len(), 2);
    net.settle();
    assert_eq!(net.digests().len(), 1);
}
