//! Core: machines that asked to be admitted, for an operator to see.
//!
//! Bounded in all and per address, so that one machine with many keys does not hide the others. Who has not asked for
//! [`HOLD`] is forgotten. Nothing in an entry is proven but the key and, as far as TCP goes, the address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::id::NodeId;
use crate::swarm::member::MAX_NAME;

/// Machines listed: those of a large switch that is powered on at once, 200 bytes each.
const MAX_WAITING: usize = 1024;
/// Keys listed for one address: a machine that was started again has a new one.
const MAX_PER_ADDRESS: usize = 4;
/// A waiting machine asks every ten seconds, and may be busy with booting.
const HOLD: Duration = Duration::from_secs(90);

/// What a machine without a membership says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Newcomer {
    pub(crate) name: String,
    pub(crate) mac: Option<[u8; 6]>,
    /// Where it listens for peers.
    pub(crate) swarm_port: u16,
}

/// A machine that asks to be admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its key, which it proved to have.
    pub node: NodeId,
    /// The name it gives itself.
    pub name: String,
    /// The hardware address it says it has.
    pub mac: Option<[u8; 6]>,
    /// Where it is, and where it says it listens for peers.
    pub address: SocketAddr,
}

impl Newcomer {
    /// What is known of it, if it keeps to the bounds.
    pub(crate) fn at(self, node: NodeId, remote: IpAddr) -> Option<Waiting> {
        let fits = self.name.len() <= MAX_NAME && !self.name.chars().any(char::is_control);
        let Self { name, mac, swarm_port } = self;
        fits.then(|| Waiting { node, name, mac, address: (remote, swarm_port).into() })
    }
}

/// The list.
#[derive(Debug, Default)]
pub(crate) struct WaitingList(HashMap<NodeId, (Waiting, Instant)>);

impl WaitingList {
    /// A machine asked; true if it is new on the list.
    pub(crate) fn hear(&mut self, waiting: Waiting, now: Instant) -> bool {
        self.expire(now);
        let known = self.0.contains_key(&waiting.node);
        let of_address =
            self.0.values().filter(|(other, _)| other.address.ip() == waiting.address.ip()).count();
        if !known && (self.0.len() >= MAX_WAITING || of_address >= MAX_PER_ADDRESS) {
            return false;
        }
        self.0.insert(waiting.node, (waiting, now));
        !known
    }

    /// Takes a machine off the list.
    pub(crate) fn remove(&mut self, node: NodeId) -> Option<Waiting> {
        self.0.remove(&node).map(|(waiting, _)| waiting)
    }

    /// Who waits now, by name.
    pub(crate) fn list(&mut self, now: Instant) -> Vec<Waiting> {
        self.expire(now);
        let mut list: Vec<Waiting> = self.0.values().map(|(waiting, _)| waiting.clone()).collect();
        list.sort_by(|one, other| (&one.name, one.node).cmp(&(&other.name, other.node)));
        list
    }

    fn expire(&mut self, now: Instant) {
        self.0.retain(|_, (_, asked)| now.duration_since(*asked) < HOLD);
    }
}

/// The address of the other end; IPv4 where it is IPv4.
pub(crate) fn remote_ip(remote: Option<SocketAddr>) -> IpAddr {
    remote.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |remote| remote.ip().to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Hash;

    fn waiting(n: u32, ip: u32) -> Waiting {
        Waiting {
            node: NodeId(Hash::of(&n.to_be_bytes())),
            name: format!("n{n}"),
            mac: None,
            address: (Ipv4Addr::from_bits(ip), 7744).into(),
        }
    }

    #[test]
    fn who_asks_again_is_no_news_and_who_stops_is_forgotten() {
        let (now, mut list) = (Instant::now(), WaitingList::default());
        assert!(list.hear(waiting(1, 1), now) && !list.hear(waiting(1, 1), now));
        assert!(list.hear(waiting(2, 2), now));
        list.hear(waiting(1, 1), now + HOLD / 2);
        assert_eq!(list.list(now + HOLD), [waiting(1, 1)]);
        assert_eq!(list.remove(waiting(1, 1).node), Some(waiting(1, 1)));
        assert!(list.list(now).is_empty());
    }

    #[test]
    fn one_address_does_not_fill_the_list_and_the_list_does_not_fill_memory() {
        let (now, mut list) = (Instant::now(), WaitingList::default());
        for n in 0..100 {
            list.hear(waiting(n, 1), now);
        }
        assert_eq!(list.list(now).len(), MAX_PER_ADDRESS);
        for n in 0..5000 {
            list.hear(waiting(n, n), now);
        }
        assert_eq!(list.list(now).len(), MAX_WAITING);
    }

    #[test]
    fn words_for_a_terminal_are_plain() {
        let newcomer = |name: &str| Newcomer { name: name.into(), mac: None, swarm_port: 1 };
        let at = |name: &str| newcomer(name).at(NodeId(Hash::of(b"n")), [10, 0, 0, 1].into());
        assert_eq!(at("n1").unwrap().address, ([10, 0, 0, 1], 1).into());
        assert!(at("a\x1b[2J").is_none() && at(&"n".repeat(65)).is_none());
    }
}
