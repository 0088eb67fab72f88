//! Which blobs a signed statement names, for a store that collects garbage.

use super::error::TrustError;
use super::membership::{Membership, decode_memberships};
use super::release::Release;
use super::settings::Settings;
use super::signed::{SignedMembership, SignedRelease, SignedSettings, Statement, kind};
use crate::content::BlobRef;

/// The blobs that the signed statement, or the list of memberships, in `object` names. Signatures are not verified: what is kept was, when it came.
///
/// # Errors
/// [`TrustError`] for anything that this version of the program cannot read: what it names is unknown.
pub fn references(object: &[u8]) -> Result<Vec<BlobRef>, TrustError> {
    match kind(object) {
        Some(Settings::KIND) => SignedSettings::decode(object).map(|_| Vec::new()),
        Some(Release::KIND) => Ok(SignedRelease::decode(object)?.unverified()?.blobs().copied().collect()),
        Some(Membership::KIND) => SignedMembership::decode(object).map(|_| Vec::new()),
        Some(kind) => Err(TrustError::Kind { what: "release", kind }),
        None if decode_memberships(object).is_ok() => Ok(Vec::new()),
        None => Err(TrustError::Malformed { what: "signed statement" }),
    }
}
