//! What can be wrong with a configuration.

use std::net::Ipv4Addr;

use super::identity::ClientMatch;

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No network can be served with this prefix.
    #[error("a prefix of {0} bits cannot be served: use 8 to 30")]
    Prefix(u8),
    /// No subnet is given.
    #[error("no subnet is configured: name at least the one of the interface")]
    NoSubnet,
    /// The server's address is outside of the link's subnet.
    #[error(
        "the server address {server} lies outside of {address}/{prefix}, the link's subnet: change one of them"
    )]
    ServerOutside {
        /// The server's address.
        server: Ipv4Addr,
        /// The network.
        address: Ipv4Addr,
        /// Its prefix.
        prefix: u8,
    },
    /// Two subnets overlap.
    #[error("the subnets {0} and {1} overlap")]
    Overlap(Ipv4Addr, Ipv4Addr),
    /// A subnet's ranges hold no host address.
    #[error("the pool of {0} holds no address: widen its ranges")]
    EmptyPool(Ipv4Addr),
    /// A reservation is useless.
    #[error("the address {address} reserved for {client} {why}")]
    Reservation {
        /// The client.
        client: ClientMatch,
        /// Its address.
        address: Ipv4Addr,
        /// What is wrong with it.
        why: &'static str,
    },
}
