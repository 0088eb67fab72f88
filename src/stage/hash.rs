//! The phase `hash`: the device that the root is mounted from, read whole, is what the release says.
//!
//! A store in memory holds only what this boot verified, chunk by chunk, before it was kept: hashing that once more tests the
//! machine's memory and nothing else, and is left to who asks for it. What a disk held while the machine was off is hashed
//! where it is used: the disk, the store and the loop device between them.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::boot::{Boot, FROM_DISK};
use super::config::STORE;
use super::phase::{Host, PhaseError};
use super::progress::{Progress, mebibytes};
use super::tree_hash;
use crate::event::Event;

/// How often it is looked at how far it has come.
const LOOK: Duration = Duration::from_millis(20);

/// The device is not the root that was fetched.
#[derive(Debug, thiserror::Error)]
enum HashError {
    #[error("cannot read the root's device")]
    Read(#[from] io::Error),
    #[error("the root's device ends before its {total} bytes")]
    Short { total: u64 },
    #[error("the root's device has the hash {computed} instead of {expected}")]
    Differs { computed: String, expected: String },
}

/// Hashes the device and compares.
pub(super) fn hash(boot: &mut Boot, _: Duration) -> Result<String, PhaseError> {
    if boot.is_local() {
        return Ok(FROM_DISK.to_owned());
    }
    if !boot.line.hash.unwrap_or(boot.disks.store && boot.disks.target.is_none()) {
        return Ok("each chunk was verified in this boot".to_owned());
    }
    let mounted = boot.root.as_ref().map(|root| &root.blob);
    let blob = mounted.or(boot.view.root.as_ref());
    let blob = blob.ok_or_else(|| PhaseError::message("the root is not complete"))?.clone();
    let (expected, total) = (blob.id, blob.bytes);
    let computed = compute(boot, &expected, total)?;
    let matches = computed == expected;
    boot.emit(Event::RootHashed { computed: computed.clone(), expected: expected.clone(), matches });
    if matches {
        Ok(format!("{:.1} MiB as the release says", mebibytes(total)))
    } else {
        Err(HashError::Differs { computed, expected }.into())
    }
}

fn compute(boot: &mut Boot, id: &str, total: u64) -> Result<String, PhaseError> {
    let device = match boot.root.as_ref().and_then(|root| root.device.as_ref()) {
        Some(device) => device.file.try_clone(),
        // A root that is unpacked while it comes is on no device.
        None => File::open(Path::new(STORE).join("blobs").join(id)),
    };
    let device = device.map_err(HashError::Read)?;
    let mut shown = Progress::default();
    let hash = tree_hash::hash(&device, total, |done| {
        boot.turn(LOOK);
        let now = boot.now();
        shown.update(now, done, total);
        boot.console.progress(now, "hash", &shown.text());
    });
    match hash {
        Ok(hash) => Ok(hash.to_hex().to_string()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(HashError::Short { total }.into()),
        Err(error) => Err(HashError::Read(error).into()),
    }
}
