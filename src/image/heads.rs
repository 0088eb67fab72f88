//! The images of a store: what its heads say.
//!
//! `release` names the signed release that bare machines are booted with, `release.NAME` the newest of each image, and
//! `removed.NAME` the last of an image that was removed: nodes remember its generation, so a new image of that name has to go
//! on from there; the store keeps nothing else of it ([`REMOVED`]). Owns listing and removing; reading is verified against the trust root, as everywhere.

use std::collections::BTreeSet;

use fabric::id::{BlobId, ObjectId};
use fabric::store::{REMOVED, Store, StoreError};
use fabric::trust::{Release, SignedRelease, TrustError, TrustRoot};
use serde::Serialize;

/// Names the release that bare machines are booted with.
const CURRENT: &str = "release";
/// What the names of images' heads begin with.
const PREFIX: &str = "release.";

/// An image in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Object id of the signed release.
    pub id: ObjectId,
    /// Whether bare machines are booted with it.
    pub current: bool,
    /// Whether all of its blobs are held.
    pub complete: bool,
    /// Bytes of all its blobs.
    pub bytes: u64,
    /// What was signed.
    pub release: Release,
}

/// Why images cannot be listed or changed.
#[derive(Debug, thiserror::Error)]
pub enum HeadsError {
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A release is not what it should be.
    #[error("the release {id} in the store cannot be used")]
    Release {
        /// Which.
        id: ObjectId,
        /// Why.
        source: TrustError,
    },
    /// A release is lost.
    #[error("the store has lost the release {id}: build the image again")]
    Lost {
        /// Which.
        id: ObjectId,
    },
    /// No image by that name.
    #[error("there is no image `{name}` in the store{}", known(names))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The images there are.
        names: Vec<String>,
    },
    /// The image is in use.
    #[error(
        "bare machines are booted with the image `{name}`: build or choose another first, or remove it with --force"
    )]
    Current {
        /// Its name.
        name: String,
    },
}

fn known(names: &[String]) -> String {
    if names.is_empty() { " (it has none)".into() } else { format!(" (it has {})", names.join(", ")) }
}

/// The images of `store`, by name.
///
/// # Errors
/// [`HeadsError`] if the store cannot be read, or holds a release that `trust_root` did not sign.
pub fn list(store: &Store, trust_root: &TrustRoot) -> Result<Vec<Image>, HeadsError> {
    let current = store.head(CURRENT)?;
    let heads = store.heads()?.into_iter().filter(|(head, _)| head.starts_with(PREFIX));
    heads.map(|(_, id)| read(store, trust_root, id, current == Some(id))).collect()
}

/// The image `name` of `store`.
///
/// # Errors
/// [`HeadsError::Unknown`], and as [`list`].
pub fn find(store: &Store, trust_root: &TrustRoot, name: &str) -> Result<Image, HeadsError> {
    let images = list(store, trust_root)?;
    let names = images.iter().map(|image| image.release.name.clone()).collect();
    let found = images.into_iter().find(|image| image.release.name == name);
    found.ok_or_else(|| HeadsError::Unknown { name: name.to_owned(), names })
}

/// Removes the image `name`: its heads, and the blobs that no other image uses and no pin keeps. Returns the bytes freed. With `force` also
/// the image that bare machines are booted with.
///
/// # Errors
/// [`HeadsError::Unknown`], [`HeadsError::Current`], and as [`list`].
pub fn remove(store: &Store, trust_root: &TrustRoot, name: &str, force: bool) -> Result<u64, HeadsError> {
    let image = find(store, trust_root, name)?;
    if image.current && !force {
        return Err(HeadsError::Current { name: name.to_owned() });
    }
    store.set_head(&removed_name(name), &image.id)?;
    store.remove_head(&head_name(name))?;
    if image.current {
        store.remove_head(CURRENT)?;
    }
    let garbage: BTreeSet<BlobId> = store.garbage()?.freed_blobs().collect();
    let mut freed = 0;
    for blob in image.release.blobs().filter(|blob| garbage.contains(&blob.blob)) {
        if store.forget(&blob.blob)? {
            freed += blob.size;
        }
    }
    Ok(freed)
}

/// The generation after the newest that `store` knows of the image `name`, 1 for a new one.
pub(super) fn next_generation(store: &Store, trust_root: &TrustRoot, name: &str) -> Result<u64, HeadsError> {
    let mut newest = 0;
    for head in [head_name(name), removed_name(name)] {
        if let Some(id) = store.head(&head)? {
            newest = newest.max(read(store, trust_root, id, false)?.release.generation);
        }
    }
    Ok(newest.saturating_add(1))
}

/// Makes `signed`, the release of an image `name`, the newest of that image and the one that machines are booted with.
pub(super) fn publish(store: &Store, name: &str, signed: &SignedRelease) -> Result<ObjectId, StoreError> {
    let id = store.put_object(signed.bytes())?;
    store.set_head(&head_name(name), &id)?;
    store.set_head(CURRENT, &id)?;
    Ok(id)
}

/// The head of the image `name`.
pub(crate) fn head_name(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn removed_name(name: &str) -> String {
    format!("{REMOVED}{name}")
}

fn read(store: &Store, trust_root: &TrustRoot, id: ObjectId, current: bool) -> Result<Image, HeadsError> {
    let bytes = store.object(&id).ok_or(HeadsError::Lost { id })?;
    let verified = SignedRelease::decode(&bytes).and_then(|signed| signed.verify(trust_root));
    let release = verified.map_err(|source| HeadsError::Release { id, source })?;
    let complete = release.blobs().all(|blob| store.blob(&blob.blob).is_some_and(|blob| blob.is_complete()));
    let bytes = release.blobs().map(|blob| blob.size).sum();
    Ok(Image { id, current, complete, bytes, release })
}
