//! The images of a store: what its heads say.
//!
//! | head | names |
//! |---|---|
//! | `release` | the signed release that bare machines are booted with |
//! | `release.NAME` | the newest of the image NAME |
//! | `earlier.GENERATION.NAME` | the versions before it, the last [`KEPT_EARLIER`] |
//! | `removed.NAME` | the last of an image that was removed: nodes remember its generation, so a new one goes on from there |
//!
//! All but `removed.NAME` keep the blobs of their releases. Owns listing and removing; reading is verified against the trust
//! root, as everywhere.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use fabric::id::{BlobId, ObjectId};
use fabric::store::{REMOVED, Store, StoreError};
use fabric::trust::{Release, SignedRelease, TrustError, TrustRoot};
use serde::Serialize;

/// Versions of an image that are kept beside the newest: enough to go back and to compare, at the price of a full copy of
/// what changed.
pub const KEPT_EARLIER: usize = 2;

/// Names the release that bare machines are booted with.
const CURRENT: &str = "release";
/// What the heads of newest versions begin with.
const NEWEST: &str = "release.";
/// The same for earlier versions.
const EARLIER: &str = "earlier.";

/// An image in a store, in one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Image {
    /// Object id of the signed release.
    pub id: ObjectId,
    /// Whether bare machines are booted with it.
    pub current: bool,
    /// Whether it is the newest version of its name.
    pub newest: bool,
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

/// What images are called: `NAME`, `NAME@VERSION` or `NAME#GENERATION`. No name holds `@` or `#`.
#[derive(Debug, Clone, Copy)]
struct Selector<'a> {
    name: &'a str,
    which: Which<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Which<'a> {
    /// A name alone.
    Any,
    Version(&'a str),
    Generation(&'a str),
}

impl<'a> Selector<'a> {
    fn parse(text: &'a str) -> Self {
        let Some(at) = text.find(['@', '#']) else { return Self { name: text, which: Which::Any } };
        let (name, rest) = text.split_at(at);
        let (kind, rest) = rest.split_at(1);
        Self { name, which: if kind == "@" { Which::Version(rest) } else { Which::Generation(rest) } }
    }

    fn fits(self, release: &Release) -> bool {
        release.name == self.name
            && match self.which {
                Which::Any => true,
                Which::Version(version) => release.version == version,
                Which::Generation(generation) => release.generation.to_string() == generation,
            }
    }
}

/// The images of `store`: by name, the newest version first.
///
/// # Errors
/// [`HeadsError`] if the store cannot be read, or holds a release that `trust_root` did not sign.
pub fn list(store: &Store, trust_root: &TrustRoot) -> Result<Vec<Image>, HeadsError> {
    let current = store.head(CURRENT)?;
    let mut images = Vec::new();
    for (head, id) in store.heads()? {
        let newest = head.starts_with(NEWEST);
        if newest || head.starts_with(EARLIER) {
            images.push(Image { newest, ..read(store, trust_root, id, current == Some(id))? });
        }
    }
    images.sort_by(|one, other| {
        let key = |image: &Image| (image.release.name.clone(), Reverse(image.release.generation));
        key(one).cmp(&key(other)).then(other.newest.cmp(&one.newest))
    });
    // A version that was becoming an earlier one when the program was killed has both heads.
    images.dedup_by_key(|image| image.id);
    Ok(images)
}

/// The image that `selector` names: `NAME` (the newest), `NAME@VERSION` (the newest of that version) or `NAME#GENERATION`.
///
/// # Errors
/// [`HeadsError::Unknown`], and as [`list`].
pub fn find(store: &Store, trust_root: &TrustRoot, selector: &str) -> Result<Image, HeadsError> {
    let (mut fitting, _) = select(store, trust_root, selector)?;
    Ok(fitting.swap_remove(0))
}

/// The images that `selector` fits, at least one, and all others.
fn select(
    store: &Store,
    trust_root: &TrustRoot,
    selector: &str,
) -> Result<(Vec<Image>, Vec<Image>), HeadsError> {
    let parsed = Selector::parse(selector);
    let (fitting, others): (Vec<_>, Vec<_>) =
        list(store, trust_root)?.into_iter().partition(|image| parsed.fits(&image.release));
    if fitting.is_empty() {
        let label = |image: Image| format!("{}@{}", image.release.name, image.release.version);
        let mut names: Vec<String> = others.into_iter().map(label).collect();
        names.dedup();
        return Err(HeadsError::Unknown { name: selector.to_owned(), names });
    }
    Ok((fitting, others))
}

/// Removes the images that `selector` fits (a `NAME` alone: all its versions) and the blobs that no other image uses and no
/// pin keeps. Returns the bytes freed. With `force` also the image that bare machines are booted with.
///
/// # Errors
/// [`HeadsError::Unknown`], [`HeadsError::Current`], and as [`list`].
pub fn remove(store: &Store, trust_root: &TrustRoot, selector: &str, force: bool) -> Result<u64, HeadsError> {
    let (gone, kept) = select(store, trust_root, selector)?;
    if gone.iter().any(|image| image.current) && !force {
        return Err(HeadsError::Current { name: selector.to_owned() });
    }
    for image in &gone {
        let release = &image.release;
        if image.newest {
            store.set_head(&removed_name(&release.name), &image.id)?;
            // The one before it, if that stays, is the newest now.
            if let Some(next) = kept.iter().find(|other| other.release.name == release.name) {
                store.set_head(&newest_name(&release.name), &next.id)?;
                store.remove_head(&earlier_name(&next.release))?;
            } else {
                store.remove_head(&newest_name(&release.name))?;
            }
        } else {
            store.remove_head(&earlier_name(release))?;
        }
        if image.current {
            store.remove_head(CURRENT)?;
        }
    }
    forget_blobs(store, &gone)
}

/// Drops the blobs of `gone` that nothing keeps any more; returns their bytes.
fn forget_blobs(store: &Store, gone: &[Image]) -> Result<u64, HeadsError> {
    if gone.is_empty() {
        return Ok(0);
    }
    let garbage: BTreeSet<BlobId> = store.garbage()?.freed_blobs().collect();
    let mut freed = 0;
    for blob in
        gone.iter().flat_map(|image| image.release.blobs()).filter(|blob| garbage.contains(&blob.blob))
    {
        if store.forget(&blob.blob)? {
            freed += blob.size;
        }
    }
    Ok(freed)
}

/// The generation after the newest that `store` knows of the image `name`, 1 for a new one.
pub(super) fn next_generation(store: &Store, trust_root: &TrustRoot, name: &str) -> Result<u64, HeadsError> {
    let mut newest = 0;
    for head in [newest_name(name), removed_name(name)] {
        if let Some(id) = store.head(&head)? {
            newest = newest.max(read(store, trust_root, id, false)?.release.generation);
        }
    }
    Ok(newest.saturating_add(1))
}

/// Makes `signed`, the release of an image `name`, the newest of that image and the one that machines are booted with. The one
/// before it becomes an earlier version, and the oldest of these goes, with what only it used.
pub(super) fn publish(
    store: &Store,
    trust_root: &TrustRoot,
    name: &str,
    signed: &SignedRelease,
) -> Result<ObjectId, HeadsError> {
    let id = store.put_object(signed.bytes())?;
    if let Some(previous) = store.head(&newest_name(name))? {
        let release = read(store, trust_root, previous, false)?.release;
        store.set_head(&earlier_name(&release), &previous)?;
    }
    store.set_head(&newest_name(name), &id)?;
    store.set_head(CURRENT, &id)?;

    let mut earlier = 0;
    let mut gone = list(store, trust_root)?;
    gone.retain(|image| {
        let counts = image.release.name == name && !image.newest;
        earlier += usize::from(counts);
        counts && earlier > KEPT_EARLIER
    });
    for image in &gone {
        store.remove_head(&earlier_name(&image.release))?;
    }
    forget_blobs(store, &gone)?;
    Ok(id)
}

/// The head of the newest version of the image `name`.
pub(crate) fn newest_name(name: &str) -> String {
    format!("{NEWEST}{name}")
}

/// The generation comes first, as a name may hold dots.
fn earlier_name(release: &Release) -> String {
    format!("{EARLIER}{}.{}", release.generation, release.name)
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
    Ok(Image { id, current, newest: true, complete, bytes, release })
}

#[cfg(test)]
#[path = "heads_tests.rs"]
mod tests;
