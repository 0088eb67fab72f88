//! The sockets of TFTP: requests with the address they were sent to, and one socket per transfer.
//!
//! Never knows what a transfer is about.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, getsockopt, recv, recvmsg, send, sendmsg,
    sockopt,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::TftpConfig;
use super::negotiate::{MAX_BLKSIZE, MIN_BLKSIZE};
use super::packet::DATA_HEADER;

/// Bytes of IPv4, UDP and TFTP headers in a DATA packet.
const IPV4_OVERHEAD: u16 = 20 + 8 + DATA_HEADER as u16;
/// Bytes of IPv6, UDP and TFTP headers in a DATA packet.
const IPV6_OVERHEAD: u16 = 40 + 8 + DATA_HEADER as u16;
/// What every IPv6 link carries (RFC 8200 section 5): enough for the little that boots over IPv6.
const IPV6_MTU: u16 = 1280;
/// Taken where the kernel does not tell the MTU.
const ETHERNET_MTU: u16 = 1500;
/// Datagrams that the kernel cuts out of one buffer at most (`UDP_MAX_SEGMENTS`).
const MAX_SEGMENTS: usize = 64;
/// Bytes in one such buffer at most: what an IP packet holds, less its headers.
const MAX_SEGMENTED_BYTES: usize = 65_000;

/// A datagram that reached the listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) len: usize,
    pub(super) client: SocketAddr,
    /// The address it was sent to, or the address to answer from if that was a broadcast; unspecified where the kernel
    /// does not tell.
    pub(super) local: IpAddr,
}

/// Receives one datagram together with the address it was sent to.
pub(super) async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Arrival> {
    socket.async_io(Interest::READABLE, || receive_now(socket, buffer)).await
}

fn receive_now(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Arrival> {
    let mut slices = [IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!(nix::libc::in6_pktinfo);
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let client = message
        .address
        .as_ref()
        .and_then(socket_addr)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "datagram without a sender"))?;
    let local = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr))))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr))),
        _ => None,
    });
    let local = local.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |local| local.to_canonical());
    Ok(Arrival { len: message.bytes, client, local })
}

fn socket_addr(address: &SockaddrStorage) -> Option<SocketAddr> {
    let address = address
        .as_sockaddr_in()
        .map(|v4| SocketAddr::V4(SocketAddrV4::from(*v4)))
        .or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6))))?;
    Some(canonical(address))
}

/// An IPv4 client of an IPv6 socket as the IPv4 client it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V4(ip), address.port()),
        IpAddr::V6(_) => address,
    }
}

/// The socket of one transfer, connected to its client.
#[derive(Debug)]
pub(super) struct TransferSocket {
    socket: UdpSocket,
    /// Let the kernel cut several DATA packets out of one buffer (`UDP_SEGMENT`), until it refuses once.
    segmentation: AtomicBool,
}

impl TransferSocket {
    /// Opens a socket that answers `client` from `local`, on the interface of `listener` if that is bound to one. In
    /// single-port mode it shares the listener's port: the kernel gives a connected socket its peer's datagrams.
    pub(super) fn open(
        listener: &UdpSocket,
        client: SocketAddr,
        local: IpAddr,
        config: &TftpConfig,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(client), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        if let Some(device) = SockRef::from(listener).device()? {
            socket.bind_device(Some(&device))?;
        }
        let port = if config.single_port {
            // After the listener's bind, so that another server on the port was still noticed.
            SockRef::from(listener).set_reuse_address(true)?;
            socket.set_reuse_address(true)?;
            listener.local_addr()?.port()
        } else {
            0
        };
        socket.bind(&bind_address(client, local, port).into())?;
        socket.connect(&client.into())?;
        Ok(Self {
            socket: UdpSocket::from_std(socket.into())?,
            segmentation: AtomicBool::new(config.segmentation_offload),
        })
    }

    /// The socket for a thread that waits in the call, at most for `timeout`.
    pub(super) fn into_blocking(self, timeout: Duration) -> io::Result<std::net::UdpSocket> {
        let socket = self.socket.into_std()?;
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(timeout))?;
        Ok(socket)
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The largest block that the path carries unfragmented.
    pub(super) fn max_blksize(&self, client: SocketAddr) -> u16 {
        let payload = if client.is_ipv4() {
            let mtu = getsockopt(&self.socket, sockopt::IpMtu)
                .ok()
                .and_then(|mtu| u16::try_from(mtu.min(65_535)).ok());
            mtu.unwrap_or(ETHERNET_MTU).saturating_sub(IPV4_OVERHEAD)
        } else {
            IPV6_MTU - IPV6_OVERHEAD
        };
        payload.clamp(MIN_BLKSIZE, MAX_BLKSIZE)
    }

    /// Waits for a datagram. One that arrived together with it wakes nobody again: whoever sends nothing in answer has to
    /// look for more with [`Self::try_receive`]. So an answer that is followed by the next block costs one call, not two.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.socket.readable().await?;
            let mut received = Ok(None);
            // Reported as empty in any case: the runtime then waits for the next arrival, and misses none since `readable`.
            let _ = self.socket.try_io(Interest::READABLE, || {
                received = self.try_receive(buffer);
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
            if let Some(len) = received? {
                return Ok(len);
            }
        }
    }

    /// A datagram that is here already.
    pub(super) fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(len) => Ok(Some(len)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn send(&self, packet: &[u8]) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT;
        self.write(|| send(self.socket.as_raw_fd(), packet, flags)).await
    }

    /// Sends `packets`, which follow each other in memory; all but the last have `packet_len` bytes. One system call
    /// carries as many as the kernel takes (udp(7), `UDP_SEGMENT`); musl's `sendmmsg` would make one call for each.
    pub(super) async fn send_packets(&self, packets: &[u8], packet_len: usize) -> io::Result<()> {
        let at_once = (MAX_SEGMENTED_BYTES / packet_len.max(1)).clamp(1, MAX_SEGMENTS);
        for batch in packets.chunks(packet_len.max(1) * at_once) {
            if batch.len() > packet_len && self.segmentation.load(Ordering::Relaxed) {
                match self.send_segmented(batch, packet_len).await {
                    Ok(()) => continue,
                    Err(error) if is_segmentation_refusal(&error) => {
                        self.segmentation.store(false, Ordering::Relaxed);
                    }
                    Err(error) => return Err(error),
                }
            }
            for packet in batch.chunks(packet_len.max(1)) {
                self.send(packet).await?;
            }
        }
        Ok(())
    }

    async fn send_segmented(&self, packets: &[u8], packet_len: usize) -> io::Result<()> {
        let packet_len = u16::try_from(packet_len).map_err(|_| io::ErrorKind::InvalidInput)?;
        let segment = [ControlMessage::UdpGsoSegments(&packet_len)];
        let packets = [IoSlice::new(packets)];
        let fd = self.socket.as_raw_fd();
        self.write(|| sendmsg::<()>(fd, &packets, &segment, MsgFlags::MSG_DONTWAIT, None)).await
    }

    /// Makes one of the calls that send.
    async fn write(&self, send: impl Fn() -> nix::Result<usize>) -> io::Result<()> {
        // At first without asking whether there is room: there almost always is.
        let sent = match send() {
            Err(Errno::EAGAIN) => self.socket.async_io(Interest::WRITABLE, || Ok(send()?)).await,
            sent => sent.map_err(Into::into),
        };
        match sent {
            // A full device queue is a loss like any other: the retransmission timer knows what to do.
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => Ok(()),
            result => result.map(drop),
        }
    }
}

/// What kernels and devices say that cannot segment: each datagram is then sent by itself.
fn is_segmentation_refusal(error: &io::Error) -> bool {
    [Errno::EINVAL, Errno::EIO, Errno::EOPNOTSUPP, Errno::EMSGSIZE, Errno::ENOPROTOOPT]
        .iter()
        .any(|refusal| error.raw_os_error() == Some(*refusal as i32))
}

fn bind_address(client: SocketAddr, local: IpAddr, port: u16) -> SocketAddr {
    match (client, local) {
        (SocketAddr::V4(_), IpAddr::V4(local)) if !local.is_broadcast() && !local.is_multicast() => {
            SocketAddr::new(local.into(), port)
        }
        // A link-local address needs the interface it belongs to.
        (SocketAddr::V6(client), IpAddr::V6(local)) if !local.is_multicast() => {
            SocketAddr::V6(SocketAddrV6::new(local, port, 0, client.scope_id()))
        }
        (SocketAddr::V4(_), _) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port),
        (SocketAddr::V6(_), _) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port),
    }
}
