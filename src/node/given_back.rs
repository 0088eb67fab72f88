//! Whether the root's blob was given back, as the state directory tells it.

use std::path::Path;

use anyhow::Context;
use fabric::id::BlobId;

/// File in the state directory with the id of the root's blob, once that is given back, in whole or in part.
const GIVEN_BACK_FILE: &str = "root-given-back";

/// Remembers that the root's `blob` is not to be fetched again, whatever is missing of it: the root is unpacked.
pub(super) fn note_given_back(state: &Path, blob: &BlobId) -> anyhow::Result<()> {
    let path = state.join(GIVEN_BACK_FILE);
    std::fs::write(&path, blob.to_string()).with_context(|| format!("cannot write {}", path.display()))
}

/// Whether an agent before has begun to give the root's `blob` back.
pub(super) fn is_given_back(state: &Path, blob: &BlobId) -> bool {
    std::fs::read_to_string(state.join(GIVEN_BACK_FILE)).is_ok_and(|text| text == blob.to_string())
}
