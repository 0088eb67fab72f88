//! Networks and subnets, as an operator sets them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::config_error::ConfigError;

/// An IPv4 network in CIDR form; host bits are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    address: Ipv4Addr,
    prefix: u8,
}

impl Network {
    /// The network of `prefix` bits that holds `address`.
    ///
    /// # Errors
    /// [`ConfigError::Prefix`] unless the prefix is 8 to 30.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Result<Self, ConfigError> {
        if !(8..=30).contains(&prefix) {
            return Err(ConfigError::Prefix(prefix));
        }
        let network = Self { address, prefix };
        Ok(Self { address: address & network.mask(), prefix })
    }

    /// Its first address.
    #[must_use]
    pub const fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Its prefix length in bits.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its mask.
    #[must_use]
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX << (32 - u32::from(self.prefix.clamp(1, 32))))
    }

    /// Its broadcast address.
    #[must_use]
    pub fn broadcast(self) -> Ipv4Addr {
        self.address | !self.mask()
    }

    /// First and last host address.
    #[must_use]
    pub fn hosts(self) -> (Ipv4Addr, Ipv4Addr) {
        (Ipv4Addr::from(u32::from(self.address) + 1), Ipv4Addr::from(u32::from(self.broadcast()) - 1))
    }

    /// Whether an address lies in it.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address & self.mask() == self.address
    }
}

/// One subnet and what its clients are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Its network.
    pub network: Network,
    /// First and last address of each range that clients get addresses from.
    pub ranges: Vec<(Ipv4Addr, Ipv4Addr)>,
    /// Routers, best first; a bare switch has none.
    pub routers: Vec<Ipv4Addr>,
    /// DNS servers.
    pub name_servers: Vec<Ipv4Addr>,
    /// Domain name.
    pub domain: Option<String>,
    /// Further options, by code.
    pub options: BTreeMap<u8, Vec<u8>>,
    /// Relays whose own address (giaddr) lies outside of the network and whose clients belong here.
    pub relays: Vec<Ipv4Addr>,
}

impl Subnet {
    /// A subnet whose every host address is in the pool, without router or DNS: a bare switch.
    #[must_use]
    pub fn whole(network: Network) -> Self {
        let ranges = vec![network.hosts()];
        let (routers, name_servers, options) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { network, ranges, routers, name_servers, domain: None, options, relays: Vec::new() }
    }

    /// Whether the address belongs to a router or DNS server of the subnet, or is no host address of it.
    #[must_use]
    pub fn is_infrastructure(&self, address: Ipv4Addr) -> bool {
        let (first, last) = self.network.hosts();
        !(first..=last).contains(&address)
            || self.routers.contains(&address)
            || self.name_servers.contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_know_their_edges() {
        let network = Network::new(Ipv4Addr::new(10, 1, 2, 77), 28).unwrap();
        assert_eq!(network.address(), Ipv4Addr::new(10, 1, 2, 64));
        assert_eq!(network.broadcast(), Ipv4Addr::new(10, 1, 2, 79));
        assert_eq!(network.mask(), Ipv4Addr::new(255, 255, 255, 240));
        assert!(Network::new(Ipv4Addr::UNSPECIFIED, 31).is_err());
    }
}
