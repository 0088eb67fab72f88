//! Peers that are not asked any more, whether they are there or not: coming back under the same key helps nobody.

use std::collections::BTreeMap;

use super::super::ban::Ban;
use super::PeerKey;

/// Bans remembered; beyond, the oldest is forgotten. Each costs its peer a key and us a run.
const MAX_BANS: usize = 256;

/// The bans, and in which order they came.
#[derive(Debug, Default)]
pub(super) struct Bans {
    bans: BTreeMap<PeerKey, (u64, Ban)>,
    next: u64,
}

impl Bans {
    /// Bans `peer`; a ban that stands already is kept, with its proof.
    pub(super) fn insert(&mut self, peer: PeerKey, ban: Ban) {
        if self.bans.contains_key(&peer) {
            return;
        }
        let oldest = self.bans.iter().min_by_key(|(_, (order, _))| *order).map(|(&peer, _)| peer);
        if let Some(oldest) = oldest.filter(|_| self.bans.len() >= MAX_BANS) {
            self.bans.remove(&oldest);
        }
        self.bans.insert(peer, (self.next, ban));
        self.next += 1;
    }

    pub(super) fn holds(&self, peer: &PeerKey) -> bool {
        self.bans.contains_key(peer)
    }

    /// All bans.
    pub(super) fn all(&self) -> BTreeMap<PeerKey, Ban> {
        self.bans.iter().map(|(&peer, (_, ban))| (peer, ban.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Hash, NodeId};

    #[test]
    fn the_oldest_are_forgotten_first_and_the_first_reason_stays() {
        let peer = |number: usize| NodeId(Hash::of(&number.to_be_bytes()));
        let ban = |why: &str| Ban { why: why.into(), proof: None };
        let mut bans = Bans::default();
        for number in 0..MAX_BANS + 10 {
            bans.insert(peer(number), ban("first"));
            bans.insert(peer(number), ban("second"));
        }
        assert_eq!(bans.all().len(), MAX_BANS);
        assert!(!bans.holds(&peer(9)) && bans.holds(&peer(10)) && bans.holds(&peer(MAX_BANS + 9)));
        assert!(bans.all().values().all(|ban| ban.why == "first"));
    }
}
