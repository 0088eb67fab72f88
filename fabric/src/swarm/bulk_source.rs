//! A peer as a source of chunks, by requests as [`bulk`](super::bulk) describes them.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::timeout;

use super::bulk::{WINDOW, ask};
use super::handle::{Purpose, SwarmHandle};
use super::objects::OPEN;
use crate::exchange::{ChunkSource, Route, SourceError};
use crate::id::{BlobId, NodeId};

/// Fetches runs from one peer over the swarm's own connection.
#[derive(Debug, Clone)]
pub struct BulkSource {
    swarm: SwarmHandle,
    peer: NodeId,
    window: Duration,
}

impl BulkSource {
    /// Fetches from `peer`, for as long as it is one.
    #[must_use]
    pub fn new(swarm: SwarmHandle, peer: NodeId) -> Self {
        Self { swarm, peer, window: WINDOW }
    }

    /// Sets how long the peer may bring (nearly) nothing.
    #[must_use]
    pub fn with_window(self, window: Duration) -> Self {
        Self { window, ..self }
    }
}

#[async_trait]
impl ChunkSource for BulkSource {
    async fn fetch(&self, blob: &BlobId, bytes: Range<u64>, sink: &mut Vec<u8>) -> Result<(), SourceError> {
        let gone = || SourceError::Unreachable("it is no peer any more".into());
        let opened = self.swarm.open(self.peer, Purpose::Bulk).await.ok_or_else(gone)?;
        match timeout(OPEN, opened).await {
            Ok(Ok(Ok(stream))) => {
                // Whoever drops this future finds the sink empty.
                let mut buffer = std::mem::take(sink);
                let result = ask(stream, blob, bytes, &mut buffer, self.window).await;
                *sink = buffer;
                result
            }
            Ok(Ok(Err(error))) => Err(SourceError::Unreachable(error.to_string())),
            Ok(Err(_)) => Err(gone()),
            Err(_) => Err(SourceError::Stalled { bytes: 0, window: OPEN }),
        }
    }

    fn route(&self) -> Route {
        Route::Swarm
    }
}
