//! Requests to the kernel's routing socket: link up and down, an address.
//!
//! Owns one request and its acknowledgement at a time; watches nothing and keeps nothing.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::value::Address;

/// Index of a network interface, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkIndex(pub(crate) u32);

/// A request to the routing socket failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    /// The socket does not work.
    #[error("no routing socket")]
    Socket(#[from] io::Error),
    /// The kernel's answer cannot be read.
    #[error("the kernel's answer cannot be read")]
    Answer(#[from] netlink_packet_core::DecodeError),
    /// The kernel refused.
    #[error("the kernel refused to {what}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Its reason.
        #[source]
        source: io::Error,
    },
}

/// Bytes for one acknowledgement: an error header and the request it repeats.
const ANSWER: usize = 4096;

/// Takes an interface up or down.
pub(crate) fn set_up(link: LinkIndex, up: bool) -> Result<(), NetlinkError> {
    let mut message = LinkMessage::default();
    message.header.index = link.0;
    message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
    message.header.change_mask = LinkFlags::Up;
    let what = if up { "take the interface up" } else { "take the interface down" };
    request(what, RouteNetlinkMessage::SetLink(message), 0)
}

/// Gives an interface an address, which may be there already.
pub(crate) fn add_address(link: LinkIndex, address: Address) -> Result<(), NetlinkError> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = address.prefix;
    message.header.index = link.0;
    message.attributes.push(AddressAttribute::Local(IpAddr::V4(address.ip)));
    message.attributes.push(AddressAttribute::Address(IpAddr::V4(address.ip)));
    message.attributes.extend(address.broadcast().map(AddressAttribute::Broadcast));
    request("set the address", RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
}

/// Sends one request and waits for the kernel's word on it, which comes at once (RFC 3549, section 2.3.2).
fn request(what: &'static str, message: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;

    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut answer = Vec::with_capacity(ANSWER);
    socket.recv(&mut answer, 0)?;
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)?.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => {
            Err(NetlinkError::Refused { what, source: error.to_io() })
        }
        _ => Ok(()),
    }
}
