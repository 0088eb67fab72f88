//! Which blobs signed statements name, for a store that collects garbage.

use super::error::TrustError;
use super::machines::decode_machines;
use super::membership::{Membership, SignedMembership, decode_memberships};
use super::release::{Release, SignedRelease};
use super::settings::{Settings, SignedSettings};
use super::signed::{Statement, kind};
use crate::content::BlobRef;

/// The blobs that `object` names: a signed statement, a list of memberships, or the text about machines. Signatures are not verified: what is kept was, when it
/// came.
///
/// # Errors
/// [`TrustError`] for anything that this version of the program cannot read: what it names is unknown.
pub fn references(object: &[u8]) -> Result<Vec<BlobRef>, TrustError> {
    if let Some(kind) = kind(object) {
        return named_by(kind, object);
    }
    // Neither machines nor memberships name blobs.
    if decode_machines(object).is_ok() {
        return Ok(Vec::new());
    }
    decode_memberships(object).map(|_| Vec::new())
}

fn named_by(kind: u8, statement: &[u8]) -> Result<Vec<BlobRef>, TrustError> {
    match kind {
        Release::KIND => Ok(SignedRelease::decode(statement)?.unverified()?.blobs().copied().collect()),
        Settings::KIND => SignedSettings::decode(statement).map(|_| Vec::new()),
        Membership::KIND => SignedMembership::decode(statement).map(|_| Vec::new()),
        _ => Err(TrustError::Kind { what: "statement that this program knows", kind }),
    }
}
