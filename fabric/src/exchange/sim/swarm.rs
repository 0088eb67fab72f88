//! The simulated nodes and the clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use super::net::{Net, NetEvent, NodeIndex};
use super::{Fault, Scenario};
use crate::bitfield::Bitfield;
use crate::exchange::ban::BadChunk;
use crate::exchange::core::grid::Grid;
use crate::exchange::core::{Core, Failure, Order, Output, PeerHint, PeerKey, Priority, RequestId, Time};
use crate::exchange::event::ExchangeEvent;
use crate::exchange::message::{Message, Run};
use crate::id::{BlobId, Hash, NodeId};

/// Bytes of a message besides its runs: ids, encryption, TCP and IP headers.
const MESSAGE: u64 = 160;
/// Bytes of one run in a message.
const RUN: u64 = 4;
/// Bytes of a request's head and of an answer's.
const HEADS: u64 = 320;

/// What came of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// For each fetching node the microseconds from its joining to its last byte; `None` if it did not finish.
    pub times: Vec<Option<u64>>,
    /// Bytes that left each node, the origin first; heads and messages included.
    pub sent: Vec<u64>,
    /// Messages between neighbours.
    pub messages: u64,
    /// When the origin saw its first copy out.
    pub first_copy: Option<Time>,
    /// Requests that were given up or failed.
    pub failures: u64,
    /// Peers banned, over all nodes.
    pub bans: u64,
    /// Microseconds that one link needs for one copy.
    pub bound: u64,
    /// Bytes of the blob.
    pub size: u64,
}

impl Outcome {
    /// Time of the last of `nodes` (numbers from 1) divided by the bound; infinite if one did not finish.
    #[must_use]
    pub fn stretch(&self, nodes: std::ops::RangeInclusive<u32>) -> f64 {
        let time = |node: u32| self.times.get(node as usize - 1).copied().flatten();
        let last = nodes.map(time).try_fold(0, |last: u64, time| Some(last.max(time?)));
        last.map_or(f64::INFINITY, |last| last as f64 / self.bound as f64)
    }

    /// Copies of the blob that left the origin.
    #[must_use]
    pub fn copies(&self) -> f64 {
        self.sent.first().map_or(0.0, |&sent| sent as f64 / self.size as f64)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Net(NetEvent),
    /// A message, by its number in the post.
    Message(u64),
    /// A request reaches a server.
    Request {
        server: NodeIndex,
        client: NodeIndex,
        id: u64,
    },
    Wake(NodeIndex),
    Join(NodeIndex),
    Die(NodeIndex),
}

struct Node {
    core: Core,
    neighbours: Vec<NodeIndex>,
    joined: Option<Time>,
    done: Option<Time>,
    dead: bool,
    lies: bool,
    wake: Option<Time>,
    /// Requests under way: whom was asked and for which chunks.
    requests: BTreeMap<u64, (NodeIndex, Run)>,
}

pub(super) struct Swarm<'a> {
    scenario: &'a Scenario,
    now: Time,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    sequence: u64,
    net: Net,
    nodes: Vec<Node>,
    grid: Arc<Grid>,
    post: BTreeMap<u64, (NodeIndex, NodeIndex, Message)>,
    outcome: Outcome,
}

impl<'a> Swarm<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        let mut dice = Dice(scenario.seed);
        let grid = Arc::new(Grid::new(BlobId(Hash::of(b"simulated")), lengths(scenario, &mut dice)));
        let count = scenario.nodes + 1;
        let mut nodes: Vec<Node> = (0..count)
            .map(|_| Node {
                core: Core::new(dice.next()),
                neighbours: Vec::new(),
                joined: None,
                done: None,
                dead: false,
                lies: false,
                wake: None,
                requests: BTreeMap::new(),
            })
            .collect();
        connect(&mut nodes, scenario.degree, &mut dice);
        let outcome = Outcome {
            times: vec![None; scenario.nodes as usize],
            sent: Vec::new(),
            messages: 0,
            first_copy: None,
            failures: 0,
            bans: 0,
            bound: scenario.bound(),
            size: scenario.size,
        };
        Self {
            scenario,
            now: Time(0),
            events: BinaryHeap::new(),
            sequence: 0,
            net: Net::new(count, scenario.rate, scenario.latency),
            nodes,
            grid,
            post: BTreeMap::new(),
            outcome,
        }
    }

    pub(super) fn run(mut self) -> Outcome {
        for node in 0..self.scenario.nodes + 1 {
            let at = node.checked_sub(1).and_then(|index| self.scenario.joins.get(index as usize));
            self.at(at.copied().unwrap_or_default(), Event::Join(node));
        }
        for &fault in &self.scenario.faults {
            match fault {
                Fault::Dies { node, at } => self.at(at, Event::Die(node)),
                Fault::Lies { node } => {
                    if let Some(node) = self.nodes.get_mut(node as usize) {
                        node.lies = true;
                    }
                }
                Fault::OriginDiesAfterFirstCopy => {}
            }
        }
        let waiting = |swarm: &Self| swarm.nodes.iter().skip(1).any(|node| node.done.is_none() && !node.dead);
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > self.scenario.limit || (matches!(event, Event::Wake(_)) && !waiting(&self)) {
                break;
            }
            self.now = at;
            self.handle(event);
            self.pump();
        }
        self.outcome.sent = (0..self.scenario.nodes + 1).map(|node| self.net.sent(node)).collect();
        self.outcome
    }

    fn at(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Net(event) => self.net.handle(event),
            Event::Message(number) => {
                let Some((from, to, message)) = self.post.remove(&number) else { return };
                self.with(to, |node| node.core.message(now, key(from), &message));
            }
            Event::Request { server, client, id } => self.serve(server, client, id),
            Event::Wake(index) => self.with(index, |node| {
                node.wake = None;
                node.core.tick(now);
            }),
            Event::Join(index) => self.join(index),
            Event::Die(index) => self.die(index),
        }
    }

    /// Changes a node that lives, then does what its core says.
    fn with(&mut self, index: NodeIndex, change: impl FnOnce(&mut Node)) {
        if let Some(node) =
            self.nodes.get_mut(index as usize).filter(|node| !node.dead && node.joined.is_some())
        {
            change(node);
            self.drain(index);
        }
    }

    /// Passes on what the network wants: later events, and answers that are complete.
    fn pump(&mut self) {
        loop {
            for (delay, event) in std::mem::take(&mut self.net.events) {
                self.at(self.now.after(delay), Event::Net(event));
            }
            let delivered = std::mem::take(&mut self.net.delivered);
            if delivered.is_empty() && self.net.events.is_empty() {
                return;
            }
            for (client, id) in delivered {
                self.delivered(client, id & ((1 << 40) - 1));
            }
        }
    }

    fn delivered(&mut self, client: NodeIndex, id: u64) {
        let (now, blob) = (self.now, self.grid.blob());
        let asked = self.nodes.get(client as usize).and_then(|node| node.requests.get(&id)).copied();
        let Some((server, run)) = asked else { return };
        let lies = self.nodes.get(server as usize).is_some_and(|node| node.lies);
        self.with(client, |node| {
            node.requests.remove(&id);
            if lies {
                let (expected, got) = (Hash::of(b"true"), Hash::of(b"false"));
                let proof = BadChunk { blob, chunk: run.first, expected, got };
                return node.core.finished(now, RequestId(id), Err(Failure::BadChunk(proof)));
            }
            node.core.stored(now, blob, run);
            node.core.finished(now, RequestId(id), Ok(()));
        });
    }

    fn serve(&mut self, server: NodeIndex, client: NodeIndex, id: u64) {
        let now = self.now;
        let asked = self.nodes.get(client as usize).and_then(|node| node.requests.get(&id)).copied();
        let Some((_, run)) = asked else { return };
        let Some(node) = self.nodes.get(server as usize) else { return };
        if node.dead {
            return self.with(client, |node| {
                node.requests.remove(&id);
                node.core.finished(now, RequestId(id), Err(Failure::Transport("dead".into())));
            });
        }
        if !node.core.holds(&self.grid.blob(), run) {
            return self.with(client, |node| {
                node.requests.remove(&id);
                node.core.finished(now, RequestId(id), Err(Failure::NotHeld));
            });
        }
        let bytes = self.grid.bytes_of(run.chunks());
        self.net.answer(server, client, number(client, id), bytes.end - bytes.start + HEADS);
    }

    fn join(&mut self, index: NodeIndex) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        node.joined = Some(now);
        let neighbours = node.neighbours.clone();
        let chunks = self.grid.chunks();
        let grid = Arc::clone(&self.grid);
        self.with(index, |node| {
            if index == 0 {
                node.core.seed(now, &grid, &Bitfield::full(chunks));
            } else {
                node.core.fetch(now, &grid, &Bitfield::empty(chunks), Priority::Root, Order::Rarest);
            }
        });
        for other in neighbours {
            let up = self.nodes.get(other as usize).is_some_and(|node| node.joined.is_some() && !node.dead);
            if up {
                self.with(index, |node| node.core.peer_up(now, key(other), PeerHint::default()));
                self.with(other, |node| node.core.peer_up(now, key(index), PeerHint::default()));
            }
        }
    }

    fn die(&mut self, index: NodeIndex) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        node.dead = true;
        let neighbours = node.neighbours.clone();
        self.net.kill(index);
        for other in neighbours {
            self.with(other, |node| {
                node.requests.retain(|_, (server, _)| *server != index);
                node.core.peer_down(now, key(index));
            });
        }
    }

    /// Does everything that the core of `index` wants done.
    fn drain(&mut self, index: NodeIndex) {
        let mut dies = false;
        while let Some(output) = self.nodes.get_mut(index as usize).and_then(|node| node.core.poll()) {
            match output {
                Output::Request { id, peer, run, .. } => {
                    let server = index_of(peer);
                    if let Some(node) = self.nodes.get_mut(index as usize) {
                        node.requests.insert(id.0, (server, run));
                    }
                    let at = self.now.after(self.scenario.latency);
                    self.at(at, Event::Request { server, client: index, id: id.0 });
                }
                Output::Cancel(id) => {
                    let asked =
                        self.nodes.get_mut(index as usize).and_then(|node| node.requests.remove(&id.0));
                    if let Some((server, _)) = asked {
                        self.net.cancel(server, index, number(index, id.0));
                    }
                }
                Output::Send { to, message } => self.post(index, index_of(to), message),
                Output::Event(event) => dies |= self.event(index, &event),
            }
        }
        if let Some(node) = self.nodes.get_mut(index as usize)
            && let Some(at) = node.core.deadline()
            && node.wake.is_none_or(|wake| at < wake)
        {
            let at = at.max(self.now.after(1));
            node.wake = Some(at);
            self.at(at, Event::Wake(index));
        }
        if dies {
            self.die(index);
        }
    }

    fn post(&mut self, from: NodeIndex, to: NodeIndex, message: Message) {
        self.outcome.messages += 1;
        self.net.charge(from, to, MESSAGE + size(&message));
        self.post.insert(self.sequence, (from, to, message));
        let at = self.now.after(self.scenario.latency + self.scenario.control);
        self.at(at, Event::Message(self.sequence));
    }

    /// Takes note; true if the node dies of it.
    fn event(&mut self, index: NodeIndex, event: &ExchangeEvent) -> bool {
        match event {
            ExchangeEvent::BlobComplete { .. } => {
                let Some(node) = self.nodes.get_mut(index as usize) else { return false };
                node.done = Some(self.now);
                let time = self.now.since(node.joined.unwrap_or_default());
                if let Some(slot) = self.outcome.times.get_mut(index as usize - 1) {
                    *slot = Some(time);
                }
            }
            ExchangeEvent::FirstCopyOut { .. } if index == 0 => {
                self.outcome.first_copy = Some(self.now);
                return self.scenario.faults.contains(&Fault::OriginDiesAfterFirstCopy);
            }
            ExchangeEvent::RequestFailed { .. } => self.outcome.failures += 1,
            ExchangeEvent::PeerBanned { .. } => self.outcome.bans += 1,
            _ => {}
        }
        false
    }
}

fn size(message: &Message) -> u64 {
    match message {
        Message::Bitfield { have, .. } => have.words().len() as u64 * 8,
        Message::Have { runs, .. } | Message::Fetching { runs, .. } | Message::Offer { runs, .. } => {
            runs.len() as u64 * RUN
        }
        _ => 0,
    }
}

fn key(index: NodeIndex) -> PeerKey {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&index.to_be_bytes());
    NodeId(Hash::from_bytes(bytes))
}

fn index_of(key: PeerKey) -> NodeIndex {
    let [a, b, c, d, ..] = *key.0.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// A request's number in the network, unique over all nodes.
fn number(client: NodeIndex, id: u64) -> u64 {
    (u64::from(client) << 40) | id
}

/// SplitMix64, as in the core.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// Chunk lengths from a quarter of the mean to seven quarters of it.
fn lengths(scenario: &Scenario, dice: &mut Dice) -> Vec<u32> {
    let mut lengths = Vec::new();
    let mut left = scenario.size;
    while left > 0 {
        let mean = u64::from(scenario.chunk);
        let length = (mean / 4 + dice.below(mean * 3 / 2)).clamp(1, left);
        lengths.push(u32::try_from(length).unwrap_or(u32::MAX));
        left -= length;
    }
    lengths
}

/// Makes neighbours: everybody of everybody, or `degree` of each: the union of `degree / 2` random rings, so that nobody hangs
/// on by a thread.
fn connect(nodes: &mut [Node], degree: u32, dice: &mut Dice) {
    let count = nodes.len();
    let mut edges = BTreeSet::new();
    if degree as usize + 1 >= count {
        edges.extend((0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))));
    } else {
        for _ in 0..(degree / 2).max(1) {
            let mut ring: Vec<(u64, usize)> = (0..count).map(|node| (dice.next(), node)).collect();
            ring.sort_unstable();
            let next = ring.iter().cycle().skip(1);
            edges.extend(ring.iter().zip(next).map(|(&(_, a), &(_, b))| (a.min(b), a.max(b))));
        }
    }
    for (a, b) in edges {
        for (one, other) in [(a, b), (b, a)] {
            if let Some(node) = nodes.get_mut(one) {
                node.neighbours.push(u32::try_from(other).unwrap_or(u32::MAX));
            }
        }
    }
}
