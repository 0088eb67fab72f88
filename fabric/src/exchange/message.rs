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
    /// "Tell me what you have of this blob, now and as it grows": said by those who fetch it, and by a seeder that
    /// watches its first copy spread.
    Interested {
        /// The blob.
        blob: BlobId,
    },
    /// "Tell me no more of this blob" (complete, or given up).
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
    /// "Of what I have, ask me for these runs, in this order, and for nothing else until I say [`Message::Open`]": a seeder
    /// under a flash crowd gives each neighbour different chunks, so that one copy leaves it and the crowd has the blob.
    Offer {
        /// The blob.
        blob: BlobId,
        /// The runs offered, besides those offered before.
        runs: Vec<Run>,
    },
    /// "Ask me for whatever I have of this blob": ends what the first [`Message::Offer`] began.
    Open {
        /// The blob.
        blob: BlobId,
    },
    /// "I keep a share of this blob: I give back what I have of it only as this rule allows." Said before the
    /// [`Message::Bitfield`] that answers interest, and when it begins. Travels as a hint, which older versions skip.
    Sharing {
        /// The blob.
        blob: BlobId,
        /// How the blob is divided and nodes are ranked: only nodes with the same rule count each other.
        rule: u8,
    },
}

impl Message {
    /// The blob that the message is about.
    #[must_use]
    pub fn blob(&self) -> BlobId {
        match self {
            Self::Bitfield { blob, .. }
            | Self::Have { blob, .. }
            | Self::Interested { blob }
            | Self::NotInterested { blob }
            | Self::Fetching { blob, .. }
            | Self::Dropped { blob }
            | Self::Offer { blob, .. }
            | Self::Open { blob }
            | Self::Sharing { blob, .. } => *blob,
        }
    }
}

impl Run {
    /// The numbers of the chunks; empty if the run lies beyond the last possible number.
    #[must_use]
    pub fn chunks(self) -> std::ops::Range<u32> {
        self.first..self.first.checked_add(self.count).unwrap_or(self.first)
    }
}
