//! What a core tells of itself: for the status page, the metrics and the lab.

use super::peer::{Peer, Standing};
use super::{Core, PeerKey, Priority};
use crate::id::BlobId;

/// What one neighbour has given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerReport {
    /// The neighbour.
    pub peer: PeerKey,
    /// Verified bytes fetched from it.
    pub bytes: u64,
    /// Requests that it answered.
    pub requests: u64,
    /// Bytes per second while busy, once measured.
    pub rate: Option<u64>,
    /// Requests under way.
    pub in_flight: u32,
    /// Broken promises and malformed messages.
    pub offences: u32,
    /// It is not asked any more.
    pub banned: bool,
}

/// What is held of one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobReport {
    /// The blob.
    pub blob: BlobId,
    /// Its bytes.
    pub size: u64,
    /// Verified bytes held here.
    pub held: u64,
    /// The priority of the fetch, if one runs.
    pub fetching: Option<Priority>,
    /// Neighbours that hold a part of it.
    pub peers: usize,
    /// Bytes per second that come in, over all blobs.
    pub rate: Option<u64>,
}

impl Core {
    /// What was fetched from each neighbour, over all blobs.
    #[must_use]
    pub fn peer_reports(&self) -> Vec<PeerReport> {
        let report = |peer: &Peer| PeerReport {
            peer: peer.key,
            bytes: peer.fetched,
            requests: peer.answered,
            rate: peer.rate.per_second(),
            in_flight: peer.requests,
            offences: peer.offences(),
            banned: peer.standing == Standing::Banned,
        };
        self.peers.values().map(report).collect()
    }

    /// What is held and known of each blob.
    #[must_use]
    pub fn blob_reports(&self) -> Vec<BlobReport> {
        self.blobs.keys().filter_map(|id| self.blob_report(id)).collect()
    }

    /// What is held and known of one blob.
    #[must_use]
    pub fn blob_report(&self, id: &BlobId) -> Option<BlobReport> {
        let blob = self.blobs.get(id)?;
        Some(BlobReport {
            blob: *id,
            size: blob.grid.size(),
            held: blob.held,
            fetching: blob.fetch.as_ref().map(|fetch| fetch.priority),
            peers: blob.views.values().filter(|view| view.have.count() > 0).count(),
            rate: self.rate.per_second(),
        })
    }
}
