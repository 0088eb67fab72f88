//! A fetch as its caller sees it.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::SharedBlob;
use super::task::Command;
use crate::store::{Blob, StoreError};

/// How far a fetch is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Verified bytes held.
    pub bytes: u64,
    /// Of these, the bytes that this fetch copied from other blobs of the store.
    pub reused: u64,
    /// Bytes of the blob.
    pub total: u64,
    /// Neighbours that hold a part of it.
    pub peers: usize,
    /// Bytes per second that come in, over all blobs, once measured.
    pub rate: Option<u64>,
    pub(super) end: Option<Result<(), FetchError>>,
}

impl Progress {
    pub(super) fn new(blob: &Blob, bytes: u64) -> Self {
        let end = blob.is_complete().then_some(Ok(()));
        Self { bytes, reused: 0, total: blob.index().size(), peers: 0, rate: None, end }
    }
}

/// Why a fetch ended without the blob. What was verified is kept; another fetch resumes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The store failed.
    #[error("cannot store what was fetched")]
    Store(#[source] Arc<StoreError>),
    /// The exchange or this fetch was stopped.
    #[error("the fetch was stopped; start it again to go on from what is held")]
    Stopped,
}

impl From<StoreError> for FetchError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}

/// A blob on its way. Dropping this does not stop the fetch: [`Fetch::stop`] does.
#[derive(Debug)]
pub struct Fetch {
    blob: SharedBlob,
    progress: watch::Receiver<Progress>,
    commands: mpsc::Sender<Command>,
}

impl Fetch {
    pub(super) fn new(
        blob: SharedBlob,
        progress: watch::Receiver<Progress>,
        commands: mpsc::Sender<Command>,
    ) -> Self {
        Self { blob, progress, commands }
    }

    /// The blob: readable where it is held.
    #[must_use]
    pub fn blob(&self) -> &Arc<Blob> {
        &self.blob
    }

    /// How far it is, now and as it changes.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// Waits until the blob is complete.
    ///
    /// # Errors
    /// [`FetchError`]. Peers that fail are never the reason: the fetch goes on when there are others.
    pub async fn wait(&self) -> Result<Arc<Blob>, FetchError> {
        let mut progress = self.progress.clone();
        let end = progress
            .wait_for(|progress| progress.end.is_some())
            .await
            .map_err(|_| FetchError::Stopped)?
            .end
            .clone();
        end.unwrap_or(Err(FetchError::Stopped)).map(|()| Arc::clone(&self.blob))
    }

    /// Stops fetching. What is held is still served.
    pub async fn stop(self) {
        // If the exchange has ended the fetch has too.
        let _ = self.commands.send(Command::Stop(self.blob.index().blob())).await;
    }
}
