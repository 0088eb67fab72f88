//! What neighbours tell each other about the chunks they hold.
//!
//! Sent over the swarm's ordered channel between two neighbours; a [`Message::Bitfield`] comes before any delta of the
//! same blob. The receiver checks every length and number against the blob's index: nothing here is trusted.

use serde::{Deserialize, Serialize};

use crate::bitfield::Bitfield;
use crate::id::BlobId;

/// A run of consecutive chunks, `first..first + count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Run {
    /// Number of the first chunk.
    pub first: u32,
    /// How many chunks; never zero in a valid message.
    pub count: u32,
}

/// One statement about availability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// "I have exactly these chunks of this blob", also the answer to [`Message::Interested`].
    Bitfield {
        /// The blob.
        blob: BlobId,
        /// The chunks held.
        have: Bitfield,
    },
    /// "I now also have these runs."
    Have {
        /// The blob.
        blob: BlobId,
        /// The new runs.
        runs: Vec<Run>,
    },
    /// "I am fetching this blob: tell me what you have of it, now and as it grows."
    Interested {
        /// The blob.
        blob: BlobId,
    },
    /// "I no longer fetch this blob" (complete or given up).
    NotInterested {
        /// The blob.
        blob: BlobId,
    },
    /// "I have begun to fetch these runs from a third peer": neighbours wait for me rather than ask the origin.
    Fetching {
        /// The blob.
        blob: BlobId,
        /// The runs under way.
        runs: Vec<Run>,
    },
    /// "I no longer hold this blob at all."
    Dropped {
        /// The blob.
        blob: BlobId,
    },
}
