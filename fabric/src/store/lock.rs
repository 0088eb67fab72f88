//! One process at a time: flock(2) on the file `lock`, which holds the process id for the other's error message.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::LockMode;
use super::error::StoreError;

/// How often a waiting process tries again: a hand-over waits half of it on average.
const RETRY: Duration = Duration::from_millis(10);

/// Longest process id with its newline (bytes).
const MAX_PID: u64 = 16;

/// The lock, held until dropped. The kernel lets go of it when the process dies.
pub(super) struct DirLock {
    _file: Flock<File>,
}

impl DirLock {
    pub(super) fn take(dir: &Path, mode: LockMode) -> Result<Self, StoreError> {
        let path = dir.join("lock");
        let io = |action, source| StoreError::Io { action, path: path.clone(), source };
        let deadline = match mode {
            LockMode::Fail => None,
            LockMode::Wait(time) => Instant::now().checked_add(time),
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| io("open", error))?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut locked) => {
                    locked.set_len(0).map_err(|error| io("write", error))?;
                    writeln!(&mut *locked, "{}", std::process::id()).map_err(|error| io("write", error))?;
                    return Ok(Self { _file: locked });
                }
                Err((_, errno)) if errno != Errno::EWOULDBLOCK => return Err(io("lock", errno.into())),
                Err((refused, _)) if deadline.is_some_and(|deadline| Instant::now() < deadline) => {
                    std::thread::sleep(RETRY);
                    file = refused;
                }
                Err((refused, _)) => {
                    let text = io::read_to_string(refused.take(MAX_PID)).unwrap_or_default();
                    return Err(StoreError::Locked { dir: dir.into(), holder: text.trim().parse().ok() });
                }
            }
        }
    }
}
