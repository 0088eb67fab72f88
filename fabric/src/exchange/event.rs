//! What happens in the exchange, as an interface: the lab, the status page and tests read these, never log text.

use super::message::Run;
use super::source::Route;
use crate::id::{BlobId, Hash, NodeId};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExchangeEvent {
    /// A request was answered and everything in it verified.
    RunDone {
        /// The blob.
        blob: BlobId,
        /// Who answered.
        peer: NodeId,
        /// The chunks.
        run: Run,
        /// Their bytes.
        bytes: u64,
    },
    /// Other blobs of the store had a part of a blob that is fetched: it was verified and copied, and peers are not asked
    /// for it.
    Reused {
        /// The blob.
        blob: BlobId,
        /// Bytes copied.
        bytes: u64,
    },
    /// A request was given up or failed; it will be made of somebody else.
    RequestFailed {
        /// The blob.
        blob: BlobId,
        /// Who failed.
        peer: NodeId,
        /// How, in words.
        why: String,
    },
    /// A peer sent a chunk whose hash is wrong.
    BadChunk {
        /// The blob.
        blob: BlobId,
        /// Who sent it.
        peer: NodeId,
        /// The chunk's number.
        chunk: u32,
        /// The hash that the blob's index gives.
        expected: Hash,
        /// The hash of what came.
        got: Hash,
    },
    /// A peer is not asked any more, as long as this program runs.
    PeerBanned {
        /// The peer.
        peer: NodeId,
        /// What it did, in words.
        why: String,
    },
    /// A peer is reached on another way than before, and answers on it.
    RouteChanged {
        /// The peer.
        peer: NodeId,
        /// The way that requests to it take from now on.
        route: Route,
        /// What made it change, in words.
        why: String,
    },
    /// Nothing of a blob comes any more, and no neighbour holds some of what is missing: others should be looked for. Said again
    /// every 2 s for as long as it is so.
    Unheld {
        /// The blob.
        blob: BlobId,
        /// Chunks that are missing here and that no neighbour holds.
        chunks: u32,
    },
    /// Every chunk is held and verified.
    BlobComplete {
        /// The blob.
        blob: BlobId,
    },
    /// This seeder has seen every chunk of the blob at one of its neighbours at least: it may die now.
    FirstCopyOut {
        /// The blob.
        blob: BlobId,
    },
}
