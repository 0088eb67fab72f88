//! What a transfer came to.

use super::packet::ErrorCode;
use super::sender::Verdict;
use crate::service_event::Outcome;

/// Why a transfer ends whose client sent a new request.
pub(super) const BEGAN_ANEW: &str = "it began anew";

/// What a finished transfer came to.
pub(super) struct Report {
    pub(super) bytes: u64,
    pub(super) outcome: Outcome,
    /// The error code that was sent, if any.
    pub(super) error: Option<ErrorCode>,
}

impl Report {
    pub(super) fn new(bytes: u64, outcome: Outcome) -> Self {
        Self { bytes, outcome, error: None }
    }

    pub(super) fn client_left(bytes: u64, reason: &impl ToString) -> Self {
        Self::new(bytes, Outcome::ClientLeft(reason.to_string()))
    }

    /// We could not go on, and told the client why.
    pub(super) fn failed(bytes: u64, reason: String) -> Self {
        Self { bytes, outcome: Outcome::Failed(reason), error: Some(ErrorCode::NotDefined) }
    }

    /// What a transfer came to that ended so.
    pub(super) fn of(verdict: &Verdict, bytes: u64) -> Self {
        let outcome = match verdict {
            Verdict::Complete | Verdict::Unacknowledged => Outcome::Complete,
            Verdict::Probe => Outcome::Probe,
            Verdict::Aborted { code, message } => Outcome::ClientLeft(format!("ERROR {code}: {message}")),
            Verdict::TimedOut => Outcome::ClientLeft("no answer".into()),
        };
        Self::new(bytes, outcome)
    }
}
