//! Blobs and how they are cut into chunks.
//!
//! Owns the cutting rule ([`cut`]), the index of a blob ([`BlobIndex`]), the making of indexes ([`index_bytes`],
//! [`index_reader`]) and what blobs have in common ([`Difference`], [`shared_runs`]). Never stores anything and never talks to a peer.
//!
//! A blob is known by the hash of all its bytes, an index by the hash of its encoding. Whoever trusts the hash of an
//! index (a signed release names it in a [`BlobRef`]) can check every chunk by itself, in any order, from anybody.

mod cut;
mod index;
mod indexer;
mod share;

use serde::{Deserialize, Serialize};

pub use cut::{AVERAGE_CHUNK, CutRule, MAX_CHUNK, MIN_CHUNK, MIN_FRAME_CHUNK, cut};
pub use index::{BlobIndex, Chunk, ChunkEntry, IndexError, MAX_BLOB, MAX_CHUNKS, MAX_INDEX};
pub(crate) use indexer::index_copy;
pub use indexer::{index_bytes, index_reader};
pub use share::{Difference, MAX_SHARED_RUN, SharedRun, shared_runs};

use crate::id::{BlobId, ObjectId};

/// Everything needed to fetch a blob and to check what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// The hash of all bytes.
    pub blob: BlobId,
    /// Length in bytes.
    pub size: u64,
    /// The hash of the encoded [`BlobIndex`].
    pub index: ObjectId,
}

impl BlobRef {
    /// Reads the index that this names from bytes of whatever origin.
    ///
    /// # Errors
    /// [`IndexError::Other`] if `bytes` are an index that does not fit this reference, other [`IndexError`]s if they
    /// are no index.
    pub fn index_from(&self, bytes: &[u8]) -> Result<BlobIndex, IndexError> {
        let index = BlobIndex::decode(bytes)?;
        if index.reference() != *self {
            return Err(IndexError::Other { wanted: self.blob, found: index.blob() });
        }
        Ok(index)
    }
}
