//! The simulated swarm: a clock, the nodes, and what passes between them.

use std::sync::Arc;

use super::loss::Losses;
use super::net::{Net, NetEvent, NodeIndex, Plan};
use super::node::{Asked, Letter, Life, Node};
use super::outcome::{Outcome, Sample};
use super::queue::Queue;
use super::{Fault, Scenario, topology};
use crate::bitfield::Bitfield;
use crate::exchange::core::grid::Grid;
use crate::exchange::core::rng::Rng;
use crate::exchange::core::{Order, Output, PeerHint, Priority, Time};
use crate::exchange::event::ExchangeEvent;
use crate::id::{BlobId, Hash};

/// Bytes that a link serves at a time, about a cell of a small blob: with half of it the last node is done within half a per cent of
/// the same time, and there are half again as many events.
const MIN_QUANTUM: u64 = 32 * 1024;
/// Quanta in a cell at least.
const QUANTA: u64 = 4;
/// How often progress is noted within the time of one copy.
const SAMPLES: u64 = 200;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Net(NetEvent),
    Message(Box<Letter>),
    /// A request reaches its server.
    Request {
        server: Life,
        client: Life,
        id: u64,
    },
    Wake(Life),
    Join(NodeIndex),
    Die(NodeIndex),
    /// A node that died is back.
    Return(NodeIndex),
    /// The neighbours of a node find out that it is gone.
    Notice(Life),
    Sample,
}

pub(super) struct Swarm<'a> {
    pub(super) scenario: &'a Scenario,
    pub(super) now: Time,
    events: Queue<Event>,
    pub(super) net: Net,
    pub(super) nodes: Vec<Node>,
    racks: Vec<u32>,
    pub(super) grid: Arc<Grid>,
    rng: Rng,
    pub(super) outcome: Outcome,
    /// Bytes and complete nodes, over those that live.
    pub(super) held: u64,
    complete: u32,
    present: u32,
    /// Honest nodes that are still to finish: there, or to come.
    unfinished: u32,
}

impl<'a> Swarm<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        let mut rng = Rng::new(scenario.seed);
        let grid = Arc::new(Grid::new(BlobId(Hash::of(b"simulated")), topology::chunks(scenario, &mut rng)));
        let racks = topology::racks(scenario);
        let seeds: Vec<u64> = (0..=scenario.nodes).map(|_| rng.next()).collect();
        let neighbours = topology::neighbours(scenario, &racks, &mut rng);
        let nodes = (0..)
            .zip(seeds)
            .zip(neighbours)
            .map(|((node, seed), list)| Node::new(node, seed, list))
            .collect();
        let cell = scenario.size / u64::from(grid.cells().max(1));
        let plan = Plan {
            rates: topology::rates(scenario, &mut rng),
            racks: racks.clone(),
            uplink: scenario.racks.uplink,
            latency: scenario.latency,
            headers: u64::from(scenario.headers),
            queue: scenario.queue,
            quantum: MIN_QUANTUM.max(cell / QUANTA),
        };
        let losses = Losses::new(scenario.loss, rng.next());
        let outcome = Outcome {
            times: vec![None; scenario.nodes as usize],
            ends: vec![None; scenario.nodes as usize],
            bound: scenario.bound(),
            least: scenario.least(grid.cells()),
            size: scenario.size,
            ..Outcome::default()
        };
        Self {
            scenario,
            now: Time(0),
            events: Queue::new(),
            net: Net::new(plan, losses),
            nodes,
            racks,
            grid,
            rng,
            outcome,
            held: 0,
            complete: 0,
            present: 0,
            unfinished: scenario.nodes,
        }
    }

    pub(super) fn run(mut self, watch: &mut dyn FnMut(&Sample)) -> Outcome {
        self.begin();
        while let Some((at, event)) = self.events.pop() {
            if at > self.scenario.limit.0 || (matches!(event, Event::Wake(_)) && self.unfinished == 0) {
                break;
            }
            self.now = Time(at);
            self.outcome.steps += 1;
            if event == Event::Sample {
                self.sample(watch);
                continue;
            }
            self.handle(event);
            self.pump();
        }
        self.outcome.sent = (0..=self.scenario.nodes).map(|node| self.net.sent(node)).collect();
        self.outcome.imported = self.net.imported();
        self.outcome.heard = self.net.heard();
        self.outcome.exported = self.net.exported();
        self.outcome
    }

    fn begin(&mut self) {
        self.at(Time(0), Event::Sample);
        self.at(Time(0), Event::Join(0));
        for node in 1..=self.scenario.nodes {
            let at = self.scenario.joins.get(node as usize - 1).copied().unwrap_or_default();
            self.at(at.after(self.scenario.start), Event::Join(node));
        }
        for &fault in &self.scenario.faults {
            match fault {
                Fault::Dies { node, at } => self.at(at, Event::Die(node)),
                Fault::Crashes { node, at, down } => {
                    self.at(at, Event::Die(node));
                    self.at(at.after(down).after(self.scenario.start), Event::Return(node));
                }
                Fault::Lies { node } => {
                    if let Some(node) = self.nodes.get_mut(node as usize).filter(|node| !node.lies) {
                        node.lies = true;
                        self.outcome.liars += 1;
                        self.unfinished -= 1;
                    }
                }
                Fault::OriginDiesAfterFirstCopy => {}
            }
        }
    }

    pub(super) fn at(&mut self, at: Time, event: Event) {
        self.events.push(at.0, event);
    }

    fn sample(&mut self, watch: &mut dyn FnMut(&Sample)) {
        let sample = Sample { at: self.now, held: self.held, complete: self.complete, present: self.present };
        watch(&sample);
        self.outcome.progress.push(sample);
        if self.unfinished > 0 {
            self.at(self.now.after((self.outcome.bound / SAMPLES).max(1)), Event::Sample);
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Net(event) => self.net.handle(now.0, event),
            Event::Message(letter) => {
                let from = letter.from.key();
                self.with(letter.to, |node| node.core.message(now, from, &letter.message));
            }
            Event::Request { server, client, id } => self.serve(server, client, id),
            // A core that asked to be woken earlier afterwards has been, and has asked anew.
            Event::Wake(life)
                if self.nodes.get(life.node as usize).is_none_or(|node| node.wake != Some(now)) => {}
            Event::Wake(life) => self.with(life, |node| {
                node.wake = None;
                node.core.tick(now);
            }),
            Event::Join(index) => self.join(index),
            Event::Die(index) => self.die(index),
            Event::Return(index) => self.come_back(index),
            Event::Notice(life) => self.noticed(life),
            Event::Sample => {}
        }
    }

    pub(super) fn life(&self, index: NodeIndex) -> Option<Life> {
        self.nodes.get(index as usize).filter(|node| node.lives()).map(|node| node.life)
    }

    /// Changes a node that lives this life, then does what its core says.
    pub(super) fn with(&mut self, life: Life, change: impl FnOnce(&mut Node)) {
        if let Some(node) =
            self.nodes.get_mut(life.node as usize).filter(|node| node.lives() && node.life == life)
        {
            change(node);
            self.drain(life);
        }
    }

    /// Passes on what the network wants: later events, and answers that are complete.
    fn pump(&mut self) {
        loop {
            for (at, event) in self.net.events.drain(..) {
                self.events.push(at, Event::Net(event));
            }
            let Some((client, id, whole)) = self.net.delivered.pop() else { return };
            self.delivered(client, id, whole);
        }
    }

    fn join(&mut self, index: NodeIndex) {
        let now = self.now;
        let grid = Arc::clone(&self.grid);
        let Some(node) = self.nodes.get_mut(index as usize) else { return };
        node.joined = Some(now);
        let (life, neighbours) = (node.life, node.neighbours.clone());
        node.core.known_as(life.key());
        self.present += u32::from(index > 0);
        self.with(life, |node| {
            let nothing = Bitfield::empty(grid.chunks());
            if index == 0 {
                node.core.seed(now, &grid, &Bitfield::full(grid.chunks()));
            } else {
                node.core.fetch(now, &grid, &nothing, Priority::Root, Order::Rarest);
            }
        });
        for other in neighbours {
            if let Some(other) = self.life(other) {
                self.meet(life, other);
            }
        }
    }

    /// Two nodes become neighbours.
    fn meet(&mut self, one: Life, other: Life) {
        let now = self.now;
        let (hint, hint_of_one) = (self.hint(one.node, other.node), self.hint(other.node, one.node));
        self.net.connect(one.node, other.node);
        self.with(one, |node| node.core.peer_up(now, other.key(), hint));
        self.with(other, |node| node.core.peer_up(now, one.key(), hint_of_one));
    }

    fn hint(&self, one: NodeIndex, other: NodeIndex) -> PeerHint {
        let rack = |node: NodeIndex| self.racks.get(node as usize).copied().unwrap_or(0);
        if !self.scenario.racks.known {
            return PeerHint::default();
        }
        PeerHint { far: rack(one) != rack(other), rack: rack(other).into(), origin: false }
    }

    fn die(&mut self, index: NodeIndex) {
        let Some(node) = self.nodes.get_mut(index as usize).filter(|node| node.lives()) else { return };
        node.dead = true;
        let (life, held, complete, lies) = (node.life, node.held, node.complete, node.lies);
        self.net.kill(index);
        if index > 0 {
            self.held -= held;
            self.present -= 1;
        }
        // Nobody waits for a liar.
        if index > 0 && !lies {
            self.complete -= u32::from(complete);
            let returns = self.scenario.faults.iter().any(
                |fault| matches!(*fault, Fault::Crashes { node, at, .. } if node == index && at == self.now),
            );
            if returns && complete {
                self.unfinished += 1;
            } else if !returns {
                self.unfinished -= u32::from(!complete);
                self.outcome.lost += 1;
            }
        }
        if self.scenario.notice == 0 {
            self.noticed(life);
        } else {
            self.at(self.now.after(self.scenario.notice), Event::Notice(life));
        }
    }

    /// The neighbours of a node that died give it up, and those that it leaves with few look for others.
    fn noticed(&mut self, gone: Life) {
        let now = self.now;
        let Some(node) = self.nodes.get(gone.node as usize) else { return };
        let (neighbours, stays_away) = (node.neighbours.clone(), node.dead);
        for other in neighbours {
            let Some(life) = self.life(other) else { continue };
            self.with(life, |node| {
                node.requests.retain(|_, asked| asked.server != gone);
                node.core.peer_down(now, gone.key());
            });
            if stays_away {
                self.replace(life);
            }
        }
    }

    /// `life` has lost a neighbour: with too few left it finds another.
    fn replace(&mut self, life: Life) {
        let Some(node) = self.nodes.get(life.node as usize) else { return };
        let left = node.neighbours.iter().filter(|&&other| self.life(other).is_some()).count();
        if left as u64 * 4 >= u64::from(self.scenario.degree.min(self.scenario.nodes)) * 3 {
            return;
        }
        let other = u32::try_from(self.rng.within(u64::from(self.scenario.nodes) + 1)).unwrap_or(0);
        let Some(other) =
            self.life(other).filter(|other| *other != life && !node.neighbours.contains(&other.node))
        else {
            return;
        };
        for (one, other) in [(life, other), (other, life)] {
            if let Some(node) = self.nodes.get_mut(one.node as usize) {
                node.neighbours.push(other.node);
            }
        }
        self.meet(life, other);
    }

    fn come_back(&mut self, index: NodeIndex) {
        let seed = self.rng.next();
        let Some(node) = self.nodes.get_mut(index as usize).filter(|node| node.dead) else { return };
        node.restart(seed);
        self.net.revive(index);
        if let Some(place) = (index as usize).checked_sub(1) {
            if let Some(time) = self.outcome.times.get_mut(place) {
                *time = None;
            }
            if let Some(end) = self.outcome.ends.get_mut(place) {
                *end = None;
            }
        }
        self.join(index);
    }

    /// Does everything that the core of `life` wants done.
    fn drain(&mut self, life: Life) {
        let index = life.node as usize;
        let mut dies = false;
        while let Some(output) = self.nodes.get_mut(index).and_then(|node| node.core.poll()) {
            match output {
                Output::Request { id, peer, run, .. } => self.request(life, id, Life::of(peer), run),
                Output::Cancel(id) => {
                    let asked = self.nodes.get_mut(index).and_then(|node| node.requests.remove(&id.0));
                    if let Some(Asked { server, .. }) = asked {
                        self.outcome.wasted += self.net.cancel(server.node, life.node, id.0);
                    }
                }
                Output::Send { to, message } => {
                    self.post(Letter { from: life, to: Life::of(to), message });
                }
                Output::Event(event) => dies |= self.event(life.node, &event),
            }
        }
        if let Some(node) = self.nodes.get_mut(index)
            && let Some(at) = node.core.deadline()
            && node.wake.is_none_or(|wake| at < wake)
        {
            let at = at.max(self.now.after(1));
            node.wake = Some(at);
            self.at(at, Event::Wake(life));
        }
        if dies {
            self.die(life.node);
        }
    }

    fn post(&mut self, letter: Letter) {
        self.outcome.messages += 1;
        let (from, to) = (letter.from.node, letter.to.node);
        let at = self.net.message(self.now.0, from, to, letter.bytes(), self.scenario.control);
        if let Some(at) = at {
            self.at(Time(at), Event::Message(Box::new(letter)));
        }
    }

    /// Takes note; true if the node dies of it.
    fn event(&mut self, index: NodeIndex, event: &ExchangeEvent) -> bool {
        match event {
            ExchangeEvent::BlobComplete { .. } => self.completed(index),
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

    fn completed(&mut self, index: NodeIndex) {
        let Some(node) = self.nodes.get_mut(index as usize).filter(|node| !node.lies) else { return };
        node.complete = true;
        let time = self.now.since(node.joined.unwrap_or_default()) + self.scenario.start;
        self.complete += 1;
        self.unfinished -= 1;
        let Some(place) = (index as usize).checked_sub(1) else { return };
        if let Some(slot) = self.outcome.times.get_mut(place) {
            *slot = Some(time);
        }
        if let Some(slot) = self.outcome.ends.get_mut(place) {
            *slot = Some(self.now);
        }
    }
}
