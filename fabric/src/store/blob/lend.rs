//! Complete blobs whose content lies in a file outside of the store's directory: lent by its owner to be served in place, or
//! released to be the owner's.
//!
//! Only this process knows of them: they are forgotten when it ends, and nothing of them is on disk but the file itself,
//! which the store reads and never writes, renames, chmods or removes.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Blob, COMPLETE_MODE, PARTIAL_MODE, Phase};
use crate::bitfield::Bitfield;
use crate::content::{BlobIndex, BlobRef, index_reader};
use crate::id::BlobId;
use crate::store::Store;
use crate::store::dir::Dir;
use crate::store::error::StoreError;
use crate::store::import::{self, Aside};
use crate::store::item::Item;

/// Bytes copied at a time to another filesystem.
const COPY: usize = 1 << 20;

impl Store {
    /// Makes a complete blob of the file `path` without copying it: it is read once for its index, and served from where it
    /// is until this process ends. Nothing may write to it meanwhile. `progress` is called with the number of bytes read so
    /// far.
    ///
    /// If the blob is in the store already it stays there; one that is partial is completed out of the file, because somebody
    /// may be fetching it.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::NotAFile`], [`StoreError::NotABlob`] for a file that is too large,
    /// [`StoreError::TooManyBlobs`].
    pub fn lend_file(&self, path: &Path, progress: &dyn Fn(u64)) -> Result<BlobRef, StoreError> {
        let (dir, path) = (self.dir(), absolute(self.dir(), path)?);
        dir.check_lock()?;
        let file = File::open(&path).map_err(|error| dir.error("open", &path, error))?;
        let metadata = file.metadata().map_err(|error| dir.error("look at", &path, error))?;
        if !metadata.is_file() {
            return Err(StoreError::NotAFile { path });
        }
        let index = index_reader(&file, progress).map_err(|error| self.import_error(&path, error, 0))?;
        let _changes = self.change();
        if let Some(blob) = self.blob(&index.blob()) {
            import::fill(&blob, &file, &path)?;
            return Ok(blob.reference());
        }
        self.check_count()?;
        let blob = Blob::open_lent(dir, index, file, path);
        self.register(&blob);
        Ok(blob.reference())
    }

    /// Moves the file of the complete blob `blob` out of the store to `to`, in place of what is there: renamed if that is on
    /// the same filesystem, else copied beside `to` and renamed. It becomes its owner's to write (mode 0644 as far as the
    /// umask allows). The blob stays readable in this process through its open file; the store keeps nothing of it on disk.
    /// A blob that was lent is copied.
    ///
    /// # Errors
    /// [`StoreError::Incomplete`] if the blob is not here as a whole, [`StoreError::Io`] if `to` cannot be written: then the
    /// blob stays in the store.
    pub fn release_file(&self, blob: &BlobId, to: &Path) -> Result<(), StoreError> {
        let _changes = self.change();
        let dir = self.dir();
        dir.check_lock()?;
        let incomplete = || StoreError::Incomplete { blob: *blob };
        let blob = self.blob(blob).ok_or_else(incomplete)?;
        blob.release(&absolute(dir, to)?)?;
        self.recent().remove(&Item::Blob(blob.id()));
        for path in [dir.index(&blob.id()), dir.object(&blob.index().object_id())] {
            if let Err(error) = dir.remove(&path) {
                tracing::warn!(path = %path.display(), %error, "what described a blob that left the store stays");
            }
        }
        Ok(())
    }
}

impl Blob {
    /// The complete blob in the file of somebody else.
    fn open_lent(dir: &Arc<Dir>, index: BlobIndex, file: File, path: PathBuf) -> Arc<Self> {
        let have = Bitfield::full(index.count());
        let blob = Self::new(dir, index, file, have, Phase::Complete);
        // It is new: nothing was set before.
        let _ = blob.elsewhere.set(path);
        blob
    }

    fn release(&self, to: &Path) -> Result<(), StoreError> {
        let _transition = self.transition();
        if !self.is_complete() {
            return Err(StoreError::Incomplete { blob: self.id() });
        }
        // Made first: it takes the mode that the umask leaves, and shows that the directory can be written to.
        let parent = to.parent().unwrap_or(to);
        let aside = Aside(parent.join(self.dir.temporary_name()));
        let target = |error| self.dir.error_for("write", to, error, self.index.size());
        let mut copy = File::options()
            .write(true)
            .create_new(true)
            .mode(PARTIAL_MODE)
            .open(&aside.0)
            .map_err(&target)?;
        let moved = self.elsewhere.get().is_none() && self.rename_to(to, &copy).map_err(&target)?;
        if !moved {
            self.copy_to(&mut copy).map_err(&target)?;
            fs::rename(&aside.0, to).map_err(&target)?;
        }
        self.dir.sync_directory(parent).map_err(&target)?;
        if self.elsewhere.get().is_none() {
            self.dir.remove(&self.complete_path)?;
            // Set once, by whoever holds the transition.
            let _ = self.elsewhere.set(to.into());
        }
        Ok(())
    }

    /// Gives the file the mode of `like` and its new name; false if that is on another filesystem.
    fn rename_to(&self, to: &Path, like: &File) -> io::Result<bool> {
        let mode = like.metadata()?.permissions().mode();
        self.file().set_permissions(Permissions::from_mode(mode & 0o777))?;
        let Err(error) = fs::rename(&self.complete_path, to) else { return Ok(true) };
        self.file().set_permissions(Permissions::from_mode(COMPLETE_MODE))?;
        if error.kind() == io::ErrorKind::CrossesDevices { Ok(false) } else { Err(error) }
    }

    fn copy_to(&self, copy: &mut File) -> io::Result<()> {
        let (mut at, mut buffer, file) = (0, vec![0; COPY], self.file());
        while at < self.index.size() {
            let left = usize::try_from(self.index.size() - at).unwrap_or(COPY);
            buffer.truncate(left);
            file.read_exact_at(&mut buffer, at)?;
            copy.write_all(&buffer)?;
            at += buffer.len() as u64;
        }
        self.dir.sync(copy)
    }
}

fn absolute(dir: &Dir, path: &Path) -> Result<PathBuf, StoreError> {
    std::path::absolute(path).map_err(|error| dir.error("find", path, error))
}
