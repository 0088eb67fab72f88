//! Waking up when the kernel announces a device.
//!
//! What changed is not read from the message: whoever waits looks at `/sys` again, which is right even when messages
//! were lost.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// The group of the kernel's own announcements (linux/lib/kobject_uevent.c).
const KERNEL_GROUP: u32 = 1;

/// Announcements that are thrown away at a time: a flood must not hold the caller here.
const DRAINED: usize = 1024;

/// The socket of the kernel's device announcements.
pub(super) struct Uevents {
    /// None where there is no such socket: waiting is then only a pause.
    socket: Option<OwnedFd>,
}

impl Uevents {
    /// Listens from now on.
    pub(super) fn open() -> Self {
        Self { socket: listen().ok() }
    }

    /// Waits for an announcement, at most `timeout`.
    pub(super) fn wait(&self, timeout: Duration) {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let Some(socket) = &self.socket else {
            let _ = poll(&mut [], timeout);
            return;
        };
        let mut set = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut set, timeout).is_ok_and(|ready| ready > 0) {
            let mut buffer = [0; 256];
            for _ in 0..DRAINED {
                // An overflow (ENOBUFS) is one more reason to look again.
                match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                    Ok(_) | Err(Errno::ENOBUFS) => {}
                    Err(_) => break,
                }
            }
        }
    }
}

fn listen() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkKObjectUEvent)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
    Ok(fd)
}
