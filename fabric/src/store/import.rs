//! Files and bytes that become blobs as a whole.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::blob::Blob;
use super::dir::Dir;
use super::error::{StoreError, WriteError};
use super::item::Item;
use super::{Store, open};
use crate::content::{BlobIndex, BlobRef, index_bytes, index_copy, index_reader};
use crate::exchange::message::Run;

/// Chunks given at a time to a partial blob that an import completes: about a mebibyte.
const FILL_CHUNKS: u32 = 32;

impl Store {
    /// Copies the file `path` into the store; it is read once. `progress` is called with the number of bytes read so far.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Full`], [`StoreError::Limit`], [`StoreError::NotABlob`] for a file that is too large,
    /// [`StoreError::TooManyBlobs`].
    pub fn add_file(&self, path: &Path, progress: &dyn Fn(u64)) -> Result<BlobRef, StoreError> {
        let source = File::open(path).map_err(|error| self.dir().error("open", path, error))?;
        let size = source.metadata().map_err(|error| self.dir().error("look at", path, error))?.len();
        self.dir().check_lock()?;
        self.dir().check_room(size)?;
        self.check_limit(size)?;
        let aside = Aside(self.dir().temporary());
        let mut copy = File::create(&aside.0).map_err(|error| self.dir().error("create", &aside.0, error))?;
        let index = index_copy(source, |bytes| copy.write_all(bytes), progress);
        let index = index.map_err(|error| self.import_error(path, error, size))?;
        self.install(&aside, &copy, index)
    }

    /// Moves the file `path` into the store, without copying it if it is on the same filesystem. Nobody may write to it
    /// any more.
    ///
    /// # Errors
    /// As [`Store::add_file`].
    pub fn adopt_file(&self, path: &Path, progress: &dyn Fn(u64)) -> Result<BlobRef, StoreError> {
        self.dir().check_lock()?;
        let aside = Aside(self.dir().temporary());
        match fs::rename(path, &aside.0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let added = self.add_file(path, progress)?;
                self.dir().remove(path)?;
                return Ok(added);
            }
            Err(error) => return Err(self.dir().error("move", path, error)),
        }
        let index = || {
            let file = File::open(&aside.0)?;
            Ok((index_reader(&file, progress)?, file))
        };
        let indexed = index().map_err(|error| self.import_error(path, error, 0));
        indexed.and_then(|(index, file)| self.install(&aside, &file, index)).inspect_err(|_| {
            // Back to where it was: it is the caller's only copy.
            let _ = fs::rename(&aside.0, path);
        })
    }

    /// Keeps `bytes` as a blob.
    ///
    /// # Errors
    /// As [`Store::add_file`].
    pub fn add_bytes(&self, bytes: &[u8]) -> Result<BlobRef, StoreError> {
        self.dir().check_lock()?;
        let aside = Aside(self.dir().temporary());
        let index =
            index_bytes(bytes).map_err(|source| StoreError::NotABlob { path: aside.0.clone(), source })?;
        let write = || {
            let mut file = File::create(&aside.0)?;
            file.write_all(bytes)?;
            Ok(file)
        };
        let file =
            write().map_err(|error| self.dir().error_for("write", &aside.0, error, bytes.len() as u64))?;
        self.install(&aside, &file, index)
    }

    /// A new empty directory in the store for what is about to be [adopted](Store::adopt_file). Whatever is left in it is
    /// removed when the store is opened next.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn scratch(&self) -> Result<PathBuf, StoreError> {
        self.dir().check_lock()?;
        let number = self.shared.scratch.fetch_add(1, Ordering::Relaxed);
        let path = self.dir().tmp().join(format!("scratch-{number}"));
        fs::create_dir(&path).map_err(|error| self.dir().error("create", &path, error))?;
        Ok(path)
    }

    /// Gives the file `aside`, which holds what `index` says, its place.
    fn install(&self, aside: &Aside, file: &File, index: BlobIndex) -> Result<BlobRef, StoreError> {
        let _changes = self.change();
        self.adding(Item::Blob(index.blob()), || self.install_recent(aside, file, index))
    }

    fn install_recent(&self, aside: &Aside, file: &File, index: BlobIndex) -> Result<BlobRef, StoreError> {
        let dir = self.dir();
        match self.blob(&index.blob()) {
            // Its file is not the store's: here comes one that is.
            Some(blob) if blob.is_lent() => self.make_room(&index)?,
            Some(blob) => {
                fill(&blob, &reopen(dir, &aside.0)?, &aside.0)?;
                return Ok(blob.reference());
            }
            None => {
                self.check_count()?;
                self.make_room(&index)?;
            }
        }
        let path = dir.blob(&index.blob());
        dir.sync(file).map_err(|error| dir.error_for("flush", &aside.0, error, index.size()))?;
        file.set_permissions(Permissions::from_mode(0o444))
            .map_err(|error| dir.error("write-protect", &aside.0, error))?;
        open::write_index(dir, &index)?;
        dir.rename(&aside.0, &path)?;
        let blob: Arc<Blob> = Blob::open_complete(dir, index)?;
        self.register(&blob);
        Ok(blob.reference())
    }

    pub(super) fn import_error(&self, path: &Path, error: io::Error, needed: u64) -> StoreError {
        match error.downcast() {
            Ok(source) => StoreError::NotABlob { path: path.into(), source },
            Err(error) => self.dir().error_for("import", path, error, needed),
        }
    }
}

fn reopen(dir: &Dir, path: &Path) -> Result<File, StoreError> {
    File::open(path).map_err(|error| dir.error("open", path, error))
}

/// Gives a blob what it misses out of `file` at `source`, which holds all of it; it may be cut in another way.
pub(super) fn fill(blob: &Blob, file: &File, source: &Path) -> Result<(), StoreError> {
    let (index, mut bytes) = (blob.index(), Vec::new());
    for first in (0..index.count()).step_by(FILL_CHUNKS as usize) {
        let count = FILL_CHUNKS.min(index.count() - first);
        let Some(range) = index.byte_range(Run { first, count }) else { break };
        if blob.holds(range.clone()) {
            continue;
        }
        bytes.resize(usize::try_from(range.end - range.start).unwrap_or(0), 0);
        file.read_exact_at(&mut bytes, range.start).map_err(|error| StoreError::Io {
            action: "read",
            path: source.into(),
            source: error,
        })?;
        match blob.write_run(first, &bytes) {
            Err(WriteError::Store(error)) => return Err(error),
            // The index lies about this blob: not this import's affair.
            Err(WriteError::BadChunk { .. } | WriteError::Length { .. }) | Ok(_) => {}
        }
    }
    Ok(())
}

/// A temporary file, removed if it did not find another place.
pub(super) struct Aside(pub(super) PathBuf);

impl Drop for Aside {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
