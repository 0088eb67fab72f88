//! How many bytes must have come before a connection's task is woken (`SO_RCVLOWAT`, socket(7)).
//!
//! On a slow link each segment would wake it: twenty times for one cell, on every neighbour's connection. With the rest of
//! the answer as the mark it is woken once or twice. A sender that pauses in the middle must not make us wait for the mark, so
//! after [`PATIENCE`] whatever is there is taken.

use std::time::Duration;

use nix::sys::socket::setsockopt;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// The highest mark (bytes): a long run is taken in pieces of this size, so that it neither grows the kernel's buffer nor
/// counts as stalled.
const HIGHEST: usize = 128 * 1024;
/// How long bytes may lie below the mark.
const PATIENCE: Duration = Duration::from_millis(200);

mod option {
    #![allow(missing_docs, unreachable_pub, reason = "made by a macro of the library")]
    use nix::{libc, setsockopt_impl, sockopt_impl};
    sockopt_impl!(LowWater, SetOnly, libc::SOL_SOCKET, libc::SO_RCVLOWAT, usize);
}

/// The mark of one connection.
#[derive(Debug)]
pub(super) struct Watermark {
    mark: usize,
    /// Bytes did not come in time: no mark until some do.
    suspended: bool,
    /// The kernel does not know the option.
    unavailable: bool,
}

impl Watermark {
    pub(super) fn new() -> Self {
        Self { mark: 1, suspended: false, unavailable: false }
    }

    /// At least `bytes` more will come in one piece; 1 or less to be woken by any. There is no mark where it would be one of
    /// other bytes than those of the answer.
    pub(super) fn expect(&mut self, stream: Option<&TcpStream>, bytes: usize) {
        let Some(stream) = stream else { return };
        let mark = if self.suspended { 1 } else { bytes.clamp(1, HIGHEST) };
        if mark == self.mark || self.unavailable {
            return;
        }
        match setsockopt(stream, option::LowWater, &mark) {
            Ok(()) => self.mark = mark,
            Err(_) => self.unavailable = true,
        }
    }

    /// When to [lower](Self::lower) the mark, unless bytes come before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (self.mark > 1).then(|| Instant::now() + PATIENCE)
    }

    /// Takes whatever there is.
    pub(super) fn lower(&mut self, stream: Option<&TcpStream>) {
        self.suspended = true;
        self.expect(stream, 1);
    }

    /// Bytes have come.
    pub(super) fn came(&mut self) {
        self.suspended = false;
    }
}
