//! What the frames of a capture say, added up.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::decoder::Record;
use super::dhcp::DhcpMessage;
use super::frame::{Frame, Transport};
use crate::Mac;

/// Connections told apart; a lab run has some thousands. More are added up in one.
const MAX_FLOWS: usize = 1 << 16;

/// DHCP messages and requests kept of each kind; beyond it they are only counted.
const MAX_SEEN: usize = 1 << 16;

/// RFC 2131, and the PXE specification's boot server port.
const DHCP_PORTS: [u16; 3] = [67, 68, 4011];
/// RFC 1350.
const TFTP_PORT: u16 = 69;

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// Another, by IPv4's number.
    Other(u8),
}

/// One direction of a conversation. Ports are 0 where the protocol has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// The protocol.
    pub protocol: Protocol,
    /// The sender.
    pub source: Ipv4Addr,
    /// Its port.
    pub source_port: u16,
    /// The receiver.
    pub destination: Ipv4Addr,
    /// Its port.
    pub destination_port: u16,
}

/// How much was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Packets.
    pub packets: u64,
    /// IP packets with their headers.
    pub ip: u64,
    /// Payload of UDP and TCP.
    pub payload: u64,
}

impl std::ops::AddAssign for Bytes {
    fn add_assign(&mut self, other: Bytes) {
        self.packets += other.packets;
        self.ip += other.ip;
        self.payload += other.payload;
    }
}

/// A DHCP message and how it travelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpSeen {
    /// Time since 1970.
    pub time: Duration,
    /// The sender on the link, which tells responders with one address apart.
    pub source_mac: Mac,
    /// The sender.
    pub source: Ipv4Addr,
    /// The receiver.
    pub destination: Ipv4Addr,
    /// Port of the receiver: 67 and 4011 are servers', 68 clients'.
    pub destination_port: u16,
    /// The message.
    pub message: DhcpMessage,
}

/// So that fields of the message can be had directly: `seen.chaddr`.
impl std::ops::Deref for DhcpSeen {
    type Target = DhcpMessage;

    fn deref(&self) -> &DhcpMessage {
        &self.message
    }
}

/// A question for a file: HTTP's `GET` and `HEAD`, TFTP's read request (`RRQ`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRequest {
    /// Time since 1970.
    pub time: Duration,
    /// Who asked.
    pub client: Ipv4Addr,
    /// Who was asked.
    pub server: Ipv4Addr,
    /// The server's port.
    pub port: u16,
    /// `GET`, `HEAD` or `RRQ`.
    pub method: &'static str,
    /// The path or file name.
    pub path: String,
}

/// Everything found in a capture so far. `Display` is a short summary.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// All frames.
    pub frames: u64,
    /// Frames without an IPv4 packet that could be read.
    pub other_frames: u64,
    /// Who sent how much to whom.
    pub flows: BTreeMap<Flow, Bytes>,
    /// Flows beyond the bound of 65,536, together.
    pub other_flows: Bytes,
    /// DHCP messages in their order.
    pub dhcp: Vec<DhcpSeen>,
    /// Requests for files in their order.
    pub requests: Vec<FileRequest>,
    /// DHCP messages and requests beyond the bound of 65,536 each.
    pub not_kept: u64,
}

impl Trace {
    /// What is sent from one address to another by TCP: payload bytes as they were on the wire, repetitions included.
    #[must_use]
    pub fn tcp_payload(&self, source: Ipv4Addr, destination: Ipv4Addr) -> u64 {
        let wanted = |flow: &Flow| {
            flow.protocol == Protocol::Tcp && flow.source == source && flow.destination == destination
        };
        self.sum(wanted).payload
    }

    /// Adds up the flows for which `wanted` holds.
    #[must_use]
    pub fn sum(&self, wanted: impl Fn(&Flow) -> bool) -> Bytes {
        let mut sum = Bytes::default();
        for (_, &bytes) in self.flows.iter().filter(|(flow, _)| wanted(flow)) {
            sum += bytes;
        }
        sum
    }

    /// The DHCP messages of, or for, one client.
    pub fn dhcp_of(&self, client: Mac) -> impl Iterator<Item = &DhcpSeen> {
        self.dhcp.iter().filter(move |seen| seen.chaddr == client)
    }

    /// The requests for files whose path ends with `ending`.
    pub fn requests_for(&self, ending: &str) -> impl Iterator<Item = &FileRequest> {
        self.requests.iter().filter(move |request| request.path.ends_with(ending))
    }

    /// Adds one frame.
    pub fn add(&mut self, record: &Record) {
        self.frames += 1;
        let Some(frame) = Frame::parse(&record.data, record.length) else {
            self.other_frames += 1;
            return;
        };
        let (protocol, source_port, destination_port, payload_bytes) = match frame.transport {
            Transport::Udp { source_port, destination_port, payload, payload_bytes } => {
                self.look_at_udp(record.time, &frame, source_port, destination_port, payload);
                (Protocol::Udp, source_port, destination_port, payload_bytes)
            }
            Transport::Tcp { source_port, destination_port, payload, payload_bytes } => {
                if let Some((method, path)) = http_request(payload) {
                    self.keep_request(record.time, &frame, destination_port, method, path);
                }
                (Protocol::Tcp, source_port, destination_port, payload_bytes)
            }
            Transport::Other(number) => (Protocol::Other(number), 0, 0, 0),
        };
        let Frame { source, destination, ip_bytes, .. } = frame;
        let flow = Flow { protocol, source, source_port, destination, destination_port };
        let bytes = Bytes { packets: 1, ip: ip_bytes, payload: payload_bytes };
        if self.flows.len() < MAX_FLOWS || self.flows.contains_key(&flow) {
            *self.flows.entry(flow).or_default() += bytes;
        } else {
            self.other_flows += bytes;
        }
    }

    fn look_at_udp(&mut self, time: Duration, frame: &Frame<'_>, from: u16, to: u16, payload: &[u8]) {
        if DHCP_PORTS.contains(&from) || DHCP_PORTS.contains(&to) {
            let Some(message) = DhcpMessage::parse(payload) else { return };
            let Frame { source_mac, source, destination, .. } = *frame;
            let seen = DhcpSeen { time, source_mac, source, destination, destination_port: to, message };
            keep(&mut self.dhcp, seen, &mut self.not_kept);
        } else if to == TFTP_PORT
            && let Some(path) = tftp_request(payload)
        {
            self.keep_request(time, frame, to, "RRQ", path);
        }
    }

    fn keep_request(
        &mut self,
        time: Duration,
        frame: &Frame<'_>,
        port: u16,
        method: &'static str,
        path: String,
    ) {
        let request =
            FileRequest { time, client: frame.source, server: frame.destination, port, method, path };
        keep(&mut self.requests, request, &mut self.not_kept);
    }
}

fn keep<T>(list: &mut Vec<T>, item: T, not_kept: &mut u64) {
    if list.len() < MAX_SEEN {
        list.push(item);
    } else {
        *not_kept += 1;
    }
}

/// The request line of HTTP/1.x (RFC 9112, section 3), when the segment starts with a whole one.
fn http_request(payload: &[u8]) -> Option<(&'static str, String)> {
    let method = ["GET", "HEAD"].into_iter().find(|method| payload.starts_with(method.as_bytes()))?;
    let line = payload.split(|&byte| byte == b'\n').next()?;
    let mut words = line.trim_ascii_end().split(|&byte| byte == b' ').skip(1);
    let (path, version) = (words.next()?, words.next()?);
    (version.starts_with(b"HTTP/1.") && words.next().is_none())
        .then(|| (method, String::from_utf8_lossy(path).into_owned()))
}

/// The file name of a read request (RFC 1350, section 5).
fn tftp_request(payload: &[u8]) -> Option<String> {
    let name = payload.strip_prefix(&[0, 1])?.split(|&byte| byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 12;
        write!(f, "{} frames, {} flows", self.frames, self.flows.len())?;
        write!(f, "; {} DHCP messages", self.dhcp.len())?;
        for seen in self.dhcp.iter().skip(self.dhcp.len().saturating_sub(SHOWN)) {
            write!(f, "\n  {:?} of {} from {} to {}", seen.kind, seen.chaddr, seen.source, seen.destination)?;
        }
        write!(f, "\n{} requests for files", self.requests.len())?;
        for request in self.requests.iter().skip(self.requests.len().saturating_sub(SHOWN)) {
            let FileRequest { client, server, port, method, path, .. } = request;
            write!(f, "\n  {client} asked {server}:{port}: {method} {path}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::DhcpKind;
    use super::super::dhcp::tests::message;
    use super::super::frame::tests::{A, B, tcp, udp};
    use super::*;

    fn trace(frames: &[Vec<u8>]) -> Trace {
        let mut trace = Trace::default();
        for data in frames {
            let length = u32::try_from(data.len()).unwrap();
            trace.add(&Record { time: Duration::ZERO, length, data: data.clone() });
        }
        trace
    }

    #[test]
    fn bytes_by_sender_and_receiver() {
        let trace = trace(&[
            tcp((A, 80), (B, 5000), &[1; 100]),
            tcp((A, 80), (B, 5001), &[1; 200]),
            tcp((B, 5000), (A, 80), b""),
            udp((A, 80), (B, 5000), &[1; 50]),
            b"too short".to_vec(),
        ]);
        assert_eq!((trace.tcp_payload(A, B), trace.tcp_payload(B, A)), (300, 0));
        assert_eq!((trace.flows.len(), trace.frames, trace.other_frames), (4, 5, 1));
        let udp = trace.sum(|flow| flow.protocol == Protocol::Udp);
        assert_eq!(udp, Bytes { packets: 1, ip: 78, payload: 50 });
    }

    #[test]
    fn dhcp_and_requests_in_order() {
        let client = Mac::numbered(9);
        let trace = trace(&[
            udp((Ipv4Addr::UNSPECIFIED, 68), (Ipv4Addr::BROADCAST, 67), &message(1, client, &[])),
            udp((A, 67), (Ipv4Addr::BROADCAST, 68), &message(2, client, &[54, 4, 10, 0, 0, 1])),
            udp((B, 2070), (A, 69), b"\0\x01snponly.efi\0octet\0"),
            tcp((B, 5000), (A, 80), b"GET /boot.ipxe HTTP/1.1\r\nHost: a\r\n\r\n"),
            tcp((B, 5000), (A, 80), b"HEAD /uki.efi HTTP/1.0\r\n"),
            tcp((B, 5000), (A, 80), b"GET away from here\r\n"),
            udp((A, 69), (B, 2070), b"\0\x01no request\0octet\0"),
        ]);
        let kinds: Vec<_> = trace.dhcp_of(client).map(|seen| seen.kind).collect();
        assert_eq!(kinds, [DhcpKind::Discover, DhcpKind::Offer]);
        assert_eq!(trace.dhcp[1].server_id(), Some(A));
        let requests: Vec<_> = trace.requests.iter().map(|r| (r.method, r.path.as_str(), r.server)).collect();
        assert_eq!(requests, [("RRQ", "snponly.efi", A), ("GET", "/boot.ipxe", A), ("HEAD", "/uki.efi", A)]);
        assert_eq!(trace.requests_for(".ipxe").count(), 1);
        assert!(trace.to_string().contains("GET /boot.ipxe"));
    }

    #[test]
    fn lists_are_bounded() {
        let mut list = vec![0; MAX_SEEN];
        let mut not_kept = 0;
        keep(&mut list, 1, &mut not_kept);
        assert_eq!((list.len(), not_kept), (MAX_SEEN, 1));
    }
}
