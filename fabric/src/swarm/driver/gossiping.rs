//! What is published by gossip, and what comes by it.
//!
//! A message that no neighbour takes yet (subscriptions travel after a connection is made) is published again a moment
//! later.

use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::gossipsub::{MessageAcceptance, MessageId, PublishError};

use super::Driver;
use crate::id::Hash;
use crate::swarm::SwarmEvent;
use crate::swarm::gossip::Gossip;
use crate::swarm::key::node_id;
use crate::swarm::member::{MemberError, MemberInfo, SignedMember, Statement};
use crate::swarm::members::refresh_after;

/// When to publish again what nobody took.
const RETRY: Duration = Duration::from_secs(1);
/// Shortest pause before going beyond what another process said with our key.
const OUTBID: Duration = Duration::from_secs(1);
/// Messages that wait for somebody to take them.
const MAX_UNPUBLISHED: usize = 64;

impl Driver {
    pub(super) fn on_gossip(&mut self, from: PeerId, id: &MessageId, bytes: &[u8], now: Instant) {
        let verdict = self.judge(from, bytes, now);
        if matches!(verdict, MessageAcceptance::Reject) {
            self.offence(node_id(&from), "it passed on false gossip", now);
        }
        self.swarm.behaviour_mut().gossip.report_message_validation_result(id, &from, verdict);
    }

    fn judge(&mut self, from: PeerId, bytes: &[u8], now: Instant) -> MessageAcceptance {
        let from = node_id(&from);
        let in_pace = self.peers.get_mut(&from).is_some_and(|peer| peer.gossip_pace.take(now).is_zero());
        if !in_pace {
            return MessageAcceptance::Ignore;
        }
        match Gossip::decode(bytes) {
            Ok(Gossip::Member(member)) => match self.hear_member(member, false, now) {
                Ok(true) => MessageAcceptance::Accept,
                Ok(false) => MessageAcceptance::Ignore,
                Err(error) if error.is_offence() => MessageAcceptance::Reject,
                Err(_) => MessageAcceptance::Ignore,
            },
            Ok(Gossip::Announce(announcement)) if announcement.check().is_err() => MessageAcceptance::Reject,
            Ok(Gossip::Announce(announcement)) => {
                if self.heads.is_older(&announcement) {
                    return MessageAcceptance::Ignore;
                }
                if self.heads.is_news(&announcement) {
                    self.emit(SwarmEvent::Announced { from, announcement });
                }
                MessageAcceptance::Accept
            }
            Err(_) => MessageAcceptance::Reject,
        }
    }

    pub(super) fn publish(&mut self, message: Gossip, now: Instant) {
        let bytes = match message.encode() {
            Ok(bytes) => bytes,
            Err(error) => return tracing::warn!(%error, "a message cannot be published"),
        };
        match self.swarm.behaviour_mut().gossip.publish(self.topic.clone(), bytes) {
            Ok(_) | Err(PublishError::Duplicate) => {}
            Err(error) => {
                tracing::debug!(%error, "nobody takes a message yet");
                // Only the newest word about ourselves is worth keeping.
                if matches!(message, Gossip::Member(_)) {
                    self.unpublished.retain(|waiting| !matches!(waiting, Gossip::Member(_)));
                }
                if self.unpublished.len() < MAX_UNPUBLISHED {
                    self.unpublished.push(message);
                }
                self.publish_at.get_or_insert(now + RETRY);
            }
        }
    }

    pub(super) fn publish_again(&mut self, now: Instant) {
        self.publish_at = None;
        if self.peers.is_empty() {
            // The next peer starts it again.
            return;
        }
        for message in std::mem::take(&mut self.unpublished) {
            self.publish(message, now);
        }
    }

    /// Tells the fabric that we are here, once a peer is.
    pub(super) fn publish_me(&mut self, now: Instant) {
        if self.peers.len() == 1 || self.me_unpublished() {
            self.unpublished.retain(|waiting| !matches!(waiting, Gossip::Member(_)));
            self.unpublished.push(Gossip::Member(self.me.signed.clone()));
            self.publish_at.get_or_insert(now + RETRY / 4);
        }
    }

    fn me_unpublished(&self) -> bool {
        self.unpublished.iter().any(|waiting| matches!(waiting, Gossip::Member(_)))
    }

    /// Says what this node is, changed or not, with a count above all before.
    pub(super) fn restate(&mut self, info: MemberInfo, now: Instant) -> Result<(), MemberError> {
        let statement = Statement(self.me.statement.0.saturating_add(1));
        let signed = SignedMember::sign(&self.key, self.tag, &info, statement)?;
        self.me = super::Me { info, statement, signed: signed.clone() };
        self.restate_at = now + self.jittered(refresh_after(self.members.count()));
        self.publish(Gossip::Member(signed), now);
        Ok(())
    }

    /// What this node says about itself is due again.
    pub(super) fn restate_now(&mut self, now: Instant) {
        if let Err(error) = self.restate(self.me.info.clone(), now) {
            tracing::warn!(%error, "this node cannot describe itself");
        }
    }

    /// Somebody with this node's key said more than we did: go beyond it. Not at once, or two processes with one key
    /// (the first stage and its successor, for a moment) would outbid each other as fast as they can.
    pub(super) fn restate_soon(&mut self, beyond: Statement, now: Instant) {
        self.me.statement = self.me.statement.max(beyond);
        self.restate_at = self.restate_at.min(now + OUTBID);
    }

    /// Between 0.8 and 1.2 of `pause`, by this node and its count.
    fn jittered(&self, pause: Duration) -> Duration {
        let seed = Hash::of(
            &[self.shared.node.0.as_bytes().as_slice(), &self.me.statement.0.to_be_bytes()].concat(),
        );
        let part = seed.as_bytes().first().copied().unwrap_or(0);
        pause * 4 / 5 + pause * u32::from(part) * 2 / (5 * 255)
    }
}
