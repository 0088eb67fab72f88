//! Memberships: which machine a private fabric admits.
//!
//! A name holds one machine at a time. The highest generation of a name counts, so naming another machine, or none, takes
//! the name from the one before: there is no date in it and nothing expires. A machine that makes a new key at each boot
//! keeps its name and is admitted anew.
//!
//! A store keeps all of a fabric as one object: magic `BFMEMBER` (8 bytes), then the signed statements in the crate's one
//! encoding.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::TrustError;
use super::signed::{Signed, Statement};
use super::text::check_name;
use crate::codec;
use crate::id::NodeId;

/// The statement that a name belongs to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The name: 1 to 64 of `a-z 0-9 . _ -`.
    pub name: String,
    /// The machine that has it, by its key; `None` if none has it any more.
    pub node: Option<NodeId>,
    /// Place in the order of statements about this name; at least 1.
    pub generation: u64,
}

const LIST_MAGIC: &[u8; 8] = b"BFMEMBER";
/// What a list is called in errors.
const LIST: &str = "list of memberships";

/// Signed memberships as one object.
///
/// # Errors
/// [`TrustError::Malformed`]: an error in this program.
pub fn encode_memberships(statements: &[Bytes]) -> Result<Vec<u8>, TrustError> {
    let statements: Vec<&[u8]> = statements.iter().map(AsRef::as_ref).collect();
    let list = codec::encode(LIST, &statements).map_err(|_| TrustError::Malformed { what: LIST })?;
    Ok([LIST_MAGIC.as_slice(), &list].concat())
}

/// The signed memberships in an object; none of them is verified.
///
/// # Errors
/// [`TrustError::Malformed`] if it is no such list.
pub fn decode_memberships(object: &[u8]) -> Result<Vec<Bytes>, TrustError> {
    let list = object.strip_prefix(LIST_MAGIC).and_then(|list| codec::decode(LIST, list).ok());
    let statements: Vec<Vec<u8>> = list.ok_or(TrustError::Malformed { what: LIST })?;
    Ok(statements.into_iter().map(Bytes::from).collect())
}

impl Membership {
    fn check(&self) -> Result<(), TrustError> {
        let problem = check_name("the name of the member", &self.name).and_then(|()| match self.generation {
            0 => Err("the generation is 0: the first is 1".into()),
            _ => Ok(()),
        });
        problem.map_err(|why| TrustError::Invalid { what: Self::NAME, why })
    }
}

/// A signed [`Membership`].
pub type SignedMembership = Signed<Membership>;

impl Statement for Membership {
    const KIND: u8 = 3;
    const NAME: &'static str = "membership";
    const FORMAT: u8 = 1;
    /// A name, a hash and a number.
    const MAX_PAYLOAD: usize = 128;

    fn to_payload(&self) -> Result<Vec<u8>, TrustError> {
        self.check()?;
        codec::encode(Self::NAME, self).map_err(|_| TrustError::Malformed { what: Self::NAME })
    }

    fn from_payload(_: u8, payload: &[u8]) -> Result<Self, TrustError> {
        let membership: Self =
            codec::decode(Self::NAME, payload).map_err(|_| TrustError::Malformed { what: Self::NAME })?;
        membership.check()?;
        Ok(membership)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Hash;

    #[test]
    fn the_longest_one_fits_and_round_trips() {
        let membership =
            Membership { name: "n".repeat(64), node: Some(NodeId(Hash::of(b"node"))), generation: u64::MAX };
        let payload = membership.to_payload().unwrap();
        assert!(payload.len() <= Membership::MAX_PAYLOAD);
        assert_eq!(Membership::from_payload(1, &payload).unwrap(), membership);
    }

    #[test]
    fn a_list_round_trips_names_no_blobs_and_nothing_else_is_one() {
        let list = [Bytes::from_static(b"one"), Bytes::new()];
        let object = encode_memberships(&list).unwrap();
        assert_eq!(decode_memberships(&object).unwrap(), list);
        assert_eq!(crate::trust::references(&object).unwrap(), []);
        for bad in [&object[..object.len() - 1], &object[1..], b""] {
            assert!(decode_memberships(bad).is_err() && crate::trust::references(bad).is_err());
        }
    }

    #[test]
    fn mistakes_are_named() {
        let good = Membership { name: "rack1-a".into(), node: None, generation: 1 };
        assert!(good.to_payload().is_ok());
        let error = Membership { generation: 0, ..good.clone() }.to_payload().unwrap_err().to_string();
        assert!(error.contains("generation"), "{error}");
        let error = Membership { name: "Rack 1".into(), ..good }.to_payload().unwrap_err().to_string();
        assert!(error.contains("Rack 1"), "{error}");
    }
}
