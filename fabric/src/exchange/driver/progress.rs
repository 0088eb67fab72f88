//! How far a fetch is, and why it may end without the blob.

use std::sync::Arc;

use crate::store::{Blob, StoreError};

/// How far a fetch is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Verified bytes held.
    pub bytes: u64,
    /// Of these, the bytes that this fetch copied from other blobs of the store.
    pub reused: u64,
    /// Bytes of the blob.
    pub total: u64,
    /// Neighbours that hold a part of it.
    pub peers: usize,
    /// Bytes per second that come in, over all blobs, once measured.
    pub rate: Option<u64>,
    pub(super) end: Option<Result<(), FetchError>>,
}

impl Progress {
    pub(super) fn new(blob: &Blob, bytes: u64) -> Self {
        let end = blob.is_complete().then_some(Ok(()));
        Self { bytes, reused: 0, total: blob.index().size(), peers: 0, rate: None, end }
    }
}

/// Why a fetch ended without the blob. What was verified is kept; another fetch resumes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The store failed.
    #[error("cannot store what was fetched")]
    Store(#[source] Arc<StoreError>),
    /// The exchange or this fetch was stopped.
    #[error("the fetch was stopped; start it again to go on from what is held")]
    Stopped,
}

impl From<StoreError> for FetchError {
    fn from(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }
}
