//! The headers of one frame: Ethernet, IPv4, UDP, TCP. Other frames are none of our business.

use std::net::Ipv4Addr;

use crate::Mac;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: usize = 4;
const UDP_HEADER: usize = 8;

/// An IPv4 packet in an Ethernet frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The sender on the link.
    pub source_mac: Mac,
    /// The receiver on the link.
    pub destination_mac: Mac,
    /// The sender.
    pub source: Ipv4Addr,
    /// The receiver.
    pub destination: Ipv4Addr,
    /// Length of the IP packet on the wire.
    pub ip_bytes: u64,
    /// What it carries.
    pub transport: Transport<'a>,
}

/// What an IPv4 packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport<'a> {
    /// A UDP datagram (RFC 768), or the first fragment of one.
    Udp {
        /// Port of the sender.
        source_port: u16,
        /// Port of the receiver.
        destination_port: u16,
        /// The part of the payload that was captured.
        payload: &'a [u8],
        /// Length of the payload on the wire, in this frame.
        payload_bytes: u64,
    },
    /// A TCP segment (RFC 9293).
    Tcp {
        /// Port of the sender.
        source_port: u16,
        /// Port of the receiver.
        destination_port: u16,
        /// The part of the payload that was captured.
        payload: &'a [u8],
        /// Length of the payload on the wire.
        payload_bytes: u64,
    },
    /// Anything else, also fragments after the first; the number is IPv4's protocol.
    Other(u8),
}

impl<'a> Frame<'a> {
    /// Reads the headers. `length` is the frame's length on the wire, `data` what was captured of it.
    #[must_use]
    pub fn parse(data: &'a [u8], length: u32) -> Option<Frame<'a>> {
        let destination_mac = Mac(*data.first_chunk()?);
        let source_mac = Mac(*data.get(6..)?.first_chunk()?);
        let (link_header, ethertype) = match u16_at(data, 12)? {
            ETHERTYPE_VLAN => (ETHERNET_HEADER + VLAN_TAG, u16_at(data, 12 + VLAN_TAG)?),
            ethertype => (ETHERNET_HEADER, ethertype),
        };
        if ethertype != ETHERTYPE_IPV4 {
            return None;
        }
        let ip = data.get(link_header..)?;
        let first = *ip.first()?;
        let header = usize::from(first & 0x0f) * 4;
        if first >> 4 != 4 || header < 20 {
            return None;
        }
        // Segments that the sender's card would cut may have a total length of 0: then the frame's length is all there is.
        let on_wire = u64::from(length).saturating_sub(link_header as u64);
        let ip_bytes = match u64::from(u16_at(ip, 2)?) {
            0 => on_wire,
            total => total,
        };
        let fragment_offset = u16_at(ip, 6)? & 0x1fff;
        let protocol = *ip.get(9)?;
        let source = Ipv4Addr::from(*ip.get(12..)?.first_chunk::<4>()?);
        let destination = Ipv4Addr::from(*ip.get(16..)?.first_chunk::<4>()?);
        // Short frames are padded: what is behind the packet is not of it.
        let captured = ip.len().min(usize::try_from(ip_bytes).unwrap_or(usize::MAX));
        let body = ip.get(header..captured)?;
        let body_bytes = ip_bytes.saturating_sub(header as u64);
        let transport = match protocol {
            17 if fragment_offset == 0 => udp(body, body_bytes)?,
            6 if fragment_offset == 0 => tcp(body, body_bytes)?,
            other => Transport::Other(other),
        };
        Some(Frame { source_mac, destination_mac, source, destination, ip_bytes, transport })
    }
}

fn udp(body: &[u8], body_bytes: u64) -> Option<Transport<'_>> {
    Some(Transport::Udp {
        source_port: u16_at(body, 0)?,
        destination_port: u16_at(body, 2)?,
        payload: body.get(UDP_HEADER..)?,
        payload_bytes: body_bytes.saturating_sub(UDP_HEADER as u64),
    })
}

fn tcp(body: &[u8], body_bytes: u64) -> Option<Transport<'_>> {
    let header = usize::from(*body.get(12)? >> 4) * 4;
    if header < 20 {
        return None;
    }
    Some(Transport::Tcp {
        source_port: u16_at(body, 0)?,
        destination_port: u16_at(body, 2)?,
        // The capture may end inside the options.
        payload: body.get(header..).unwrap_or_default(),
        payload_bytes: body_bytes.saturating_sub(header as u64),
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    pub(crate) const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn ip(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0]);
        frame.extend(u16::try_from(20 + body.len()).unwrap().to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        frame.extend_from_slice(body);
        frame
    }

    pub(crate) fn udp(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
        let mut body = [source.1.to_be_bytes(), destination.1.to_be_bytes()].concat();
        body.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
        body.extend([0, 0]);
        body.extend_from_slice(payload);
        ip(source.0, destination.0, 17, &body)
    }

    pub(crate) fn tcp(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
        let mut body = [source.1.to_be_bytes(), destination.1.to_be_bytes()].concat();
        body.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x60, 0x18, 1, 0, 0, 0, 0, 0]);
        // One word of options.
        body.extend([1, 1, 1, 1]);
        body.extend_from_slice(payload);
        ip(source.0, destination.0, 6, &body)
    }

    #[test]
    fn datagram_without_padding() {
        let mut data = udp((A, 68), (B, 67), b"hello");
        data.resize(60, 0);
        let frame = Frame::parse(&data, 60).unwrap();
        assert_eq!((frame.source, frame.destination, frame.ip_bytes), (A, B, 33));
        assert_eq!(frame.source_mac.to_string(), "02:00:00:00:00:01");
        let udp =
            Transport::Udp { source_port: 68, destination_port: 67, payload: b"hello", payload_bytes: 5 };
        assert_eq!(frame.transport, udp);
    }

    #[test]
    fn segment_of_which_only_the_head_was_kept() {
        let mut data = tcp((A, 80), (B, 5000), &[7; 1000]);
        data.truncate(14 + 20 + 24 + 3);
        let frame = Frame::parse(&data, 1058).unwrap();
        let tcp =
            Transport::Tcp { source_port: 80, destination_port: 5000, payload: &[7; 3], payload_bytes: 1000 };
        assert_eq!((frame.ip_bytes, frame.transport), (1044, tcp));
    }

    #[test]
    fn super_segments_count_by_the_frame() {
        let mut data = tcp((A, 80), (B, 5000), &[7; 10]);
        data[16..18].fill(0);
        let frame = Frame::parse(&data, 100_058).unwrap();
        assert!(matches!(frame.transport, Transport::Tcp { payload_bytes: 100_000, .. }));
    }

    #[test]
    fn later_fragments_and_other_frames() {
        let mut data = udp((A, 68), (B, 67), b"hello");
        data[20] = 0x00;
        data[21] = 0xb9;
        assert_eq!(Frame::parse(&data, 47).unwrap().transport, Transport::Other(17));
        data[12..14].copy_from_slice(&[0x86, 0xdd]);
        assert_eq!(Frame::parse(&data, 47), None);
    }

    #[test]
    fn any_prefix_and_any_damage_is_harmless() {
        let good = tcp((A, 80), (B, 5000), b"GET / HTTP/1.1\r\n");
        for end in 0..good.len() {
            let _ = Frame::parse(&good[..end], 58);
        }
        for place in 0..good.len() {
            for value in [0, 1, 0x0f, 0x41, 0x4f, 0x7f, 0xff] {
                let mut damaged = good.clone();
                damaged[place] = value;
                let _ = Frame::parse(&damaged, 58);
            }
        }
    }
}
