//! The part of a store that goes onto a disk: one release with its blobs, and what every node needs to know.
//!
//! Made of hard links where both are on one filesystem, so it costs nothing and stands still while the store goes on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use fabric::id::{Hash, ObjectId};
use fabric::store::{Store, StoreError, StoreOptions};

use crate::home::RELEASE_HEAD;

/// Directories whose files are named by blobs.
const BY_BLOB: [&str; 2] = ["blobs", "indexes"];
/// Directories that are taken whole: they are small.
const WHOLE: [&str; 2] = ["objects", "heads"];
/// The file that says which layout this is.
const FORMAT: &str = "format";

/// A snapshot could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file.
    #[error("cannot copy `{}` of the store", path.display())]
    Copy {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A blob of the release is not held.
    #[error("the store does not hold all of the image: the blob {0} is missing")]
    Missing(String),
    /// The copy is no store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a store at `to` with `release` and its `blobs` from the one at `from`.
pub(super) fn snapshot(from: &Path, to: &Path, release: &str, blobs: &[String]) -> Result<(), SnapshotError> {
    for name in BY_BLOB {
        make(&to.join(name))?;
        for blob in blobs {
            let source = from.join(name).join(blob);
            if !source.exists() {
                return Err(SnapshotError::Missing(blob.clone()));
            }
            link(&source, &to.join(name).join(blob))?;
        }
    }
    for name in WHOLE {
        make(&to.join(name))?;
        let directory = from.join(name);
        let entries =
            fs::read_dir(&directory).map_err(|source| SnapshotError::Copy { path: directory, source })?;
        for entry in entries.flatten() {
            copy(&entry.path(), &to.join(name).join(entry.file_name()))?;
        }
    }
    copy(&from.join(FORMAT), &to.join(FORMAT))?;
    let id: Hash = release.parse().map_err(|_| SnapshotError::Missing(release.to_owned()))?;
    let store = Store::open(to, StoreOptions { durable: false, ..StoreOptions::default() })?;
    store.set_head(RELEASE_HEAD, &ObjectId(id))?;
    Ok(())
}

fn make(path: &Path) -> Result<(), SnapshotError> {
    fs::create_dir_all(path).map_err(|source| SnapshotError::Copy { path: path.to_owned(), source })
}

fn link(from: &Path, to: &Path) -> Result<(), SnapshotError> {
    match fs::hard_link(from, to) {
        Err(_) => copy(from, to),
        Ok(()) => Ok(()),
    }
}

/// Small files are copied, never linked: they may be written in place.
fn copy(from: &Path, to: &Path) -> Result<(), SnapshotError> {
    match fs::copy(from, to) {
        // Gone in between, replaced by another of another name.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !from.ends_with(FORMAT) => Ok(()),
        Err(source) => Err(SnapshotError::Copy { path: from.to_owned(), source }),
        Ok(_) => Ok(()),
    }
}
