//! What was left by earlier processes, and how a blob enters the store.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::blob::Blob;
use super::check;
use super::dir::Dir;
use super::error::StoreError;
use super::journal::Journal;
use super::objects;
use crate::content::BlobIndex;
use crate::exchange::message::Run;
use crate::id::{BlobId, ObjectId};

/// A hash in hexadecimal and its newline (bytes).
const LINE: u64 = 65;

/// Every blob that has an index.
pub(super) fn load_blobs(dir: &Arc<Dir>) -> Result<BTreeMap<BlobId, Arc<Blob>>, StoreError> {
    let mut blobs = BTreeMap::new();
    for id in names(dir, &dir.indexes())? {
        let Some(index) = read_index(dir, &id) else {
            let path = dir.index(&id);
            tracing::warn!(blob = %id, path = %path.display(), "the index of a blob is lost: the blob counts again once its index is fetched");
            continue;
        };
        if let Some(blob) = load_blob(dir, index)? {
            blobs.insert(id, blob);
        }
    }
    Ok(blobs)
}

/// The blob of `index` if any of its bytes are here.
fn load_blob(dir: &Arc<Dir>, index: BlobIndex) -> Result<Option<Arc<Blob>>, StoreError> {
    let id = index.blob();
    match (length(dir, &dir.blob(&id))?, length(dir, &dir.partial(&id))?) {
        (Some(len), _) if len == index.size() => {
            // Left by a crash just before the blob became complete.
            dir.remove(&dir.partial(&id))?;
            dir.remove(&dir.journal(&id))?;
            Blob::open_complete(dir, index).map(Some)
        }
        (Some(_), _) => adopt(dir, index).map(Some),
        (None, Some(_)) => {
            let path = dir.journal(&id);
            let claimed =
                Journal::read(&path, index.count()).map_err(|error| dir.error("read", &path, error))?;
            Blob::open_partial(dir, index, &claimed).map(Some)
        }
        (None, None) => {
            // Left by a crash just before the blob began.
            dir.remove(&dir.index(&id))?;
            Ok(None)
        }
    }
}

/// A blob that the store does not know. Bytes of it may be here all the same, from when its index was lost.
pub(super) fn begin(dir: &Arc<Dir>, index: BlobIndex) -> Result<Arc<Blob>, StoreError> {
    let id = index.blob();
    let here = length(dir, &dir.blob(&id))?.or(length(dir, &dir.partial(&id))?);
    if here.is_none() {
        dir.check_room(index.size())?;
    }
    write_index(dir, &index)?;
    if here.is_some() { adopt(dir, index) } else { Blob::open_partial(dir, index, &[]) }
}

/// A file that may hold any of the blob's bytes: all of it is hashed.
fn adopt(dir: &Arc<Dir>, index: BlobIndex) -> Result<Arc<Blob>, StoreError> {
    let id = index.blob();
    if length(dir, &dir.blob(&id))?.is_some() {
        tracing::warn!(blob = %id, "a blob's file is verified anew");
        dir.remove(&dir.journal(&id))?;
        dir.rename(&dir.blob(&id), &dir.partial(&id))?;
    }
    make_writable(dir, &dir.partial(&id))?;
    let all = everything(&index);
    Blob::open_partial(dir, index, &all)
}

/// The same blob under another index.
pub(super) fn replace_index(dir: &Arc<Dir>, old: &Blob, index: BlobIndex) -> Result<Arc<Blob>, StoreError> {
    let all = everything(&index);
    if old.is_complete() {
        if index.size() != old.index().size() || !check::good_chunks(&old.file(), &index, &all).is_full() {
            let (held, given) = (old.index().object_id(), index.object_id());
            return Err(StoreError::IndexConflict { blob: index.blob(), held, given });
        }
        write_index(dir, &index)?;
        old.retire();
        return Blob::open_complete(dir, index);
    }
    write_index(dir, &index)?;
    old.retire();
    Blob::open_partial(dir, index, &all)
}

/// Keeps the index, then says whose it is.
pub(super) fn write_index(dir: &Dir, index: &BlobIndex) -> Result<(), StoreError> {
    let object = objects::put(dir, &index.encode())?;
    dir.write_whole(&dir.index(&index.blob()), format!("{object}\n").as_bytes())
}

pub(super) fn read_index(dir: &Dir, id: &BlobId) -> Option<BlobIndex> {
    let index = BlobIndex::decode(&objects::get(dir, &index_name(dir, id)?)?).ok()?;
    (index.blob() == *id).then_some(index)
}

/// The object that is the blob's index.
pub(super) fn index_name(dir: &Dir, id: &BlobId) -> Option<ObjectId> {
    let text = io::read_to_string(File::open(dir.index(id)).ok()?.take(LINE)).ok()?;
    text.trim_end().parse().ok()
}

pub(super) fn everything(index: &BlobIndex) -> [Run; 1] {
    [Run { first: 0, count: index.count() }]
}

fn make_writable(dir: &Dir, path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
        .map_err(|error| dir.error("open", path, error))
}

/// Length of a file in bytes; `None` if there is none.
fn length(dir: &Dir, path: &Path) -> Result<Option<u64>, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(dir.error("look at", path, error)),
    }
}

/// The files in `path` that are named by a blob's id.
pub(super) fn names(dir: &Dir, path: &Path) -> Result<Vec<BlobId>, StoreError> {
    let list = || -> io::Result<Vec<BlobId>> {
        let names = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name()));
        names.filter_map(|name| name.map(|name| name.to_str()?.parse().ok()).transpose()).collect()
    };
    list().map_err(|error| dir.error("list", path, error))
}
