//! Who is a peer, and what peers say.
//!
//! A node becomes a peer when its greeting is verified. Between two connections to one node (both dialled at once, or
//! it restarted) both ends choose alike: the newer one if the older has stood for a while, else the one that the node with
//! the lower id dialled.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use libp2p::swarm::ConnectionId;

use super::{Driver, MAX_PEERS, Peer};
use crate::id::NodeId;
use crate::swarm::SwarmEvent;
use crate::swarm::dial::Source;
use crate::swarm::frame::{Frame, Goodbye, MAX_TOLD};
use crate::swarm::handle::{Connected, PeerInfo};
use crate::swarm::members::Heard;
use crate::swarm::pace::Pace;
use crate::swarm::records::replicate;
use crate::swarm::session::{Ended, FromSession, Greeting, SessionId};
use crate::swarm::streams::OpenError;

/// A connection that stood so long was not dialled at the same moment as another.
const SAME_MOMENT: Duration = Duration::from_secs(5);
/// Changes of the set of neighbours are told together.
const TELL_NEIGHBOURS: Duration = Duration::from_millis(200);
/// Gossip messages that one peer may pass on, in the long run and at once: a fabric of 4096 restarting together.
const GOSSIP_PER_SECOND: u32 = 100;
const GOSSIP_BURST: u32 = 5000;

impl Driver {
    pub(super) fn on_session(&mut self, id: SessionId, what: FromSession, now: Instant) {
        let Some(session) = self.sessions.get(&id) else { return };
        let (node, connection) = (session.node, session.connection);
        match what {
            FromSession::Greeted(greeting) => self.on_greeting(id, node, connection, *greeting, now),
            FromSession::Frame(frame) if self.peers.get(&node).is_some_and(|peer| peer.session == id) => {
                self.on_frame(node, frame, now);
            }
            FromSession::Frame(_) => {}
        }
    }

    pub(super) fn on_session_end(&mut self, id: SessionId, why: &Ended, now: Instant) {
        let Some(session) = self.sessions.remove(&id) else { return };
        let node = session.node;
        tracing::debug!(?node, reason = why as &dyn std::error::Error, "channel ended");
        if why.is_offence() {
            self.offence(node, "it broke the rules of the channel", now);
        }
        if self.peers.get(&node).is_some_and(|peer| peer.session == id) {
            let turned_away = matches!(why, Ended::Goodbye(Goodbye::Full));
            self.peer_down(node, why.peer_lives(), turned_away, now);
        }
        // Who does not know the channel says in `identify` why; that connection ends by its deadline at the latest.
        if !matches!(why, Ended::Open(OpenError::Unsupported)) {
            self.swarm.close_connection(session.connection);
        }
    }

    /// Drops a node that lies or breaks the protocol, and leaves it alone for a while.
    pub(super) fn offence(&mut self, node: NodeId, why: &'static str, now: Instant) {
        if self.bans.hold(node, now) {
            tracing::warn!(?node, why, "a peer is dropped and left alone for ten minutes");
        }
        self.drop_peer(node, false, now);
    }

    /// Ends a peer's session and connection at once.
    pub(super) fn drop_peer(&mut self, node: NodeId, alive: bool, now: Instant) {
        if let Some(peer) = self.peers.get(&node) {
            peer.link.cancel();
            let connection = peer.connection;
            self.peer_down(node, alive, false, now);
            self.swarm.close_connection(connection);
        }
    }

    fn on_greeting(
        &mut self,
        id: SessionId,
        node: NodeId,
        connection: ConnectionId,
        greeting: Greeting,
        now: Instant,
    ) {
        let (Some(known), Some(session)) = (self.connections.get(&connection), self.sessions.get(&id)) else {
            return;
        };
        let (dialled, remote, link, said) = (known.dialled, known.remote, session.link.clone(), session.said);
        if let Some(old) = self.peers.get(&node) {
            let by_lower_id = |dialled_by_us| dialled_by_us == (self.shared.node < node);
            let keep_old = now.duration_since(old.since) < SAME_MOMENT
                && old.dialled_by_us != dialled.is_some()
                && by_lower_id(old.dialled_by_us);
            if keep_old {
                if let Some(at) = dialled {
                    self.dial.connected(node, Some(at));
                }
                return link.cancel();
            }
            self.drop_peer(node, true, now);
        }
        let full = self.peers.len() >= MAX_PEERS;
        self.learn_address(&greeting.info, false, now);
        // Before anything else: what the peer hears next it must not pass on to somebody who was a member.
        self.tell_memberships(node, &link);
        let mut statements = self.members.statements(MAX_TOLD);
        if said != self.me.statement {
            // What this node says of itself has changed since it greeted, and the peer was none to be told.
            statements.push(self.me.signed.clone());
        }
        let tell = Frame::Members(statements);
        for frame in [Some(tell), full.then_some(Frame::Goodbye(Goodbye::Full))].into_iter().flatten() {
            match frame.encode() {
                Ok(frame) => drop(link.send_frame(frame)),
                Err(error) => tracing::warn!(%error, "a frame cannot be sent"),
            }
        }
        if full {
            return link.finish();
        }

        let Greeting { hello, info, statement } = greeting;
        self.dial.connected(node, dialled);
        self.watch.peer_up(node, now);
        self.replica.peer_up(node, hello.digest);
        self.members.connected(info.clone(), statement, hello.member, now);
        let peer_info = PeerInfo { member: info.clone(), remote };
        let shared = Connected { info: peer_info, link: link.clone() };
        self.shared.peers.write().unwrap_or_else(PoisonError::into_inner).insert(node, shared);
        let gossip_pace = Pace::new(GOSSIP_PER_SECOND, GOSSIP_BURST);
        let dialled_by_us = dialled.is_some();
        self.peers
            .insert(node, Peer { session: id, connection, link, since: now, dialled_by_us, gossip_pace });
        tracing::info!(?node, name = info.name, %remote, "peer up");
        self.emit(SwarmEvent::PeerUp(node, info, remote));
        self.send(node, &Frame::Neighbours(self.peers.keys().copied().collect()));
        self.send(node, &Frame::Announce(self.heads.all()));
        self.neighbours_at.get_or_insert(now + TELL_NEIGHBOURS);
        self.publish_me(now);
    }

    fn peer_down(&mut self, node: NodeId, alive: bool, turned_away: bool, now: Instant) {
        if self.peers.remove(&node).is_none() {
            return;
        }
        self.shared.peers.write().unwrap_or_else(PoisonError::into_inner).remove(&node);
        self.dial.disconnected(node, turned_away, now);
        self.watch.peer_down(node);
        self.replica.peer_down(node);
        self.members.disconnected(node, alive, now);
        self.neighbours_at.get_or_insert(now + TELL_NEIGHBOURS);
        tracing::info!(?node, "peer down");
        self.emit(SwarmEvent::PeerDown(node));
    }

    fn on_frame(&mut self, from: NodeId, frame: Frame, now: Instant) {
        match frame {
            Frame::Ping { digest } => self.replica.digest_of(from, digest),
            Frame::Pong | Frame::Goodbye(_) => {}
            Frame::Suspect(node) => {
                self.hear_links(now);
                if self.watch.suspect(node, now) {
                    self.ask(node);
                }
            }
            Frame::Members(members) => {
                let before_us = self.peers.get(&from).is_some_and(|peer| peer.dialled_by_us);
                for member in members {
                    if let Err(error) = self.hear_member(member, before_us, now) {
                        tracing::debug!(?from, %error, "a false member");
                        if error.is_offence() {
                            return self.offence(from, "it passed on a false statement of a member", now);
                        }
                    }
                }
            }
            Frame::Neighbours(nodes) => {
                let known: BTreeSet<NodeId> =
                    nodes.into_iter().filter(|node| self.peers.contains_key(node)).collect();
                self.replica.neighbours_of(from, known);
            }
            Frame::Announce(announcements) => {
                for announcement in announcements {
                    if announcement.check().is_ok() && self.heads.is_news(&announcement) {
                        self.emit(SwarmEvent::Announced { from, announcement });
                    }
                }
            }
            Frame::Records(words) => {
                let actions = self.replica.hear(from, words, now);
                self.replicate(actions);
            }
            Frame::Exchange(message) => self.emit(SwarmEvent::Exchange(from, message)),
            Frame::Memberships(memberships) => self.hear_memberships(from, &memberships, now),
        }
    }

    pub(super) fn replicate(&mut self, actions: Vec<replicate::Action>) {
        for action in actions {
            match action {
                replicate::Action::Send(to, words) => self.send_all(&to, &Frame::Records(words)),
                replicate::Action::News(records) => self.emit(SwarmEvent::Records(records)),
            }
        }
    }

    /// Asks a peer whether it is there.
    pub(super) fn ask(&self, node: NodeId) {
        self.send(node, &Frame::Ping { digest: self.replica.digest() });
    }

    /// A member's statement from a peer's list or by gossip, `before_us` if it was there before this node; true if it is news.
    pub(super) fn hear_member(
        &mut self,
        signed: crate::swarm::member::SignedMember,
        before_us: bool,
        now: Instant,
    ) -> Result<bool, crate::swarm::member::MemberError> {
        let (statement, claimed) = signed.claim()?;
        if !self.members.would_be_news(claimed.node, statement) {
            return Ok(false);
        }
        let (statement, info) = signed.verify(self.tag)?;
        let node_info = info.clone();
        Ok(match self.members.hear(info, statement, signed, now) {
            Heard::News => {
                self.learn_address(&node_info, before_us, now);
                true
            }
            Heard::Old => false,
            Heard::Ourselves(statement) => {
                // An earlier run of this node, or another process with its key, said as much or more than we did.
                let outdated = statement == self.me.statement && node_info != self.me.info;
                if statement > self.me.statement || outdated {
                    self.restate_soon(statement, now);
                }
                false
            }
        })
    }

    fn learn_address(&mut self, info: &crate::swarm::MemberInfo, before_us: bool, now: Instant) {
        if let Some(at) = info.swarm_address() {
            let source = if before_us { Source::Listed(info.node) } else { Source::Heard(info.node) };
            self.dial.learn(at, source, now);
        }
    }

    /// Tells the watch when each link last heard of its peer.
    pub(super) fn hear_links(&mut self, now: Instant) {
        for (node, peer) in &self.peers {
            self.watch.heard(*node, peer.link.heard(now));
        }
    }
}
