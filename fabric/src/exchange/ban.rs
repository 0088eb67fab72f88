//! What a peer is banned for, and what proves it.

use serde::{Deserialize, Serialize};

use crate::id::{BlobId, Hash};

/// A chunk as a peer sent it: its bytes are not the ones that it is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadChunk {
    /// The blob.
    pub blob: BlobId,
    /// The chunk's number.
    pub chunk: u32,
    /// The hash that the blob's index gives.
    pub expected: Hash,
    /// The hash of what came.
    pub got: Hash,
}

/// Why a peer is not asked any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// What it did, in words.
    pub why: String,
    /// What proves it, where it is a chunk.
    pub proof: Option<BadChunk>,
}
