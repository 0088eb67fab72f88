//! A received DHCP packet: header fields and the raw bytes of each option.
//!
//! Reading keeps every option as it came. The codec's typed form stops at the first option that it cannot
//! type and holds one architecture where firmware may list several (option 93), so only its header reader is used here
//! and options are typed where they are needed. Owns no policy.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4::borrowed::Message;
use dhcproto::v4::{MAGIC, MessageType};

use super::client::MAX_HARDWARE_ADDRESS;

/// Longest packet looked at: what fits an Ethernet frame of 9000 bytes; the sockets' buffers have this size.
pub const MAX_PACKET: usize = 9000;
/// Header and magic cookie (RFC 2131 §2).
pub const HEADER: usize = 240;

/// `op` of packets from clients (RFC 2131 §2).
pub const BOOT_REQUEST: u8 = 1;
/// `op` of packets from servers.
pub const BOOT_REPLY: u8 = 2;

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
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
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
    /// The client's hardware address: `hlen` bytes, 0 to 16.
    pub chaddr: Vec<u8>,
    /// The `file` field up to its first NUL, unless it carries options.
    pub file: Vec<u8>,
    /// Option 53.
    pub message_type: MessageType,
    options: BTreeMap<u8, Vec<u8>>,
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
        let message = Message::new(bytes).map_err(|_| PacketError::Short(bytes.len()))?;
        if bytes.get(HEADER - MAGIC.len()..HEADER) != Some(MAGIC.as_slice()) {
            return Err(PacketError::NoCookie);
        }
        if usize::from(message.hlen()) > MAX_HARDWARE_ADDRESS {
            return Err(PacketError::HardwareAddress(message.hlen()));
        }
        let (options, overload) = read_options(bytes);
        let message_type = match options.get(&code::MESSAGE_TYPE).map(Vec::as_slice) {
            Some(&[kind, ..]) => MessageType::from(kind),
            _ => return Err(PacketError::NoMessageType),
        };
        Ok(Self {
            op: message.opcode().into(),
            hardware_type: message.htype().into(),
            hops: message.hops(),
            xid: message.xid(),
            flags: message.flags().into(),
            ciaddr: message.ciaddr(),
            yiaddr: message.yiaddr(),
            siaddr: message.siaddr(),
            giaddr: message.giaddr(),
            chaddr: message.chaddr().to_vec(),
            file: if overload & 1 == 0 { message.fname().to_vec() } else { Vec::new() },
            message_type,
            options,
        })
    }

    /// The bytes of an option; an option sent in several parts is joined (RFC 3396).
    #[must_use]
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.get(&code).map(Vec::as_slice)
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

/// All options and the overload bits: the options field, then `file`, then `sname` where overloaded (RFC 2131 §4.1).
fn read_options(bytes: &[u8]) -> (BTreeMap<u8, Vec<u8>>, u8) {
    let mut options = BTreeMap::new();
    collect(bytes.get(HEADER..).unwrap_or_default(), &mut options);
    let overload = match options.get(&code::OVERLOAD).map(Vec::as_slice) {
        Some(&[bits]) => bits,
        _ => 0,
    };
    if overload & 1 != 0 {
        collect(bytes.get(108..236).unwrap_or_default(), &mut options);
    }
    if overload & 2 != 0 {
        collect(bytes.get(44..108).unwrap_or_default(), &mut options);
    }
    (options, overload)
}

/// Adds the options of a field. Parts of one option are joined wherever they stand. (The codec's iterator loses a
/// complete part if the next one is broken off.)
fn collect(mut field: &[u8], options: &mut BTreeMap<u8, Vec<u8>>) {
    while let [code, rest @ ..] = field {
        field = match *code {
            0 => rest,
            255 => return,
            code => {
                let Some((&length, rest)) = rest.split_first() else { return };
                let Some((value, rest)) = rest.split_at_checked(usize::from(length)) else { return };
                options.entry(code).or_default().extend_from_slice(value);
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests;
