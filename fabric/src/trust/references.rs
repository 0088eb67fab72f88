//! Which blobs a signed statement names, for a store that collects garbage.

use super::error::TrustError;
use super::release::Release;
use super::settings::Settings;
use super::signed::{SignedRelease, SignedSettings, Statement, kind};
use crate::content::BlobRef;

/// The blobs that the signed statement in `object` names. Signatures are not verified: what is kept was, when it came.
///
/// # Errors
/// [`TrustError`] for anything that this version of the program cannot read: what it names is unknown.
pub fn references(object: &[u8]) -> Result<Vec<BlobRef>, TrustError> {
    match kind(object) {
        Some(Settings::KIND) => SignedSettings::decode(object).map(|_| Vec::new()),
        Some(Release::KIND) => Ok(SignedRelease::decode(object)?.unverified()?.blobs().copied().collect()),
        Some(kind) => Err(TrustError::Kind { what: "release", kind }),
        None => Err(TrustError::Malformed { what: "signed statement" }),
    }
}
