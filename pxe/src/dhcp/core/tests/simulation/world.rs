//! The simulated switch: nodes, clients, and what travels between them.

mod clients;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::super::super::{Arrival, Core, Output};
use super::super::bench::{config, member};
use crate::dhcp::event::Stage;
use crate::dhcp::lease::LeaseRecord;
use crate::dhcp::packet::{MessageType, Packet};
use crate::dhcp::rank::MemberId;
use crate::dhcp::time::Time;
pub(super) use clients::Client;

/// A frame through the switch.
const LINK: Duration = Duration::from_micros(200);
/// A batch of records to a peer.
const PEER: Duration = Duration::from_millis(2);
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// A node dies; the others do not notice yet. The last one on its side lives on: with it all knowledge would go.
    Kill(usize),
    /// A dead node starts again, with the same identity and an empty memory, where there is one to learn from.
    Restart(usize),
    /// All nodes notice who is alive on their side.
    Notice,
    /// The switch falls into two halves; nodes notice.
    Split,
    /// One switch again; nodes notice and tell each other everything.
    Heal,
    PowerOn(usize),
    PowerOnAll,
    /// Frames lost from now on, in percent.
    Loss(u8),
}

struct Node {
    core: Core,
    alive: bool,
    deadline: Option<Time>,
}

enum Event {
    Packet {
        node: usize,
        bytes: Vec<u8>,
        unicast: bool,
    },
    Observe {
        node: usize,
        bytes: Vec<u8>,
    },
    Records {
        node: usize,
        records: Vec<LeaseRecord>,
    },
    Reply {
        client: usize,
        bytes: Vec<u8>,
    },
    /// A client's timer; only the one set with its present transaction counts.
    Timer {
        client: usize,
        xid: u32,
    },
}

pub(super) struct World {
    now: Time,
    random: u64,
    loss: u8,
    split: bool,
    pool: u8,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    queue: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    conflicts: BTreeSet<Ipv4Addr>,
    pub(super) discovers: u64,
    pub(super) offers: u64,
    pub(super) violations: Vec<String>,
}

impl World {
    /// Nodes that know each other, and clients that are off; the pool has 100 addresses.
    pub(super) fn new(seed: u64, nodes: usize, clients: usize) -> Self {
        Self::with_pool(seed, nodes, clients, 100)
    }

    pub(super) fn with_pool(seed: u64, nodes: usize, clients: usize, pool: u8) -> Self {
        let mut world = Self {
            now: Time::ZERO,
            random: seed,
            loss: 0,
            split: false,
            pool,
            nodes: (0..nodes).map(|node| new_node(node, pool)).collect(),
            clients: (0..clients).map(Client::new).collect(),
            queue: BTreeMap::new(),
            sequence: 0,
            conflicts: BTreeSet::new(),
            discovers: 0,
            offers: 0,
            violations: Vec::new(),
        };
        (0..nodes).for_each(|node| world.drain(node));
        world.notice();
        world
    }

    pub(super) fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.iter()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.clients.iter().filter_map(Client::address)
    }

    pub(super) fn bound(&self) -> usize {
        self.addresses().count()
    }

    /// Addresses that some node has reported as held twice.
    pub(super) fn conflicts(&self) -> &BTreeSet<Ipv4Addr> {
        &self.conflicts
    }

    pub(super) fn held_twice_on_one_side(&self) -> Vec<Ipv4Addr> {
        let mut seen = BTreeSet::new();
        let held =
            self.clients.iter().enumerate().filter_map(|(n, client)| Some((self.side(n), client.address()?)));
        held.filter(|held| !seen.insert(*held)).map(|(_, address)| address).collect()
    }

    pub(super) fn power_on_all(&mut self) {
        (0..self.clients.len()).for_each(|client| self.power_on(client));
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(node) => {
                self.nodes[node].alive = self.nodes[node].alive && self.reachable(self.side(node)) == [node];
            }
            Fault::Restart(node)
                if !self.nodes[node].alive && !self.reachable(self.side(node)).is_empty() =>
            {
                self.nodes[node] = new_node(node, self.pool);
                self.drain(node);
                self.notice();
                self.tell_everything();
            }
            Fault::Restart(_) => {}
            Fault::Notice => self.notice(),
            Fault::Split => {
                self.split = true;
                self.notice();
            }
            Fault::Heal => {
                self.split = false;
                self.notice();
                self.tell_everything();
            }
            Fault::PowerOn(client) => self.power_on(client),
            Fault::PowerOnAll => self.power_on_all(),
            Fault::Loss(percent) => self.loss = percent,
        }
    }

    /// The half of the switch that the nth node or client is plugged into.
    fn side(&self, n: usize) -> bool {
        self.split && n % 2 == 1
    }

    fn reachable(&self, from: bool) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&n| self.nodes[n].alive && self.side(n) == from).collect()
    }

    fn notice(&mut self) {
        for node in 0..self.nodes.len() {
            let members: Vec<MemberId> = self.reachable(self.side(node)).into_iter().map(member_of).collect();
            let now = self.now;
            self.nodes[node].core.set_members(now, members);
            self.drain(node);
        }
    }

    fn tell_everything(&mut self) {
        for from in 0..self.nodes.len() {
            if !self.nodes[from].alive {
                continue;
            }
            let mut after = None;
            loop {
                let records = self.nodes[from].core.records(self.now, after);
                let Some(last) = records.last() else { break };
                after = Some(last.holder);
                self.replicate(from, &records);
            }
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    pub(super) fn run_until(&mut self, reached: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(100);
        while !reached(self) {
            assert!(self.step(end), "never reached");
        }
    }

    /// Does the next thing before `end`; whether there was one.
    fn step(&mut self, end: Time) -> bool {
        let event = self.queue.keys().next().map(|&(at, _)| at);
        let live = self.nodes.iter().enumerate().filter(|(_, node)| node.alive);
        let timer = live.filter_map(|(n, node)| Some((node.deadline?.max(self.now), n))).min();
        match (event, timer) {
            (event, Some((at, node))) if at <= end && event.is_none_or(|event| at < event) => {
                self.now = at;
                self.nodes[node].core.handle_timeout(at);
                self.drain(node);
            }
            (Some(at), _) if at <= end => {
                let (_, event) = self.queue.pop_first().unwrap();
                self.now = at;
                self.handle(event);
            }
            _ => return false,
        }
        true
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Packet { node, bytes, unicast } if self.nodes[node].alive => {
                let arrival = Arrival { unicast, ..Arrival::broadcast() };
                self.nodes[node].core.handle_packet(now, &bytes, arrival);
                self.drain(node);
            }
            Event::Observe { node, bytes } if self.nodes[node].alive => {
                self.nodes[node].core.observe_reply(now, &bytes).unwrap();
                self.drain(node);
            }
            Event::Records { node, records } if self.nodes[node].alive => {
                self.nodes[node].core.merge(now, &records);
                self.drain(node);
            }
            Event::Reply { client, bytes } => self.client_reply(client, &bytes),
            Event::Timer { client, xid } if self.clients[client].xid == xid => self.client_timer(client),
            _ => {}
        }
    }

    fn drain(&mut self, node: usize) {
        loop {
            match self.nodes[node].core.poll_output() {
                Output::Send { packet, to, .. } => self.node_sends(node, packet, to),
                Output::Replicate(records) => self.replicate(node, &records),
                Output::Event(event) if matches!(event.stage, Stage::Conflict) => {
                    self.conflicts.extend(event.address);
                }
                Output::Event(_) | Output::Ask(_) => {}
                Output::Deadline(deadline) => {
                    self.nodes[node].deadline = deadline;
                    return;
                }
            }
        }
    }

    fn node_sends(&mut self, node: usize, bytes: Vec<u8>, to: SocketAddrV4) {
        let packet = Packet::parse(&bytes).unwrap();
        self.offers += u64::from(packet.message_type == MessageType::Offer);
        if to.ip().is_broadcast() {
            for other in self.reachable(self.side(node)).into_iter().filter(|&other| other != node) {
                self.send(LINK, Event::Observe { node: other, bytes: bytes.clone() });
            }
        }
        let client = self.clients.iter().position(|client| client.mac[..] == *packet.chaddr()).unwrap();
        if self.side(client) == self.side(node) {
            self.send(LINK, Event::Reply { client, bytes });
        }
    }

    /// Records travel over connections: nothing is lost between nodes that reach each other.
    fn replicate(&mut self, node: usize, records: &[LeaseRecord]) {
        for other in self.reachable(self.side(node)).into_iter().filter(|&other| other != node) {
            self.schedule(PEER, Event::Records { node: other, records: records.to_vec() });
        }
    }

    fn send(&mut self, after: Duration, event: Event) {
        if self.roll(100) >= u64::from(self.loss) {
            self.schedule(after, event);
        }
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + after, self.sequence), event);
    }

    /// The next number below `below` (`SplitMix64`).
    fn roll(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

fn new_node(n: usize, pool: u8) -> Node {
    let mut config = config(number(n));
    config.subnets[0].ranges = vec![(Ipv4Addr::new(10, 0, 0, 100), Ipv4Addr::new(10, 0, 0, 99 + pool))];
    let core = Core::new(config, member_of(n)).unwrap();
    Node { core, alive: true, deadline: None }
}

fn number(n: usize) -> u8 {
    u8::try_from(n + 1).unwrap()
}

fn member_of(n: usize) -> MemberId {
    member(number(n))
}

fn address_of(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number(n))
}
