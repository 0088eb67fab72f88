//! What the TFTP service has done so far, as numbers that only grow (except the gauge).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use super::report::Report;
use crate::service_event::Outcome;

/// Live counters; cheap to bump from any task.
#[derive(Debug, Default)]
pub struct TftpCounters {
    pub(super) requests: AtomicU64,
    pub(super) repeated: AtomicU64,
    pub(super) over_bound: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) active: AtomicU64,
    complete: AtomicU64,
    probes: AtomicU64,
    client_left: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct TftpStats {
    /// Read and write requests received, repeated ones included.
    pub requests: u64,
    /// Requests that repeated one under way.
    pub repeated: u64,
    /// Requests left unanswered because of a bound on transfers.
    pub over_bound: u64,
    /// Datagrams on the listening port that were no request.
    pub malformed: u64,
    /// Transfers under way now.
    pub active: u64,
    /// Transfers completed.
    pub complete: u64,
    /// Size probes: ended by the client after the OACK.
    pub probes: u64,
    /// Transfers that the client gave up.
    pub client_left: u64,
    /// Requests refused.
    pub refused: u64,
    /// Transfers that we could not finish.
    pub failed: u64,
    /// Payload bytes acknowledged.
    pub bytes: u64,
}

impl TftpCounters {
    pub(super) fn finished(&self, report: &Report) {
        let counter = match report.outcome {
            Outcome::Complete => &self.complete,
            Outcome::Probe => &self.probes,
            Outcome::ClientLeft(_) => &self.client_left,
            Outcome::Refused(_) => &self.refused,
            Outcome::Failed(_) => &self.failed,
        };
        counter.fetch_add(1, Relaxed);
        self.bytes.fetch_add(report.bytes, Relaxed);
    }

    /// All counters now.
    #[must_use]
    pub fn snapshot(&self) -> TftpStats {
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        TftpStats {
            requests: get(&self.requests),
            repeated: get(&self.repeated),
            over_bound: get(&self.over_bound),
            malformed: get(&self.malformed),
            active: get(&self.active),
            complete: get(&self.complete),
            probes: get(&self.probes),
            client_left: get(&self.client_left),
            refused: get(&self.refused),
            failed: get(&self.failed),
            bytes: get(&self.bytes),
        }
    }
}
