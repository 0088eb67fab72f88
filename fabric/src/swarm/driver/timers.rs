//! Deadlines: what is due is done before the driver waits again.

use std::time::{Duration, Instant};

use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::behaviour::{FromSwarm, NewListenAddr};
use libp2p::swarm::{ConnectionId, NetworkBehaviour};

use super::Driver;
use crate::swarm::SwarmEvent;
use crate::swarm::behaviour::{self, MdnsMode};
use crate::swarm::frame::Frame;
use crate::swarm::member::MemberInfo;
use crate::swarm::watch::Action;

/// The longest the driver sleeps: ages and the like need no better.
const LONGEST_SLEEP: Duration = Duration::from_secs(20);
/// How often the ages of members are looked at; they count in minutes.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);
/// After peers came or went mDNS changes its manner, not at every flicker.
const MDNS_SETTLE: Duration = Duration::from_secs(3);

impl Driver {
    pub(super) fn act(&mut self, now: Instant) {
        self.act_on_watch(now);
        let actions = self.replica.poll(now);
        self.replicate(actions);
        for at in self.dial.poll(now) {
            self.dial_at(at, now);
        }
        if self.neighbours_at.is_some_and(|at| at <= now) {
            self.neighbours_at = None;
            self.send_all(self.peers.keys(), &Frame::Neighbours(self.peers.keys().copied().collect()));
        }
        if self.publish_at.is_some_and(|at| at <= now) {
            self.publish_again(now);
        }
        if self.restate_at <= now {
            self.restate_now(now);
        }
        self.close_silent(now);
        self.settle_mdns(now);
        if self.expire_at <= now {
            self.expire_at = now + EXPIRE_EVERY;
            self.members.expire(now);
        }
        if self.members.take_changed() {
            self.tell_members();
        }
    }

    pub(super) fn next_deadline(&self, now: Instant) -> Instant {
        let silent = self.ungreeted().map(|(_, greet_by)| greet_by).min();
        [
            self.watch.next_deadline(),
            self.replica.next_deadline(now),
            self.dial.next_deadline(),
            self.neighbours_at,
            self.publish_at,
            self.mdns_at,
            silent,
            Some(self.restate_at),
            Some(self.expire_at),
            Some(now + LONGEST_SLEEP),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(now + LONGEST_SLEEP)
    }

    fn act_on_watch(&mut self, now: Instant) {
        if self.watch.next_deadline().is_none_or(|at| at > now) {
            return;
        }
        self.hear_links(now);
        for action in self.watch.poll(now) {
            match action {
                Action::Ask(node) => self.ask(node),
                Action::Suspect(node) => {
                    let others: Vec<_> = self.peers.keys().filter(|peer| **peer != node).copied().collect();
                    self.send_all(&others, &Frame::Suspect(node));
                }
                Action::Dead(node) => {
                    tracing::info!(?node, "a peer does not answer any more");
                    self.drop_peer(node, false, now);
                }
            }
        }
    }

    /// Connections on which nobody became a peer.
    fn ungreeted(&self) -> impl Iterator<Item = (ConnectionId, Instant)> {
        let greeted = |id, node| self.peers.get(node).is_some_and(|peer| peer.connection == id);
        self.connections
            .iter()
            .filter(move |(id, connection)| !greeted(**id, &connection.node))
            .map(|(id, connection)| (*id, connection.greet_by))
    }

    fn close_silent(&mut self, now: Instant) {
        let silent: Vec<ConnectionId> =
            self.ungreeted().filter(|(_, greet_by)| *greet_by <= now).map(|(id, _)| id).collect();
        for id in silent {
            if let Some(connection) = self.connections.get_mut(&id) {
                // Closing takes a moment; do not ask again at once.
                connection.greet_by = now + LONGEST_SLEEP;
            }
            self.swarm.close_connection(id);
        }
    }

    fn settle_mdns(&mut self, now: Instant) {
        if !self.mdns_wanted {
            return;
        }
        let mode = if self.peers.is_empty() { MdnsMode::Eager } else { MdnsMode::Calm };
        if self.mdns == Some(mode) {
            self.mdns_at = None;
            return;
        }
        if *self.mdns_at.get_or_insert(now + MDNS_SETTLE) > now {
            return;
        }
        self.mdns_at = None;
        self.mdns = Some(mode);
        match behaviour::mdns(mode, *self.swarm.local_peer_id()) {
            Ok(mut mdns) => {
                for (listener_id, addr) in &self.listeners {
                    mdns.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr {
                        listener_id: *listener_id,
                        addr,
                    }));
                }
                self.swarm.behaviour_mut().mdns = Toggle::from(Some(mdns));
            }
            Err(error) => tracing::warn!(%error, "no mDNS: only given peers are found"),
        }
    }

    fn tell_members(&mut self) {
        let mut live: Vec<MemberInfo> = self
            .members
            .live()
            .filter(|member| self.admits(member.node))
            .cloned()
            .chain([self.me.info.clone()])
            .collect();
        live.sort_unstable_by_key(|member| member.node);
        if **self.shared.members.borrow() != *live {
            let live: std::sync::Arc<[MemberInfo]> = live.into();
            self.shared.members.send_replace(live.clone());
            self.emit(SwarmEvent::Members(live));
        }
    }
}
