//! ARP probes: whether an address is in use on the link (RFC 5227).
//!
//! A node that chooses an address for itself on a bare switch waits for the answer ([`probe`]). Offers never wait: the pool
//! is asked for in the background and, in doubt, beside the offer ([`ask`]).

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::{Instant, interval_at, sleep_until};

use super::interface::Interface;
use super::packet_socket::{Frames, PacketSocket};

/// Probes per address (RFC 5227 §1.1, `PROBE_NUM`).
pub const PROBES: u32 = 3;
/// A fair total time for [`probe`]: on one switch an answer takes less than a millisecond.
pub const PROBE_TIME: Duration = Duration::from_millis(600);

/// An ARP packet for IPv4 over Ethernet (RFC 826).
const LENGTH: usize = 28;
const REQUEST: u16 = 1;
const BROADCAST_MAC: [u8; 6] = [0xff; 6];

/// Asks the link whether anybody uses `address`, [`PROBES`] times spread over `within`. True as soon as another host
/// answers for it, uses it, or probes for it at the same time (RFC 5227 §2.1.1).
///
/// # Errors
/// If the packet socket cannot be opened or used: `CAP_NET_RAW` is needed, and an interface that is up.
pub async fn probe(interface: &Interface, address: Ipv4Addr, within: Duration) -> io::Result<bool> {
    let socket = PacketSocket::open(interface, Frames::Arp)?;
    let start = Instant::now();
    let deadline = start + within;
    let mut next = interval_at(start, (within / PROBES).max(Duration::from_millis(1)));
    let mut sent = 0;
    let mut buffer = [0; 256];
    loop {
        tokio::select! {
            biased;
            ready = socket.readable() => {
                ready?;
                match socket.try_receive(&mut buffer) {
                    Ok(frame) => {
                        let packet = buffer.get(..frame.length).unwrap_or_default();
                        if Arp::parse(packet).is_some_and(|arp| arp.claims(address, interface.mac)) {
                            return Ok(true);
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            _ = next.tick(), if sent < PROBES => {
                socket.send(BROADCAST_MAC, &Arp::probe(interface.mac, address))?;
                sent += 1;
            }
            () = sleep_until(deadline) => return Ok(false),
        }
    }
}

/// Asks the link once who uses `address`; answers come to the same socket.
pub(super) fn ask(socket: &PacketSocket, own: [u8; 6], address: Ipv4Addr) -> io::Result<()> {
    socket.send(BROADCAST_MAC, &Arp::probe(own, address))
}

/// The address that the sender of an ARP packet uses, and its Ethernet address; `None` for probes, whose sender uses
/// none yet, and for this host's own packets.
pub(super) fn user(packet: &[u8], own: [u8; 6]) -> Option<(Ipv4Addr, [u8; 6])> {
    let arp = Arp::parse(packet)?;
    (!arp.sender.is_unspecified() && arp.sender_mac != own).then_some((arp.sender, arp.sender_mac))
}

/// What matters of an ARP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Arp {
    operation: u16,
    sender_mac: [u8; 6],
    sender: Ipv4Addr,
    target: Ipv4Addr,
}

impl Arp {
    fn parse(packet: &[u8]) -> Option<Self> {
        let packet: &[u8; LENGTH] = packet.first_chunk()?;
        // Ethernet, IPv4, address lengths 6 and 4.
        if packet[..6] != [0, 1, 8, 0, 6, 4] {
            return None;
        }
        let [_, _, _, _, _, _, op_high, op_low, a, b, c, d, e, f, s0, s1, s2, s3, .., t0, t1, t2, t3] =
            *packet;
        Some(Self {
            operation: u16::from_be_bytes([op_high, op_low]),
            sender_mac: [a, b, c, d, e, f],
            sender: Ipv4Addr::new(s0, s1, s2, s3),
            target: Ipv4Addr::new(t0, t1, t2, t3),
        })
    }

    fn claims(&self, address: Ipv4Addr, own: [u8; 6]) -> bool {
        let uses = self.sender == address;
        let probes = self.operation == REQUEST && self.sender.is_unspecified() && self.target == address;
        self.sender_mac != own && (uses || probes)
    }

    fn probe(own: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
        packet.extend_from_slice(&own);
        packet.extend_from_slice(&[0; 10]);
        packet.extend_from_slice(&address.octets());
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn a_probe_does_not_find_itself() {
        let probe = Arp::parse(&Arp::probe(OWN, ADDRESS)).unwrap();
        assert!(!probe.claims(ADDRESS, OWN));
        assert!(probe.claims(ADDRESS, [2, 0, 0, 0, 0, 2]), "another host probing for it counts");
    }

    #[test]
    fn users_are_told_from_those_who_only_ask() {
        let mut reply = Arp::probe([2, 0, 0, 0, 0, 7], Ipv4Addr::new(10, 0, 0, 1));
        assert_eq!(user(&reply, OWN), None);
        reply[14..18].copy_from_slice(&ADDRESS.octets());
        assert_eq!(user(&reply, OWN), Some((ADDRESS, [2, 0, 0, 0, 0, 7])));
        assert_eq!(user(&reply, [2, 0, 0, 0, 0, 7]), None);
    }

    #[test]
    fn answers_and_uses_count() {
        let mut reply = Arp::probe([2, 0, 0, 0, 0, 7], Ipv4Addr::new(10, 0, 0, 1));
        reply[7] = 2;
        reply[14..18].copy_from_slice(&ADDRESS.octets());
        assert!(Arp::parse(&reply).unwrap().claims(ADDRESS, OWN));
        assert!(!Arp::parse(&reply).unwrap().claims(Ipv4Addr::new(10, 0, 0, 8), OWN));
        assert_eq!(Arp::parse(&reply[..27]), None);
    }
}
