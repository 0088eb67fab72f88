//! Before peers are asked for a blob, what other blobs of the store have of it is copied.
//!
//! Planned and carried out on the blocking pool, a run at a time, so that it can be stopped between two. Each chunk is
//! verified as if a peer had sent it; what cannot be read or is damaged is left to the peers. Partial blobs give what they
//! hold. Copying to the end before anybody is asked costs a second for a gigabyte and leaves nothing to be fetched twice.

use std::io;
use std::os::unix::fs::FileExt;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::core::{Order, Priority};
use super::super::message::Run;
use super::SharedBlob;
use super::progress::{FetchError, Progress};
use crate::bitfield::Bitfield;
use crate::content::{BlobIndex, SharedRun, shared_runs};
use crate::id::BlobId;
use crate::store::{Store, WriteError};

/// What to copy, and from where.
#[derive(Debug)]
pub(super) struct Reuse {
    blob: SharedBlob,
    sources: Vec<SharedBlob>,
    runs: Vec<SharedRun>,
}

/// A fetch whose copies are under way.
pub(super) struct Copying {
    pub(super) reuse: Reuse,
    pub(super) priority: Priority,
    pub(super) order: Order,
    pub(super) progress: watch::Sender<Progress>,
    pub(super) cancel: CancellationToken,
}

/// What came of it.
pub(super) struct Copied {
    pub(super) blob: BlobId,
    pub(super) priority: Priority,
    pub(super) order: Order,
    /// If cancelled, nobody waits for it any more.
    pub(super) cancel: CancellationToken,
    /// Bytes copied, or how the store failed.
    pub(super) result: Result<u64, FetchError>,
}

impl Reuse {
    /// What `store` has elsewhere of what is missing of `blob`; `None` if that is nothing. Blocks: it looks through all
    /// indexes.
    pub(super) fn plan(store: &Store, blob: &SharedBlob) -> Option<Self> {
        let (id, have) = (blob.id(), blob.have());
        if have.is_full() {
            return None;
        }
        let others = store.blobs().into_iter().map(|info| info.reference.blob).filter(|other| *other != id);
        let sources: Vec<SharedBlob> = others.filter_map(|other| store.blob(&other)).collect();
        let held: Vec<Bitfield> = sources.iter().map(|source| source.have()).collect();
        let indexes = sources.iter().map(|source| -> &BlobIndex { source.index() });
        let runs = shared_runs(blob.index(), &have, indexes.zip(&held));
        (!runs.is_empty()).then(|| Self { blob: SharedBlob::clone(blob), sources, runs })
    }

    /// Copies until it is done or cancelled. Blocks.
    fn copy(self, progress: &watch::Sender<Progress>, cancel: &CancellationToken) -> Result<u64, FetchError> {
        let (mut copied, mut buffer) = (0, Vec::new());
        for shared in self.runs.iter().take_while(|_| !cancel.is_cancelled()) {
            let Some(source) = self.sources.get(shared.source) else { continue };
            if let Err(error) = read(source, shared, &mut buffer) {
                tracing::warn!(path = %source.path().display(), %error, "cannot read a blob: peers are asked for what it has");
                continue;
            }
            let before = self.blob.held_bytes();
            match self.blob.write_run(shared.run.first, &buffer) {
                Ok(_) => {}
                Err(WriteError::Store(error)) => return Err(error.into()),
                Err(error) => {
                    tracing::warn!(path = %source.path().display(), %error, "a blob is damaged: peers are asked for what it has");
                }
            }
            let held = self.blob.held_bytes();
            copied += held.saturating_sub(before);
            progress.send_modify(|progress| (progress.bytes, progress.reused) = (held, copied));
        }
        Ok(copied)
    }
}

/// Reads what `shared` has in `source`.
fn read(source: &SharedBlob, shared: &SharedRun, buffer: &mut Vec<u8>) -> io::Result<()> {
    let run = Run { first: shared.first, count: shared.run.count };
    let range = source.index().byte_range(run).unwrap_or_default();
    buffer.resize(usize::try_from(range.end - range.start).unwrap_or(0), 0);
    source.file().read_exact_at(buffer, range.start)
}

impl Copying {
    /// Copies. Never fails and never panics; cancelling shortens it.
    pub(super) async fn run(self) -> Copied {
        let Self { reuse, priority, order, progress, cancel } = self;
        let (blob, stop) = (reuse.blob.id(), cancel.clone());
        let result = tokio::task::spawn_blocking(move || reuse.copy(&progress, &stop)).await;
        // Were the copying to die, peers would still have everything.
        Copied { blob, priority, order, cancel, result: result.unwrap_or(Ok(0)) }
    }
}
