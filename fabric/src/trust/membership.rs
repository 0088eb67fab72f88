//! Memberships: which machine a private fabric admits.
//!
//! A name holds one machine at a time. The highest generation of a name counts, so naming another machine, or none, takes
//! the name from the one before: there is no date in it and nothing expires. A machine that makes a new key at each boot
//! keeps its name and is admitted anew.

use serde::{Deserialize, Serialize};

use super::error::TrustError;
use super::signed::Statement;
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

impl Membership {
    fn check(&self) -> Result<(), TrustError> {
        let problem = check_name("the name of the member", &self.name).and_then(|()| match self.generation {
            0 => Err("the generation is 0: the first is 1".into()),
            _ => Ok(()),
        });
        problem.map_err(|why| TrustError::Invalid { what: Self::NAME, why })
    }
}

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
    fn mistakes_are_named() {
        let good = Membership { name: "rack1-a".into(), node: None, generation: 1 };
        assert!(good.to_payload().is_ok());
        let error = Membership { generation: 0, ..good.clone() }.to_payload().unwrap_err().to_string();
        assert!(error.contains("generation"), "{error}");
        let error = Membership { name: "Rack 1".into(), ..good }.to_payload().unwrap_err().to_string();
        assert!(error.contains("Rack 1"), "{error}");
    }
}
