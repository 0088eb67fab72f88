//! What lies in a store's directory, and how large it is.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use crate::id::{BlobId, ObjectId};
use crate::store::Store;
use crate::store::blob::Blob;
use crate::store::dir::Dir;
use crate::store::error::StoreError;
use crate::store::item::Item;

/// Bytes that `st_blocks` counts in.
const BLOCK: u64 = 512;

/// All blobs and objects on disk. Blobs that are lent are not there.
pub(in crate::store) struct Inventory {
    pub(in crate::store) blobs: BTreeMap<BlobId, Held>,
    pub(in crate::store) objects: BTreeMap<ObjectId, u64>,
}

/// One blob.
#[derive(Default)]
pub(in crate::store) struct Held {
    /// Bytes held now.
    pub(in crate::store) bytes: u64,
    /// Bytes when it will be complete.
    pub(in crate::store) reserved: u64,
    /// The index it is held under; none for files whose index is lost.
    pub(in crate::store) index: Option<ObjectId>,
    fetched: bool,
}

impl Inventory {
    /// Bytes of everything, partial blobs counted as a whole.
    pub(in crate::store) fn reserved(&self) -> u64 {
        self.blobs.values().map(|held| held.reserved).sum::<u64>() + self.objects.values().sum::<u64>()
    }

    /// Partial blobs that somebody in this process holds.
    pub(super) fn fetched(&self) -> impl Iterator<Item = BlobId> + '_ {
        self.blobs.iter().filter(|(_, held)| held.fetched).map(|(id, _)| *id)
    }

    /// Everything, and the bytes held of it.
    pub(super) fn items(&self) -> impl Iterator<Item = (Item, u64)> + '_ {
        let blobs = self.blobs.iter().map(|(id, held)| (Item::Blob(*id), held.bytes));
        blobs.chain(self.objects.iter().map(|(id, bytes)| (Item::Object(*id), *bytes)))
    }
}

impl Store {
    /// Looks at the directory.
    pub(in crate::store) fn inventory(&self) -> Result<Inventory, StoreError> {
        let dir = self.dir();
        let mut blobs: BTreeMap<BlobId, Held> = BTreeMap::new();
        for (id, blob) in self.blobs_locked().iter().filter(|(_, blob)| !blob.is_lent()) {
            let held = Held {
                bytes: blob.held_bytes(),
                reserved: blob.index().size(),
                index: Some(blob.index().object_id()),
                fetched: is_fetched(blob),
            };
            blobs.insert(*id, held);
        }
        let known: Vec<BlobId> = blobs.keys().copied().collect();
        for path in [dir.blobs(), dir.partials(), dir.indexes()] {
            each_file(dir, &path, |name, metadata| {
                let Some(id) = blob_of(name).filter(|id| known.binary_search(id).is_err()) else { return };
                let bytes = metadata.len().min(metadata.blocks().saturating_mul(BLOCK));
                let held = match blobs.entry(id) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => entry.insert(Held::default()),
                };
                held.bytes += bytes;
                held.reserved += bytes;
            })?;
        }
        let mut objects = BTreeMap::new();
        each_file(dir, &dir.objects(), |name, metadata| {
            objects.extend(name.parse().ok().map(|id: ObjectId| (id, metadata.len())));
        })?;
        Ok(Inventory { blobs, objects })
    }
}

/// Whether somebody holds a partial blob: the store itself has it once.
pub(super) fn is_fetched(blob: &Arc<Blob>) -> bool {
    !blob.is_complete() && Arc::strong_count(blob) > 1
}

/// The blob that a file in `blobs`, `partial` or `indexes` belongs to.
fn blob_of(name: &str) -> Option<BlobId> {
    let id = name.strip_suffix(".data").or_else(|| name.strip_suffix(".have")).unwrap_or(name);
    id.parse().ok()
}

/// Files that vanish meanwhile, which a reader may meet, are not there.
fn each_file(dir: &Dir, path: &Path, mut found: impl FnMut(&str, &fs::Metadata)) -> Result<(), StoreError> {
    let mut look = || -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            match (entry.file_name().to_str(), entry.metadata()) {
                (Some(name), Ok(metadata)) if metadata.is_file() => found(name, &metadata),
                (_, Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    };
    look().map_err(|error| dir.error("list", path, error))
}
