//! What a node that holds one image would fetch to hold another. Reads indexes only.

use fabric::content::{BlobIndex, BlobRef, Difference};
use fabric::id::BlobId;
use fabric::store::Store;
use fabric::trust::Release;
use serde::Serialize;

/// What moves for each blob of an image, and in all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ImageDiff {
    /// In the order in which a node fetches them: boot blobs, then the root.
    pub blobs: Vec<BlobDiff>,
    /// The sums.
    pub total: Moves,
}

/// What moves for one blob.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BlobDiff {
    /// What it is: a loader's name, `kernel`, `first-stage`, `root`.
    pub role: String,
    /// The blob.
    pub blob: BlobId,
    /// What moves.
    #[serde(flatten)]
    pub moves: Moves,
}

/// Bytes and chunks, and what follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Moves {
    /// Bytes and chunks.
    #[serde(flatten)]
    pub difference: Difference,
    /// Bytes copied from what is held.
    pub shared_bytes: u64,
    /// Bytes that move, the index included.
    pub moved_bytes: u64,
    /// Of a hundred bytes, how many are copied.
    pub shared_percent: f64,
}

/// An index that images refer to is not in the store.
#[derive(Debug, thiserror::Error)]
#[error("the store has lost the index of blob {blob} ({role}): build the image again")]
pub struct IndexLost {
    /// What the blob is.
    role: String,
    /// Which blob.
    blob: BlobId,
}

/// What a node that holds `from` would fetch to hold `to`. What it has already fetched of `to` counts as held, as it does when a
/// node fetches.
///
/// # Errors
/// [`IndexLost`].
pub fn diff(store: &Store, from: &Release, to: &Release) -> Result<ImageDiff, IndexLost> {
    let index = |(role, reference): (&str, &BlobRef)| {
        store.index(reference).ok_or_else(|| IndexLost { role: role.to_owned(), blob: reference.blob })
    };
    let mut held = from.roles().map(index).collect::<Result<Vec<_>, _>>()?;
    let (mut blobs, mut total) = (Vec::new(), Difference::default());
    for (role, reference) in to.roles() {
        let wanted = index((role, reference))?;
        let difference = Difference::of(&wanted, held.iter().map(|held| -> &BlobIndex { held }));
        total += difference;
        blobs.push(BlobDiff { role: role.to_owned(), blob: reference.blob, moves: difference.into() });
        held.push(wanted);
    }
    Ok(ImageDiff { blobs, total: total.into() })
}

impl From<Difference> for Moves {
    fn from(difference: Difference) -> Self {
        let (shared_bytes, moved_bytes) = (difference.shared_bytes(), difference.moved_bytes());
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let shared_percent = 100.0 * shared_bytes as f64 / difference.bytes.max(1) as f64;
        Self { difference, shared_bytes, moved_bytes, shared_percent }
    }
}
