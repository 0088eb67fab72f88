//! Core: which nodes are alive, as far as this one can tell.
//!
//! A member is live while we are connected to it, or while a statement it signed is younger than [`max_age`]. After a
//! connection broke without a goodbye only a *newer* statement makes it live again, so a dead neighbour is gone at once
//! and is not brought back by old gossip. Members restate themselves every [`refresh_after`].
//!
//! Ages are measured on the local monotonic clock, order comes from the counter inside each statement.
//! Never owns: signatures (checked before), addresses to dial, sockets, clocks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::member::{MemberInfo, SignedMember, Statement};
use crate::id::NodeId;

/// Members known at most: 0.5 KiB each, so 2 MiB; one layer-2 network seldom has more machines.
pub(crate) const MAX_MEMBERS: usize = 4096;

/// Statements per second that reach each node in the steady state; each costs about 3 kB on a node's links (a mesh of
/// six, some duplicates), and a node at rest shall use under 2 kB/s in all.
const STATEMENT_EVERY: Duration = Duration::from_secs(4);
const SHORTEST_REFRESH: Duration = Duration::from_secs(30);
const LONGEST_REFRESH: Duration = Duration::from_secs(600);

/// How long a member waits before it restates itself, in a fabric of `members`.
pub(crate) fn refresh_after(members: usize) -> Duration {
    let members = u32::try_from(members).unwrap_or(u32::MAX);
    STATEMENT_EVERY.saturating_mul(members).clamp(SHORTEST_REFRESH, LONGEST_REFRESH)
}

/// How long a statement keeps its member live: three of them may be lost.
pub(crate) fn max_age(members: usize) -> Duration {
    refresh_after(members) * 4
}

/// What a statement was to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Newer than what we knew.
    News,
    /// Known already, or no room for another member.
    Old,
    /// About ourselves, from an earlier run: our own count must go beyond it.
    Ourselves(Statement),
}

#[derive(Debug)]
struct Entry {
    info: MemberInfo,
    statement: Statement,
    signed: SignedMember,
    heard: Instant,
    connected: bool,
    doubted: bool,
}

/// The members view.
#[derive(Debug)]
pub(crate) struct Members {
    me: NodeId,
    entries: BTreeMap<NodeId, Entry>,
    changed: bool,
}

impl Members {
    pub(crate) fn new(me: NodeId) -> Self {
        Self { me, entries: BTreeMap::new(), changed: false }
    }

    /// Whether a statement would be news: asked before its signature is checked.
    pub(crate) fn would_be_news(&self, node: NodeId, statement: Statement) -> bool {
        match self.entries.get(&node) {
            Some(known) => statement > known.statement,
            None => true,
        }
    }

    /// A verified statement arrived by gossip or from a peer's list.
    pub(crate) fn hear(
        &mut self,
        info: MemberInfo,
        statement: Statement,
        signed: SignedMember,
        now: Instant,
    ) -> Heard {
        if info.node == self.me {
            return Heard::Ourselves(statement);
        }
        if !self.would_be_news(info.node, statement) || !self.make_room(info.node) {
            return Heard::Old;
        }
        let connected = self.entries.get(&info.node).is_some_and(|known| known.connected);
        self.put(Entry { info, statement, signed, heard: now, connected, doubted: false });
        Heard::News
    }

    /// A peer greeted us over its own authenticated connection: its word counts whatever its count is.
    pub(crate) fn connected(
        &mut self,
        info: MemberInfo,
        statement: Statement,
        signed: SignedMember,
        now: Instant,
    ) {
        if info.node == self.me {
            return;
        }
        if !self.make_room(info.node) {
            self.forget_oldest();
        }
        self.put(Entry { info, statement, signed, heard: now, connected: true, doubted: false });
    }

    /// A connection ended; `alive` if the peer said goodbye, or we did.
    pub(crate) fn disconnected(&mut self, node: NodeId, alive: bool, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&node) {
            entry.connected = false;
            entry.doubted = !alive;
            entry.heard = now;
            self.changed = true;
        }
    }

    /// Forgets who has not been heard of for too long; call it now and then.
    pub(crate) fn expire(&mut self, now: Instant) {
        let max_age = max_age(self.entries.len());
        let before = self.entries.len();
        self.entries.retain(|_, entry| entry.connected || now.duration_since(entry.heard) < max_age);
        self.changed |= self.entries.len() != before;
    }

    /// Something else that the live view shows has changed.
    pub(crate) fn mark_changed(&mut self) {
        self.changed = true;
    }

    /// Whether the live view may have changed since the last call.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The live members but ourselves, by node id.
    pub(crate) fn live(&self) -> impl Iterator<Item = &MemberInfo> {
        self.entries.values().filter(|entry| entry.connected || !entry.doubted).map(|entry| &entry.info)
    }

    pub(crate) fn count(&self) -> usize {
        self.entries.len() + 1
    }

    /// The statements of live members, to tell a new peer: at most `limit`, an even sample if there are more.
    pub(crate) fn statements(&self, limit: usize) -> Vec<SignedMember> {
        let live = || self.entries.values().filter(|entry| entry.connected || !entry.doubted);
        let step = live().count().div_ceil(limit.max(1)).max(1);
        live().step_by(step).map(|entry| entry.signed.clone()).collect()
    }

    fn put(&mut self, entry: Entry) {
        let news = self.entries.get(&entry.info.node).is_none_or(|old| {
            old.info != entry.info || (old.doubted && !old.connected) || old.connected != entry.connected
        });
        self.changed |= news;
        self.entries.insert(entry.info.node, entry);
    }

    fn make_room(&self, node: NodeId) -> bool {
        self.entries.len() < MAX_MEMBERS || self.entries.contains_key(&node)
    }

    fn forget_oldest(&mut self) {
        let oldest =
            self.entries.iter().filter(|(_, entry)| !entry.connected).min_by_key(|(_, entry)| entry.heard);
        if let Some(node) = oldest.map(|(node, _)| *node) {
            self.entries.remove(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::swarm::key::NodeKey;
    use crate::swarm::protocol::FabricTag;

    fn statement(key: &NodeKey, count: u64) -> (MemberInfo, Statement, SignedMember) {
        let info = MemberInfo { node: key.node_id(), ..MemberInfo::new("n", Ipv4Addr::LOCALHOST) };
        let signed = SignedMember::sign(key, FabricTag::of(b"t"), &info, Statement(count)).unwrap();
        (info, Statement(count), signed)
    }

    fn live(members: &Members) -> Vec<NodeId> {
        members.live().map(|info| info.node).collect()
    }

    #[test]
    fn a_dead_neighbour_leaves_at_once_and_returns_only_with_a_newer_statement() {
        let (me, peer, now) = (NodeKey::generate(), NodeKey::generate(), Instant::now());
        let mut members = Members::new(me.node_id());
        let (info, count, signed) = statement(&peer, 3);
        members.connected(info.clone(), count, signed.clone(), now);
        assert!(members.take_changed());
        assert_eq!(live(&members), [peer.node_id()]);
        members.disconnected(peer.node_id(), false, now);
        assert!(members.take_changed());
        assert!(live(&members).is_empty());
        assert_eq!(members.hear(info, count, signed, now), Heard::Old);
        assert!(live(&members).is_empty());
        let (info, count, signed) = statement(&peer, 4);
        assert_eq!(members.hear(info, count, signed, now), Heard::News);
        assert_eq!(live(&members), [peer.node_id()]);
    }

    #[test]
    fn after_a_goodbye_a_member_stays_until_its_statement_is_old() {
        let (me, peer, now) = (NodeKey::generate(), NodeKey::generate(), Instant::now());
        let mut members = Members::new(me.node_id());
        let (info, count, signed) = statement(&peer, 3);
        members.connected(info, count, signed, now);
        members.disconnected(peer.node_id(), true, now);
        members.expire(now + max_age(1) - Duration::from_secs(1));
        assert_eq!(live(&members), [peer.node_id()]);
        members.take_changed();
        members.expire(now + max_age(1));
        assert!(live(&members).is_empty() && members.take_changed());
    }

    #[test]
    fn repeated_news_of_the_same_kind_is_no_change_and_our_own_echo_is_told_apart() {
        let (me, peer, now) = (NodeKey::generate(), NodeKey::generate(), Instant::now());
        let mut members = Members::new(me.node_id());
        let (info, count, signed) = statement(&peer, 1);
        assert_eq!(members.hear(info, count, signed, now), Heard::News);
        assert!(members.take_changed());
        let (info, count, signed) = statement(&peer, 2);
        assert_eq!(members.hear(info, count, signed, now), Heard::News);
        assert!(!members.take_changed());
        let (info, count, signed) = statement(&me, 9);
        assert_eq!(members.hear(info, count, signed, now), Heard::Ourselves(Statement(9)));
        assert_eq!((members.count(), members.statements(10).len()), (2, 1));
    }

    #[test]
    fn refreshing_gets_rarer_as_the_fabric_grows() {
        assert_eq!(refresh_after(1), SHORTEST_REFRESH);
        assert_eq!(refresh_after(50), Duration::from_secs(200));
        assert_eq!(refresh_after(usize::MAX), LONGEST_REFRESH);
    }
}
