//! Where to listen, and which addresses to tell others.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::str::FromStr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrIn;

use super::ticket::MAX_PEERS;
use crate::link::LinkError;

/// What `--listen` says: an address, a port, or both. The swarm takes the port, the HTTP service the one after it; without
/// a port both take any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAt {
    /// The address; unspecified for all of them.
    pub address: Ipv4Addr,
    /// The port; 0 for any.
    pub port: u16,
}

impl Default for ListenAt {
    fn default() -> Self {
        Self { address: Ipv4Addr::UNSPECIFIED, port: 0 }
    }
}

impl fmt::Display for ListenAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddrV4::new(self.address, self.port).fmt(f)
    }
}

impl FromStr for ListenAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, port) = match text.split_once(':') {
            Some(("", port)) => (Ok(Ipv4Addr::UNSPECIFIED), port.parse()),
            Some((address, port)) => (address.parse(), port.parse()),
            None => (text.parse(), Ok(0)),
        };
        match (address, port) {
            // The HTTP service takes the port after it.
            (Ok(address), Ok(port)) if port < u16::MAX => Ok(Self { address, port }),
            _ => Err("expected A.B.C.D, A.B.C.D:PORT or :PORT, with a port below 65535".into()),
        }
    }
}

impl ListenAt {
    /// Where the swarm listens.
    #[must_use]
    pub fn swarm(self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, self.port)
    }

    /// Where the HTTP service listens.
    #[must_use]
    pub fn http(self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address, if self.port == 0 { 0 } else { self.port + 1 })
    }

    /// The address to tell others: this one, or the one from which the first of `peers` that there is a way to is reached;
    /// unspecified where neither is known, which leaves others with the address they see.
    #[must_use]
    pub fn own(self, peers: &[SocketAddrV4]) -> Ipv4Addr {
        if !self.address.is_unspecified() {
            return self.address;
        }
        peers.iter().find_map(source_towards).unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// The addresses at which others can reach what listens here on `port`, for a ticket: of all interfaces but the loopback
    /// one, unless there is no other.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn reachable(self, port: u16) -> Result<Vec<SocketAddrV4>, LinkError> {
        let addresses = if self.address.is_unspecified() { own_addresses()? } else { vec![self.address] };
        Ok(addresses.into_iter().take(MAX_PEERS).map(|address| SocketAddrV4::new(address, port)).collect())
    }
}

/// The source address of packets to `peer`. Connecting a UDP socket sends nothing.
fn source_towards(peer: &SocketAddrV4) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(peer).ok()?;
    match socket.local_addr().ok()? {
        std::net::SocketAddr::V4(own) => Some(*own.ip()),
        std::net::SocketAddr::V6(_) => None,
    }
}

fn own_addresses() -> Result<Vec<Ipv4Addr>, LinkError> {
    let up = getifaddrs()
        .map_err(LinkError::Addresses)?
        .filter(|entry| entry.flags.contains(InterfaceFlags::IFF_UP));
    let addresses = up.filter_map(|entry| entry.address.as_ref()?.as_sockaddr_in().map(SockaddrIn::ip));
    let (loopback, others): (Vec<_>, Vec<_>) = addresses.partition(Ipv4Addr::is_loopback);
    Ok(if others.is_empty() { loopback } else { others })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_is_said_in_three_ways() {
        let at = |text: &str| text.parse::<ListenAt>().map(|at| (at.swarm().to_string(), at.http().port()));
        assert_eq!(at("10.0.0.1"), Ok(("10.0.0.1:0".into(), 0)));
        assert_eq!(at("10.0.0.1:7000"), Ok(("10.0.0.1:7000".into(), 7001)));
        assert_eq!(at(":7000"), Ok(("0.0.0.0:7000".into(), 7001)));
        for bad in ["", "x", "10.0.0.1:", "10.0.0.1:65535", "[::1]:5"] {
            assert!(bad.parse::<ListenAt>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_own_address_is_the_one_towards_the_peers() {
        let peer = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
        assert_eq!(ListenAt::default().own(&[peer]), Ipv4Addr::LOCALHOST);
        assert_eq!(ListenAt::default().own(&[]), Ipv4Addr::UNSPECIFIED);
        let fixed: ListenAt = "127.0.0.3:1".parse().unwrap();
        assert_eq!(fixed.own(&[peer]), Ipv4Addr::new(127, 0, 0, 3));
        assert_eq!(fixed.reachable(5).unwrap(), [SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 3), 5)]);
        assert!(!ListenAt::default().reachable(5).unwrap().is_empty());
    }
}
