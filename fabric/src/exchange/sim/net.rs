//! The modelled network: full-duplex links around switches, and racks whose uplinks are shared.
//!
//! A node's uplink serves its flows in turn, a quantum at a time. A quantum to another rack then queues at the uplink of its
//! rack and at that of the other; at last every quantum queues at the receiver's downlink. A flow has a bounded window of quanta
//! on the way, so that a busy receiver slows its senders down and they serve others meanwhile, as TCP flows that share links
//! do. Between two nodes there is one flow each way: answers on it come in the order of the requests.
//!
//! Owns links, flows and what was carried. Knows nothing of nodes but their numbers, and nothing of what the bytes mean.

use std::collections::VecDeque;

use super::loss::{Fate, Losses};

/// Quanta of one flow on the way.
const WINDOW: u32 = 6;

/// Names a node.
pub(super) type NodeIndex = u32;
/// Names a flow.
type FlowIndex = u32;

/// An answer on its way: the request's number, its bytes, and those still to send and to deliver.
#[derive(Debug, Clone, Copy)]
struct Answer {
    id: u64,
    bytes: u64,
    unsent: u64,
    undelivered: u64,
    /// The connection breaks when what is left has arrived.
    breaks: bool,
}

#[derive(Debug)]
struct Flow {
    from: NodeIndex,
    to: NodeIndex,
    answers: VecDeque<Answer>,
    window: u32,
    /// In the uplink's ring.
    active: bool,
    /// Its two racks, if they differ.
    crosses: Option<(u32, u32)>,
    /// Nothing of it arrives before this moment: something lost is sent again.
    bytes_clear: u64,
    messages_clear: u64,
}

#[derive(Debug, Default)]
struct Link {
    up_rate: u64,
    down_rate: u64,
    /// Flows of this node that have something to send, in turn.
    ring: VecDeque<FlowIndex>,
    up_busy: bool,
    down_free: u64,
    /// Bytes of messages that have passed and have not been charged yet.
    up_debt: u64,
    down_debt: u64,
    dead: bool,
    sent: u64,
    /// Its flows, by receiver.
    flows: Vec<(NodeIndex, FlowIndex)>,
}

/// The uplink of a rack: what leaves it and what comes in.
#[derive(Debug, Clone, Copy, Default)]
struct Uplink {
    out_free: u64,
    in_free: u64,
    exported: u64,
    imported: u64,
    /// Of that, messages.
    heard: u64,
}

/// What the network wants done at a later moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NetEvent {
    /// A quantum has left its sender.
    Sent(Quantum),
    /// A quantum has passed the uplink of its sender's rack.
    Crossed(Quantum),
    /// A quantum has passed the uplink of its receiver's rack.
    Entered(Quantum),
    /// The downlink of the receiver has delivered a quantum.
    Delivered(Quantum),
}

/// Some bytes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quantum {
    flow: FlowIndex,
    bytes: u32,
    id: u64,
}

/// What the links are like.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Bytes per second of each node's link, up and down.
    pub(super) rates: Vec<(u64, u64)>,
    /// The rack of each node, and bytes per second of each rack's uplink, each way.
    pub(super) racks: Vec<u32>,
    pub(super) uplink: u64,
    /// Microseconds that a byte travels.
    pub(super) latency: u64,
    /// Bytes of headers for each [`SEGMENT`] of payload.
    pub(super) headers: u64,
    /// Microseconds that something small waits in the two ports between busy nodes.
    pub(super) queue: u64,
    /// Bytes served at a time.
    pub(super) quantum: u64,
}

/// Payload of a TCP segment on Ethernet, with timestamps.
pub(super) const SEGMENT: u64 = 1448;

/// All links and flows.
#[derive(Debug)]
pub(super) struct Net {
    plan: Plan,
    links: Vec<Link>,
    uplinks: Vec<Uplink>,
    flows: Vec<Flow>,
    losses: Losses,
    /// Events to come and their time.
    pub(super) events: Vec<(u64, NetEvent)>,
    /// Requests answered: the receiver, the number, and whether whole.
    pub(super) delivered: Vec<(NodeIndex, u64, bool)>,
}

impl Net {
    pub(super) fn new(plan: Plan, losses: Losses) -> Self {
        let link = |&(up_rate, down_rate): &(u64, u64)| Link { up_rate, down_rate, ..Link::default() };
        let links = plan.rates.iter().map(link).collect();
        let racks = plan.racks.iter().max().map_or(0, |&last| last as usize + 1);
        let uplinks = vec![Uplink::default(); racks];
        Self { plan, links, uplinks, flows: Vec::new(), losses, events: Vec::new(), delivered: Vec::new() }
    }

    /// Bytes that have left `node`.
    pub(super) fn sent(&self, node: NodeIndex) -> u64 {
        self.links.get(node as usize).map_or(0, |link| link.sent)
    }

    /// Bytes that have come into each rack from others.
    pub(super) fn imported(&self) -> Vec<u64> {
        self.uplinks.iter().map(|uplink| uplink.imported).collect()
    }

    /// How many of those were messages.
    pub(super) fn heard(&self) -> Vec<u64> {
        self.uplinks.iter().map(|uplink| uplink.heard).collect()
    }

    /// Bytes that have left each rack for others.
    pub(super) fn exported(&self) -> Vec<u64> {
        self.uplinks.iter().map(|uplink| uplink.exported).collect()
    }

    /// New flows between two nodes, both ways; what was between them before is gone.
    pub(super) fn connect(&mut self, one: NodeIndex, other: NodeIndex) {
        let rack = |node: NodeIndex| self.plan.racks.get(node as usize).copied().unwrap_or(0);
        let racks = (rack(one), rack(other));
        for (from, to, crossed) in [(one, other, racks), (other, one, (racks.1, racks.0))] {
            let index = u32::try_from(self.flows.len()).unwrap_or(u32::MAX);
            let crosses = (racks.0 != racks.1).then_some(crossed);
            self.flows.push(Flow {
                from,
                to,
                answers: VecDeque::new(),
                window: 0,
                active: false,
                crosses,
                bytes_clear: 0,
                messages_clear: 0,
            });
            let Some(link) = self.links.get_mut(from as usize) else { continue };
            match link.flows.binary_search_by_key(&to, |flow| flow.0) {
                Ok(place) => {
                    let old = link.flows.get_mut(place).map(|flow| std::mem::replace(&mut flow.1, index));
                    if let Some(old) = old.and_then(|old| self.flows.get_mut(old as usize)) {
                        old.answers.clear();
                    }
                }
                Err(place) => link.flows.insert(place, (to, index)),
            }
        }
    }

    fn flow(&self, from: NodeIndex, to: NodeIndex) -> Option<FlowIndex> {
        let flows = &self.links.get(from as usize)?.flows;
        let place = flows.binary_search_by_key(&to, |flow| flow.0).ok()?;
        flows.get(place).map(|flow| flow.1)
    }

    /// Microseconds that something small waits in the ports between `from` and `to`: half of the plan's for each of the two that
    /// is busy.
    pub(super) fn queueing(&self, now: u64, from: NodeIndex, to: NodeIndex) -> u64 {
        let sends = self.links.get(from as usize).is_some_and(|link| link.up_busy);
        let receives = self.links.get(to as usize).is_some_and(|link| link.down_free > now);
        self.plan.queue / 2 * (u64::from(sends) + u64::from(receives))
    }

    /// A small message leaves `from` now: when `to` has it, `control` microseconds of batching and wake-ups included. Its bytes
    /// hold up what is sent next. `None` if there is no flow between them.
    pub(super) fn message(
        &mut self,
        now: u64,
        from: NodeIndex,
        to: NodeIndex,
        bytes: u64,
        control: u64,
    ) -> Option<u64> {
        let bytes = self.on_wire(bytes);
        let index = self.flow(from, to)?;
        let queueing = self.queueing(now, from, to);
        let link = self.links.get_mut(from as usize)?;
        link.up_debt += bytes;
        link.sent += bytes;
        self.links.get_mut(to as usize)?.down_debt += bytes;
        let flow = self.flows.get_mut(index as usize)?;
        if let Some((from, to)) = flow.crosses {
            let time = bytes * 1_000_000 / self.plan.uplink.max(1);
            if let Some(uplink) = self.uplinks.get_mut(from as usize) {
                uplink.out_free = uplink.out_free.max(now) + time;
                uplink.exported += bytes;
            }
            if let Some(uplink) = self.uplinks.get_mut(to as usize) {
                uplink.in_free = uplink.in_free.max(now) + time;
                uplink.imported += bytes;
                uplink.heard += bytes;
            }
        }
        let at = now + self.plan.latency + control + queueing + self.losses.message();
        flow.messages_clear = flow.messages_clear.max(at);
        Some(flow.messages_clear)
    }

    /// `from` begins to answer request `id` of `to` with `bytes`. Without a flow between them nothing comes.
    pub(super) fn answer(&mut self, now: u64, from: NodeIndex, to: NodeIndex, id: u64, bytes: u64) {
        let Some(index) = self.flow(from, to) else { return };
        let (bytes, breaks) = match self.losses.answer() {
            Fate::Whole => (bytes, false),
            Fate::Breaks(part) => ((bytes * u64::from(part) / 256).max(1), true),
        };
        if let Some(flow) = self.flows.get_mut(index as usize) {
            flow.answers.push_back(Answer { id, bytes, unsent: bytes, undelivered: bytes, breaks });
        }
        self.wake(now, index);
    }

    /// `to` gives request `id` up: how many bytes of it had come. What is on the way still comes.
    pub(super) fn cancel(&mut self, from: NodeIndex, to: NodeIndex, id: u64) -> u64 {
        let Some(flow) = self.flow(from, to).and_then(|index| self.flows.get_mut(index as usize)) else {
            return 0;
        };
        let Some(place) = flow.answers.iter().position(|answer| answer.id == id) else { return 0 };
        flow.answers.remove(place).map_or(0, |answer| answer.bytes - answer.undelivered)
    }

    /// `node` neither sends nor receives any more.
    pub(super) fn kill(&mut self, node: NodeIndex) {
        if let Some(link) = self.links.get_mut(node as usize) {
            link.dead = true;
            link.ring.clear();
        }
    }

    /// `node` is back; its flows have to be connected anew.
    pub(super) fn revive(&mut self, node: NodeIndex) {
        if let Some(link) = self.links.get_mut(node as usize) {
            link.dead = false;
        }
    }

    /// Takes an event back when its time has come.
    pub(super) fn handle(&mut self, now: u64, event: NetEvent) {
        match event {
            NetEvent::Sent(quantum) => {
                let Some(&Flow { from, crosses, .. }) = self.flows.get(quantum.flow as usize) else { return };
                let uplink = crosses.and_then(|(rack, _)| self.uplinks.get_mut(rack as usize));
                match uplink {
                    Some(uplink) => {
                        let wire = on_wire(&self.plan, u64::from(quantum.bytes));
                        uplink.out_free =
                            uplink.out_free.max(now) + wire * 1_000_000 / self.plan.uplink.max(1);
                        uplink.exported += wire;
                        self.events.push((uplink.out_free, NetEvent::Crossed(quantum)));
                    }
                    None => self.arrive(now + self.plan.latency, quantum),
                }
                if let Some(link) = self.links.get_mut(from as usize) {
                    link.up_busy = false;
                }
                self.wake(now, quantum.flow);
                self.serve(now, from);
            }
            NetEvent::Crossed(quantum) => {
                let Some(flow) = self.flows.get(quantum.flow as usize) else { return };
                let wire = self.on_wire(u64::from(quantum.bytes));
                if let Some((_, rack)) = flow.crosses
                    && let Some(uplink) = self.uplinks.get_mut(rack as usize)
                {
                    uplink.in_free = uplink.in_free.max(now) + wire * 1_000_000 / self.plan.uplink.max(1);
                    uplink.imported += wire;
                    self.events.push((uplink.in_free, NetEvent::Entered(quantum)));
                }
            }
            NetEvent::Entered(quantum) => self.arrive(now + self.plan.latency, quantum),
            NetEvent::Delivered(quantum) => self.deliver(now, quantum),
        }
    }

    /// A quantum reaches the switch port of its receiver at `at`, after all that reached it before.
    fn arrive(&mut self, at: u64, quantum: Quantum) {
        let wire = self.on_wire(u64::from(quantum.bytes));
        let Some(flow) = self.flows.get_mut(quantum.flow as usize) else { return };
        let Some(link) = self.links.get_mut(flow.to as usize) else { return };
        let bytes = wire + std::mem::take(&mut link.down_debt);
        link.down_free = link.down_free.max(at) + bytes * 1_000_000 / link.down_rate.max(1);
        let stall = self.losses.quantum(u64::from(quantum.bytes));
        flow.bytes_clear = flow.bytes_clear.max(link.down_free + stall);
        self.events.push((flow.bytes_clear, NetEvent::Delivered(quantum)));
    }

    fn deliver(&mut self, now: u64, quantum: Quantum) {
        let Some(flow) = self.flows.get_mut(quantum.flow as usize) else { return };
        flow.window = flow.window.saturating_sub(1);
        if let Some(place) = flow.answers.iter().position(|answer| answer.id == quantum.id)
            && let Some(answer) = flow.answers.get_mut(place)
        {
            answer.undelivered = answer.undelivered.saturating_sub(u64::from(quantum.bytes));
            if answer.undelivered == 0 {
                let whole = !answer.breaks;
                flow.answers.remove(place);
                self.delivered.push((flow.to, quantum.id, whole));
            }
        }
        self.wake(now, quantum.flow);
    }

    /// Puts the flow in the ring of its sender if it can send.
    fn wake(&mut self, now: u64, index: FlowIndex) {
        let Some(flow) = self.flows.get_mut(index as usize) else { return };
        let from = flow.from;
        let Some(link) = self.links.get_mut(from as usize) else { return };
        let ready = flow.window < WINDOW && flow.answers.iter().any(|answer| answer.unsent > 0);
        if ready && !flow.active && !link.dead {
            flow.active = true;
            link.ring.push_back(index);
        }
        self.serve(now, from);
    }

    /// Sends the next quantum of `from` if its uplink is free.
    fn serve(&mut self, now: u64, from: NodeIndex) {
        let Some(link) = self.links.get_mut(from as usize) else { return };
        while !link.up_busy && !link.dead {
            let Some(index) = link.ring.pop_front() else { return };
            let Some(flow) = self.flows.get_mut(index as usize) else { continue };
            flow.active = false;
            let Some(answer) = flow.answers.iter_mut().find(|answer| answer.unsent > 0) else { continue };
            let bytes = answer.unsent.min(self.plan.quantum);
            answer.unsent -= bytes;
            flow.window += 1;
            link.up_busy = true;
            let wire = on_wire(&self.plan, bytes);
            link.sent += wire;
            let time = (wire + std::mem::take(&mut link.up_debt)) * 1_000_000 / link.up_rate.max(1);
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.events.push((now + time, NetEvent::Sent(Quantum { flow: index, bytes, id: answer.id })));
        }
    }

    fn on_wire(&self, bytes: u64) -> u64 {
        on_wire(&self.plan, bytes)
    }
}

/// Bytes with the headers of their segments.
fn on_wire(plan: &Plan, bytes: u64) -> u64 {
    bytes + bytes * plan.headers / SEGMENT
}
