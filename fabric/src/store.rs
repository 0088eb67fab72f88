//! Verified bytes on disk or in RAM.
//!
//! One implementation serves disks and tmpfs. A blob is one plain file, so that a mounted blob *is* the store and serving
//! it copies nothing. Owns the directory, the chunks' verification and what survives a crash; never talks to a peer and
//! never decides what to fetch or to drop.
//!
//! | path | content |
//! |---|---|
//! | `lock` | locked with flock(2) by the one process that writes; its process id |
//! | `format` | the version of this layout |
//! | `blobs/BLOB` | a complete blob, read-only |
//! | `partial/BLOB.data` | a blob in the making: sparse, of its full length from the start |
//! | `partial/BLOB.have` | journal of the runs in it, appended after their bytes were written |
//! | `indexes/BLOB` | which object is the blob's index |
//! | `objects/OBJECT` | small contents known by their hash: indexes, signed releases and settings |
//! | `heads/NAME` | names given to objects: the roots of everything worth keeping |
//! | `pins/NAME` | a blob or an object that is kept although no head names it, and why |
//! | `limit` | the most bytes that the store may hold; none without this file |
//! | `tmp/` | imports under way; emptied when the store is opened |
//!
//! **What a crash leaves.** A chunk is verified before its bytes are written, and journaled after. Killing the program
//! loses no chunk whose `write_run` returned: the page cache survives. Power loss may lose bytes that the journal lists;
//! so every journaled chunk of a partial blob is hashed again when the store is opened, and what does not match is not
//! held. A blob gets its final name only when all its bytes are on the device ([`StoreOptions::durable`]). Complete
//! blobs are not hashed again at every start; [`Store::verify`] does that, and turns a damaged blob into a partial one that
//! keeps its good chunks. Small files are written aside and renamed.
//!
//! **One writer, many readers.** [`Store::open`] takes the lock. [`Store::open_reader`] takes none, changes nothing, and
//! may be used beside the writer; it sees the blobs of the moment in which it was opened, and heads, pins and objects as
//! they are when asked. A complete blob is one file whose bytes never change, so a reader may trust it as the writer does. Of a
//! partial blob it sees what the journal claims: every such chunk was verified before it was written, but whether its bytes
//! reached the device before a power loss only the writer's check at the next start tells. Files that a reader has open
//! stay readable for it when the writer renames or removes them; a reader that meets a blob in the middle of
//! that looks again.
//!
//! **What is kept.** Heads and pins, what they name, and what the process is adding or fetching; [`Store::gc`] removes the
//! rest. What an object names is not this module's knowledge but that of [`References`]. A blob leaves in the order data,
//! journal, index's name, index: a crash in between leaves less of something that nothing names, and the next opening
//! tidies up.
//!
//! **Threads.** All methods block (they read, write and hash): call them off the runtime's threads. Everything may be
//! called from several threads at once; hashing and writing happen outside all locks.

mod blob;
mod check;
mod dir;
mod error;
mod gc;
mod heads;
mod import;
mod item;
mod journal;
mod limit;
mod lock;
mod named;
mod objects;
mod open;
mod pins;
mod reader;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use blob::Blob;
pub use dir::Space;
pub use error::{StoreError, WriteError};
pub use gc::{Freed, GcReport, Kept};
pub use heads::REMOVED;
pub use item::{Item, Root};
pub use objects::MAX_OBJECT;
pub use pins::Pin;
pub use verify::{BlobDamage, VerifyReport};

use crate::content::{BlobIndex, BlobRef};
use crate::id::BlobId;
use dir::Dir;
use gc::Recent;

/// Most blobs in a store: each holds a file open, and processes may have 1024 by default. A hundred images' worth.
pub const MAX_BLOBS: usize = 512;

/// What to do when another process has the store open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Fail at once, naming the process.
    Fail,
    /// Wait this long for it to end, as when one agent hands over to the next; then fail.
    Wait(Duration),
}

/// Lists the blobs that an object names. An error if it cannot be told: then nothing is removed as garbage. Indexes need not
/// be known.
pub type References = fn(&[u8]) -> Result<Vec<BlobRef>, Box<dyn std::error::Error + Send + Sync>>;

/// How to open a store.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// Flush files to the device before they get their final name. Costs nothing on a tmpfs; without it, power loss can leave
    /// a complete blob damaged until [`Store::verify`] finds it.
    pub durable: bool,
    /// What to do when another process has the store open.
    pub lock: LockMode,
    /// The most bytes that the store may hold as long as this process has it open, beside the limit that the store itself
    /// has.
    pub limit: Option<u64>,
    /// Refuse what has no room as a whole before any of it comes. Without it a blob takes what comes of it, until there is no
    /// room: for who wants a little of a blob.
    pub whole: bool,
    /// What objects name: by default, what signed statements do.
    pub references: References,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let references: References = |object| crate::trust::references(object).map_err(Into::into);
        Self { durable: true, lock: LockMode::Fail, limit: None, whole: true, references }
    }
}

/// A store directory that this process has open, as its one writer or as a reader. Clones share it; the writer's lock is
/// held until the last clone and the last [`Blob`] are gone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    dir: Arc<Dir>,
    blobs: Mutex<BTreeMap<BlobId, Arc<Blob>>>,
    /// Serialises what changes the set of blobs, so that `blobs` is never locked during I/O.
    changes: Mutex<()>,
    scratch: AtomicU64,
    references: References,
    recent: Mutex<Recent>,
    /// The limit that the directory has.
    limit: Mutex<Option<u64>>,
    /// The limit of this process.
    limit_here: Option<u64>,
}

/// One blob of a listing.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BlobInfo {
    /// Which blob.
    pub reference: BlobRef,
    /// How many chunks it has.
    pub chunks: u32,
    /// How many of them are held.
    pub held_chunks: u32,
    /// How many bytes are held.
    pub held_bytes: u64,
    /// Whether it is complete under its final name.
    pub complete: bool,
    /// Whether its file is outside of the store, so that only this process has the blob.
    pub lent: bool,
    /// Its file.
    pub path: PathBuf,
}

impl Store {
    /// Opens the store in the directory `path`, which is made if it does not exist. Partial blobs are verified, and
    /// completed if nothing is missing.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it open, [`StoreError::Format`] if another version of the program
    /// made it, [`StoreError::Io`], [`StoreError::Full`].
    pub fn open(path: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let dir = Arc::new(Dir::open(path, options)?);
        let blobs = open::load_blobs(&dir)?;
        Self::over(dir, blobs, options)
    }

    fn over(
        dir: Arc<Dir>,
        blobs: BTreeMap<BlobId, Arc<Blob>>,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let limit = Mutex::new(limit::read(&dir)?);
        let shared = Shared {
            dir,
            blobs: Mutex::new(blobs),
            changes: Mutex::new(()),
            scratch: AtomicU64::new(0),
            references: options.references,
            recent: Mutex::default(),
            limit,
            limit_here: options.limit,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir().root()
    }

    /// Lets another process open the directory although this one has not ended: for an agent that hands over and only goes
    /// on reading until its last transfer is done. Every change through this store ends in
    /// [`StoreError::HandedOver`] from now on.
    pub fn release_lock(&self) {
        let _changes = self.change();
        let blobs: Vec<_> = self.blobs_locked().values().cloned().collect();
        for blob in blobs {
            blob.hand_over();
        }
        self.dir().release_lock();
    }

    /// The index of the blob `reference`, if it is here.
    #[must_use]
    pub fn index(&self, reference: &BlobRef) -> Option<Arc<BlobIndex>> {
        if let Some(blob) = self.blob(&reference.blob).filter(|blob| blob.reference() == *reference) {
            return Some(blob.index().clone());
        }
        reference.index_from(&self.object(&reference.index)?).ok().map(Arc::new)
    }

    /// Room on the filesystem that holds the store.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn space(&self) -> Result<Space, StoreError> {
        self.dir().space()
    }

    /// The blob `id`, complete or partial.
    #[must_use]
    pub fn blob(&self, id: &BlobId) -> Option<Arc<Blob>> {
        self.blobs_locked().get(id).cloned()
    }

    /// All blobs, in the order of their ids.
    #[must_use]
    pub fn blobs(&self) -> Vec<BlobInfo> {
        let blobs: Vec<_> = self.blobs_locked().values().cloned().collect();
        blobs.iter().map(|blob| blob.info()).collect()
    }

    /// Starts or resumes the blob that `index` describes; a complete blob stays complete. `index` must be trusted: this is
    /// what chunks are verified against.
    ///
    /// If the blob is here under another index (cut by another version of the program), its file is verified against the new
    /// one and goes on under it.
    ///
    /// # Errors
    /// [`StoreError::Full`] if what is missing of the blob does not fit, [`StoreError::Limit`] if the store may not hold so
    /// much and garbage does not make room, [`StoreError::IndexConflict`] if a complete blob
    /// does not match `index`, [`StoreError::TooManyBlobs`], [`StoreError::Io`].
    pub fn begin(&self, index: BlobIndex) -> Result<Arc<Blob>, StoreError> {
        let _changes = self.change();
        self.dir().check_lock()?;
        self.adding(Item::Blob(index.blob()), || self.begin_recent(index))
    }

    fn begin_recent(&self, index: BlobIndex) -> Result<Arc<Blob>, StoreError> {
        match self.blob(&index.blob()) {
            Some(blob) if blob.index().object_id() == index.object_id() => {
                self.dir().check_room(blob.missing_bytes())?;
                Ok(blob)
            }
            Some(blob) if !blob.is_lent() => {
                let blob = open::replace_index(self.dir(), &blob, index)?;
                self.register(&blob);
                Ok(blob)
            }
            _ => {
                self.check_count()?;
                self.make_room(&index)?;
                let blob = open::begin(self.dir(), index)?;
                self.register(&blob);
                Ok(blob)
            }
        }
    }

    /// Removes the blob `id` and its index; true if it was here. Files that others have open or mounted stay readable for them;
    /// a file that was lent stays where it is.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::HandedOver`], [`StoreError::ReadOnly`].
    pub fn forget(&self, id: &BlobId) -> Result<bool, StoreError> {
        let _changes = self.change();
        let dir = self.dir();
        dir.check_lock()?;
        let Some(blob) = self.blobs_locked().remove(id) else { return Ok(false) };
        blob.retire();
        dir.remove_blob(id)?;
        dir.remove(&dir.object(&blob.index().object_id()))?;
        self.recent().remove(&Item::Blob(*id));
        Ok(true)
    }

    fn dir(&self) -> &Arc<Dir> {
        &self.shared.dir
    }

    fn blobs_locked(&self) -> MutexGuard<'_, BTreeMap<BlobId, Arc<Blob>>> {
        self.shared.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> MutexGuard<'_, ()> {
        self.shared.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_count(&self) -> Result<(), StoreError> {
        if self.blobs_locked().len() < MAX_BLOBS {
            return Ok(());
        }
        Err(StoreError::TooManyBlobs { dir: self.path().into() })
    }

    fn register(&self, blob: &Arc<Blob>) {
        self.blobs_locked().insert(blob.id(), blob.clone());
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.path().display())
    }
}
