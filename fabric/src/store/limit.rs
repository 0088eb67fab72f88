//! The size limit: how many bytes a store may hold.
//!
//! The file `limit` holds it in decimal; without the file there is none. Partial blobs count as a whole from the moment they
//! begin, so that no fetch ends halfway for want of room. What is about to exceed the limit sweeps garbage first, if
//! that makes room.

use std::fs::File;
use std::io::{self, Read};
use std::sync::{MutexGuard, PoisonError};

use super::Store;
use super::dir::Dir;
use super::error::StoreError;
use super::item::Item;
use crate::content::BlobIndex;

/// Longest limit file (bytes): the digits of the largest number and a newline.
const MAX_LEN: u64 = 21;

impl Store {
    /// How many bytes the store may hold: the smaller of what [`Store::set_limit`] and
    /// [`StoreOptions::limit`](super::StoreOptions::limit) say.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        let kept = *self.kept_limit();
        [kept, self.shared.limit_here].into_iter().flatten().min()
    }

    /// Bounds the store, for this process and all to come. What is here already stays until it is garbage that something new
    /// needs the room of.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Io`].
    pub fn set_limit(&self, limit: Option<u64>) -> Result<(), StoreError> {
        let _changes = self.change();
        let path = self.dir().limit();
        match limit {
            Some(bytes) => self.dir().write_whole(&path, format!("{bytes}\n").as_bytes())?,
            None => self.dir().remove(&path)?,
        }
        *self.kept_limit() = limit;
        Ok(())
    }

    /// Bytes of all blobs and objects, partial blobs counted as a whole: what the limit bounds.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn used(&self) -> Result<u64, StoreError> {
        Ok(self.inventory()?.reserved())
    }

    /// Makes room for the blob of `index` below the limit; the lock of all changes is held, and the blob is recent.
    pub(super) fn make_room(&self, index: &BlobIndex) -> Result<(), StoreError> {
        if self.limit().is_none() {
            return Ok(());
        }
        let inventory = self.inventory()?;
        let here = inventory.blobs.get(&index.blob()).map_or(0, |held| held.reserved);
        let indexed = inventory.objects.contains_key(&index.object_id());
        let index_bytes = if indexed { 0 } else { index.encoded_len() };
        self.make_room_for(index.size().saturating_sub(here).saturating_add(index_bytes))
    }

    /// An error now, rather than after a file was copied, if `bytes` cannot be had. A blob of this very length may be the
    /// one that comes: then it is here already.
    pub(super) fn check_limit(&self, bytes: u64) -> Result<(), StoreError> {
        let _changes = self.change();
        if self.blobs_locked().values().any(|blob| blob.index().size() == bytes) {
            return Ok(());
        }
        self.make_room_for(bytes)
    }

    fn make_room_for(&self, needed: u64) -> Result<(), StoreError> {
        let Some(limit) = self.limit().filter(|_| needed > 0) else { return Ok(()) };
        let used = self.used()?;
        if used.saturating_add(needed) <= limit {
            return Ok(());
        }
        let refuse =
            |used, blocked| Err(StoreError::Limit { dir: self.path().into(), limit, used, needed, blocked });
        match self.plan() {
            Err(error) => refuse(used, Some(error.into())),
            Ok(plan) if plan.kept_reserved().saturating_add(needed) > limit => {
                refuse(plan.kept_reserved(), None)
            }
            Ok(_) => {
                let swept = self.sweep()?;
                tracing::info!(
                    bytes = swept.freed_bytes,
                    "what nothing names was removed to stay below the limit"
                );
                Ok(())
            }
        }
    }

    /// Marks `item` as added by this process; it stays so only if `add` works.
    pub(super) fn adding<T>(
        &self,
        item: Item,
        add: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let new = self.recent().add(item);
        add().inspect_err(|_| {
            if new {
                self.recent().remove(&item);
            }
        })
    }

    fn kept_limit(&self) -> MutexGuard<'_, Option<u64>> {
        self.shared.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The limit that the directory has.
pub(super) fn read(dir: &Dir) -> Result<Option<u64>, StoreError> {
    let path = dir.limit();
    let damaged = || StoreError::Damaged { path: path.clone(), remedy: "set the limit again" };
    match File::open(&path).and_then(|file| io::read_to_string(file.take(MAX_LEN))) {
        Ok(text) => text.trim_end().parse().map(Some).map_err(|_| damaged()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(damaged()),
        Err(error) => Err(dir.error("read", &path, error)),
    }
}
