//! A packet socket on one interface: what the UDP sockets cannot see or send.
//!
//! Used for replies of other servers (addressed to clients' port), for ARP, and for ICMPv6 without the kernel's IPv6.
//! Frames carry no link header (`SOCK_DGRAM`); a filter in the kernel keeps all other traffic away.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{LinkAddr, MsgFlags, SockaddrLike, bind, recvfrom, sendto};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::interface::Interface;

/// Which frames a socket receives.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Frames {
    /// IPv4 UDP to the DHCP client port.
    DhcpReplies,
    /// Router solicitations.
    Solicitations,
    /// ARP.
    Arp,
}

/// An open packet socket.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    socket: AsyncFd<OwnedFd>,
    index: u32,
    protocol: u16,
}

/// A received frame: how long it is and which Ethernet address sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) length: usize,
    pub(crate) source: [u8; 6],
}

impl PacketSocket {
    /// Opens a socket on `interface`. Needs `CAP_NET_RAW` and a tokio runtime.
    pub(crate) fn open(interface: &Interface, frames: Frames) -> io::Result<Self> {
        let protocol = frames.protocol();
        // Protocol 0 receives nothing: no frame can slip in before the filter is set and the interface chosen.
        let socket =
            Socket::new(Domain::PACKET, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::from(0)))?;
        socket.attach_filter(frames.filter())?;
        bind(socket.as_raw_fd(), &link_address(interface.index, protocol, [0; 6])?)?;
        if let Some(group) = frames.group() {
            join(&socket, interface.index, group)?;
        }
        Ok(Self { socket: register(socket.into())?, index: interface.index, protocol })
    }

    /// Waits until a frame can be read.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await.map(|mut guard| guard.retain_ready())
    }

    /// Reads a frame; `WouldBlock` when there is none. Frames that this host sent itself are passed over.
    pub(crate) fn try_receive(&self, buffer: &mut [u8]) -> io::Result<Frame> {
        loop {
            let received = self.socket.try_io(tokio::io::Interest::READABLE, |socket| {
                recvfrom::<LinkAddr>(socket.as_raw_fd(), buffer).map_err(io::Error::from)
            });
            let (length, source) = received?;
            let Some(source) = source else { continue };
            if source.pkttype() != libc::PACKET_OUTGOING
                && let Some(mac) = source.addr()
            {
                return Ok(Frame { length, source: mac });
            }
        }
    }

    /// Sends a frame's content to an Ethernet address.
    pub(crate) fn send(&self, to: [u8; 6], payload: &[u8]) -> io::Result<()> {
        let to = link_address(self.index, self.protocol, to)?;
        sendto(self.socket.as_fd().as_raw_fd(), payload, &to, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }
}

impl Frames {
    fn protocol(self) -> u16 {
        let protocol = match self {
            Self::DhcpReplies => libc::ETH_P_IP,
            Self::Solicitations => libc::ETH_P_IPV6,
            Self::Arp => libc::ETH_P_ARP,
        };
        u16::try_from(protocol).unwrap_or_default()
    }

    fn group(self) -> Option<[u8; 6]> {
        matches!(self, Self::Solicitations).then_some(crate::ra::ALL_ROUTERS_MAC)
    }

    fn filter(self) -> &'static [SockFilter] {
        match self {
            Self::DhcpReplies => DHCP_REPLIES,
            Self::Solicitations => SOLICITATIONS,
            Self::Arp => EVERYTHING,
        }
    }
}

const fn op(code: u32, jump_true: u8, jump_false: u8, k: u32) -> SockFilter {
    #[expect(clippy::cast_possible_truncation, reason = "operation codes of classic BPF are 16 bits wide")]
    SockFilter::new(code as u16, jump_true, jump_false, k)
}

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_HALF_AT_X: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
const LOAD_IP_HEADER_LENGTH: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_ANY_BIT: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const WHOLE_FRAME: u32 = 0xffff;

/// UDP, no later fragment, destination port 68.
const DHCP_REPLIES: &[SockFilter] = &[
    op(LOAD_BYTE, 0, 0, 9),
    op(IF_EQUAL, 0, 6, libc::IPPROTO_UDP as u32),
    op(LOAD_HALF, 0, 0, 6),
    op(IF_ANY_BIT, 4, 0, 0x1fff),
    op(LOAD_IP_HEADER_LENGTH, 0, 0, 0),
    op(LOAD_HALF_AT_X, 0, 0, 2),
    op(IF_EQUAL, 0, 1, 68),
    op(RETURN, 0, 0, WHOLE_FRAME),
    op(RETURN, 0, 0, 0),
];

/// ICMPv6 without extension headers, type 133.
const SOLICITATIONS: &[SockFilter] = &[
    op(LOAD_BYTE, 0, 0, 6),
    op(IF_EQUAL, 0, 3, libc::IPPROTO_ICMPV6 as u32),
    op(LOAD_BYTE, 0, 0, 40),
    op(IF_EQUAL, 0, 1, 133),
    op(RETURN, 0, 0, WHOLE_FRAME),
    op(RETURN, 0, 0, 0),
];

const EVERYTHING: &[SockFilter] = &[op(RETURN, 0, 0, WHOLE_FRAME)];

#[expect(unsafe_code, reason = "tokio has no safe constructor of AsyncFd")]
fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open and stays the same descriptor for as long as it lives, and the AsyncFd owns it.
    unsafe { AsyncFd::register(socket) }.map_err(Into::into)
}

/// A link-layer socket address. nix builds one only from a raw pointer.
#[expect(unsafe_code, reason = "nix::LinkAddr has no safe constructor")]
fn link_address(index: u32, protocol: u16, mac: [u8; 6]) -> io::Result<LinkAddr> {
    let [a, b, c, d, e, f] = mac;
    let raw = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).unwrap_or_default(),
        sll_protocol: protocol.to_be(),
        sll_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [a, b, c, d, e, f, 0, 0],
    };
    let length = u32::try_from(size_of::<libc::sockaddr_ll>()).map_err(io::Error::other)?;
    // SAFETY: the pointer is to a live, fully initialised sockaddr_ll of family AF_PACKET, and the length is its size;
    // from_raw copies it.
    let address = unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(length)) };
    address.ok_or_else(|| io::Error::other("no link-layer address"))
}

/// Lets frames to an Ethernet multicast address in.
#[expect(unsafe_code, reason = "neither nix nor socket2 sets PACKET_ADD_MEMBERSHIP")]
fn join(socket: &Socket, index: u32, [a, b, c, d, e, f]: [u8; 6]) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: i32::try_from(index).map_err(io::Error::other)?,
        mr_type: u16::try_from(libc::PACKET_MR_MULTICAST).map_err(io::Error::other)?,
        mr_alen: 6,
        mr_address: [a, b, c, d, e, f, 0, 0],
    };
    let length = u32::try_from(size_of::<libc::packet_mreq>()).map_err(io::Error::other)?;
    let value: *const libc::packet_mreq = &raw const request;
    // SAFETY: the descriptor is open for the whole call, and the kernel reads `length` bytes from a live packet_mreq.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            value.cast(),
            length,
        )
    };
    nix::errno::Errno::result(result).map(|_| ()).map_err(Into::into)
}

/// The UDP payload of an IPv4 packet without link header; `None` if it is truncated or no UDP.
pub(crate) fn udp_payload(packet: &[u8]) -> Option<&[u8]> {
    let (&first, _) = packet.split_first()?;
    let header = usize::from(first & 0x0f) * 4;
    let (&[length_high, length_low], _) = packet.get(header + 4..)?.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    packet.get(header + 8..header.checked_add(length)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn payload_of_a_packet_with_trailing_padding() {
        let mut packet = vec![0x45; 20];
        packet.extend_from_slice(&[0, 67, 0, 68, 0, 11, 0, 0, 1, 2, 3, 9, 9]);
        assert_eq!(udp_payload(&packet), Some(&[1, 2, 3][..]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = udp_payload(&bytes);
        }
    }
}
