//! The phase `hash`: the device that the root is mounted from, read whole, is what the release says.
//!
//! Each chunk was verified when it came. This checks the sum of it where it is used: the store, the loop device and the
//! machine's memory between them.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::agent_phases::FROM_DISK;
use super::boot::Boot;
use super::phase::{Host, PhaseError};
use super::progress::{Progress, mebibytes};
use crate::event::Event;

/// Bytes read at a time: enough for the hash's fast path, little enough to go on hearing the agent.
const PIECE: usize = 1 << 20;

/// The device is not the root that was fetched.
#[derive(Debug, thiserror::Error)]
enum HashError {
    #[error("cannot read the root's device")]
    Read(#[from] io::Error),
    #[error("the root's device ends {missing} bytes early")]
    Short { missing: u64 },
    #[error("the root's device has the hash {computed} instead of {expected}")]
    Differs { computed: String, expected: String },
}

/// Hashes the device and compares.
pub(super) fn hash(boot: &mut Boot, _: Duration) -> Result<String, PhaseError> {
    if boot.is_local() {
        return Ok(FROM_DISK.to_owned());
    }
    if !boot.line.hash {
        return Ok("skipped, as the kernel line says".to_owned());
    }
    let root = boot.root()?;
    let (expected, total) = (root.blob.id.clone(), root.blob.bytes);
    let computed = compute(boot, total)?;
    let matches = computed == expected;
    boot.emit(Event::RootHashed { computed: computed.clone(), expected: expected.clone(), matches });
    if matches {
        Ok(format!("{:.1} MiB as the release says", mebibytes(total)))
    } else {
        Err(HashError::Differs { computed, expected }.into())
    }
}

fn compute(boot: &mut Boot, total: u64) -> Result<String, PhaseError> {
    let device =
        boot.root()?.device.as_ref().ok_or_else(|| PhaseError::message("the root's device is gone"))?;
    let mut device = device.file.try_clone().map_err(HashError::Read)?;
    device.seek(SeekFrom::Start(0)).map_err(HashError::Read)?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE];
    let mut shown = Progress::default();
    let mut done = 0;
    while done < total {
        let wanted = usize::try_from(total - done).unwrap_or(PIECE).min(PIECE);
        let buffer = piece.get_mut(..wanted).unwrap_or(&mut []);
        let count = match device.read(buffer) {
            Ok(0) => return Err(HashError::Short { missing: total - done }.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(HashError::Read(error).into()),
        };
        hasher.update(buffer.get(..count).unwrap_or(&[]));
        // The device's pages are a second copy of the store's: memory that the machine may not have twice.
        let (offset, length) = (i64::try_from(done).unwrap_or(0), i64::try_from(count).unwrap_or(0));
        let _ = posix_fadvise(device.as_fd(), offset, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        done += count as u64;
        boot.turn(Duration::ZERO);
        let now = boot.now();
        shown.update(now, done, total);
        boot.console.progress(now, "hash", &shown.text());
    }
    Ok(hasher.finalize().to_hex().to_string())
}
