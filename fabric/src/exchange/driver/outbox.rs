//! Messages on their way to the swarm: a queue that never makes the exchange wait.

use std::collections::{BTreeSet, VecDeque};

use tokio::sync::mpsc;

use super::super::core::PeerKey;
use super::super::message::Message;
use super::{MAX_QUEUED, Outgoing};

/// The queue, and the peers for whom it overflowed.
#[derive(Debug)]
pub(super) struct Outbox {
    outgoing: mpsc::Sender<Outgoing>,
    queued: VecDeque<Outgoing>,
    stale: BTreeSet<PeerKey>,
}

impl Outbox {
    pub(super) fn new(outgoing: mpsc::Sender<Outgoing>) -> Self {
        Self { outgoing, queued: VecDeque::new(), stale: BTreeSet::new() }
    }

    /// Sends or queues a message. Once one to a peer had to be dropped, so are all until it is told everything anew.
    pub(super) fn push(&mut self, to: PeerKey, message: Message) {
        if self.stale.contains(&to) {
            return;
        }
        if self.queued.len() >= MAX_QUEUED {
            self.stale.insert(to);
            return;
        }
        self.queued.push_back(Outgoing { to, message });
    }

    /// Hands messages over; pending while there are none or no room. Cancel safe.
    pub(super) async fn drain(&mut self) {
        if self.queued.is_empty() {
            return std::future::pending().await;
        }
        while !self.queued.is_empty() {
            let Ok(permit) = self.outgoing.reserve().await else {
                // Nobody sends our messages: the node is shutting down.
                return self.queued.clear();
            };
            if let Some(message) = self.queued.pop_front() {
                permit.send(message);
            }
        }
    }

    /// The peers to tell everything anew, once the queue has drained.
    pub(super) fn stale(&mut self) -> BTreeSet<PeerKey> {
        if self.queued.is_empty() { std::mem::take(&mut self.stale) } else { BTreeSet::new() }
    }
}
