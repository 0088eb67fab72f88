//! What TFTP and HTTP serve, and the one trait through which they ask for it.
//!
//! Owns the vocabulary between the services and whoever holds the content. Never touches a socket or a store.

use std::fmt;
use std::fs::File;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use tokio::io::AsyncRead;

/// Which service a request came in through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// Trivial File Transfer Protocol (RFC 1350).
    Tftp,
    /// HTTP/1.1 (RFC 9112).
    Http,
}

/// Why a name cannot be that of a boot file. Such names never reach [`BootFiles`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name could lead out of the boot files, or into a terminal or log that shows it.
    #[error("names with `..` components, backslashes or control characters are not served")]
    Unsafe,
    /// The bytes are not text.
    #[error("the name is not UTF-8")]
    NotText,
}

/// The name of a boot file from the bytes that a client sent: leading slashes are dropped.
///
/// # Errors
/// [`NameError`] for a name with a `..` component, a backslash, NUL or another control character, or invalid UTF-8.
pub fn boot_file_name(raw: &[u8]) -> Result<String, NameError> {
    let name = std::str::from_utf8(raw).map_err(|_| NameError::NotText)?;
    let unsafe_char = |c: char| c == '\\' || c.is_control();
    if name.contains(unsafe_char) || name.split('/').any(|component| component == "..") {
        return Err(NameError::Unsafe);
    }
    Ok(name.trim_start_matches('/').to_owned())
}

/// The HTTP media type of a file by its name's suffix. UEFI HTTP boot decides by it how to start the file; a name
/// without a known suffix is plain bytes.
#[must_use]
pub fn content_type_of(name: &str) -> &'static str {
    let suffix =
        name.rsplit('/').next().and_then(|file| file.rsplit_once('.')).map_or("", |(_, suffix)| suffix);
    match suffix.to_ascii_lowercase().as_str() {
        "efi" => "application/efi",
        "iso" => "application/vnd.efi-iso",
        "img" => "application/vnd.efi-img",
        "ipxe" | "cfg" | "txt" => "text/plain",
        "json" => "application/json",
        _ => "application/octet-stream",
    }
}

/// A token that a client shows to be given what is not for everybody. Never in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Bearer(String);

impl Bearer {
    /// A token as it was shown.
    #[must_use]
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// The token, to be compared with what would do.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(secret)")
    }
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
    /// The token that the client shows (RFC 6750 section 2.1).
    pub bearer: Option<Bearer>,
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
    /// The file is not for this client; why, and what to do.
    #[error("{0}")]
    Forbidden(String),
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

impl ServedFile {
    /// Bytes in memory, of the given media type: what a script or a status page is answered with.
    #[must_use]
    pub fn memory(content_type: &'static str, bytes: impl Into<Bytes>) -> Self {
        Self { content_type: Some(content_type), etag: None, body: Arc::new(MemoryBody(bytes.into())) }
    }
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
            .ok_or_else(|| {
                FileError::Io(format!("bytes {}-{} lie outside the file", range.start, range.end))
            })?;
        Ok(Slice::Bytes(bytes))
    }
}

/// A body that is a whole open file, as long as it was when it was opened.
#[derive(Debug, Clone)]
pub struct DiskBody {
    file: Arc<File>,
    len: u64,
}

impl DiskBody {
    /// The content of `file`, a regular file open for reading.
    ///
    /// # Errors
    /// [`FileError::Io`] if its length cannot be read.
    pub fn new(file: Arc<File>) -> Result<Self, FileError> {
        let len = file.metadata().map_err(|error| FileError::Io(error.to_string()))?.len();
        Ok(Self { file, len })
    }
}

#[async_trait]
impl FileBody for DiskBody {
    fn len(&self) -> u64 {
        self.len
    }

    async fn slice(&self, range: Range<u64>) -> Result<Slice, FileError> {
        Ok(Slice::File { file: Arc::clone(&self.file), range })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_never_leave_the_boot_files() {
        assert_eq!(boot_file_name(b"//boot/grubx64.efi").unwrap(), "boot/grubx64.efi");
        assert_eq!(boot_file_name(b"a..b/...").unwrap(), "a..b/...");
        assert_eq!(boot_file_name(b"").unwrap(), "");
        for name in [&b"../shadow"[..], b"a/../b", b"/..", b"a\\b", b"a\0b", b"a\nb", b"a/.."] {
            assert_eq!(boot_file_name(name), Err(NameError::Unsafe), "{name:?}");
        }
        assert_eq!(boot_file_name(b"\xff"), Err(NameError::NotText));
    }

    #[test]
    fn media_types_follow_the_suffix() {
        assert_eq!(content_type_of("a/UKI.EFI"), "application/efi");
        assert_eq!(content_type_of("a.efi/vmlinuz"), "application/octet-stream");
        assert_eq!(content_type_of("disk.img"), "application/vnd.efi-img");
        assert_eq!(content_type_of(""), "application/octet-stream");
    }

    proptest! {
        #[test]
        fn accepted_names_have_no_way_out(raw in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(name) = boot_file_name(&raw) {
                prop_assert!(!name.starts_with('/'));
                prop_assert!(std::path::Path::new(&name).components().all(|c| c != std::path::Component::ParentDir));
            }
        }
    }
}
