//! Who takes part in a private fabric.
//!
//! In a private fabric a connection with a machine that no operator admitted does not come about: between Noise, which
//! proves who is at the other end, and Yamux, which would carry everything else, both ends show their signed
//! [`Membership`](crate::trust::Membership) and look up the other's. Before that nothing of the swarm is spoken: no
//! `identify`, no gossip, no stream. A stranger learns that it must wait, and is listed for an operator to see.
//!
//! | part | owns |
//! |---|---|
//! | [`roster`] | core: which memberships are known, and which of two about one name counts |
//! | [`waiting`] | core: who asked to be admitted |
//! | [`desk`] | core: the rules of the talk, tokens; [`Gate`] shares it between tasks |
//! | [`message`] | the messages of the talk |
//! | [`talk`] | which of them is said when, and their framing |
//! | [`upgrade`] | the talk as a step of libp2p's connection set-up |
//! | [`token`] | bulk tokens |
//!
//! A membership has no date. The highest generation of a name counts, and members pass every membership that is news
//! on to their neighbours before anything else, so whoever hears of new content from a member has heard of every withdrawal
//! which that member knew. Each end gives the other a random token for its blobs, good while they are connected.
//!
//! Never owns: connections, the operator's key, where memberships are stored.

pub(super) mod desk;
mod message;
pub(super) mod roster;
pub(super) mod talk;
mod token;
pub(super) mod upgrade;
pub(super) mod waiting;

use bytes::Bytes;

use crate::id::NodeId;
use crate::trust::{TrustError, TrustRoot};

pub use desk::BulkAccess;
pub(super) use desk::{Gate, Report};
pub use roster::MAX_MEMBERSHIPS;
pub use token::{BulkToken, NotAToken};
pub use waiting::Waiting;

/// What makes a swarm private.
#[derive(Debug, Clone)]
pub struct Private {
    /// Whose operators admit.
    pub trust_root: TrustRoot,
    /// The signed memberships that are known from before; those that do not hold are left out.
    pub memberships: Vec<Bytes>,
    /// Port of this node's bulk service, told to members with their token; 0 if it has none.
    pub bulk_port: u16,
}

/// What happens at the gate of a private fabric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmissionEvent {
    /// Other memberships are known than before: keep [`SwarmHandle::memberships`](super::SwarmHandle::memberships).
    Changed,
    /// A machine asks to be admitted. Told once while it goes on asking.
    Asked(Waiting),
    /// A member turned this node away.
    TurnedAway {
        /// The member, or who claims to be one: it does not prove it.
        by: NodeId,
        /// Why.
        why: Refusal,
    },
}

/// Why a machine is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Refusal {
    /// No operator has admitted it yet.
    NotAdmitted,
    /// It was a member: its name was taken from it, or given to another key.
    Withdrawn,
}

/// Why a membership is not taken.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// Everybody may join.
    #[error("the fabric is not private: every machine with its trust root may join")]
    NotPrivate,
    /// It does not hold.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Another one about the same name precedes it.
    #[error("generation {newest} of the membership `{name}` is known: sign it with a higher generation")]
    Superseded {
        /// The name.
        name: String,
        /// The newest generation known.
        newest: u64,
    },
    /// Too many names.
    #[error("{MAX_MEMBERSHIPS} names are known, which is the most: give a withdrawn name to the machine")]
    Full,
    /// The swarm has shut down.
    #[error("the swarm has shut down")]
    Closed,
}
