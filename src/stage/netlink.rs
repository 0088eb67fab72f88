//! Requests to the kernel's routing socket: link up and down, an address, a router.
//!
//! Owns one request and its acknowledgement at a time; watches nothing and keeps nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
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

/// Sends what is for other networks to `gateway`, over this interface. Replaces a default route that is there.
///
/// The router need not lie in the interface's own network: that is how some sites give addresses out.
pub(crate) fn set_gateway(link: LinkIndex, gateway: Ipv4Addr) -> Result<(), NetlinkError> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.header.flags = RouteFlags::Onlink;
    message.attributes.push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    message.attributes.push(RouteAttribute::Oif(link.0));
    let what = "send what is for other networks to the router";
    request(what, RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
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

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use netlab::{Host, HostSpec, Lab};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn run(host: &Host, program: impl AsRef<OsStr>, args: &[&str]) {
        let output = host.command(program).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn a_machine_reaches_a_peer_in_another_network_by_its_router() {
        if !netlab::ready_or_skip().unwrap() {
            return;
        }
        let lab = Lab::new("router").unwrap();
        let switch = lab.switch("sw0").unwrap();
        let host = |name: &str, address: &str| {
            lab.host_with(&HostSpec::new(name).address(address.parse().unwrap()), &switch).unwrap()
        };
        let (peer, router) = (host("peer", "10.77.0.1/24"), host("router", "10.77.0.2/24"));
        router.add_address("10.88.0.1/24".parse().unwrap()).unwrap();
        run(&router, "sysctl", &["-qw", "net.ipv4.ip_forward=1"]);
        run(&peer, "ip", &["route", "add", "10.88.0.0/16", "via", "10.77.0.2"]);
        let listener = peer.run_in(|| TcpListener::bind("10.77.0.1:80")).unwrap().unwrap();

        let machine = lab.host("machine", &switch).unwrap();
        let reached = machine.run_in(|| {
            let link = LinkIndex(nix::net::if_::if_nametoindex(machine.interface()).unwrap());
            set_up(link, true).unwrap();
            add_address(link, "10.88.0.9/24".parse().unwrap()).unwrap();
            for refused in [[10, 88, 0, 9], [10, 88, 0, 255]] {
                let error = set_gateway(link, refused.into()).unwrap_err();
                assert!(matches!(error, NetlinkError::Refused { .. }), "{error:?}");
            }
            // A phase that is tried again sets it again, and a better value takes the place of a worse one.
            for gateway in [[10, 88, 0, 7], [10, 88, 0, 1], [10, 88, 0, 1]] {
                set_gateway(link, gateway.into()).unwrap();
            }
            TcpStream::connect_timeout(&listener.local_addr().unwrap(), PATIENCE)
        });
        let routes = machine.namespace().ip(&["route", "show", "default"]).unwrap();
        reached.unwrap().unwrap_or_else(|error| panic!("{error}: {routes}"));
        assert_eq!(routes.lines().count(), 1, "{routes}");

        // A network of its own alone, with its router outside.
        let alone = lab.host("alone", &switch).unwrap();
        let set = alone.run_in(|| {
            let link = LinkIndex(nix::net::if_::if_nametoindex(alone.interface()).unwrap());
            set_up(link, true)?;
            add_address(link, "10.88.0.10/32".parse().unwrap())?;
            set_gateway(link, [10, 88, 0, 1].into())
        });
        set.unwrap().unwrap();
    }
}
