//! Children that ended: PID 1 inherits every orphan and must take note of its end.

use std::fmt;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The end of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exit {
    /// Which.
    pub(super) pid: Pid,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Status(i32),
    Signal(Signal),
}

impl Exit {
    /// Whether it did what it was to do.
    pub(super) fn is_success(&self) -> bool {
        self.how == How::Status(0)
    }

    /// Whether it did not end by itself.
    pub(super) fn is_killed(&self) -> bool {
        matches!(self.how, How::Signal(_))
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.how {
            How::Status(status) => write!(f, "exit status {status}"),
            How::Signal(signal) => write!(f, "killed by {signal}"),
        }
    }
}

/// Processes taken note of at a time; the rest is left to the next call.
const MAX_AT_ONCE: usize = 256;

/// Takes note of all children that have ended.
pub(super) fn reap() -> Vec<Exit> {
    let mut exits = Vec::new();
    while exits.len() < MAX_AT_ONCE {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) => exits.push(Exit { pid, how: How::Status(status) }),
            Ok(WaitStatus::Signaled(pid, signal, _)) => exits.push(Exit { pid, how: How::Signal(signal) }),
            Ok(WaitStatus::StillAlive) | Err(_) => break,
            Ok(_) => {}
        }
    }
    exits
}
