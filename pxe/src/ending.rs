//! How a service ends: it is told to stop, goes on with what is under way for a while, and is cut then.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// The end of a running service; `E` resolves when it has ended. Dropping this leaves the service running.
#[derive(Debug)]
pub(crate) struct Ending<E> {
    /// Tells the service to stop.
    pub(crate) stop: CancellationToken,
    /// Tells it to drop what is under way.
    pub(crate) abort: CancellationToken,
    /// How long what is under way may take after `stop`.
    pub(crate) drain: Duration,
    pub(crate) ended: E,
}

impl<E: Future + Unpin> Ending<E> {
    /// Waits until the service was told to stop and has ended, `drain` after that at the latest.
    pub(crate) async fn within(mut self, drain: Duration) {
        self.stop.cancelled().await;
        // What comes at the end does not matter: if it is an error, the service's task or thread is gone already.
        if tokio::time::timeout(drain, &mut self.ended).await.is_err() {
            self.abort.cancel();
            let _ = self.ended.await;
        }
    }
}
