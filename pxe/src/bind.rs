//! Sockets that the services listen on.
//!
//! Owns the options they need and the error that names who holds a port already. Never starts a task.

mod owner;

use std::fmt;
use std::io;
use std::net::SocketAddr;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

pub use owner::PortOwner;

/// Connections that may wait for `accept`: a switch full of machines powered on at once. The kernel caps it at
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Transport of a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A TCP listener.
    Tcp,
    /// A UDP socket.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// A socket could not be opened for listening.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has the port.
    #[error("{transport} {addr} is in use{}; stop that program or choose another port", owner_text(.owner.as_ref()))]
    InUse {
        /// The transport.
        transport: Transport,
        /// The address asked for.
        addr: SocketAddr,
        /// Who holds it, where `/proc` tells.
        owner: Option<PortOwner>,
    },
    /// The port is privileged.
    #[error(
        "no permission to listen on {transport} {addr}; run as root, grant CAP_NET_BIND_SERVICE, or choose a port above 1023"
    )]
    Denied {
        /// The transport.
        transport: Transport,
        /// The address asked for.
        addr: SocketAddr,
    },
    /// Anything else, such as an address that no interface has.
    #[error("cannot listen on {transport} {addr}{}", device_text(.device.as_deref()))]
    Other {
        /// The transport.
        transport: Transport,
        /// The address asked for.
        addr: SocketAddr,
        /// The interface asked for.
        device: Option<String>,
        /// What the kernel said.
        source: io::Error,
    },
}

fn owner_text(owner: Option<&PortOwner>) -> String {
    owner.map(|owner| format!(" by {owner}")).unwrap_or_default()
}

fn device_text(device: Option<&str>) -> String {
    device.map(|device| format!(" on interface {device}")).unwrap_or_default()
}

impl BindError {
    /// The error that says what `source` means for a socket of `transport` at `addr`.
    #[must_use]
    pub fn new(transport: Transport, addr: SocketAddr, device: Option<&str>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                Self::InUse { transport, addr, owner: PortOwner::find(transport, addr.port()) }
            }
            io::ErrorKind::PermissionDenied => Self::Denied { transport, addr },
            _ => Self::Other { transport, addr, device: device.map(str::to_owned), source },
        }
    }
}

/// How to open a listening socket.
#[derive(Debug, Clone, Default)]
pub struct BindOptions {
    /// Only packets of this interface (`SO_BINDTODEVICE`).
    pub device: Option<String>,
    /// Share the port with other sockets of the same user (`SO_REUSEPORT`): an heir may listen before its predecessor
    /// has stopped. The price is that a second server started by mistake is not noticed.
    pub reuse_port: bool,
}

/// A TCP listener with `SO_REUSEADDR`, non-blocking. An IPv6 address also takes IPv4 clients. Needs a tokio runtime.
///
/// # Errors
/// [`BindError`], which names the program that holds the port where it can be found.
pub fn tcp(addr: SocketAddr, options: &BindOptions) -> Result<TcpListener, BindError> {
    let open = || {
        let socket = open(addr, options, Type::STREAM, Protocol::TCP)?;
        // Connections of a predecessor in TIME_WAIT must not keep the port from us; a live listener still does.
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|source| BindError::new(Transport::Tcp, addr, options.device.as_deref(), source))
}

/// A UDP socket that reports the local address of each datagram (`IP_PKTINFO`), non-blocking. An IPv6 address also
/// takes IPv4 clients. Needs a tokio runtime.
///
/// # Errors
/// [`BindError`], which names the program that holds the port where it can be found.
pub fn udp(addr: SocketAddr, options: &BindOptions) -> Result<UdpSocket, BindError> {
    let open = || {
        let socket = open(addr, options, Type::DGRAM, Protocol::UDP)?;
        if addr.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        socket.bind(&addr.into())?;
        UdpSocket::from_std(socket.into())
    };
    open().map_err(|source| BindError::new(Transport::Udp, addr, options.device.as_deref(), source))
}

fn open(addr: SocketAddr, options: &BindOptions, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if let Some(device) = &options.device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_names_its_owner() {
        let first = tcp("127.0.0.1:0".parse().unwrap(), &BindOptions::default()).unwrap();
        let addr = first.local_addr().unwrap();
        let error = tcp(addr, &BindOptions::default()).unwrap_err();
        let BindError::InUse { owner: Some(owner), .. } = &error else { panic!("{error:?}") };
        assert_eq!(owner.pid, std::process::id());
        assert!(error.to_string().contains(&format!("TCP {addr} is in use by ")), "{error}");
        assert!(error.to_string().contains(&format!("(pid {})", owner.pid)), "{error}");
    }

    #[tokio::test]
    async fn e6_a_udp_port_in_use_names_its_owner() {
        let first = udp("127.0.0.1:0".parse().unwrap(), &BindOptions::default()).unwrap();
        let addr = first.local_addr().unwrap();
        let error = udp(addr, &BindOptions::default()).unwrap_err();
        assert!(
            matches!(&error, BindError::InUse { owner: Some(owner), .. } if owner.pid == std::process::id()),
            "{error}"
        );
    }

    #[tokio::test]
    async fn reuse_port_lets_an_heir_listen_beside_its_predecessor() {
        let options = BindOptions { reuse_port: true, ..BindOptions::default() };
        let first = tcp("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        tcp(first.local_addr().unwrap(), &options).unwrap();
    }

    #[tokio::test]
    async fn a_foreign_address_is_an_error_that_names_it() {
        let error = tcp("192.0.2.1:80".parse().unwrap(), &BindOptions::default()).unwrap_err();
        assert!(error.to_string().contains("192.0.2.1:80"), "{error}");
    }
}
