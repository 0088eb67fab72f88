//! A received DHCP packet: header fields and the raw bytes of each option.
//!
//! Reading keeps every option as it came; options are typed where they are needed, as firmware may list several
//! architectures (option 93) and break others off. Two allocations per packet: a node looks at every packet of every client of
//! its link, also those that another node answers. Owns no policy.

use std::net::Ipv4Addr;

use super::client::MAX_HARDWARE_ADDRESS;

/// Longest packet looked at: what fits an Ethernet frame of 9000 bytes; the sockets' buffers have this size.
pub const MAX_PACKET: usize = 9000;
/// Header and magic cookie (RFC 2131 §2).
pub const HEADER: usize = 240;

/// What an option field that is one begins with (RFC 2131 §3).
pub(super) const MAGIC: [u8; 4] = [99, 130, 83, 99];

/// `op` of packets from clients (RFC 2131 §2).
pub const BOOT_REQUEST: u8 = 1;
/// `op` of packets from servers.
pub const BOOT_REPLY: u8 = 2;

/// Option 53 (RFC 2132 §9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageType {
    /// A client looks for servers.
    Discover,
    /// A server offers.
    Offer,
    /// A client takes an offer, or goes on with an address that it has.
    Request,
    /// A client found its address in use.
    Decline,
    /// A server confirms.
    Ack,
    /// A server refuses.
    Nak,
    /// A client gives its address back.
    Release,
    /// A client with an address asks for options.
    Inform,
    /// Anything else, such as lease queries.
    Other(u8),
}

impl From<u8> for MessageType {
    fn from(value: u8) -> Self {
        match value {
            1 => Self::Discover,
            2 => Self::Offer,
            3 => Self::Request,
            4 => Self::Decline,
            5 => Self::Ack,
            6 => Self::Nak,
            7 => Self::Release,
            8 => Self::Inform,
            other => Self::Other(other),
        }
    }
}

impl From<MessageType> for u8 {
    fn from(value: MessageType) -> Self {
        match value {
            MessageType::Discover => 1,
            MessageType::Offer => 2,
            MessageType::Request => 3,
            MessageType::Decline => 4,
            MessageType::Ack => 5,
            MessageType::Nak => 6,
            MessageType::Release => 7,
            MessageType::Inform => 8,
            MessageType::Other(other) => other,
        }
    }
}

/// Option codes this crate names (RFC 2132, 3046, 3925, 4578 and the iPXE encapsulated options).
pub mod code {
    #![expect(missing_docs, reason = "the names are those of the registry")]
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const NAME_SERVER: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN_NAME: u8 = 15;
    pub const BROADCAST: u8 = 28;
    pub const VENDOR: u8 = 43;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETER_LIST: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const MAX_SIZE: u8 = 57;
    pub const RENEWAL: u8 = 58;
    pub const REBINDING: u8 = 59;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const TFTP_SERVER: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    pub const USER_CLASS: u8 = 77;
    pub const RELAY_AGENT: u8 = 82;
    pub const ARCHITECTURE: u8 = 93;
    pub const UUID: u8 = 97;
    pub const IPXE: u8 = 175;
}

/// Why bytes are no DHCP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Shorter than the fixed header.
    #[error("{0} bytes are too short for a DHCP packet, whose header alone has 240")]
    Short(usize),
    /// Longer than any frame.
    #[error("{0} bytes are too long for a DHCP packet")]
    Long(usize),
    /// The magic cookie is missing: BOOTP, or no DHCP at all.
    #[error("the magic cookie of DHCP is missing")]
    NoCookie,
    /// `hlen` is above 16.
    #[error("the hardware address claims {0} bytes; the field holds 16")]
    HardwareAddress(u8),
    /// Option 53 is missing or empty: BOOTP.
    #[error("the message type (option 53) is missing")]
    NoMessageType,
}

/// One DHCP packet, either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// 1 from clients, 2 from servers.
    pub op: u8,
    /// ARP hardware type.
    pub hardware_type: u8,
    /// Hops counted by relays.
    pub hops: u8,
    /// Transaction id.
    pub xid: u32,
    /// Flag bits; the top one asks for broadcast replies.
    pub flags: u16,
    /// The address that the client already has.
    pub ciaddr: Ipv4Addr,
    /// The address that the server gives.
    pub yiaddr: Ipv4Addr,
    /// The server of the next boot stage.
    pub siaddr: Ipv4Addr,
    /// The relay agent.
    pub giaddr: Ipv4Addr,
    /// The `file` field up to its first NUL, unless it carries options.
    pub file: Vec<u8>,
    /// Option 53.
    pub message_type: MessageType,
    hardware_length: u8,
    hardware_address: [u8; MAX_HARDWARE_ADDRESS],
    options: Options,
}

impl Packet {
    /// Reads a packet. Options broken off in the middle are dropped, the ones before them kept: real firmware
    /// sends such packets.
    ///
    /// # Errors
    /// [`PacketError`] if the bytes are no DHCP packet.
    pub fn parse(bytes: &[u8]) -> Result<Self, PacketError> {
        if bytes.len() > MAX_PACKET {
            return Err(PacketError::Long(bytes.len()));
        }
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or(PacketError::Short(bytes.len()))?;
        if !header.ends_with(&MAGIC) {
            return Err(PacketError::NoCookie);
        }
        let [op, hardware_type, hardware_length, hops, ..] = *header;
        if usize::from(hardware_length) > MAX_HARDWARE_ADDRESS {
            return Err(PacketError::HardwareAddress(hardware_length));
        }
        let (options, overload) = read_options(bytes);
        let message_type = match options.get(code::MESSAGE_TYPE) {
            Some(&[kind, ..]) => MessageType::from(kind),
            _ => return Err(PacketError::NoMessageType),
        };
        Ok(Self {
            op,
            hardware_type,
            hops,
            xid: u32::from_be_bytes(field(header, 4)),
            flags: u16::from_be_bytes(field(header, 10)),
            ciaddr: Ipv4Addr::from(field::<4>(header, 12)),
            yiaddr: Ipv4Addr::from(field::<4>(header, 16)),
            siaddr: Ipv4Addr::from(field::<4>(header, 20)),
            giaddr: Ipv4Addr::from(field::<4>(header, 24)),
            file: if overload & 1 == 0 { until_nul(&field::<128>(header, 108)) } else { Vec::new() },
            message_type,
            hardware_length,
            hardware_address: field(header, 28),
            options,
        })
    }

    /// The client's hardware address: `hlen` bytes, 0 to 16.
    #[must_use]
    pub fn chaddr(&self) -> &[u8] {
        self.hardware_address.get(..usize::from(self.hardware_length)).unwrap_or_default()
    }

    /// The bytes of an option; an option sent in several parts is joined (RFC 3396).
    #[must_use]
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.get(code)
    }

    /// An option that holds one IPv4 address; `None` if it is missing, of another length, or 0.0.0.0.
    #[must_use]
    pub fn address_option(&self, code: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.option(code)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets)).filter(|address| !address.is_unspecified())
    }

    /// An option that holds one 16-bit number.
    #[must_use]
    pub fn u16_option(&self, code: u8) -> Option<u16> {
        Some(u16::from_be_bytes(self.option(code)?.try_into().ok()?))
    }

    /// An option that holds one 32-bit number.
    #[must_use]
    pub fn u32_option(&self, code: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.option(code)?.try_into().ok()?))
    }

    /// Whether the client asks for broadcast replies.
    #[must_use]
    pub fn wants_broadcast(&self) -> bool {
        self.flags & 0x8000 != 0
    }
}

/// `N` bytes of the header; the caller's places are within it.
fn field<const N: usize>(header: &[u8; HEADER], at: usize) -> [u8; N] {
    header.get(at..).and_then(|rest| rest.first_chunk().copied()).unwrap_or([0; N])
}

fn until_nul(text: &[u8]) -> Vec<u8> {
    text.split(|&byte| byte == 0).next().unwrap_or_default().to_vec()
}

/// The options of a packet, by code; the parts of each one behind each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Options {
    values: Vec<u8>,
    spans: Vec<Span>,
}

/// Where a value is: of the packet while it is read, of [`Options::values`] after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    code: u8,
    start: u16,
    length: u16,
}

impl Span {
    fn of<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let start = usize::from(self.start);
        bytes.get(start..start + usize::from(self.length))
    }
}

impl Options {
    fn get(&self, code: u8) -> Option<&[u8]> {
        self.spans.iter().find(|span| span.code == code)?.of(&self.values)
    }

    /// Options from their parts in the order in which they came.
    fn new(bytes: &[u8], mut parts: Vec<Span>) -> Self {
        parts.sort_by_key(|part| part.code);
        let mut values = Vec::with_capacity(parts.iter().map(|part| usize::from(part.length)).sum());
        let mut spans: Vec<Span> = Vec::with_capacity(parts.len());
        for part in parts {
            let start = u16::try_from(values.len()).unwrap_or(u16::MAX);
            values.extend_from_slice(part.of(bytes).unwrap_or_default());
            match spans.last_mut() {
                Some(last) if last.code == part.code => last.length += part.length,
                _ => spans.push(Span { start, ..part }),
            }
        }
        Self { values, spans }
    }
}

/// All options and the overload bits: the options field, then `file`, then `sname` where overloaded (RFC 2131 §4.1).
fn read_options(bytes: &[u8]) -> (Options, u8) {
    let mut parts = Vec::with_capacity(24);
    collect(bytes, HEADER, bytes.len(), &mut parts);
    let mut bits = parts.iter().filter(|part| part.code == code::OVERLOAD);
    let overload = match (bits.next().and_then(|part| part.of(bytes)), bits.next()) {
        (Some(&[bits]), None) => bits,
        _ => 0,
    };
    if overload & 1 != 0 {
        collect(bytes, 108, 236, &mut parts);
    }
    if overload & 2 != 0 {
        collect(bytes, 44, 108, &mut parts);
    }
    (Options::new(bytes, parts), overload)
}

/// Adds the options of a field, up to its end, or one that is broken off.
fn collect(bytes: &[u8], mut at: usize, end: usize, parts: &mut Vec<Span>) {
    let field = bytes.get(..end).unwrap_or_default();
    while let Some(&code) = field.get(at) {
        at += 1;
        match code {
            0 => {}
            255 => return,
            code => {
                let Some(&length) = field.get(at) else { return };
                at += 1;
                let length = u16::from(length);
                let Ok(start) = u16::try_from(at) else { return };
                let span = Span { code, start, length };
                if span.of(field).is_none() {
                    return;
                }
                parts.push(span);
                at += usize::from(length);
            }
        }
    }
}

#[cfg(test)]
mod tests;
