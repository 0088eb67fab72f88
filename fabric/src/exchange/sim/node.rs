//! A simulated node: the core, and what a driver would keep for it.

use std::collections::BTreeMap;

use super::super::core::{Core, PeerKey, Time};
use super::super::message::{Message, Run};
use super::net::NodeIndex;
use crate::id::{Hash, NodeId};

/// Bytes of a message besides its runs: ids, encryption, TCP and IP headers.
const MESSAGE: u64 = 160;
/// Bytes of one run in a message.
const RUN: u64 = 4;

/// A node and one of its lives: a machine that restarts is somebody else to its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Life {
    pub(super) node: NodeIndex,
    pub(super) number: u32,
}

impl Life {
    pub(super) fn key(self) -> PeerKey {
        let mut bytes = [0; 32];
        let (node, number) = bytes.split_at_mut(4);
        node.copy_from_slice(&self.node.to_be_bytes());
        if let Some(number) = number.first_chunk_mut() {
            *number = self.number.to_be_bytes();
        }
        NodeId(Hash::from_bytes(bytes))
    }

    pub(super) fn of(key: PeerKey) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *key.0.as_bytes();
        Self { node: u32::from_be_bytes([a, b, c, d]), number: u32::from_be_bytes([e, f, g, h]) }
    }
}

/// A message on its way.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) from: Life,
    pub(super) to: Life,
    pub(super) message: Message,
}

impl Letter {
    /// Its bytes with everything around it.
    pub(super) fn bytes(&self) -> u64 {
        MESSAGE
            + match &self.message {
                Message::Bitfield { have, .. } => have.words().len() as u64 * 8,
                Message::Have { runs, .. } | Message::Fetching { runs, .. } | Message::Offer { runs, .. } => {
                    runs.len() as u64 * RUN
                }
                _ => 0,
            }
    }
}

/// A request under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) server: Life,
    pub(super) run: Run,
}

/// The node.
pub(super) struct Node {
    pub(super) core: Core,
    pub(super) life: Life,
    pub(super) neighbours: Vec<NodeIndex>,
    pub(super) joined: Option<Time>,
    pub(super) complete: bool,
    pub(super) dead: bool,
    pub(super) lies: bool,
    pub(super) held: u64,
    pub(super) wake: Option<Time>,
    pub(super) requests: BTreeMap<u64, Asked>,
}

impl Node {
    pub(super) fn new(node: NodeIndex, seed: u64, neighbours: Vec<NodeIndex>) -> Self {
        Self {
            core: Core::new(seed),
            life: Life { node, number: 0 },
            neighbours,
            joined: None,
            complete: false,
            dead: false,
            lies: false,
            held: 0,
            wake: None,
            requests: BTreeMap::new(),
        }
    }

    /// It takes part.
    pub(super) fn lives(&self) -> bool {
        !self.dead && self.joined.is_some()
    }

    /// It starts anew, with nothing.
    pub(super) fn restart(&mut self, seed: u64) {
        self.core = Core::new(seed);
        self.life.number += 1;
        self.complete = false;
        self.dead = false;
        self.held = 0;
        self.wake = None;
        self.requests.clear();
    }
}
