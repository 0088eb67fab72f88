//! Bulk over HTTP/1.1: a lean client for range requests on one kept-alive connection per peer.
//!
//! Owns the connection, the order of requests on it and the strict reading of answers. Never verifies content and never
//! decides whom to ask. In a private fabric a [`Secure`] makes the connection one with a known peer, and each request shows
//! a token; all else is the same.
//!
//! Task: one per [`HttpSource`], owned by it and ended by dropping it. Channel: requests, bounded by [`QUEUE`].
//! Up to [`PIPELINE`] requests are written ahead of the answers, so that the peer's sender never waits for a round trip
//! (RFC 9112 §9.3.2). Cancel safety: a dropped `fetch` leaves the queue at once; if its answer is already coming in, the
//! connection is closed, because reading on would cost the link more than a new connection does.

mod connection;
mod head;
mod watermark;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};

use super::source::{ChunkSource, SourceError};
use crate::id::BlobId;
pub use head::classify_status;

/// Requests waiting for a place on the connection. The exchange never has more under way with one peer.
const QUEUE: usize = 64;

/// Requests written before the answer to the first of them is complete. Two hide the round trip; a few more keep a fast
/// link busy while a run is verified.
const PIPELINE: usize = 4;

/// The deadlines of a connection.
#[derive(Debug, Clone, Copy)]
pub struct HttpTimeouts {
    /// To connect, and to shake hands where that follows. A neighbour on the same switch answers in milliseconds, and where the
    /// first packet was lost after the second (RFC 6298 section 2.1: 1 s). Less than the exchange waits for a run, so that what is
    /// asked can go another way yet.
    pub connect: Duration,
    /// In each window of this length at least [`min_progress`](Self::min_progress) bytes of the answer must come.
    pub stall: Duration,
    /// Bytes per stall window below which a peer counts as stalled.
    pub min_progress: u64,
    /// A connection without requests is closed after this time.
    pub idle: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_millis(1500),
            stall: Duration::from_secs(5),
            min_progress: 4096,
            idle: Duration::from_secs(30),
        }
    }
}

/// What HTTP is spoken over.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {
    /// The TCP connection itself, if its bytes are those of HTTP.
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

impl ByteStream for TcpStream {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

/// Turns a connection into one with a peer whose key is known, which nobody else can read.
#[async_trait]
pub trait Secure: Send + Sync + 'static {
    /// Shakes hands; the caller sets the deadline.
    ///
    /// # Errors
    /// If the other end is somebody else, or goes away.
    async fn secure(&self, stream: TcpStream) -> io::Result<Box<dyn ByteStream>>;
}

/// How a peer of a private fabric is asked.
pub struct Private {
    /// Makes the connection.
    pub secure: Arc<dyn Secure>,
    /// What each request shows (RFC 6750 section 2.1). Never in a log.
    pub token: String,
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Private")
    }
}

/// Fetches ranges of `http://ADDRESS/blob/HASH` from one peer.
#[derive(Debug)]
pub struct HttpSource {
    address: SocketAddr,
    requests: mpsc::Sender<connection::Request>,
    abandoned: Arc<Notify>,
}

/// Waits for an answer, and tells the connection if nobody does any more.
struct Waiting<'a> {
    answer: oneshot::Receiver<connection::Answered>,
    abandoned: &'a Notify,
    over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.answer.close();
            self.abandoned.notify_one();
        }
    }
}

impl HttpSource {
    /// A source for the HTTP service at `address`. Connects at the first request. Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self::with_timeouts(address, None, HttpTimeouts::default())
    }

    /// Like [`HttpSource::new`], for the service of a private fabric.
    #[must_use]
    pub fn private(address: SocketAddr, private: Private) -> Self {
        Self::with_timeouts(address, Some(private), HttpTimeouts::default())
    }

    /// Like these, with deadlines of your own.
    #[must_use]
    pub fn with_timeouts(address: SocketAddr, private: Option<Private>, timeouts: HttpTimeouts) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let abandoned = Arc::new(Notify::new());
        tokio::spawn(connection::serve(address, private, timeouts, queue, Arc::clone(&abandoned)));
        Self { address, requests, abandoned }
    }

    /// The peer's HTTP address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[async_trait]
impl ChunkSource for HttpSource {
    async fn fetch(&self, blob: &BlobId, bytes: Range<u64>, sink: &mut Vec<u8>) -> Result<(), SourceError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let request = connection::Request::new(*blob, bytes, std::mem::take(sink), reply);
        let gone = || SourceError::Unreachable("the connection's task has ended".into());
        self.requests.send(request).await.map_err(|_| gone())?;
        let mut waiting = Waiting { answer, abandoned: &self.abandoned, over: false };
        let answered = (&mut waiting.answer).await;
        waiting.over = true;
        let (buffer, result) = answered.map_err(|_| gone())?;
        *sink = buffer;
        result
    }
}
