//! The modelled network: a star of full-duplex links around one switch.
//!
//! Each node's uplink serves its flows in turn, a quantum at a time; quanta then queue at the receiver's downlink. A flow
//! has a bounded window of quanta on the way, so a busy receiver slows its senders down and they serve others meanwhile,
//! as TCP flows that share links do. Between two nodes there is one flow: answers on it come in the order of the requests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Bytes served at a time. Small against a cell, large enough for speed.
pub const QUANTUM: u64 = 16 * 1024;
/// Quanta of one flow on the way.
const WINDOW: u32 = 6;

/// Names a node.
pub type NodeIndex = u32;

/// An answer on its way: the request's number and the bytes still to send.
#[derive(Debug, Clone, Copy)]
struct Answer {
    id: u64,
    unsent: u64,
    undelivered: u64,
}

#[derive(Debug, Default)]
struct Flow {
    answers: VecDeque<Answer>,
    window: u32,
    /// In the uplink's ring or being served.
    active: bool,
}

#[derive(Debug, Default)]
struct Link {
    /// Flows of this node that have something to send, in turn, by receiver.
    ring: VecDeque<NodeIndex>,
    up_busy: bool,
    /// Quanta that wait for the downlink: sender, request, bytes.
    arrivals: VecDeque<(NodeIndex, u64, u64)>,
    down_busy: bool,
    /// Bytes of messages that have passed and have not been charged yet.
    up_debt: u64,
    down_debt: u64,
    dead: bool,
    sent: u64,
}

/// What the network wants done at a later moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetEvent {
    /// A quantum has left a node.
    Sent {
        /// The sender.
        from: NodeIndex,
        /// The receiver.
        to: NodeIndex,
        /// The request it answers.
        id: u64,
        /// Its bytes.
        bytes: u64,
    },
    /// A quantum has reached the switch port of its receiver.
    Arrived {
        /// The sender.
        from: NodeIndex,
        /// The receiver.
        to: NodeIndex,
        /// The request it answers.
        id: u64,
        /// Its bytes.
        bytes: u64,
    },
    /// The downlink of a node has delivered a quantum.
    Delivered {
        /// The receiver.
        to: NodeIndex,
    },
}

/// All links and flows.
#[derive(Debug)]
pub struct Net {
    rate: u64,
    latency: u64,
    links: Vec<Link>,
    flows: BTreeMap<(NodeIndex, NodeIndex), Flow>,
    cancelled: BTreeSet<u64>,
    /// Events to come: delay in microseconds and event.
    pub events: Vec<(u64, NetEvent)>,
    /// Requests answered in full: the receiver and the number.
    pub delivered: Vec<(NodeIndex, u64)>,
}

impl Net {
    /// Links of `rate` bytes per second for `nodes` nodes.
    #[must_use]
    pub fn new(nodes: u32, rate: u64, latency: u64) -> Self {
        let links = (0..nodes).map(|_| Link::default()).collect();
        let (events, delivered) = (Vec::new(), Vec::new());
        Self { rate, latency, links, flows: BTreeMap::new(), cancelled: BTreeSet::new(), events, delivered }
    }

    /// Bytes that have left `node`.
    #[must_use]
    pub fn sent(&self, node: NodeIndex) -> u64 {
        self.links.get(node as usize).map_or(0, |link| link.sent)
    }

    /// Small messages pass at once; their bytes hold up what is sent next.
    pub fn charge(&mut self, from: NodeIndex, to: NodeIndex, bytes: u64) {
        if let Some(link) = self.links.get_mut(from as usize) {
            link.up_debt += bytes;
            link.sent += bytes;
        }
        if let Some(link) = self.links.get_mut(to as usize) {
            link.down_debt += bytes;
        }
    }

    /// `from` begins to answer request `id` of `to` with `bytes`.
    pub fn answer(&mut self, from: NodeIndex, to: NodeIndex, id: u64, bytes: u64) {
        let flow = self.flows.entry((from, to)).or_default();
        flow.answers.push_back(Answer { id, unsent: bytes, undelivered: bytes });
        self.wake(from, to);
    }

    /// `to` gives request `id` up; what is on the way still comes.
    pub fn cancel(&mut self, from: NodeIndex, to: NodeIndex, id: u64) {
        if let Some(flow) = self.flows.get_mut(&(from, to)) {
            let before = flow.answers.len();
            flow.answers.retain(|answer| answer.id != id);
            if flow.answers.len() < before {
                self.cancelled.insert(id);
            }
        }
    }

    /// `node` neither sends nor receives any more.
    pub fn kill(&mut self, node: NodeIndex) {
        if let Some(link) = self.links.get_mut(node as usize) {
            link.dead = true;
            link.ring.clear();
        }
    }

    /// Takes an event back when its time has come.
    pub fn handle(&mut self, event: NetEvent) {
        match event {
            NetEvent::Sent { from, to, id, bytes } => {
                self.events.push((self.latency, NetEvent::Arrived { from, to, id, bytes }));
                if let Some(link) = self.links.get_mut(from as usize) {
                    link.up_busy = false;
                }
                self.wake(from, to);
                self.serve(from);
            }
            NetEvent::Arrived { from, to, id, bytes } => {
                if let Some(link) = self.links.get_mut(to as usize) {
                    link.arrivals.push_back((from, id, bytes));
                }
                self.receive(to);
            }
            NetEvent::Delivered { to } => {
                let Some(link) = self.links.get_mut(to as usize) else { return };
                link.down_busy = false;
                if let Some((from, id, bytes)) = link.arrivals.pop_front() {
                    self.deliver(from, to, id, bytes);
                }
                self.receive(to);
            }
        }
    }

    fn deliver(&mut self, from: NodeIndex, to: NodeIndex, id: u64, bytes: u64) {
        if let Some(flow) = self.flows.get_mut(&(from, to)) {
            flow.window = flow.window.saturating_sub(1);
            if let Some(index) = flow.answers.iter().position(|answer| answer.id == id)
                && let Some(answer) = flow.answers.get_mut(index)
            {
                answer.undelivered = answer.undelivered.saturating_sub(bytes);
                if answer.undelivered == 0 {
                    flow.answers.remove(index);
                    self.delivered.push((to, id));
                }
            }
        }
        self.wake(from, to);
    }

    /// Puts the flow in the ring of its sender if it can send.
    fn wake(&mut self, from: NodeIndex, to: NodeIndex) {
        let (Some(flow), Some(link)) = (self.flows.get_mut(&(from, to)), self.links.get_mut(from as usize))
        else {
            return;
        };
        let ready = flow.window < WINDOW && flow.answers.iter().any(|answer| answer.unsent > 0);
        if ready && !flow.active && !link.dead {
            flow.active = true;
            link.ring.push_back(to);
        }
        self.serve(from);
    }

    /// Sends the next quantum of `from` if its uplink is free.
    fn serve(&mut self, from: NodeIndex) {
        let Some(link) = self.links.get_mut(from as usize) else { return };
        while !link.up_busy && !link.dead {
            let Some(to) = link.ring.pop_front() else { return };
            let Some(flow) = self.flows.get_mut(&(from, to)) else { continue };
            flow.active = false;
            let Some(answer) = flow.answers.iter_mut().find(|answer| answer.unsent > 0) else { continue };
            let bytes = answer.unsent.min(QUANTUM);
            answer.unsent -= bytes;
            flow.window += 1;
            link.up_busy = true;
            link.sent += bytes;
            let time = (bytes + std::mem::take(&mut link.up_debt)) * 1_000_000 / self.rate;
            self.events.push((time, NetEvent::Sent { from, to, id: answer.id, bytes }));
        }
    }

    fn receive(&mut self, to: NodeIndex) {
        let Some(link) = self.links.get_mut(to as usize) else { return };
        if link.down_busy || link.dead {
            return;
        }
        if let Some(&(.., bytes)) = link.arrivals.front() {
            link.down_busy = true;
            let time = (bytes + std::mem::take(&mut link.down_debt)) * 1_000_000 / self.rate;
            self.events.push((time, NetEvent::Delivered { to }));
        }
    }
}
