//! The sockets of the DHCP service: how they are bound, read and written.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::SockRef;
use tokio::io::Interest;

use super::super::config::Mode;
use super::super::core::Arrival;
use super::super::interface::Interface;
use super::super::packet_socket::{Frames, PacketSocket};
use super::DriverError;
use crate::bind::{self, BindError, BindOptions};

/// Ports of DHCP servers and of PXE boot servers (RFC 2131 §4.1, PXE 2.1 §2.2.4).
const SERVER_PORT: u16 = 67;
const BOOT_SERVER_PORT: u16 = 4011;
/// Packets that may wait in the kernel: a storm of some thousand DISCOVERs of 600 bytes with their bookkeeping.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The bound UDP sockets: what a process hands over to its successor.
#[derive(Debug)]
pub struct Sockets {
    /// Port 67.
    pub server: UdpSocket,
    /// Port 4011; without it some firmware finds no boot file next to a site's server.
    pub boot: Option<UdpSocket>,
}

impl Sockets {
    /// Binds both ports on an interface. Works before the interface has an address.
    ///
    /// # Errors
    /// [`DriverError`] names who has port 67, or the permission that is missing.
    pub fn bind(interface: &Interface) -> Result<Self, DriverError> {
        let server =
            bind_port(interface, SERVER_PORT).map_err(|error| explain(error, interface, SERVER_PORT))?;
        let boot = bind_port(interface, BOOT_SERVER_PORT)
            .inspect_err(|error| tracing::warn!(%error, "UDP port 4011 cannot be bound; going on without it"))
            .ok();
        Ok(Self { server, boot })
    }

    /// Takes over sockets that a predecessor bound.
    #[must_use]
    pub fn from_fds(server: OwnedFd, boot: Option<OwnedFd>) -> Self {
        Self { server: server.into(), boot: boot.map(Into::into) }
    }

    /// Copies of the sockets, for a successor.
    ///
    /// # Errors
    /// If the process has no file descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        let boot = self.boot.as_ref().map(UdpSocket::try_clone).transpose()?;
        Ok(Self { server: self.server.try_clone()?, boot })
    }
}

fn bind_port(interface: &Interface, port: u16) -> Result<UdpSocket, BindError> {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let options = BindOptions { device: Some(interface.name.clone()), ..BindOptions::default() };
    let socket = bind::udp(address, &options)?;
    let prepare = || {
        socket.set_broadcast(true)?;
        SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.into_std()
    };
    prepare().map_err(|source| BindError::new(bind::Transport::Udp, address, Some(&interface.name), source))
}

fn explain(error: BindError, interface: &Interface, port: u16) -> DriverError {
    match error {
        BindError::InUse { owner, .. } => DriverError::PortInUse { port, owner },
        BindError::Denied { .. } => DriverError::Permission {
            what: "bind the DHCP port",
            capability: "CAP_NET_BIND_SERVICE and CAP_NET_RAW",
        },
        BindError::Other { source, .. } => socket_error("bind the DHCP port", interface, source),
    }
}

fn socket_error(what: &'static str, interface: &Interface, source: io::Error) -> DriverError {
    DriverError::Socket { what, interface: interface.name.clone(), source }
}

/// Everything the task reads and writes.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    pub(super) server: Option<Endpoint>,
    pub(super) boot: Option<Endpoint>,
    /// Replies of other servers.
    pub(super) replies: Option<PacketSocket>,
    /// Router solicitations.
    pub(super) solicitations: Option<PacketSocket>,
    /// Who uses which address.
    pub(super) arp: Option<PacketSocket>,
}

impl Endpoints {
    /// What `mode` needs: nothing when off, no solicitations as a proxy.
    pub(super) fn open(
        interface: &Interface,
        sockets: Option<&Sockets>,
        mode: Mode,
    ) -> Result<Self, DriverError> {
        let Some(sockets) = sockets else { return Ok(Self::default()) };
        let sockets = sockets.try_clone().map_err(|error| socket_error("copy sockets", interface, error))?;
        let endpoint = |socket, port| {
            Endpoint::new(socket, port, interface.index)
                .map_err(|error| socket_error("use the DHCP sockets", interface, error))
        };
        let gives = matches!(mode, Mode::Full | Mode::Auto);
        Ok(Self {
            server: Some(endpoint(sockets.server, SERVER_PORT)?),
            boot: sockets.boot.map(|socket| endpoint(socket, BOOT_SERVER_PORT)).transpose()?,
            replies: Some(open_packet_socket(interface, Frames::DhcpReplies)?),
            solicitations: gives.then(|| open_packet_socket(interface, Frames::Solicitations)).transpose()?,
            arp: gives.then(|| open_packet_socket(interface, Frames::Arp)).transpose()?,
        })
    }
}

fn open_packet_socket(interface: &Interface, frames: Frames) -> Result<PacketSocket, DriverError> {
    PacketSocket::open(interface, frames).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            DriverError::Permission { what: "open a packet socket", capability: "CAP_NET_RAW" }
        }
        _ => socket_error("open a packet socket", interface, error),
    })
}

/// One UDP socket in the runtime.
#[derive(Debug)]
pub(super) struct Endpoint {
    socket: tokio::net::UdpSocket,
    port: u16,
    index: u32,
}

impl Endpoint {
    fn new(socket: UdpSocket, port: u16, index: u32) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        Ok(Self { socket: tokio::net::UdpSocket::from_std(socket)?, port, index })
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Reads a packet with where it came from and how it was addressed; `WouldBlock` when there is none.
    pub(super) fn try_receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Arrival)> {
        self.socket.try_io(Interest::READABLE, || {
            let mut control = nix::cmsg_space!(libc::in_pktinfo);
            let mut parts = [IoSliceMut::new(buffer)];
            let fd = self.socket.as_raw_fd();
            let message = recvmsg::<SockaddrIn>(fd, &mut parts, Some(&mut control), MsgFlags::empty())?;
            let source =
                message.address.map_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0), SocketAddrV4::from);
            let info = message.cmsgs()?.find_map(|part| match part {
                ControlMessageOwned::Ipv4PacketInfo(info) => Some(info),
                _ => None,
            });
            // For a packet to one of our own addresses the kernel's "local address" is its destination; for a
            // broadcast, limited or to the subnet, the two differ.
            let unicast = info.is_some_and(|info| info.ipi_addr.s_addr == info.ipi_spec_dst.s_addr);
            Ok((message.bytes, Arrival { source, unicast, port: self.port }))
        })
    }

    /// Sends a packet from `from`, or from whatever address the interface has while it does not have that one.
    pub(super) fn send(&self, packet: &[u8], to: SocketAddrV4, from: Ipv4Addr) -> io::Result<()> {
        match self.send_from(packet, to, from) {
            Err(nix::Error::EINVAL | nix::Error::EADDRNOTAVAIL | nix::Error::ENETUNREACH) => {
                self.send_from(packet, to, Ipv4Addr::UNSPECIFIED).map_err(Into::into)
            }
            other => other.map_err(Into::into),
        }
    }

    fn send_from(&self, packet: &[u8], to: SocketAddrV4, from: Ipv4Addr) -> nix::Result<()> {
        let any = libc::in_addr { s_addr: 0 };
        let info = libc::in_pktinfo {
            ipi_ifindex: i32::try_from(self.index).unwrap_or_default(),
            ipi_spec_dst: libc::in_addr { s_addr: u32::from(from).to_be() },
            ipi_addr: any,
        };
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let parts = [IoSlice::new(packet)];
        let to = SockaddrIn::from(to);
        sendmsg(self.socket.as_raw_fd(), &parts, &control, MsgFlags::MSG_DONTWAIT, Some(&to)).map(|_| ())
    }
}
