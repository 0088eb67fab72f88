//! The frames on the channel between two peers.
//!
//! A frame is its length (32 bit, big endian; of what follows), its kind (8 bit) and its body in the crate's one
//! encoding. The first frame each way is [`Hello`]. Kinds that are not known are skipped, so that a later version may add
//! hints; whatever must be understood gets a new protocol name instead.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::announce::Announcement;
use super::member::SignedMember;
use super::protocol::ProtocolRange;
use super::records::replicate::Words;
use super::records::table::Digests;
use super::records::{Record, WireRecord};
use crate::codec::{self, CodecError};
use crate::exchange::message::Message;
use crate::id::NodeId;

/// Longest frame, without its length. The bitfield of a blob of 8 million chunks fits, twice any index that is fetched.
pub(crate) const MAX_FRAME: usize = 1024 * 1024;
/// Longest [`Hello`]: a peer is nobody yet.
pub(crate) const MAX_HELLO: usize = 1024;
/// Members told to a new peer at once, 200 bytes each. It hears of the others by gossip.
pub(crate) const MAX_TOLD: usize = 256;
/// Memberships in one frame, 400 bytes each: a fourth of the longest frame.
pub(crate) const MAX_MEMBERSHIPS_TOLD: usize = 512;
/// Neighbours a node may claim: well above what it accepts.
const MAX_NEIGHBOURS: usize = 512;
/// Bytes of the length.
pub(crate) const LENGTH_LEN: usize = 4;

/// The first frame each way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// What the sender speaks; first, so that any version can read it.
    pub(crate) protocols: ProtocolRange,
    /// Who it is.
    pub(crate) member: SignedMember,
    /// What its records amount to.
    pub(crate) digest: u64,
}

/// Why a node ends a connection on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Goodbye {
    /// It shuts down.
    Leaving,
    /// It has as many neighbours as it takes; it told of others before.
    Full,
}

/// A frame after the first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Frame {
    Ping {
        digest: u64,
    },
    Pong,
    Suspect(NodeId),
    Goodbye(Goodbye),
    Members(Vec<SignedMember>),
    Neighbours(BTreeSet<NodeId>),
    Announce(Vec<Announcement>),
    Records(Words),
    Exchange(Message),
    /// Signed memberships of a private fabric.
    Memberships(Vec<Vec<u8>>),
}

/// Why a frame ends the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("a frame of {len} bytes, {max} at most")]
    Length { len: usize, max: usize },
    #[error("too many entries in {0}")]
    TooMany(&'static str),
}

#[repr(u8)]
#[derive(Clone, Copy)]
enum Kind {
    Hello = 1,
    Ping = 2,
    Pong = 3,
    Suspect = 4,
    Goodbye = 5,
    Members = 6,
    Neighbours = 7,
    Announce = 8,
    Records = 9,
    PulledRecords = 10,
    Pull = 11,
    PullEnd = 12,
    Digest = 13,
    Exchange = 14,
    Memberships = 15,
    Sharing = 16,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        use Kind::*;
        let kinds = [
            Hello,
            Ping,
            Pong,
            Suspect,
            Goodbye,
            Members,
            Neighbours,
            Announce,
            Records,
            PulledRecords,
            Pull,
            PullEnd,
            Digest,
            Exchange,
            Memberships,
            Sharing,
        ];
        kinds.into_iter().find(|kind| *kind as u8 == byte)
    }
}

fn encode<T: Serialize>(kind: Kind, body: &T) -> Result<Bytes, FrameError> {
    let body = codec::encode("frame", body)?;
    let len = body.len() + 1;
    if len > MAX_FRAME {
        return Err(FrameError::Length { len, max: MAX_FRAME });
    }
    let mut frame = Vec::with_capacity(LENGTH_LEN + len);
    frame.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    frame.push(kind as u8);
    frame.extend_from_slice(&body);
    Ok(frame.into())
}

impl Hello {
    pub(crate) fn encode(&self) -> Result<Bytes, FrameError> {
        encode(Kind::Hello, self)
    }

    /// Decodes what follows the length. `None` if it is another kind of frame.
    pub(crate) fn decode(frame: &[u8]) -> Result<Option<Self>, FrameError> {
        match frame.split_first() {
            Some((&kind, body)) if kind == Kind::Hello as u8 => Ok(Some(codec::decode("hello", body)?)),
            _ => Ok(None),
        }
    }
}

impl Frame {
    /// The frame with its length.
    pub(crate) fn encode(&self) -> Result<Bytes, FrameError> {
        match self {
            Self::Ping { digest } => encode(Kind::Ping, digest),
            Self::Pong => encode(Kind::Pong, &()),
            Self::Suspect(node) => encode(Kind::Suspect, node),
            Self::Goodbye(why) => encode(Kind::Goodbye, why),
            Self::Members(members) => encode(Kind::Members, members),
            Self::Neighbours(nodes) => encode(Kind::Neighbours, nodes),
            Self::Announce(announcements) => encode(Kind::Announce, announcements),
            Self::Exchange(Message::Sharing { blob, rule }) => encode(Kind::Sharing, &(blob, rule)),
            Self::Exchange(message) => encode(Kind::Exchange, message),
            Self::Memberships(memberships) => encode(Kind::Memberships, memberships),
            Self::Records(words) => encode_words(words),
        }
    }

    /// Decodes what follows the length. `None` for a kind that a later version may know, and for a second hello.
    pub(crate) fn decode(frame: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some((kind, body)) = frame.split_first() else { return Ok(None) };
        let Some(kind) = Kind::of(*kind) else { return Ok(None) };
        Ok(Some(match kind {
            Kind::Hello => return Ok(None),
            Kind::Ping => Self::Ping { digest: codec::decode("ping", body)? },
            Kind::Pong => codec::decode("pong", body).map(|()| Self::Pong)?,
            Kind::Suspect => Self::Suspect(codec::decode("suspicion", body)?),
            Kind::Goodbye => Self::Goodbye(codec::decode("goodbye", body)?),
            Kind::Members => {
                Self::Members(bounded("members", codec::decode("members", body)?, MAX_TOLD + 1, Vec::len)?)
            }
            Kind::Neighbours => Self::Neighbours(bounded(
                "neighbours",
                codec::decode("neighbours", body)?,
                MAX_NEIGHBOURS,
                BTreeSet::len,
            )?),
            Kind::Announce => Self::Announce(bounded(
                "announcements",
                codec::decode("announcements", body)?,
                super::announce::MAX_HEADS,
                Vec::len,
            )?),
            Kind::Records | Kind::PulledRecords => {
                let wire: Vec<WireRecord> = codec::decode("records", body)?;
                let records = wire.into_iter().map(Record::from).collect();
                Self::Records(Words::Records { records, pulled: matches!(kind, Kind::PulledRecords) })
            }
            Kind::Pull => {
                let digests: Vec<u64> = codec::decode("pull", body)?;
                let digests = Digests::try_from(digests).map_err(|()| FrameError::TooMany("pull"))?;
                Self::Records(Words::Pull(Box::new(digests)))
            }
            Kind::PullEnd => {
                let (complete, digest) = codec::decode("end of pull", body)?;
                Self::Records(Words::PullEnd { complete, digest })
            }
            Kind::Digest => Self::Records(Words::Digest(codec::decode("digest", body)?)),
            Kind::Exchange => Self::Exchange(codec::decode("exchange message", body)?),
            Kind::Sharing => {
                let (blob, rule) = codec::decode("exchange hint", body)?;
                Self::Exchange(Message::Sharing { blob, rule })
            }
            Kind::Memberships => Self::Memberships(bounded(
                "memberships",
                codec::decode("memberships", body)?,
                MAX_MEMBERSHIPS_TOLD,
                Vec::len,
            )?),
        }))
    }
}

fn encode_words(words: &Words) -> Result<Bytes, FrameError> {
    match words {
        Words::Records { records, pulled } => {
            let kind = if *pulled { Kind::PulledRecords } else { Kind::Records };
            encode(kind, &records.iter().map(WireRecord::from).collect::<Vec<_>>())
        }
        Words::Pull(digests) => encode(Kind::Pull, &digests.0.as_slice()),
        Words::PullEnd { complete, digest } => encode(Kind::PullEnd, &(complete, digest)),
        Words::Digest(digest) => encode(Kind::Digest, digest),
    }
}

fn bounded<T>(what: &'static str, value: T, max: usize, len: impl Fn(&T) -> usize) -> Result<T, FrameError> {
    if len(&value) > max { Err(FrameError::TooMany(what)) } else { Ok(value) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::id::Hash;

    fn node(n: u8) -> NodeId {
        NodeId(Hash::from_bytes([n; 32]))
    }

    #[test]
    fn frames_round_trip() {
        let record = Record {
            topic: 1,
            key: vec![1],
            counter: 5,
            author: node(1),
            value: vec![9],
            age: Duration::from_secs(7),
        };
        let frames = [
            Frame::Ping { digest: u64::MAX },
            Frame::Pong,
            Frame::Suspect(node(2)),
            Frame::Goodbye(Goodbye::Full),
            Frame::Members(vec![]),
            Frame::Neighbours([node(1), node(2)].into()),
            Frame::Announce(vec![]),
            Frame::Records(Words::Records { records: vec![record], pulled: true }),
            Frame::Records(Words::Pull(Box::new(Digests([7; 64])))),
            Frame::Records(Words::PullEnd { complete: true, digest: 4 }),
            Frame::Records(Words::Digest(3)),
            Frame::Exchange(Message::Interested { blob: crate::id::BlobId(Hash::of(b"b")) }),
            Frame::Exchange(Message::Sharing { blob: crate::id::BlobId(Hash::of(b"b")), rule: 7 }),
            Frame::Memberships(vec![vec![1, 2], vec![]]),
        ];
        for frame in frames {
            let bytes = frame.encode().unwrap();
            assert_eq!(u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len() - 4);
            assert_eq!(Frame::decode(&bytes[4..]), Ok(Some(frame)));
        }
    }

    #[test]
    fn unknown_kinds_are_skipped_and_trailing_bytes_are_not() {
        assert_eq!(Frame::decode(&[200, 1, 2, 3]), Ok(None));
        assert_eq!(Frame::decode(&[]), Ok(None));
        assert!(Frame::decode(&[Kind::Pong as u8, 0]).is_err());
        assert!(Frame::decode(&[Kind::Pull as u8, 1, 1]).is_err());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(kind in 0..17u8, mut body in prop::collection::vec(any::<u8>(), 0..200)) {
            body.insert(0, kind);
            let _ = Frame::decode(&body);
            let _ = Hello::decode(&body);
        }
    }
}
