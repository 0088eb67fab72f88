//! What TFTP and HTTP serve, and the one trait through which they ask for it.
//!
//! Owns the vocabulary between the services and whoever holds the content. Never touches a socket or a store.

use std::fs::File;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncRead;

/// Which service a request came in through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Trivial File Transfer Protocol (RFC 1350).
    Tftp,
    /// HTTP/1.1 (RFC 9112).
    Http,
}

/// One request for a file, as the service understood it.
#[derive(Debug, Clone)]
pub struct FileRequest {
    /// The service it came through.
    pub service: Service,
    /// The name without leading slashes, percent-decoding done and the query removed; never contains `..`
    /// components, NUL or backslashes.
    pub name: String,
    /// What followed `?` in an HTTP target, undecoded; empty for TFTP.
    pub query: String,
    /// The client's address.
    pub client: SocketAddr,
    /// The address the client used to reach us: links in answers are built from it.
    pub local: SocketAddr,
}

/// Why a file cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// No file of that name is served here.
    #[error("no such file")]
    NotFound,
    /// The file exists but these bytes are not here (yet); another peer has them.
    #[error("not held here yet")]
    NotHeld,
    /// Above a bound of this node; the client may retry after this many seconds.
    #[error("busy, retry in {retry_after} s")]
    Busy {
        /// Seconds to wait before the next attempt.
        retry_after: u32,
    },
    /// Reading failed.
    #[error("cannot read: {0}")]
    Io(String),
}

/// A contiguous piece of a file, in the cheapest form its holder has.
pub enum Slice {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A range of an open file, sent with `sendfile(2)` where the service can.
    File {
        /// The open file.
        file: Arc<File>,
        /// Byte range within the file.
        range: Range<u64>,
    },
    /// Bytes that arrive while they are served (relayed from a peer). Exactly the asked-for length, or an error.
    Stream(Box<dyn AsyncRead + Send + Unpin>),
}

/// The content of one served file.
#[async_trait]
pub trait FileBody: Send + Sync {
    /// Length of the whole file in bytes.
    fn len(&self) -> u64;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of `range`, which lies within `0..len()`.
    ///
    /// # Errors
    /// [`FileError::NotHeld`] if a part of the range is not here, [`FileError::Io`] if reading fails.
    async fn slice(&self, range: Range<u64>) -> Result<Slice, FileError>;
}

/// A file ready to be served.
#[derive(Clone)]
pub struct ServedFile {
    /// HTTP `Content-Type`, or `None` to derive it from the name's suffix.
    pub content_type: Option<&'static str>,
    /// HTTP entity tag without quotes; `None` where the content may differ at the next request.
    pub etag: Option<String>,
    /// The content.
    pub body: Arc<dyn FileBody>,
}

/// The boot files, asked for by name. Implemented by the program over its store.
#[async_trait]
pub trait BootFiles: Send + Sync + 'static {
    /// Finds the file that `request` names.
    ///
    /// # Errors
    /// [`FileError`]; [`FileError::NotFound`] for names that are not served.
    async fn open(&self, request: &FileRequest) -> Result<ServedFile, FileError>;
}

/// A body that is already in memory: boot scripts, status pages, small loaders.
#[derive(Debug, Clone)]
pub struct MemoryBody(pub Bytes);

#[async_trait]
impl FileBody for MemoryBody {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    async fn slice(&self, range: Range<u64>) -> Result<Slice, FileError> {
        let bytes = usize::try_from(range.start)
            .ok()
            .zip(usize::try_from(range.end).ok())
            .filter(|&(start, end)| start <= end && end <= self.0.len())
            .map(|(start, end)| self.0.slice(start..end))
            .ok_or_else(|| FileError::Io(format!("bytes {}-{} lie outside the file", range.start, range.end)))?;
        Ok(Slice::Bytes(bytes))
    }
}
