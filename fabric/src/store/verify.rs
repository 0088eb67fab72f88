//! The full check: every held byte is hashed again.

use std::path::PathBuf;
use std::sync::Arc;

use super::Store;
use super::blob::Blob;
use super::check::{read_chunk, runs_of};
use super::error::StoreError;
use super::objects;
use crate::bitfield::Bitfield;
use crate::exchange::message::Run;
use crate::id::{BlobId, Hash, ObjectId};

/// What [`Store::verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct VerifyReport {
    /// How many blobs were checked.
    pub blobs: usize,
    /// How many bytes of blobs were hashed.
    pub bytes: u64,
    /// Damaged blobs. If the store was open for writing they are partial now, or no longer here if they were lent.
    pub damaged: Vec<BlobDamage>,
    /// Objects that were damaged. The writer removed them.
    pub damaged_objects: Vec<ObjectId>,
}

/// A damaged blob.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, thiserror::Error)]
#[error(
    "{}: {bad} of {held} chunks of blob {blob} are damaged{}. {}", path.display(),
    if *bad == 0 { " in a way that its index does not show: forget the blob" } else { "" },
    if *lent { "It is served no more: the file was changed, serve it anew" } else {
        "The others are kept: fetch the blob again to repair it, and have a look at the device"
    }
)]
pub struct BlobDamage {
    /// The blob.
    pub blob: BlobId,
    /// Its file.
    pub path: PathBuf,
    /// Whether that is a file outside of the store.
    pub lent: bool,
    /// How many chunks were held.
    pub held: u32,
    /// How many of them were damaged. 0 if all were as the index says but the whole is not the blob: the index is wrong.
    pub bad: u32,
}

impl VerifyReport {
    /// Whether nothing was damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.damaged_objects.is_empty()
    }
}

impl Store {
    /// Hashes all objects and all held chunks. The writer removes damaged objects, and makes a damaged blob a partial one that
    /// keeps its good chunks; a reader only reports. `progress` is called with the number of bytes hashed so far.
    ///
    /// # Errors
    /// [`StoreError::Io`] if damage cannot be put aside. Damage itself is no error but in the report.
    pub fn verify(&self, progress: &dyn Fn(u64)) -> Result<VerifyReport, StoreError> {
        let mut report = VerifyReport::default();
        for id in self.objects()? {
            if self.object(&id).is_none() {
                report.damaged_objects.push(id);
            }
        }
        let blobs: Vec<Arc<Blob>> = self.blobs_locked().values().cloned().collect();
        for blob in blobs {
            self.keep_index(&blob)?;
            let damage = verify_blob(&blob, &mut |bytes| {
                report.bytes += u64::from(bytes);
                progress(report.bytes);
            })?;
            if damage.is_some() && blob.is_lent() {
                self.deregister(&blob);
            }
            report.damaged.extend(damage);
            report.blobs += 1;
        }
        Ok(report)
    }

    /// Ends a blob, unless another has taken its place.
    fn deregister(&self, blob: &Arc<Blob>) {
        let _changes = self.change();
        self.blobs_locked().retain(|_, other| !Arc::ptr_eq(other, blob));
    }

    /// An index that was damaged is in memory still.
    fn keep_index(&self, blob: &Blob) -> Result<(), StoreError> {
        if !self.dir().is_reader() && self.object(&blob.index().object_id()).is_none() {
            let _changes = self.change();
            objects::put(self.dir(), &blob.index().encode())?;
        }
        Ok(())
    }
}

fn verify_blob(blob: &Blob, hashed: &mut dyn FnMut(u32)) -> Result<Option<BlobDamage>, StoreError> {
    let (file, have, index) = (blob.file(), blob.have(), blob.index());
    let mut bad = Bitfield::empty(index.count());
    let mut whole = have.is_full().then(blake3::Hasher::new);
    let mut buffer = Vec::new();
    for (number, chunk) in (0..).zip(index.chunks()).filter(|(number, _)| have.has(*number)) {
        if !read_chunk(&file, &chunk, &mut buffer) {
            bad.insert(number);
        }
        if let Some(whole) = &mut whole {
            whole.update(&buffer);
        }
        hashed(chunk.len);
    }
    let runs: Vec<Run> = runs_of(&bad);
    let lies = runs.is_empty() && whole.is_some_and(|whole| Hash::from(whole.finalize()) != blob.id().0);
    if runs.is_empty() && !lies {
        return Ok(None);
    }
    let damage = BlobDamage {
        blob: blob.id(),
        path: blob.path().into(),
        lent: blob.is_lent(),
        held: have.count(),
        bad: bad.count(),
    };
    tracing::warn!(%damage, "damage in the store");
    if !runs.is_empty() {
        blob.drop_chunks(&runs)?;
    }
    Ok(Some(damage))
}
