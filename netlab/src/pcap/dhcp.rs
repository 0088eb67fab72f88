//! A DHCP message as a test looks at it (RFC 2131, options of RFC 2132). Tolerant: what cannot be read is left out.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::Mac;

const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Where the cookie is: after the fixed BOOTP fields.
const COOKIE_AT: usize = 236;

const OPTION_KIND: u8 = 53;
const OPTION_SERVER_ID: u8 = 54;

/// Option 53.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DhcpKind {
    /// A client looks for servers.
    Discover,
    /// A server offers an address.
    Offer,
    /// A client takes an offer or renews.
    Request,
    /// A client found the address taken.
    Decline,
    /// A server grants.
    Ack,
    /// A server refuses.
    Nak,
    /// A client gives its address back.
    Release,
    /// A client has an address and asks for the rest.
    Inform,
    /// Another number, or 0 when there is no option 53 (plain BOOTP).
    Other(u8),
}

impl From<u8> for DhcpKind {
    fn from(number: u8) -> DhcpKind {
        match number {
            1 => DhcpKind::Discover,
            2 => DhcpKind::Offer,
            3 => DhcpKind::Request,
            4 => DhcpKind::Decline,
            5 => DhcpKind::Ack,
            6 => DhcpKind::Nak,
            7 => DhcpKind::Release,
            8 => DhcpKind::Inform,
            other => DhcpKind::Other(other),
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpMessage {
    /// 1 from a client, 2 from a server.
    pub op: u8,
    /// What it is.
    pub kind: DhcpKind,
    /// Ties answers to questions.
    pub xid: u32,
    /// The client's seconds; iPXE keeps other things in it.
    pub secs: u16,
    /// 0x8000: answer by broadcast.
    pub flags: u16,
    /// The address that the client uses already.
    pub ciaddr: Ipv4Addr,
    /// The address that the client shall have.
    pub yiaddr: Ipv4Addr,
    /// The next server: where boot files are.
    pub siaddr: Ipv4Addr,
    /// The client's Ethernet address.
    pub chaddr: Mac,
    /// The boot file of the BOOTP header, if any.
    pub file: String,
    /// Options 1 to 254; what comes in several parts is joined (RFC 3396).
    pub options: BTreeMap<u8, Vec<u8>>,
}

impl DhcpMessage {
    /// Reads the payload of a datagram of port 67, 68 or 4011.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<DhcpMessage> {
        let options = payload.get(COOKIE_AT..)?.strip_prefix(&MAGIC_COOKIE)?;
        let options = parse_options(options);
        let four = |at: usize| payload.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied();
        let two = |at: usize| payload.get(at..).and_then(|rest| rest.first_chunk::<2>()).copied();
        let file = payload.get(108..COOKIE_AT)?.split(|&byte| byte == 0).next().unwrap_or_default();
        Some(DhcpMessage {
            op: *payload.first()?,
            kind: options.get(&OPTION_KIND).and_then(|value| value.first()).copied().unwrap_or(0).into(),
            xid: u32::from_be_bytes(four(4)?),
            secs: u16::from_be_bytes(two(8)?),
            flags: u16::from_be_bytes(two(10)?),
            ciaddr: four(12)?.into(),
            yiaddr: four(16)?.into(),
            siaddr: four(20)?.into(),
            chaddr: Mac(*payload.get(28..)?.first_chunk()?),
            file: String::from_utf8_lossy(file).into_owned(),
            options,
        })
    }

    /// Option 54: the server that speaks or is spoken to.
    #[must_use]
    pub fn server_id(&self) -> Option<Ipv4Addr> {
        let value = self.options.get(&OPTION_SERVER_ID)?;
        Some(Ipv4Addr::from(*value.first_chunk::<4>()?))
    }
}

fn parse_options(mut rest: &[u8]) -> BTreeMap<u8, Vec<u8>> {
    let mut options: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    while let Some((&code, after)) = rest.split_first() {
        match code {
            0 => rest = after,
            255 => break,
            code => {
                let Some((&length, after)) = after.split_first() else { break };
                let Some((value, after)) = after.split_at_checked(length.into()) else { break };
                options.entry(code).or_default().extend_from_slice(value);
                rest = after;
            }
        }
    }
    options
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn message(kind: u8, client: Mac, options: &[u8]) -> Vec<u8> {
        let mut payload = vec![0; COOKIE_AT];
        payload[0] = if matches!(kind, 2 | 5 | 6) { 2 } else { 1 };
        payload[4..8].copy_from_slice(&[1, 2, 3, 4]);
        payload[10] = 0x80;
        payload[28..34].copy_from_slice(&client.0);
        payload[108..113].copy_from_slice(b"x.efi");
        payload.extend(MAGIC_COOKIE);
        payload.extend([53, 1, kind]);
        payload.extend_from_slice(options);
        payload.push(255);
        payload
    }

    #[test]
    fn fields_and_options() {
        let options = [54, 4, 10, 0, 0, 1, 0, 0, 67, 2, b'a', b'b', 67, 1, b'c'];
        let found = DhcpMessage::parse(&message(2, Mac::numbered(5), &options)).unwrap();
        assert_eq!((found.op, found.kind, found.xid, found.flags), (2, DhcpKind::Offer, 0x0102_0304, 0x8000));
        assert_eq!((found.chaddr, found.file.as_str()), (Mac::numbered(5), "x.efi"));
        assert_eq!(found.server_id(), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(found.options[&67], b"abc");
    }

    #[test]
    fn cut_or_damaged_messages_are_harmless() {
        let good =
            message(1, Mac::numbered(5), &[60, 9, b'P', b'X', b'E', b'C', b'l', b'i', b'e', b'n', b't']);
        for end in 0..good.len() {
            let found = DhcpMessage::parse(&good[..end]);
            assert_eq!(found.is_some(), end >= COOKIE_AT + 4, "{end}");
        }
        let mut damaged = good;
        *damaged.get_mut(COOKIE_AT + 8).unwrap() = 250;
        assert_eq!(DhcpMessage::parse(&damaged).unwrap().options.len(), 1);
    }
}
