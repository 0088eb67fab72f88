//! Reading beside the writer: no lock, no change, and a view of the blobs that holds whatever the writer does meanwhile.
//!
//! The writer renames a blob's file when it completes, and removes it when it is forgotten; it may begin the same blob
//! again in a new file. So a partial blob's journal counts only if the file at its path is still the one that was opened before
//! the journal was read: chunks are journaled after their bytes are written, and a new file comes with a new journal. The same
//! holds for the index, which the writer changes before the journal.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::blob::Blob;
use super::check;
use super::dir::Dir;
use super::error::StoreError;
use super::journal::Journal;
use super::{Store, StoreOptions, open};
use crate::bitfield::Bitfield;
use crate::content::BlobIndex;
use crate::id::BlobId;

/// How often a blob is looked at again because it changed meanwhile. Each time the writer has completed, forgotten or begun
/// it in the time of a few system calls.
const ATTEMPTS: usize = 16;

impl Store {
    /// Opens the store in the directory `path` for reading, beside its writer if there is one. Nothing is locked, made or
    /// changed; whatever would change something ends in [`StoreError::ReadOnly`].
    ///
    /// Blobs are those of this moment: open the store again to see others. Of a partial blob, what its journal claims is
    /// taken as held: it was verified before it was written, but not hashed again after a power loss. [`Store::verify`]
    /// hashes it.
    ///
    /// # Errors
    /// [`StoreError::NoStore`], [`StoreError::Format`], [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn open_reader(path: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let dir = Arc::new(Dir::open_reader(path)?);
        let mut blobs = BTreeMap::new();
        for id in open::names(&dir, &dir.indexes())? {
            if let Some(blob) = look(&dir, &id)? {
                blobs.insert(id, blob);
            }
        }
        Self::over(dir, blobs, options)
    }

    /// Whether there is a store in the directory `path`, of whatever version.
    #[must_use]
    pub fn exists(path: &Path) -> bool {
        Dir::format_file(path).is_file()
    }

    /// Whether it was opened for reading alone.
    #[must_use]
    pub fn is_reader(&self) -> bool {
        self.dir().is_reader()
    }
}

/// The blob `id` as it is now; none if it is being forgotten, or not yet there.
fn look(dir: &Arc<Dir>, id: &BlobId) -> Result<Option<Arc<Blob>>, StoreError> {
    for _ in 0..ATTEMPTS {
        let Some(index) = open::read_index(dir, id) else {
            let path = dir.index(id);
            if path.exists() {
                tracing::warn!(blob = %id, path = %path.display(), "the index of a blob is lost");
            }
            return Ok(None);
        };
        if let Some(file) = open_file(dir, &dir.blob(id))? {
            let have = complete_chunks(dir, &index, &file)?;
            let complete = have.is_full();
            return Ok(Some(Blob::open_reader(dir, index, file, have, complete)));
        }
        let Some(file) = open_file(dir, &dir.partial(id))? else { continue };
        let path = dir.journal(id);
        let claimed = Journal::read(&path, index.count()).map_err(|error| dir.error("read", &path, error))?;
        if !is_at(&file, &dir.partial(id)) || open::index_name(dir, id) != Some(index.object_id()) {
            continue;
        }
        let mut have = Bitfield::empty(index.count());
        for chunk in claimed.iter().flat_map(|run| run.chunks()) {
            have.insert(chunk);
        }
        return Ok(Some(Blob::open_reader(dir, index, file, have, false)));
    }
    Ok(None)
}

/// What a file with a final name holds: everything, unless somebody has cut it.
fn complete_chunks(dir: &Dir, index: &BlobIndex, file: &File) -> Result<Bitfield, StoreError> {
    let path = dir.blob(&index.blob());
    let len = file.metadata().map_err(|error| dir.error("look at", &path, error))?.len();
    if len == index.size() {
        return Ok(Bitfield::full(index.count()));
    }
    tracing::warn!(path = %path.display(), "a blob's file has a wrong length: its good chunks count");
    Ok(check::good_chunks(file, index, &open::everything(index)))
}

fn open_file(dir: &Dir, path: &Path) -> Result<Option<File>, StoreError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(dir.error("open", path, error)),
    }
}

/// Whether `path` still leads to `file`.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        _ => false,
    }
}
