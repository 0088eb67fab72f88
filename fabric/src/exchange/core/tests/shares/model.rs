//! The model: the cores of nodes, what is really in their stores, and what is between them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::*;
use crate::exchange::core::rng::Rng;
use crate::exchange::core::time::SECOND;

pub(super) const CHUNKS: u32 = 300;

/// A node: its core, and what is really in its store.
pub(super) struct Node {
    pub(super) core: Core,
    pub(super) store: Bitfield,
    pub(super) links: BTreeSet<usize>,
    pub(super) alive: bool,
    pub(super) sharing: bool,
    /// Messages sent.
    pub(super) sent: usize,
}

/// All nodes and what is between them. The first is the one that the others began with; it shares nothing.
pub(super) struct Swarm {
    pub(super) now: Time,
    pub(super) grid: Arc<Grid>,
    pub(super) copies: u8,
    pub(super) nodes: Vec<Node>,
    pub(super) mail: BTreeMap<(usize, usize), VecDeque<Message>>,
    pub(super) asked: Vec<(usize, RequestId, usize, Run)>,
    /// Deaths that some may not have heard of.
    pub(super) unheard: usize,
    /// Neighbours that a node looks for.
    pub(super) degree: usize,
    pub(super) numbers: BTreeMap<PeerKey, usize>,
    /// Nodes whose neighbours are not enough.
    pub(super) seeking: BTreeSet<usize>,
    dice: Rng,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
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

fn key(node: usize) -> PeerKey {
    NodeId(Hash::of(&node.to_be_bytes()))
}

impl Swarm {
    /// A swarm in which everybody knows everybody.
    pub(super) fn new(copies: u8) -> Self {
        Self::of(grid(1, CHUNKS), copies, usize::MAX)
    }

    /// A swarm around a blob of [`CHUNKS`] chunks in which each looks for `degree` neighbours.
    pub(super) fn of(grid: Arc<Grid>, copies: u8, degree: usize) -> Self {
        let mut swarm = Self {
            now: Time(1),
            grid,
            copies,
            nodes: Vec::new(),
            mail: BTreeMap::new(),
            asked: Vec::new(),
            unheard: 0,
            degree,
            numbers: BTreeMap::new(),
            seeking: BTreeSet::new(),
            dice: Rng::new(5),
        };
        swarm.join(Bitfield::full(CHUNKS));
        swarm
    }

    pub(super) fn id(&self) -> BlobId {
        self.grid.blob()
    }

    pub(super) fn join(&mut self, store: Bitfield) -> usize {
        let number = self.nodes.len();
        let mut core = Core::new(number as u64 + 1);
        core.seed(self.now, &self.grid, &store);
        let links = BTreeSet::new();
        self.nodes.push(Node { core, store, links, alive: true, sharing: false, sent: 0 });
        self.numbers.insert(key(number), number);
        self.look_for_neighbours(number, self.degree);
        number
    }

    /// Connects a node to others by chance until it has `degree` neighbours or all.
    pub(super) fn look_for_neighbours(&mut self, node: usize, degree: usize) {
        let known = &self.nodes[node].links;
        let wanted = degree.saturating_sub(known.len());
        let other = |other: &usize| *other != node && self.nodes[*other].alive && !known.contains(other);
        let mut others: Vec<usize> = (0..self.nodes.len()).filter(other).collect();
        if wanted < others.len() {
            self.dice.shuffle(&mut others);
        }
        others.into_iter().take(wanted).for_each(|other| self.connect(node, other));
    }

    pub(super) fn connect(&mut self, one: usize, other: usize) {
        for (node, peer) in [(one, other), (other, one)] {
            self.nodes[node].links.insert(peer);
            self.nodes[node].core.peer_up(self.now, key(peer), PeerHint::default());
            self.act(node);
        }
    }

    pub(super) fn disconnect(&mut self, one: usize, other: usize) {
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

    pub(super) fn boot_all(&mut self, count: usize) {
        for _ in 0..count {
            self.boot();
        }
    }

    pub(super) fn boot(&mut self) -> usize {
        let number = self.join(Bitfield::empty(CHUNKS));
        let grid = Arc::clone(&self.grid);
        let node = &mut self.nodes[number];
        node.core.fetch(self.now, &grid, &node.store, Priority::Root, Order::Rarest);
        self.act(number);
        number
    }

    pub(super) fn act(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].core.poll() {
            let number = |swarm: &Self, peer: PeerKey| swarm.numbers[&peer];
            match output {
                Output::Request { id, peer, run, .. } => {
                    let peer = number(self, peer);
                    self.asked.push((node, id, peer, run));
                }
                Output::Cancel(id) => self.asked.retain(|(asker, asked, ..)| (*asker, *asked) != (node, id)),
                Output::Send { to, message } => {
                    let to = number(self, to);
                    self.nodes[node].sent += 1;
                    if self.nodes[node].links.contains(&to) {
                        self.mail.entry((node, to)).or_default().push_back(message);
                    }
                }
                Output::Event(ExchangeEvent::PeerBanned { why, .. }) => {
                    panic!("an honest node is banned: {why}")
                }
                Output::Event(ExchangeEvent::Unheld { .. }) => {
                    self.seeking.insert(node);
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

    pub(super) fn share(&mut self, which: usize) {
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

    pub(super) fn sharers(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.nodes[node].alive && self.nodes[node].sharing).collect()
    }

    pub(super) fn holders(&self, chunk: u32) -> usize {
        self.sharers().iter().filter(|&&node| self.nodes[node].store.has(chunk)).count()
    }

    pub(super) fn review(&mut self, node: usize) {
        let (now, blob) = (self.now, self.id());
        let Some(review) = self.nodes[node].core.review(now, blob, u64::MAX) else { return };
        for chunk in review.release.iter().flat_map(|run| run.chunks()) {
            assert!(self.nodes[node].store.remove(chunk), "given back twice");
            let left = self.holders(chunk);
            assert!(left + self.unheard >= usize::from(self.copies), "chunk {chunk} is left to {left}");
        }
        self.act(node);
    }

    pub(super) fn happens(&mut self, event: Event) {
        let sharers = self.sharers();
        match event {
            Event::Boots if self.nodes.len() < 9 => {
                self.boot();
            }
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

    pub(super) fn pass(&mut self, time: u64) {
        self.now = self.now.after(time);
        for node in (0..self.nodes.len()).filter(|&node| self.nodes[node].alive).collect::<Vec<_>>() {
            self.nodes[node].core.tick(self.now);
            self.act(node);
        }
    }

    pub(super) fn die(&mut self, node: usize) {
        self.nodes[node].alive = false;
        for other in self.nodes[node].links.clone() {
            self.disconnect(node, other);
        }
    }

    /// All that was said and asked arrives.
    pub(super) fn arrive(&mut self) {
        loop {
            let ways: Vec<(usize, usize)> = self.mail.keys().copied().collect();
            if ways.is_empty() && self.asked.is_empty() {
                return;
            }
            for (from, to) in ways {
                for message in self.mail.remove(&(from, to)).unwrap_or_default() {
                    self.nodes[to].core.message(self.now, key(from), &message);
                }
                self.act(to);
            }
            (0..self.asked.len()).for_each(|_| self.answer(0));
        }
    }

    /// Everything that is under way arrives, and time passes until nothing happens any more.
    pub(super) fn settle(&mut self) {
        let blob = self.id();
        let fetches = |node: &Node| node.alive && !node.sharing && !node.core.complete(&blob);
        while self.nodes.iter().any(fetches) {
            self.arrive();
            self.pass(SECOND / 10);
        }
        self.rounds(25);
        self.unheard = 0;
    }

    /// Nodes that miss neighbours find some, as the swarm does it.
    pub(super) fn meet(&mut self) {
        for node in self.sharers() {
            self.look_for_neighbours(node, self.degree);
        }
        for node in std::mem::take(&mut self.seeking) {
            if self.nodes[node].alive {
                self.look_for_neighbours(node, (self.nodes[node].links.len() + 16).min(128));
            }
        }
    }

    /// Time passes in which all look at each other this often.
    pub(super) fn rounds(&mut self, count: usize) {
        for _ in 0..count {
            self.arrive();
            self.share(0);
            self.sharers().into_iter().for_each(|node| self.review(node));
            self.pass(5 * SECOND);
        }
    }

    /// Each chunk is where it should be, and nowhere else.
    pub(super) fn settled(&mut self) {
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
