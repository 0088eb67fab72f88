//! What the HTTP service has done so far, as numbers that only grow (except the gauges).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use super::admission::Downloads;
use super::status::Status;
use crate::service_event::Outcome;

/// Live counters; cheap to bump from any task.
#[derive(Debug, Default)]
pub struct HttpCounters {
    pub(super) connections: AtomicU64,
    pub(super) connections_open: AtomicU64,
    pub(super) connections_refused: AtomicU64,
    pub(super) active: AtomicU64,
    pub(super) bytes: AtomicU64,
    complete: AtomicU64,
    client_left: AtomicU64,
    failed: AtomicU64,
    ok: AtomicU64,
    not_modified: AtomicU64,
    not_found: AtomicU64,
    not_held: AtomicU64,
    busy: AtomicU64,
    bad: AtomicU64,
    downloads: Arc<Downloads>,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct HttpStats {
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now.
    pub connections_open: u64,
    /// Connections above a bound.
    pub connections_refused: u64,
    /// Answers with file content under way now.
    pub active: u64,
    /// Large downloads under way now, where they are bounded.
    pub downloads: u64,
    /// Clients that wait for their turn to download.
    pub waiting: u64,
    /// Content bytes of files that the sockets took.
    pub bytes: u64,
    /// Answers sent to their end.
    pub complete: u64,
    /// Answers that the client did not wait for.
    pub client_left: u64,
    /// Answers that we could not finish.
    pub failed: u64,
    /// Answers with status 200 or 206.
    pub ok: u64,
    /// Answers with status 304.
    pub not_modified: u64,
    /// Answers with status 404.
    pub not_found: u64,
    /// Answers with status 409: bytes that another node holds.
    pub not_held: u64,
    /// Answers with status 503.
    pub busy: u64,
    /// All other statuses.
    pub bad: u64,
}

impl HttpCounters {
    pub(super) fn finished(&self, status: Status, outcome: &Outcome) {
        let by_status = match status {
            Status::Ok | Status::PartialContent => &self.ok,
            Status::NotModified => &self.not_modified,
            Status::NotFound => &self.not_found,
            Status::Conflict => &self.not_held,
            Status::ServiceUnavailable => &self.busy,
            _ => &self.bad,
        };
        by_status.fetch_add(1, Relaxed);
        let by_outcome = match outcome {
            Outcome::Complete | Outcome::Probe | Outcome::Refused(_) => &self.complete,
            Outcome::ClientLeft(_) => &self.client_left,
            Outcome::Failed(_) => &self.failed,
        };
        by_outcome.fetch_add(1, Relaxed);
    }

    /// The counters of a service whose large downloads `downloads` admits.
    pub(super) fn new(downloads: Arc<Downloads>) -> Self {
        Self { downloads, ..Self::default() }
    }

    /// All counters now.
    #[must_use]
    pub fn snapshot(&self) -> HttpStats {
        let (downloads, waiting) = self.downloads.load();
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        HttpStats {
            connections: get(&self.connections),
            connections_open: get(&self.connections_open),
            connections_refused: get(&self.connections_refused),
            active: get(&self.active),
            downloads: downloads as u64,
            waiting: waiting as u64,
            bytes: get(&self.bytes),
            complete: get(&self.complete),
            client_left: get(&self.client_left),
            failed: get(&self.failed),
            ok: get(&self.ok),
            not_modified: get(&self.not_modified),
            not_found: get(&self.not_found),
            not_held: get(&self.not_held),
            busy: get(&self.busy),
            bad: get(&self.bad),
        }
    }
}
