//! Keys, signatures and the statements they cover.
//!
//! A fabric *is* its trust root, an Ed25519 public key. The root key grants operator keys; operator keys sign statements
//! ([`Release`], [`Settings`], [`Membership`]). A signed statement carries the grant, so that the trust root alone checks it: no list
//! of operators, no clock, no name to resolve. What was signed is kept and passed on as the bytes that were
//! received, never encoded again.
//!
//! Owns keys and their files ([`KeyDir`]), envelopes ([`Signed`]), statements and the check against replay
//! ([`Freshness`]). Never touches the network, and never decides what a node does with a valid statement.

mod error;
mod freshness;
mod grant;
mod key;
mod keydir;
mod machines;
mod membership;
mod references;
mod release;
mod settings;
mod signed;
mod text;

pub use error::TrustError;
pub use freshness::Freshness;
pub use grant::{Grant, Operator};
pub use key::{OperatorId, OperatorKey, RootKey, TrustRoot};
pub use keydir::KeyDir;
pub use machines::{MAX_MACHINES, decode_machines, encode_machines};
pub use membership::{Membership, SignedMembership, decode_memberships, encode_memberships};
pub use references::references;
pub use release::{Arch, Loader, Release, RootFormat, RootMode, SignedRelease};
pub use settings::{Settings, SignedSettings, Subnet};
pub use signed::{Signed, Statement, Verified};
