//! Answers that wait for their turn, and what was seen of other servers' answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::client::ClientKey;
use super::super::time::Time;
use super::Request;

/// Clients that this node stands by for at once: a storm of several thousand machines that all press power together.
const MAX_STANDBYS: usize = 4096;
/// Replies remembered: as many as clients may be standing by.
const MAX_HINTS: usize = 4096;
/// How long a reply's address is believed at least without a lease record: as long as an offer lives.
const HINT_LIFE: Duration = Duration::from_secs(12);

/// Requests in the order in which their turn comes: one per client, the latest.
#[derive(Debug, Default)]
pub(super) struct Standby {
    waiting: BTreeMap<ClientKey, (Time, Request)>,
    due: BTreeSet<(Time, ClientKey)>,
}

impl Standby {
    /// Puts a request in; it replaces the client's earlier one. Whether another one was dropped for it.
    pub(super) fn add(&mut self, due: Time, request: Request) -> bool {
        let key = request.key();
        self.remove(&key);
        let dropped = self.waiting.len() >= MAX_STANDBYS && self.drop_last();
        self.due.insert((due, key));
        self.waiting.insert(key, (due, request));
        dropped
    }

    /// Drops the request whose turn comes last: its client has the most other nodes before this one.
    fn drop_last(&mut self) -> bool {
        let last = self.due.last().copied();
        last.is_some_and(|(_, key)| self.remove(&key).is_some())
    }

    /// Takes a client's request out.
    pub(super) fn remove(&mut self, key: &ClientKey) -> Option<Request> {
        let (due, request) = self.waiting.remove(key)?;
        self.due.remove(&(due, *key));
        Some(request)
    }

    /// Takes a client's request out if it belongs to this transaction.
    pub(super) fn cancel(&mut self, key: &ClientKey, xid: u32) -> bool {
        let matches = self.waiting.get(key).is_some_and(|(_, request)| request.packet.xid == xid);
        matches && self.remove(key).is_some()
    }

    pub(super) fn pop_due(&mut self, now: Time) -> Option<Request> {
        let &(due, key) = self.due.first()?;
        if due > now {
            return None;
        }
        self.remove(&key)
    }

    pub(super) fn next_due(&self) -> Option<Time> {
        self.due.first().map(|&(due, _)| due)
    }
}

/// Whose a reply seen on the link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    /// A node of this fabric, as far as its lease records tell.
    Node,
    Unknown,
}

/// A reply of another server, seen on the link.
#[derive(Debug, Clone, Copy)]
struct Hint {
    xid: u32,
    server: Server,
    address: Option<Ipv4Addr>,
    seen: Time,
    until: Time,
}

/// What was seen of other servers' answers. Only a help until the lease record arrives: it bridges records that were
/// lost with their author.
#[derive(Debug, Default)]
pub(super) struct Hints {
    by_client: BTreeMap<ClientKey, Hint>,
    by_address: BTreeMap<Ipv4Addr, ClientKey>,
    by_end: BTreeSet<(Time, ClientKey)>,
}

impl Hints {
    /// Notes a reply whose address, if it names one, is its client's for `life`.
    pub(super) fn add(
        &mut self,
        now: Time,
        key: ClientKey,
        xid: u32,
        server: Server,
        address: Option<Ipv4Addr>,
        life: Duration,
    ) {
        self.remove(&key);
        if self.by_client.len() >= MAX_HINTS
            && let Some(&(_, first)) = self.by_end.first()
        {
            self.remove(&first);
        }
        let until = now + life.max(HINT_LIFE);
        self.by_end.insert((until, key));
        if let Some(address) = address {
            self.by_address.insert(address, key);
        }
        self.by_client.insert(key, Hint { xid, server, address, seen: now, until });
    }

    fn remove(&mut self, key: &ClientKey) {
        self.settle(key);
        if let Some(hint) = self.by_client.remove(key) {
            self.by_end.remove(&(hint.until, *key));
        }
    }

    /// A lease record of this client is known now: it counts, not the reply.
    pub(super) fn settle(&mut self, key: &ClientKey) {
        if let Some(address) = self.by_client.get_mut(key).and_then(|hint| hint.address.take())
            && self.by_address.get(&address) == Some(key)
        {
            self.by_address.remove(&address);
        }
    }

    pub(super) fn purge(&mut self, now: Time) {
        while let Some(&(until, key)) = self.by_end.first()
            && until <= now
        {
            self.remove(&key);
        }
    }

    /// The address that another server lately named to this client.
    pub(super) fn address_of(&self, now: Time, key: &ClientKey) -> Option<Ipv4Addr> {
        self.by_client.get(key).filter(|hint| now < hint.until)?.address
    }

    /// Whether another client was lately told this address.
    pub(super) fn is_told_to_another(&self, now: Time, key: &ClientKey, address: Ipv4Addr) -> bool {
        self.by_address
            .get(&address)
            .is_some_and(|other| other != key && self.address_of(now, other) == Some(address))
    }

    /// Who answered this very packet, if the answer was seen before the packet: the two come through different sockets.
    pub(super) fn answered_just_now(&self, now: Time, request: &Request, within: Duration) -> Option<Server> {
        let hint = self.by_client.get(&request.key())?;
        (hint.xid == request.packet.xid && now.since(hint.seen) < within).then_some(hint.server)
    }
}
