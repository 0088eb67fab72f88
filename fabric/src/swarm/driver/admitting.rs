//! What the gate of a private fabric tells, and memberships between peers.
//!
//! A membership that is news goes to all peers, each of which does the same. After a change whoever is not admitted any
//! more is dropped: the roster decides, not what happened on the way to it.

use std::sync::Arc;
use std::time::Instant;

use super::Driver;
use crate::id::NodeId;
use crate::swarm::SwarmEvent;
use crate::swarm::admission::desk::Taken;
use crate::swarm::admission::{AdmissionEvent, AdmitError, Gate, Report};
use crate::swarm::frame::{Frame, MAX_MEMBERSHIPS_TOLD};
use crate::swarm::session::Link;

/// Waits until the gate has something to tell; for ever where there is none. Cancel safe.
pub(super) async fn woken(gate: &Option<Arc<Gate>>) {
    match gate {
        Some(gate) => gate.woken().await,
        None => std::future::pending().await,
    }
}

impl Driver {
    /// Whether a node may be a peer.
    pub(super) fn admits(&self, node: NodeId) -> bool {
        self.gate.as_ref().is_none_or(|gate| gate.admits(node))
    }

    /// Tells a new peer all memberships, unless it knows the same.
    pub(super) fn tell_memberships(&self, node: NodeId, link: &Link) {
        let Some(gate) = self.gate.as_ref().filter(|gate| gate.differs(node)) else { return };
        for frame in frames(&gate.memberships()) {
            match frame.encode() {
                Ok(frame) => drop(link.send_frame(frame)),
                Err(error) => tracing::warn!(%error, "memberships cannot be sent"),
            }
        }
    }

    /// Memberships from a peer.
    pub(super) fn hear_memberships(&mut self, from: NodeId, memberships: &[Vec<u8>], now: Instant) {
        let Some(gate) = self.gate.clone() else { return };
        for bytes in memberships {
            match gate.learn(bytes) {
                Ok(_) | Err(AdmitError::Superseded { .. } | AdmitError::Full) => {}
                Err(error) => {
                    tracing::debug!(?from, %error, "a false membership");
                    return self.offence(from, "it passed on a false membership", now);
                }
            }
        }
        self.on_gate(Some(from), now);
    }

    /// Does what follows from what the gate has come to know; `from` told it and need not hear it.
    pub(super) fn on_gate(&mut self, from: Option<NodeId>, now: Instant) {
        let Some(Taken { news, reports }) = self.gate.as_ref().map(|gate| gate.take()) else { return };
        if !news.is_empty() {
            let others: Vec<NodeId> =
                self.peers.keys().filter(|node| Some(**node) != from).copied().collect();
            for frame in frames(&news) {
                self.send_all(&others, &frame);
            }
            self.drop_strangers(now);
            self.members.mark_changed();
            self.emit(SwarmEvent::Admission(AdmissionEvent::Changed));
        }
        for report in reports {
            match report {
                Report::Asked(waiting) => {
                    tracing::info!(node = ?waiting.node, name = waiting.name, "a machine asks to be admitted");
                    self.emit(SwarmEvent::Admission(AdmissionEvent::Asked(waiting)));
                }
                Report::Admitted(waiting) => self.dial.hurry(waiting.address, waiting.node, now),
                Report::TurnedAway { by, at, why, member } => {
                    if let Some(at) = at {
                        self.dial.waits(at, now);
                    }
                    if member {
                        self.emit(SwarmEvent::Admission(AdmissionEvent::TurnedAway { by, why }));
                    }
                }
            }
        }
    }

    /// Closes every connection with a node that is not admitted any more.
    fn drop_strangers(&mut self, now: Instant) {
        let peers: Vec<NodeId> = self.peers.keys().filter(|node| !self.admits(**node)).copied().collect();
        for node in peers {
            tracing::warn!(?node, "a peer is no member any more and is dropped");
            self.drop_peer(node, true, now);
        }
        let connections: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| !self.admits(connection.node))
            .map(|(id, _)| *id)
            .collect();
        for id in connections {
            self.swarm.close_connection(id);
        }
    }
}

fn frames<B: AsRef<[u8]>>(memberships: &[B]) -> impl Iterator<Item = Frame> {
    memberships
        .chunks(MAX_MEMBERSHIPS_TOLD)
        .map(|part| Frame::Memberships(part.iter().map(|bytes| bytes.as_ref().to_vec()).collect()))
}
