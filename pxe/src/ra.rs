//! Answers router solicitations of booting machines.
//!
//! After its lease iPXE waits 13 s for an IPv6 router. One advertisement that says "no router here" (lifetime 0, no
//! flags, no prefix) ends the wait and changes nothing for anybody else. Owns the two ICMPv6 messages; which client is
//! answered by which node is [`crate::dhcp::core::Core::answers_solicitation`]'s decision, the socket is
//! [`crate::dhcp::driver`]'s.

use std::net::Ipv6Addr;

/// Where solicitations go, in IPv6 and on Ethernet (RFC 4291 §2.7.1, RFC 2464 §7).
pub const ALL_ROUTERS_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 2];
/// All nodes of the link (RFC 4291 §2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

const IPV6_HEADER: usize = 40;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// An advertisement without options (RFC 4861 §4.2).
const ADVERTISEMENT_LENGTH: u8 = 16;

/// A router solicitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Solicitation {
    /// Who sent it; unspecified if the sender has no address yet.
    pub source: Ipv6Addr,
}

impl Solicitation {
    /// Reads an IPv6 packet, without its Ethernet header. `None` for everything that is no valid solicitation (RFC 4861
    /// §6.1.1): hop limit not 255, bad checksum, extension headers, or truncated.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (header, rest) = packet.split_first_chunk::<IPV6_HEADER>()?;
        let [first, _, _, _, length_high, length_low, next_header, hop_limit, ..] = *header;
        let body = rest.get(..usize::from(u16::from_be_bytes([length_high, length_low])))?;
        let source = address(header.get(8..24)?)?;
        let target = address(header.get(24..40)?)?;
        let [kind, code, ..] = *body else { return None };
        let valid = first >> 4 == 6
            && next_header == ICMPV6
            && hop_limit == 255
            && (kind, code) == (SOLICITATION, 0)
            && body.len() >= 8
            && checksum(source, target, body) == 0;
        valid.then_some(Self { source })
    }
}

/// An advertisement ready for the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    /// The IPv6 packet, without Ethernet header.
    pub packet: Vec<u8>,
    /// The Ethernet address it goes to.
    pub to: [u8; 6],
}

/// The answer to a solicitation of the machine at Ethernet address `client`, from the link-local address that belongs to
/// `own`: to the sender alone if it has an address. Whether IPv6 is enabled on the interface does not matter.
#[must_use]
pub fn advertise(own: [u8; 6], client: [u8; 6], solicitation: Solicitation) -> Advertisement {
    let source = link_local(own);
    let (target, to) = if solicitation.source.is_unspecified() {
        (ALL_NODES, ALL_NODES_MAC)
    } else {
        (solicitation.source, client)
    };
    // Hop limit unspecified, no flags, router lifetime, reachable time and retransmission timer zero.
    let mut body = [0; ADVERTISEMENT_LENGTH as usize];
    body[0] = ADVERTISEMENT;
    let sum = checksum(source, target, &body).to_be_bytes();
    body[2..4].copy_from_slice(&sum);

    let mut packet = vec![0x60, 0, 0, 0, 0, ADVERTISEMENT_LENGTH, ICMPV6, 255];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&target.octets());
    packet.extend_from_slice(&body);
    Advertisement { packet, to }
}

/// The link-local address of an Ethernet address: modified EUI-64 (RFC 4291 appendix A).
#[must_use]
pub fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    let identifier = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    let mut octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    octets[8..].copy_from_slice(&identifier);
    Ipv6Addr::from(octets)
}

fn address(bytes: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from)
}

/// The internet checksum over the pseudo-header and the message (RFC 8200 §8.1); over a message that holds its own
/// checksum it is zero.
fn checksum(source: Ipv6Addr, target: Ipv6Addr, body: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u64 {
        let (pairs, odd) = bytes.as_chunks::<2>();
        let last = odd.first().map_or(0, |&byte| u64::from(byte) << 8);
        pairs.iter().map(|&pair| u64::from(u16::from_be_bytes(pair))).sum::<u64>() + last
    };
    let mut sum = words(&source.octets()) + words(&target.octets()) + words(body);
    sum += body.len() as u64 + u64::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What iPXE 1.0.0 in QEMU sends: no options, from its link-local address.
    fn solicitation(source: Ipv6Addr) -> Vec<u8> {
        let target = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
        let mut body = [SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        let sum = checksum(source, target, &body).to_be_bytes();
        body[2..4].copy_from_slice(&sum);
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, ICMPV6, 255];
        packet.extend_from_slice(&source.octets());
        packet.extend_from_slice(&target.octets());
        packet.extend_from_slice(&body);
        packet
    }

    #[test]
    fn sixteen_bytes_without_router_flags_or_prefix() {
        let client = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
        let parsed = Solicitation::parse(&solicitation(link_local(client))).unwrap();
        assert_eq!(parsed.source, "fe80::5054:ff:fe12:3456".parse::<Ipv6Addr>().unwrap());
        let answer = advertise([2, 0, 0, 0, 0, 1], client, parsed);
        assert_eq!(answer.to, client);
        assert_eq!(answer.packet.len(), 56);
        assert_eq!(answer.packet[7], 255, "hop limit");
        assert_eq!(answer.packet[40], 134);
        assert_eq!(answer.packet[44..], [0; 12]);
        assert_eq!(checksum(link_local([2, 0, 0, 0, 0, 1]), link_local(client), &answer.packet[40..]), 0);
    }

    #[test]
    fn a_sender_without_address_is_answered_by_multicast() {
        let parsed = Solicitation::parse(&solicitation(Ipv6Addr::UNSPECIFIED)).unwrap();
        let answer = advertise([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], parsed);
        assert_eq!(answer.to, [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(answer.packet[24..40], ALL_NODES.octets());
    }

    #[test]
    fn routed_and_damaged_solicitations_are_ignored() {
        let good = solicitation(link_local([2, 0, 0, 0, 0, 2]));
        for (index, value) in [(7, 64), (6, 17), (40, 134), (42, 1), (0, 0x40)] {
            let mut bad = good.clone();
            bad[index] = value;
            assert_eq!(Solicitation::parse(&bad), None, "byte {index}");
        }
        for length in 0..good.len() {
            assert_eq!(Solicitation::parse(&good[..length]), None);
        }
    }

    #[test]
    fn damaged_solicitations_are_ignored() {
        let good = solicitation(link_local([2, 0, 0, 0, 0, 2]));
        let other = solicitation(Ipv6Addr::UNSPECIFIED);
        let mut random = crate::damage::Random(1);
        for _ in 0..20_000 {
            let copy = crate::damage::damaged(&good, &other, &mut random);
            if let Some(parsed) = Solicitation::parse(&copy) {
                let answer = advertise([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], parsed);
                assert_eq!(answer.packet.len(), 56);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Solicitation::parse(&bytes);
        }
    }
}
