//! Core: whom to dial, and when.
//!
//! Addresses come from the operator or the boot script (first peers), from members and from mDNS. Below the target
//! degree the policy picks known addresses in an order that differs from node to node but needs no randomness: by the
//! hash of (own node id, address). Of two nodes the newcomer dials: it has the other from the list of a peer that it dialled, at
//! once, while the other hears of it from third parties and waits [`YIELD`], longer if its id is the higher. Failures back off
//! per address.
//!
//! Never owns: sockets, timers, peer ids of libp2p, the members view.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::id::{Hash, NodeId};

/// Neighbours wanted. With 32 of them rarest-first is within 10 % of the optimum (simulated), and up to 33 nodes form a
/// full mesh.
pub(crate) const TARGET_DEGREE: usize = 32;
/// Neighbours wanted at most while content is looked for that none of them holds: every node takes up to 160 connections.
const MOST_SOUGHT: usize = 128;
/// How many more are dialled at a time then.
const SOUGHT: usize = 16;
/// How long more are wanted: the next look is due long before.
const SEEKING: Duration = Duration::from_secs(10);
/// Addresses kept: those of every member that the view can hold would be too many to try.
pub(crate) const MAX_ADDRESSES: usize = 1024;
/// First peers accepted: a boot script names a handful.
pub(crate) const MAX_FIRST_PEERS: usize = 64;
/// Dials under way at once: handshakes cost about 3 ms of CPU each, on machines that are busy booting.
const MAX_DIALING: usize = 8;
/// Of these, dials of addresses that failed before: those of dead machines take seconds to fail again.
const MAX_RETRYING: usize = 4;
/// What a node waits before it dials one that it has heard of and that is likely to dial by itself; twice as long if its id is
/// the higher. Longer than a handshake takes on busy machines: two connections between two nodes are work for both.
const YIELD: Duration = Duration::from_secs(1);
/// First pause after a failed dial, doubled each time.
const BACK_OFF: Duration = Duration::from_millis(500);
/// Longest pause between dials of a first peer: it may be a machine that is switched on later.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);
/// Pause after being told to wait for an operator. An admitted machine is dialled, so this only keeps it listed.
const WAIT: Duration = Duration::from_secs(10);
/// Pause after finding that an address belongs to another fabric, or to a program that is not ours.
const FOREIGN_PAUSE: Duration = Duration::from_secs(600);
/// Failures after which an address that only gossip or mDNS told of is forgotten: a split may last a quarter of an hour
/// and still heal by itself.
const MAX_FAILURES: u32 = 32;

/// Where an address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Given at start; never forgotten.
    First,
    /// A member in the list of a peer that we dialled: it was there before us.
    Listed(NodeId),
    /// A member of whom we were told otherwise: it came after us, or we are both new.
    Heard(NodeId),
    /// Seen by mDNS and no member we know: perhaps the other half after a split, so it is dialled whatever the degree;
    /// perhaps of another fabric.
    Stranger(NodeId),
}

#[derive(Debug)]
struct Address {
    first: bool,
    stranger: bool,
    node: Option<NodeId>,
    failures: u32,
    not_before: Instant,
    dialing: bool,
    ourselves: bool,
}

/// The dial policy.
#[derive(Debug)]
pub(crate) struct DialPolicy {
    me: NodeId,
    target: usize,
    /// More neighbours than the target are wanted, and until when.
    sought: Option<(usize, Instant)>,
    addresses: HashMap<SocketAddr, Address>,
    connected: HashSet<NodeId>,
    /// Who dialled us and has not greeted us yet.
    arriving: HashSet<NodeId>,
}

impl DialPolicy {
    pub(crate) fn new(me: NodeId, target: usize) -> Self {
        let addresses = HashMap::new();
        Self { me, target, sought: None, addresses, connected: HashSet::new(), arriving: HashSet::new() }
    }

    /// Learns an address. Old news changes nothing but whose address it is.
    pub(crate) fn learn(&mut self, at: SocketAddr, source: Source, now: Instant) {
        let node = match source {
            Source::Listed(node) | Source::Heard(node) | Source::Stranger(node) if node == self.me => return,
            Source::Listed(node) | Source::Heard(node) | Source::Stranger(node) => Some(node),
            Source::First => None,
        };
        if let Some(known) = self.addresses.get_mut(&at) {
            if matches!(source, Source::Listed(_)) && known.failures == 0 {
                known.not_before = known.not_before.min(now);
            }
            known.first |= source == Source::First;
            known.stranger = matches!(source, Source::Stranger(_));
            known.node = node.or(known.node);
            return;
        }
        if at.port() == 0 || at.ip().is_unspecified() || self.addresses.len() >= MAX_ADDRESSES {
            return;
        }
        let wait = match source {
            Source::Heard(node) if node < self.me => 2 * YIELD,
            Source::Heard(_) => YIELD,
            Source::Stranger(node) if node < self.me => YIELD,
            Source::First | Source::Listed(_) | Source::Stranger(_) => Duration::ZERO,
        };
        self.addresses.insert(
            at,
            Address {
                first: source == Source::First,
                stranger: matches!(source, Source::Stranger(_)),
                node,
                failures: 0,
                not_before: now + wait,
                dialing: false,
                ourselves: false,
            },
        );
    }

    /// A node has dialled us and is about to greet us: it is not dialled meanwhile.
    pub(crate) fn arriving(&mut self, node: NodeId) {
        self.arriving.insert(node);
    }

    /// The connection of one that was arriving has ended.
    pub(crate) fn left(&mut self, node: NodeId) {
        self.arriving.remove(&node);
    }

    /// A peer greeted us, over a connection that we dialled at `dialled` if we did.
    pub(crate) fn connected(&mut self, node: NodeId, dialled: Option<SocketAddr>) {
        self.connected.insert(node);
        if let Some(address) = dialled.and_then(|at| self.addresses.get_mut(&at)) {
            address.node = Some(node);
            address.failures = 0;
            address.dialing = false;
        }
    }

    /// A peer is gone. It is dialled again after a short pause, a longer one if it turned us away.
    pub(crate) fn disconnected(&mut self, node: NodeId, turned_away: bool, now: Instant) {
        self.connected.remove(&node);
        let pause = if turned_away { LONGEST_BACK_OFF } else { BACK_OFF };
        let wait = if node < self.me { pause + YIELD } else { pause };
        for address in self.addresses.values_mut().filter(|address| address.node == Some(node)) {
            address.not_before = address.not_before.max(now + wait);
        }
    }

    /// A dial ended without a greeting.
    pub(crate) fn failed(&mut self, at: SocketAddr, now: Instant) {
        let Some(address) = self.addresses.get_mut(&at) else { return };
        address.dialing = false;
        address.failures += 1;
        let doublings = address.failures.saturating_sub(1).min(16);
        let pause = (BACK_OFF * (1 << doublings)).min(LONGEST_BACK_OFF);
        address.not_before = address.not_before.max(now + pause);
        if address.failures >= MAX_FAILURES && !address.first && !address.ourselves {
            self.addresses.remove(&at);
        }
    }

    /// A node at this address told us to wait: it is asked again before long, for as long as it takes.
    pub(crate) fn waits(&mut self, at: SocketAddr, now: Instant) {
        if let Some(address) = self.addresses.get_mut(&at) {
            address.failures = 0;
            address.not_before = now + WAIT;
        }
    }

    /// Dials an address at once, whatever came of it before.
    pub(crate) fn hurry(&mut self, at: SocketAddr, node: NodeId, now: Instant) {
        self.learn(at, Source::Listed(node), now);
        if let Some(address) = self.addresses.get_mut(&at) {
            address.failures = 0;
            address.not_before = now;
        }
    }

    /// The address turned out to be our own.
    pub(crate) fn ourselves(&mut self, at: SocketAddr) {
        if let Some(address) = self.addresses.get_mut(&at) {
            address.dialing = false;
            address.ourselves = true;
        }
    }

    /// The address belongs to another fabric, or to a program that is not ours.
    pub(crate) fn foreign(&mut self, at: SocketAddr, now: Instant) {
        if let Some(address) = self.addresses.get_mut(&at) {
            address.dialing = false;
            address.not_before = now + FOREIGN_PAUSE;
        }
    }

    /// Those connected are not enough: some more are wanted for a while. They stay when they have come.
    pub(crate) fn seek(&mut self, now: Instant) {
        self.sought = Some(((self.connected.len() + SOUGHT).min(MOST_SOUGHT), now + SEEKING));
    }

    /// The addresses to dial now; each counts as under way until its outcome is told.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<SocketAddr> {
        self.sought = self.sought.filter(|&(_, until)| until > now);
        let (mut wanted, mut room) = (self.wanted(), self.room());
        let mut due: Vec<_> = self.candidates().filter(|(_, address)| address.not_before <= now).collect();
        due.sort_by_cached_key(|(at, address)| self.order(**at, address));
        due.retain(|(_, address)| {
            let take = (address.stranger || wanted > 0) && room.take(address);
            if take && !address.stranger {
                wanted -= 1;
            }
            take
        });
        let due: Vec<SocketAddr> = due.into_iter().map(|(at, _)| *at).collect();
        for at in &due {
            if let Some(address) = self.addresses.get_mut(at) {
                address.dialing = true;
            }
        }
        due
    }

    /// When [`poll`](Self::poll) may have more to say, if nothing else happens.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let (wanted, room) = (self.wanted() > 0, self.room());
        let possible = |address: &Address| (wanted || address.stranger) && room.has(address);
        self.candidates()
            .filter(|(_, address)| possible(address))
            .map(|(_, address)| address.not_before)
            .min()
    }

    fn room(&self) -> Room {
        let dialing = || self.addresses.values().filter(|address| address.dialing);
        let retrying = dialing().filter(|address| address.failures > 0).count();
        Room {
            any: MAX_DIALING.saturating_sub(dialing().count()),
            retries: MAX_RETRYING.saturating_sub(retrying),
        }
    }

    fn dialing(&self) -> usize {
        self.addresses.values().filter(|address| address.dialing).count()
    }

    fn wanted(&self) -> usize {
        let sought = self.sought.map_or(0, |(sought, _)| sought);
        self.target.max(sought).saturating_sub(self.connected.len() + self.dialing())
    }

    fn candidates(&self) -> impl Iterator<Item = (&SocketAddr, &Address)> {
        let under_way: HashSet<NodeId> = self
            .addresses
            .values()
            .filter(|address| address.dialing)
            .filter_map(|address| address.node)
            .collect();
        self.addresses.iter().filter(move |(_, address)| {
            let known = |node| {
                self.connected.contains(&node) || self.arriving.contains(&node) || under_way.contains(&node)
            };
            !address.dialing && !address.ourselves && !address.node.is_some_and(known)
        })
    }

    // Strangers, then what has not failed, then first peers, then an order of our own.
    fn order(&self, at: SocketAddr, address: &Address) -> (bool, bool, bool, Hash) {
        let hash = Hash::of(&[self.me.0.as_bytes().as_slice(), at.to_string().as_bytes()].concat());
        (!address.stranger, address.failures > 0, !address.first, hash)
    }
}

/// Dials that may begin.
#[derive(Debug, Clone, Copy)]
struct Room {
    any: usize,
    retries: usize,
}

impl Room {
    fn has(self, address: &Address) -> bool {
        self.any > 0 && (address.failures == 0 || self.retries > 0)
    }

    fn take(&mut self, address: &Address) -> bool {
        let has = self.has(address);
        if has {
            self.any -= 1;
            self.retries -= usize::from(address.failures > 0);
        }
        has
    }
}

#[cfg(test)]
mod tests;
