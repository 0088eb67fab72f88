//! The one trait through which bytes of a blob are fetched from a peer.
//!
//! Owns the vocabulary between the exchange's driver and its transports. Never verifies a byte: whoever stores the bytes
//! hashes them. Two transports implement it (HTTP range requests, a libp2p stream), and a choice between them
//! ([`fallback`](super::fallback)); one suite tests all.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::id::BlobId;

/// The way on which bytes come from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Route {
    /// Range requests to its HTTP service.
    Http,
    /// Streams over the swarm's connection: several times the CPU time for each byte.
    Swarm,
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Swarm => "swarm",
        })
    }
}

/// Fetches ranges of blobs from one peer.
#[async_trait]
pub trait ChunkSource: Send + Sync + 'static {
    /// Appends exactly the bytes `bytes` of `blob` to `sink`, which the caller has cleared.
    ///
    /// Several calls may run at once; a source may answer them one after the other on one connection, in the order in
    /// which they were made. Dropping the future gives the request up; `sink` is then empty.
    ///
    /// # Errors
    /// [`SourceError`]. `sink` then holds the bytes that came before the failure, a true prefix of what the peer sent,
    /// so that whole chunks among them can still be kept.
    async fn fetch(&self, blob: &BlobId, bytes: Range<u64>, sink: &mut Vec<u8>) -> Result<(), SourceError>;

    /// How the peer is reached at the moment, for events and status.
    fn route(&self) -> Route {
        Route::Http
    }
}

/// Why a peer did not give the bytes asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The peer does not hold (all of) the bytes; our view of it is out of date.
    #[error("the peer does not hold these bytes")]
    NotHeld,
    /// The peer is above a bound of its own.
    #[error("the peer is busy, retry in {} ms", retry_after.as_millis())]
    Refused {
        /// How long to leave it alone.
        retry_after: Duration,
    },
    /// No connection, or it broke; the cause in words.
    #[error("cannot reach the peer: {0}")]
    Unreachable(String),
    /// Connected, but the bytes come too slowly to wait for.
    #[error("the peer stalled: {bytes} bytes in {} ms", window.as_millis())]
    Stalled {
        /// What came in the window.
        bytes: u64,
        /// The window in which more was due.
        window: Duration,
    },
    /// The peer broke the transport's protocol; it says how.
    #[error("the peer broke the protocol: {0}")]
    Protocol(String),
}
