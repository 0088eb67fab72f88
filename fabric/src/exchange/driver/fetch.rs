//! A fetch as its caller sees it.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::SharedBlob;
use super::progress::{FetchError, Progress};
use super::task::Command;
use crate::store::Blob;

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
