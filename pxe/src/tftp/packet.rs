//! TFTP packets (RFC 1350 section 5, RFC 2347) as bytes. Never decides what to answer.

use std::fmt;

/// Longest text of an ERROR that we send or keep: more only fills logs.
const MAX_ERROR_TEXT: usize = 200;

const OP_RRQ: u16 = 1;
const OP_WRQ: u16 = 2;
const OP_DATA: u16 = 3;
const OP_ACK: u16 = 4;
const OP_ERROR: u16 = 5;
const OP_OACK: u16 = 6;

/// Bytes before the payload of a DATA packet.
pub const DATA_HEADER: usize = 4;

/// Longest packet a client sends during a transfer: an ERROR with its text.
pub(super) const PACKET_BUFFER: usize = 600;

/// A packet that a client may send to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Read request.
    Rrq(Request<'a>),
    /// Write request.
    Wrq,
    /// Acknowledgement of all blocks up to this number (modulo 65536).
    Ack(u16),
    /// The client gives up.
    Error {
        /// Error code (RFC 1350 section 5, RFC 2347).
        code: u16,
        /// What the client said, shortened and with its control characters replaced.
        message: String,
    },
    /// A well-formed packet that no reader sends: DATA or OACK.
    Unexpected,
}

/// The fields of a read request, as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// File name, without the `0xff` bytes that some boot ROMs leave behind it.
    pub name: &'a [u8],
    /// Transfer mode.
    pub mode: &'a [u8],
    /// Option names and values in the order sent (RFC 2347).
    pub options: Vec<(&'a [u8], &'a [u8])>,
}

/// Options looked at in one request; RFC 2348, 2349 and 7440 define four, and repeated ones are legal noise.
const MAX_OPTIONS: usize = 16;

/// Not a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Ends within a field that every packet of its kind has.
    #[error("the packet ends early")]
    Truncated,
    /// An operation code that no RFC defines.
    #[error("unknown operation code {0}")]
    UnknownOperation(u16),
}

impl<'a> Packet<'a> {
    /// Reads one datagram. What follows the fields of a packet is ignored (some ROMs send it).
    ///
    /// # Errors
    /// [`PacketError`] for bytes that are no packet.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, PacketError> {
        let (operation, rest) = take_u16(datagram)?;
        match operation {
            OP_RRQ => Request::parse(rest).map(Self::Rrq),
            OP_WRQ => Ok(Self::Wrq),
            OP_ACK => take_u16(rest).map(|(block, _)| Self::Ack(block)),
            OP_ERROR => {
                let (code, text) = take_u16(rest)?;
                let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
                let text = text.get(..MAX_ERROR_TEXT).unwrap_or(text);
                let message = String::from_utf8_lossy(text).replace(|c: char| c.is_control(), "?");
                Ok(Self::Error { code, message })
            }
            OP_DATA | OP_OACK => Ok(Self::Unexpected),
            other => Err(PacketError::UnknownOperation(other)),
        }
    }
}

impl<'a> Request<'a> {
    fn parse(fields: &'a [u8]) -> Result<Self, PacketError> {
        let (name, rest) = take_string(fields).ok_or(PacketError::Truncated)?;
        // A mode without its NUL is tolerated: it is the last field of old clients.
        let (mode, mut rest) = take_string(rest).unwrap_or((rest, &[]));
        if name.is_empty() || mode.is_empty() {
            return Err(PacketError::Truncated);
        }
        let mut options = Vec::new();
        while options.len() < MAX_OPTIONS {
            let Some((option, after)) = take_string(rest) else { break };
            let Some((value, after)) = take_string(after) else { break };
            options.push((option, value));
            rest = after;
        }
        let end = name.iter().rposition(|&byte| byte != 0xff).map_or(0, |last| last + 1);
        Ok(Self { name: name.get(..end).unwrap_or(name), mode, options })
    }
}

fn take_u16(bytes: &[u8]) -> Result<(u16, &[u8]), PacketError> {
    bytes
        .split_first_chunk()
        .map(|(head, rest)| (u16::from_be_bytes(*head), rest))
        .ok_or(PacketError::Truncated)
}

/// The bytes before the first NUL, and those behind it.
fn take_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// Error codes (RFC 1350 section 5, RFC 2347) that a read-only server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// See the message.
    NotDefined = 0,
    /// File not found.
    NotFound = 1,
    /// Access violation.
    AccessViolation = 2,
    /// Illegal TFTP operation.
    IllegalOperation = 4,
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

/// The four bytes before the payload of block `block` (counted from 1, sent modulo 65536: 0 follows 65535).
#[must_use]
pub fn data_header(block: u64) -> [u8; DATA_HEADER] {
    let [hi, lo] = (block as u16).to_be_bytes();
    let [op_hi, op_lo] = OP_DATA.to_be_bytes();
    [op_hi, op_lo, hi, lo]
}

/// An ERROR packet.
#[must_use]
pub fn error(code: ErrorCode, message: &str) -> Vec<u8> {
    let mut packet = OP_ERROR.to_be_bytes().to_vec();
    packet.extend_from_slice(&code.number().to_be_bytes());
    packet.extend(message.bytes().take(MAX_ERROR_TEXT).map(|byte| if byte == 0 { b'?' } else { byte }));
    packet.push(0);
    packet
}

/// An OACK packet with `options` in the given order (RFC 2347).
#[must_use]
pub fn oack(options: &[(&str, u64)]) -> Vec<u8> {
    let mut packet = OP_OACK.to_be_bytes().to_vec();
    for (name, value) in options {
        packet.extend_from_slice(name.as_bytes());
        packet.push(0);
        packet.extend_from_slice(value.to_string().as_bytes());
        packet.push(0);
    }
    packet
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_an_edk2_request() {
        let packet = b"\0\x01boot/snponly.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0";
        let Packet::Rrq(request) = Packet::parse(packet).unwrap() else { panic!() };
        assert_eq!(request.name, b"boot/snponly.efi");
        assert_eq!(request.mode, b"octet");
        assert_eq!(
            request.options,
            [(&b"tsize"[..], &b"0"[..]), (b"blksize", b"1468"), (b"windowsize", b"4")]
        );
    }

    #[test]
    fn tolerates_what_old_roms_send() {
        let Packet::Rrq(request) = Packet::parse(b"\0\x01pxelinux.0\xff\xff\0octet").unwrap() else {
            panic!()
        };
        assert_eq!((request.name, request.mode), (&b"pxelinux.0"[..], &b"octet"[..]));
        let Packet::Rrq(request) = Packet::parse(b"\0\x01a\0octet\0blksize\x00512\0garb\0age").unwrap()
        else {
            panic!()
        };
        assert_eq!(request.options, [(&b"blksize"[..], &b"512"[..])]);
        assert_eq!(Packet::parse(b"\0\x04\x12\x34padding"), Ok(Packet::Ack(0x1234)));
        assert_eq!(
            Packet::parse(b"\0\x05\0\x08no\x1bNUL"),
            Ok(Packet::Error { code: 8, message: "no?NUL".into() })
        );
    }

    #[test]
    fn refuses_what_is_no_packet() {
        assert_eq!(Packet::parse(b""), Err(PacketError::Truncated));
        assert_eq!(Packet::parse(b"\0\x01"), Err(PacketError::Truncated));
        assert_eq!(Packet::parse(b"\0\x01name"), Err(PacketError::Truncated));
        assert_eq!(Packet::parse(b"\0\x01\0octet\0"), Err(PacketError::Truncated));
        assert_eq!(Packet::parse(b"\0\x04\x01"), Err(PacketError::Truncated));
        assert_eq!(Packet::parse(b"\0\x09"), Err(PacketError::UnknownOperation(9)));
    }

    #[test]
    fn writes_packets() {
        assert_eq!(data_header(65_536), [0, 3, 0, 0]);
        assert_eq!(data_header(65_537 + 255), [0, 3, 1, 0]);
        assert_eq!(oack(&[("blksize", 1468)]), b"\0\x06blksize\x001468\0");
        assert_eq!(error(ErrorCode::NotFound, "gone"), b"\0\x05\0\x01gone\0");
    }

    proptest! {
        #[test]
        fn no_datagram_panics(datagram in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Packet::parse(&datagram);
        }

        #[test]
        fn no_request_panics(fields in "\\PC{0,60}", cut in 0usize..60) {
            let mut datagram = vec![0, 1];
            datagram.extend(fields.bytes().map(|byte| if byte == b' ' { 0 } else { byte }).take(cut));
            let _ = Packet::parse(&datagram);
        }
    }
}
