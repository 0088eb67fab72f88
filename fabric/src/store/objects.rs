//! Objects: small contents, kept whole and known by their hash.

use std::fs::{self, File};
use std::io::{self, Read};

use bytes::Bytes;

use super::Store;
use super::dir::Dir;
use super::error::StoreError;
use super::item::Item;
use crate::content::MAX_INDEX;
use crate::id::{Hash, ObjectId};

/// The largest object (bytes): the index of the largest blob.
pub const MAX_OBJECT: usize = MAX_INDEX;

impl Store {
    /// Keeps `bytes` as an object.
    ///
    /// # Errors
    /// [`StoreError::ObjectTooLarge`], [`StoreError::Full`], [`StoreError::Io`].
    pub fn put_object(&self, bytes: &[u8]) -> Result<ObjectId, StoreError> {
        let _changes = self.change();
        let item = Item::Object(ObjectId(Hash::of(bytes)));
        self.adding(item, || put(self.dir(), bytes))
    }

    /// The object `id`, verified. A damaged one counts as absent, and the writer removes it so that it can be fetched again.
    #[must_use]
    pub fn object(&self, id: &ObjectId) -> Option<Bytes> {
        get(self.dir(), id).or_else(|| self.lent_index(id))
    }

    /// The index of a blob that is lent is in memory alone.
    fn lent_index(&self, id: &ObjectId) -> Option<Bytes> {
        let blobs = self.blobs_locked();
        let blob = blobs.values().find(|blob| blob.is_lent() && blob.index().object_id() == *id)?.clone();
        drop(blobs);
        Some(blob.index().encode().into())
    }

    /// The ids of all objects.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn objects(&self) -> Result<Vec<ObjectId>, StoreError> {
        let path = self.dir().objects();
        let list = || -> io::Result<Vec<ObjectId>> {
            let names = fs::read_dir(&path)?.map(|entry| entry.map(|entry| entry.file_name()));
            names.filter_map(|name| name.map(|name| name.to_str()?.parse().ok()).transpose()).collect()
        };
        list().map_err(|error| self.dir().error("list", &path, error))
    }
}

pub(super) fn put(dir: &Dir, bytes: &[u8]) -> Result<ObjectId, StoreError> {
    if bytes.len() > MAX_OBJECT {
        return Err(StoreError::ObjectTooLarge { len: bytes.len(), max: MAX_OBJECT });
    }
    let id = ObjectId(Hash::of(bytes));
    if get(dir, &id).is_none() {
        dir.write_whole(&dir.object(&id), bytes)?;
    }
    Ok(id)
}

pub(super) fn get(dir: &Dir, id: &ObjectId) -> Option<Bytes> {
    let path = dir.object(id);
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MAX_OBJECT as u64 + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if Hash::of(&bytes) == id.0 => Some(bytes.into()),
        Ok(_) if dir.is_reader() => {
            tracing::warn!(object = %id, path = %path.display(), "an object is damaged");
            None
        }
        Ok(_) => {
            tracing::warn!(object = %id, path = %path.display(), "a damaged object is removed: it will be fetched again");
            if let Err(error) = dir.remove(&path) {
                tracing::warn!(%error, "cannot remove it");
            }
            None
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(object = %id, path = %path.display(), %error, "cannot read an object");
            None
        }
    }
}
