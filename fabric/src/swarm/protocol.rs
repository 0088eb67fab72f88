//! Which fabric and which versions of the protocol a node speaks, and the names that say so on the wire.
//!
//! Every protocol name carries the tag of the fabric, so nodes of two fabrics on one switch find no common protocol and
//! exchange nothing but the `identify` message that tells them so.

use std::fmt;
use std::str::FromStr;

use libp2p::StreamProtocol;
use serde::{Deserialize, Serialize};

use crate::id::Hash;

/// What tells one fabric from another on the wire: the first 64 bits of the hash of its trust root.
///
/// It keeps fabrics apart by accident, not against malice: what nodes run is checked against the whole trust root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FabricTag([u8; 8]);

impl FabricTag {
    /// The tag of the fabric with this trust root (the 32 bytes of its public key).
    #[must_use]
    pub fn of(trust_root: &[u8]) -> Self {
        let mut tag = [0; 8];
        tag.copy_from_slice(&Hash::of(trust_root).as_bytes()[..8]);
        Self(tag)
    }

    /// A tag from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The bytes of the tag.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl fmt::Display for FabricTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for FabricTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FabricTag({self})")
    }
}

/// The versions of the swarm protocol that a program speaks, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolRange {
    /// The oldest version spoken.
    pub oldest: u16,
    /// The newest version spoken.
    pub newest: u16,
}

impl ProtocolRange {
    /// What this program speaks.
    pub const OURS: Self = Self { oldest: 1, newest: 1 };

    /// The newest version that both speak.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl fmt::Display for ProtocolRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.oldest, self.newest)
    }
}

/// What a node says of itself in `identify`, before anything else is exchanged: `bootfabric/<tag>/<oldest>-<newest>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) tag: FabricTag,
    pub(crate) protocols: ProtocolRange,
}

const PROGRAM: &str = "bootfabric";

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PROGRAM}/{}/{}", self.tag, self.protocols)
    }
}

/// The text is not that of a bootfabric node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotBootfabric;

impl FromStr for Identity {
    type Err = NotBootfabric;

    fn from_str(text: &str) -> Result<Self, NotBootfabric> {
        let parse = || {
            let (tag, range) = text.strip_prefix(PROGRAM)?.strip_prefix('/')?.split_once('/')?;
            let mut bytes = [0; 8];
            hex::decode_to_slice(tag, &mut bytes).ok()?;
            let (oldest, newest) = range.split_once('-')?;
            let protocols = ProtocolRange { oldest: oldest.parse().ok()?, newest: newest.parse().ok()? };
            Some(Self { tag: FabricTag(bytes), protocols })
        };
        parse().ok_or(NotBootfabric)
    }
}

/// The protocol names of one fabric.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// The ordered message channel between two peers.
    pub(crate) channel: StreamProtocol,
    /// Requests for small objects.
    pub(crate) object: StreamProtocol,
    /// Runs of a blob, for peers whose HTTP cannot be reached.
    pub(crate) bulk: StreamProtocol,
    /// What comes between Noise and everything else in a private fabric.
    pub(crate) admission: StreamProtocol,
    /// What gossipsub puts before its own version.
    pub(crate) gossip: String,
    /// The one gossip topic.
    pub(crate) topic: String,
    /// The text of [`Identity`].
    pub(crate) identity: String,
}

impl Names {
    pub(crate) fn new(tag: FabricTag) -> Result<Self, libp2p::swarm::InvalidProtocol> {
        let stream = |what: &str| StreamProtocol::try_from_owned(format!("/{PROGRAM}/{tag}/{what}/1"));
        Ok(Self {
            channel: stream("channel")?,
            object: stream("object")?,
            bulk: stream("bulk")?,
            admission: stream("admission")?,
            gossip: format!("/{PROGRAM}/{tag}/gossip"),
            topic: format!("{PROGRAM}/{tag}"),
            identity: Identity { tag, protocols: ProtocolRange::OURS }.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_round_trips_and_rejects_others() {
        let identity =
            Identity { tag: FabricTag::of(b"root"), protocols: ProtocolRange { oldest: 1, newest: 3 } };
        assert_eq!(identity.to_string().parse(), Ok(identity));
        for other in ["", "ipfs/0.1.0", "bootfabric/", "bootfabric/00/1-1", "bootfabric/0011223344556677/1"] {
            assert_eq!(other.parse::<Identity>(), Err(NotBootfabric), "{other}");
        }
    }

    #[test]
    fn the_newest_common_version_is_chosen() {
        let range = |oldest, newest| ProtocolRange { oldest, newest };
        assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
        assert_eq!(range(1, 1).common(range(2, 5)), None);
        assert_eq!(range(4, 2).common(range(1, 9)), None);
    }
}
