//! What of an image goes onto a disk.

use fabric::trust::Release;
use serde::{Deserialize, Serialize};

/// An image, as far as a disk is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Object id of the signed release, in hexadecimal.
    pub release: String,
    /// What the boot menu calls it.
    pub title: String,
    /// Blob of the kernel.
    pub kernel: String,
    /// Blob of the first stage.
    pub first_stage: String,
    /// Blob of the root.
    pub root: String,
    /// All its blobs.
    pub blobs: Vec<String>,
}

impl Image {
    /// The image of `release`, whose object id is `id`.
    #[must_use]
    pub fn of(id: &str, release: &Release) -> Self {
        Self {
            release: id.to_owned(),
            title: format!("{} {}", release.name, release.version),
            kernel: release.kernel.blob.to_string(),
            first_stage: release.first_stage.blob.to_string(),
            root: release.root.blob.to_string(),
            blobs: release.blobs().map(|blob| blob.blob.to_string()).collect(),
        }
    }
}
