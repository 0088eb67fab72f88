//! HTTP/1.1 for boot files (RFC 9110, 9112): GET and HEAD, single ranges, keep-alive, pipelining, `Content-Length` always.
//!
//! The cores are [`head`], [`mod@target`], [`range`], [`answer`] and [`rate`]: requests and answers as values.
//! [`HttpServer`] is the driver. Owns nothing of the files: it asks [`crate::files::BootFiles`], for files and for pages
//! made on the fly alike. A [`crate::files::FileRequest`] carries name, query, client and local address, so `/boot.ipxe`,
//! `/status` or `/metrics` are [`crate::files::ServedFile::memory`] bodies without an entity tag; there is no second router.
//! Never takes content from a client.
//!
//! Over plain TCP, or over what a [`Wrapper`] makes of it. A client may show a bearer token; whoever has the files decides
//! what it opens.
//!
//! Statuses that peers tell apart: 403 not for this client, 404 no such file, 409 the file exists and these bytes are not here yet (ask another
//! node), 503 with `Retry-After` above a bound of this node.

mod admission;
pub mod answer;
mod body;
mod connection;
mod counters;
pub mod head;
mod limits;
pub mod range;
pub mod rate;
mod server;
mod shared;
pub mod status;
pub mod target;
mod turns;
mod upload;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use admission::{LARGE_DOWNLOAD, LONGEST_WAIT, NO_PROGRESS};
pub use counters::{HttpCounters, HttpStats};
pub use server::HttpServer;
pub use upload::UploadLimit;
pub use wire::{ByteStream, Wrapper};

use crate::service_event::{EventSink, NoEvents};

/// Connections served at once. An idle one costs about 3 KiB, one that sends has the kernel's socket buffer (up to 4 MiB)
/// besides; a thousand peers and clients are more than one link feeds.
pub const MAX_CONNECTIONS: usize = 1024;
/// Connections of one client address at once: a peer opens a few, a host of many virtual machines some dozens.
pub const MAX_CONNECTIONS_PER_CLIENT: usize = 128;
/// Longest silence between requests. Firmware keeps its connection for all files of a boot, a peer for all runs.
pub const IDLE: Duration = Duration::from_secs(75);
/// Longest time from a head's first byte to its last: heads fit in one packet.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Longest time in which a client takes no byte at all: firmware that writes to slow memory pauses for some seconds.
pub const STALL: Duration = Duration::from_secs(30);
/// Longest time in which a relayed stream gives no byte.
pub const SOURCE_STALL: Duration = Duration::from_secs(20);
/// How long answers under way may go on after the service was told to stop: a 30 MB initramfs at 10 Mbit/s.
pub const DRAIN: Duration = Duration::from_secs(30);
/// Seconds after which a client above a bound is asked to come back: about what a kernel takes on a gigabit link.
pub const RETRY_AFTER: u32 = 2;

/// Large downloads at once: on a gigabit link each of eight still gets what firmware can take, and a machine that is done in
/// eight seconds serves others after eight seconds.
pub const MAX_DOWNLOADS: usize = 8;

/// Settings of the service.
#[derive(Clone)]
pub struct HttpConfig {
    /// Connections served at once.
    pub max_connections: usize,
    /// Connections of one client address served at once.
    pub max_connections_per_client: usize,
    /// Answers of at least [`LARGE_DOWNLOAD`] bytes at once; `None` for no bound. Further clients wait as long as they say
    /// in their query (`?wait=SECONDS`, at most [`LONGEST_WAIT`]), else they are told to come back.
    pub max_downloads: Option<usize>,
    /// What leaves in all answers together, and in what else the limit is shared with; `None` for no limit.
    pub upload_limit: Option<Arc<UploadLimit>>,
    /// Longest silence between requests.
    pub idle: Duration,
    /// Longest time for a head to arrive.
    pub head_deadline: Duration,
    /// Longest time in which a client takes no byte.
    pub stall: Duration,
    /// Longest time in which a relayed stream gives no byte.
    pub source_stall: Duration,
    /// How long answers may go on after the stop.
    pub drain: Duration,
    /// `Retry-After` of answers above a bound, in seconds.
    pub retry_after: u32,
    /// What comes between TCP and HTTP; `None` for nothing.
    pub wrapper: Option<Arc<dyn Wrapper>>,
    /// Takes the events.
    pub events: Arc<dyn EventSink>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            max_connections: MAX_CONNECTIONS,
            max_connections_per_client: MAX_CONNECTIONS_PER_CLIENT,
            max_downloads: Some(MAX_DOWNLOADS),
            upload_limit: None,
            idle: IDLE,
            head_deadline: HEAD_DEADLINE,
            stall: STALL,
            source_stall: SOURCE_STALL,
            drain: DRAIN,
            retry_after: RETRY_AFTER,
            wrapper: None,
            events: Arc::new(NoEvents),
        }
    }
}

impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConfig")
            .field("max_connections", &self.max_connections)
            .field("max_connections_per_client", &self.max_connections_per_client)
            .field("max_downloads", &self.max_downloads)
            .field("upload_limit", &self.upload_limit)
            .finish_non_exhaustive()
    }
}
