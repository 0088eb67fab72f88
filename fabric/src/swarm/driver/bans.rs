//! Core: nodes to be left alone, or not to be mentioned again, for a while.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::id::NodeId;

/// Nodes remembered; beyond, the longest remembered is forgotten.
const MAX_NODES: usize = 256;
/// For how long.
const HOLD: Duration = Duration::from_secs(600);

/// Nodes and until when they are held.
#[derive(Debug, Default)]
pub(super) struct Bans(HashMap<NodeId, Instant>);

impl Bans {
    /// Holds a node; false if it is held already.
    pub(super) fn hold(&mut self, node: NodeId, now: Instant) -> bool {
        if self.holds(node, now) {
            return false;
        }
        if self.0.len() >= MAX_NODES
            && let Some(oldest) = self.0.iter().min_by_key(|(_, until)| **until).map(|(node, _)| *node)
        {
            self.0.remove(&oldest);
        }
        self.0.insert(node, now + HOLD);
        true
    }

    pub(super) fn holds(&self, node: NodeId, now: Instant) -> bool {
        self.0.get(&node).is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Hash;

    #[test]
    fn a_node_is_held_for_a_while_and_few_are_remembered() {
        let now = Instant::now();
        let mut bans = Bans::default();
        let node = |n: u32| NodeId(Hash::of(&n.to_be_bytes()));
        assert!(bans.hold(node(0), now) && !bans.hold(node(0), now) && bans.holds(node(0), now));
        assert!(!bans.holds(node(0), now + HOLD) && bans.hold(node(0), now + HOLD));
        for n in 0..1000 {
            bans.hold(node(n), now);
        }
        assert_eq!(bans.0.len(), MAX_NODES);
    }
}
