//! What a node says about itself, and the signed form in which others pass it on.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::key::{self, NodeKey};
use super::protocol::{FabricTag, ProtocolRange};
use crate::codec;
use crate::exchange::PeerHint;
use crate::id::NodeId;

/// Bytes in a node's name: a host name label is 63 at most (RFC 1035 section 2.3.4), a full name 255; ours stay short.
pub const MAX_NAME: usize = 64;
/// Bytes in the name of a rack.
pub const MAX_RACK: usize = 32;
/// Bytes in a program version.
pub const MAX_VERSION: usize = 32;
/// Bytes of an encoded member: the fields above and some forty bytes of numbers.
const MAX_BODY: usize = 256;

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// The node. The swarm fills in its own.
    pub node: NodeId,
    /// A name for people, at most [`MAX_NAME`] bytes.
    pub name: String,
    /// The node's own IPv4 address on the fabric's network, taken as used by everyone; unspecified while it has none.
    pub address: Ipv4Addr,
    /// Where it serves blobs and boot files over HTTP; 0 if it does not.
    pub http_port: u16,
    /// Whether it boots bare machines: answers their DHCP and serves them the boot blobs.
    pub boots: bool,
    /// Where it listens for peers. The swarm fills in the port it got if it is 0.
    pub swarm_port: u16,
    /// The hardware address of its interface on the fabric's network.
    pub mac: Option<[u8; 6]>,
    /// The version of its program, at most [`MAX_VERSION`] bytes.
    pub version: String,
    /// The protocol versions it speaks. The swarm fills in its own.
    pub protocols: ProtocolRange,
    /// The rack it stands in, at most [`MAX_RACK`] bytes; empty if nobody said.
    pub rack: String,
}

impl MemberInfo {
    /// A node with this name and address that serves nothing yet.
    #[must_use]
    pub fn new(name: impl Into<String>, address: Ipv4Addr) -> Self {
        Self {
            node: NodeId(crate::id::Hash::from_bytes([0; 32])),
            name: name.into(),
            address,
            http_port: 0,
            boots: false,
            swarm_port: 0,
            mac: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocols: ProtocolRange::OURS,
            rack: String::new(),
        }
    }

    /// What the exchange should know of it, seen from a node in `rack`; a node that knows no rack, or of which none is known, stands
    /// in ours.
    #[must_use]
    pub fn hint_from(&self, rack: &str) -> PeerHint {
        if rack.is_empty() || self.rack.is_empty() {
            return PeerHint::default();
        }
        let [a, b, c, d, e, f, g, h, ..] = *crate::id::Hash::of(self.rack.as_bytes()).as_bytes();
        let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        PeerHint { far: self.rack != rack, rack: number, origin: false }
    }

    /// Where its swarm can be dialled, if it says so.
    #[must_use]
    pub fn swarm_address(&self) -> Option<SocketAddr> {
        (!self.address.is_unspecified() && self.swarm_port != 0)
            .then(|| (self.address, self.swarm_port).into())
    }

    /// Where its HTTP service is, if it has one.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        (!self.address.is_unspecified() && self.http_port != 0).then(|| (self.address, self.http_port).into())
    }

    fn check(&self) -> Result<(), MemberError> {
        if self.name.len() > MAX_NAME {
            return Err(MemberError::TooLong { what: "name", max: MAX_NAME });
        }
        if self.rack.len() > MAX_RACK {
            return Err(MemberError::TooLong { what: "rack", max: MAX_RACK });
        }
        if self.version.len() > MAX_VERSION {
            return Err(MemberError::TooLong { what: "version", max: MAX_VERSION });
        }
        Ok(())
    }
}

/// Why a member's statement is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// A text is too long.
    #[error("the {what} of a node is at most {max} bytes")]
    TooLong {
        /// Which one.
        what: &'static str,
        /// The most bytes it may have.
        max: usize,
    },
    /// The bytes are not such a statement.
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
    /// The key is none, or its signature does not fit.
    #[error("the statement of a member is not signed by its key")]
    Signature,
    /// The key signs for another node.
    #[error("the statement of a member names another node than its key")]
    OtherNode,
}

impl MemberError {
    /// Whether only a liar passes this on. What cannot be read may be of a later version.
    pub(crate) fn is_offence(&self) -> bool {
        matches!(self, Self::Signature | Self::OtherNode)
    }
}

/// How often a node has restated what it says about itself; a higher count replaces a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Statement(pub(crate) u64);

/// A [`MemberInfo`] as others pass it on: signed by the node it speaks of, for one fabric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignedMember {
    key: [u8; 32],
    body: Vec<u8>,
    signature: Vec<u8>,
}

/// Keeps these signatures apart from all others that the same key makes.
const DOMAIN: &[u8] = b"bootfabric member 1";

fn signed_bytes(tag: FabricTag, body: &[u8]) -> Vec<u8> {
    [DOMAIN, tag.as_bytes(), body].concat()
}

impl SignedMember {
    pub(crate) fn sign(
        key: &NodeKey,
        tag: FabricTag,
        info: &MemberInfo,
        statement: Statement,
    ) -> Result<Self, MemberError> {
        info.check()?;
        let body = codec::encode("member", &(statement, info))?;
        let signature = key.sign(&signed_bytes(tag, &body)).map_err(|_| MemberError::Signature)?;
        Ok(Self { key: key.public_bytes(), body, signature })
    }

    /// What it claims, before the signature is checked: tells cheaply whether it is news.
    pub(crate) fn claim(&self) -> Result<(Statement, MemberInfo), MemberError> {
        if self.body.len() > MAX_BODY {
            return Err(MemberError::TooLong { what: "statement", max: MAX_BODY });
        }
        let (statement, info): (Statement, MemberInfo) = codec::decode("member", &self.body)?;
        info.check()?;
        Ok((statement, info))
    }

    /// What it says, if the node it speaks of signed it.
    pub(crate) fn verify(&self, tag: FabricTag) -> Result<(Statement, MemberInfo), MemberError> {
        let (statement, info) = self.claim()?;
        let key = key::public_key(&self.key).ok_or(MemberError::Signature)?;
        if key::node_id(&key.to_peer_id()) != info.node {
            return Err(MemberError::OtherNode);
        }
        if !key.verify(&signed_bytes(tag, &self.body), &self.signature) {
            return Err(MemberError::Signature);
        }
        Ok((statement, info))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(key: &NodeKey) -> MemberInfo {
        MemberInfo { node: key.node_id(), ..MemberInfo::new("n1", Ipv4Addr::LOCALHOST) }
    }

    #[test]
    fn only_the_node_itself_signs_for_it_and_only_for_one_fabric() {
        let (key, other, tag) = (NodeKey::generate(), NodeKey::generate(), FabricTag::of(b"a"));
        let signed = SignedMember::sign(&key, tag, &member(&key), Statement(7)).unwrap();
        assert_eq!(signed.verify(tag), Ok((Statement(7), member(&key))));
        assert_eq!(signed.verify(FabricTag::of(b"b")), Err(MemberError::Signature));
        let forged = SignedMember::sign(&other, tag, &member(&key), Statement(8)).unwrap();
        assert_eq!(forged.verify(tag), Err(MemberError::OtherNode));
        let changed = SignedMember { body: forged.body, ..signed };
        assert_eq!(changed.verify(tag), Err(MemberError::Signature));
    }

    #[test]
    fn long_texts_are_refused_on_both_sides() {
        let key = NodeKey::generate();
        let info = MemberInfo { name: "n".repeat(MAX_NAME + 1), ..member(&key) };
        let tag = FabricTag::of(b"a");
        assert!(matches!(
            SignedMember::sign(&key, tag, &info, Statement(0)),
            Err(MemberError::TooLong { what: "name", .. })
        ));
        let long = SignedMember { key: [0; 32], body: vec![0; MAX_BODY + 1], signature: vec![] };
        assert!(matches!(long.verify(tag), Err(MemberError::TooLong { .. })));
    }
}
