//! What is said at the gate.

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::token::BulkToken;
use super::waiting::Newcomer;

/// What the one who dials says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Show {
    /// Its own signed membership, if it has one.
    pub(crate) mine: Option<Vec<u8>>,
    /// The other's signed membership, if it knows it: the other may have been admitted a moment ago.
    pub(crate) yours: Option<Vec<u8>>,
    /// Who it is, if it has no membership.
    pub(crate) newcomer: Option<Newcomer>,
}

/// What each end thinks of the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Verdict {
    /// It is a member.
    Welcome(Box<Welcome>),
    /// It is none.
    Refused {
        why: Refusal,
        /// Who says so, if it is no member itself.
        newcomer: Option<Newcomer>,
    },
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) mine: Option<Vec<u8>>,
    pub(crate) yours: Option<Vec<u8>>,
    pub(crate) grant: Grant,
}

/// What a member is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    /// Port of the bulk service, 0 if there is none.
    pub(crate) port: u16,
    pub(crate) token: BulkToken,
    /// What all memberships known here amount to.
    pub(crate) digest: u64,
}
