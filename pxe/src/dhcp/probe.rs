//! How nodes ask a link who answers DHCP there.
//!
//! A probe is a DISCOVER of the node's own interface that carries the name [`NAME`] as its vendor class and the fabric in
//! the vendor's options. A site's server answers it as any client's, with an address; a node of another fabric answers
//! without one, and a node of the same fabric is silent. Owns the two packets.

use std::net::Ipv4Addr;

use super::packet::{BOOT_REPLY, BOOT_REQUEST, HEADER, MAGIC, MessageType, Packet, code};
use super::rank::MemberId;

/// A fabric, as far as DHCP has to tell one from another: the first bytes of the hash of its trust root, for example.
pub type FabricId = [u8; 8];

/// The vendor class of probes and of answers to them.
const NAME: &[u8] = b"bootfabric";

/// A transaction id that differs between nodes and from probe to probe.
pub(super) fn transaction(me: MemberId, counter: u64) -> u32 {
    let mut hasher = blake3::Hasher::new_derive_key("bootfabric 2026 dhcp probe transaction");
    hasher.update(me.as_bytes()).update(&counter.to_le_bytes());
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// A probe of the node at `server`, whose interface has this Ethernet address; answers shall be broadcast.
pub(super) fn discover(mac: [u8; 6], xid: u32, fabric: FabricId, server: Ipv4Addr) -> Vec<u8> {
    let mut bytes = header(BOOT_REQUEST, &mac, xid);
    bytes.extend_from_slice(&[code::MESSAGE_TYPE, 1, MessageType::Discover.into()]);
    push_said(&mut bytes, fabric, server);
    bytes.extend_from_slice(&[code::PARAMETER_LIST, 2, code::SUBNET_MASK, code::ROUTER, 255]);
    bytes.resize(bytes.len().max(300), 0);
    bytes
}

/// The answer of the node at `server` to a probe of another fabric.
pub(super) fn answer(probe: &Packet, server: Ipv4Addr, fabric: FabricId) -> Vec<u8> {
    let mut bytes = header(BOOT_REPLY, probe.chaddr(), probe.xid);
    bytes.extend_from_slice(&[code::MESSAGE_TYPE, 1, MessageType::Offer.into(), code::SERVER_ID, 4]);
    bytes.extend_from_slice(&server.octets());
    push_said(&mut bytes, fabric, server);
    bytes.push(255);
    bytes.resize(bytes.len().max(300), 0);
    bytes
}

/// The fabric and the node that a probe, or the answer to one, comes from; `None` for all other packets.
pub(super) fn said(packet: &Packet) -> Option<(FabricId, Ipv4Addr)> {
    if packet.option(code::VENDOR_CLASS) != Some(NAME) {
        return None;
    }
    let (fabric, server) = packet.option(code::VENDOR)?.split_first_chunk()?;
    let server: [u8; 4] = server.try_into().ok()?;
    Some((*fabric, server.into()))
}

fn header(op: u8, mac: &[u8], xid: u32) -> Vec<u8> {
    let length = u8::try_from(mac.len()).unwrap_or_default();
    let mut bytes = vec![op, 1, length, 0];
    bytes.extend_from_slice(&xid.to_be_bytes());
    // No seconds; broadcast; no addresses.
    bytes.extend_from_slice(&[0, 0, 0x80, 0]);
    bytes.resize(28, 0);
    bytes.extend_from_slice(mac);
    bytes.resize(HEADER - MAGIC.len(), 0);
    bytes.extend_from_slice(&MAGIC);
    bytes
}

fn push_said(bytes: &mut Vec<u8>, fabric: FabricId, server: Ipv4Addr) {
    bytes.extend_from_slice(&[code::VENDOR_CLASS, 10]);
    bytes.extend_from_slice(NAME);
    bytes.extend_from_slice(&[code::VENDOR, 12]);
    bytes.extend_from_slice(&fabric);
    bytes.extend_from_slice(&server.octets());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_and_answers_say_who_they_are_from() {
        let (mac, server) = ([2, 0, 0, 0, 0, 1], Ipv4Addr::new(10, 0, 0, 1));
        let probe = Packet::parse(&discover(mac, 7, [1; 8], server)).unwrap();
        assert_eq!((said(&probe), probe.chaddr()), (Some(([1; 8], server)), &mac[..]));
        assert!(probe.wants_broadcast());
        let other = Ipv4Addr::new(10, 0, 0, 2);
        let answer = Packet::parse(&answer(&probe, other, [2; 8])).unwrap();
        assert_eq!((answer.xid, said(&answer)), (7, Some(([2; 8], other))));
        assert!(answer.yiaddr.is_unspecified());
    }
}
