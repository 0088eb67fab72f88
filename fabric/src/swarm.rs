//! Peers, messages, members, announcements and small replicated records, over libp2p.
//!
//! A node that is given the address of any other node joins the fabric: it learns the rest, stays connected to about
//! 32 of them (up to 33 nodes: to all), and notices within a few seconds when one dies without a word. It trusts none of them:
//! objects are checked by hash, members' statements by signature, and whoever breaks the protocol is dropped.
//!
//! [`Swarm::start`] gives a [`SwarmHandle`], by which all else is asked for, and a channel of [`SwarmEvent`]s, **which
//! must be read promptly**: behind it everything waits, and a node that does not read for seconds loses its peers.
//!
//! | part | owns |
//! |---|---|
//! | `protocol`, `member`, `announce`, `frame`, `gossip` | words on the wire and their checks |
//! | `members`, `dial`, `watch`, `records`, `outbox`, `pace` | cores: state machines without I/O, clock or chance |
//! | `admission` | who takes part in a private fabric |
//! | `behaviour`, `streams`, `address` | the libp2p swarm, streams over it, its addresses |
//! | `session`, `objects`, `bulk` | the task of one peer's channel; one request for an object, for a run |
//! | `driver` | the one task that owns the swarm and the cores |
//! | `handle`, `bulk_source` | the outside |
//!
//! # Tasks and channels
//! The driver task owns everything; it spawns one task per session (at most one per connection), and one per request
//! served (at most `objects::MAX_REQUESTS`). Commands, frames and events travel over bounded channels. When
//! the given token is cancelled the driver says goodbye to all peers, waits at most a second for them to take it, aborts what is
//! left and ends; [`SwarmHandle::stopped`] returns after the last task has.
//!
//! # Cost
//! Measured with fifty nodes at rest, 38 neighbours each (`tests/swarm_rest.rs`): 1.75 kB/s per node, both directions and
//! all headers counted; 5 MiB resident each in a development build.
//!
//! It never owns: blobs, chunks, who fetches what from whom (the exchange does), the meaning of records.

mod address;
mod admission;
mod announce;
mod behaviour;
mod bulk;
mod bulk_source;
mod dial;
mod driver;
mod elsewhere;
mod frame;
mod gossip;
mod handle;
#[cfg(test)]
mod hostile_tests;
mod key;
mod member;
mod members;
mod objects;
mod outbox;
mod pace;
mod protocol;
mod records;
mod session;
mod streams;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use admission::{
    AdmissionEvent, AdmitError, BulkAccess, BulkToken, MAX_MEMBERSHIPS, NotAToken, Private, Refusal, Waiting,
};
pub use announce::{AnnounceError, AnnouncedKind, Announcement, MAX_ANNOUNCED_NAME, MAX_HEADS};
pub use behaviour::BuildError;
pub use bulk::{BulkReader, MAX_BULK, NotHeld};
pub use bulk_source::BulkSource;
pub use handle::{PeerInfo, SendError, SwarmHandle};
pub use key::{KeyError, MalformedKey, NodeKey, NodePublicKey};
pub use member::{MAX_NAME, MAX_RACK, MAX_VERSION, MemberError, MemberInfo};
pub use objects::{MAX_OBJECT, ObjectError, ObjectSource};
pub use protocol::{FabricTag, ProtocolRange};
pub use records::{MAX_AGE, MAX_KEY, MAX_RECORDS, MAX_VALUE, NewRecord, Record, RecordError};

use crate::exchange::message::Message;
use crate::id::NodeId;

/// Events that may wait for the user before everything waits: some seconds of a busy fabric.
const EVENTS: usize = 1024;

/// What a swarm is made of.
pub struct SwarmConfig {
    /// The node's key.
    pub key: NodeKey,
    /// Which fabric; see [`FabricTag::of`].
    pub fabric: FabricTag,
    /// Where to listen; port 0 for any.
    pub listen: Vec<SocketAddr>,
    /// Peers to dial first, whoever they are.
    pub first_peers: Vec<SocketAddr>,
    /// Whether to find peers by mDNS: eagerly while alone, seldom otherwise. Needs IPv4.
    pub mdns: bool,
    /// What to say about this node. `node` and `protocols` are filled in, and `swarm_port` if it is 0.
    pub me: MemberInfo,
    /// The objects to answer peers with.
    pub objects: Arc<dyn ObjectSource>,
    /// Ends the swarm.
    pub shutdown: CancellationToken,
}

/// Why a peer is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incompatibility {
    /// It belongs to another fabric.
    OtherFabric(FabricTag),
    /// It belongs to this fabric but speaks other versions of the protocol.
    OtherProtocol(ProtocolRange),
}

/// What happens in the swarm.
#[derive(Debug, Clone, PartialEq)]
pub enum SwarmEvent {
    /// A peer greeted us. Comes before anything else of that peer.
    PeerUp(NodeId, MemberInfo, SocketAddr),
    /// The peer is gone: nothing more comes from it, and what was said may be lost.
    PeerDown(NodeId),
    /// A message of the exchange from a peer, in the order in which it sent them (merged where it was slower than they
    /// came).
    Exchange(NodeId, Message),
    /// Records that were not known.
    Records(Vec<Record>),
    /// The live view, this node included, sorted by node.
    Members(Arc<[MemberInfo]>),
    /// A peer says that a signed object is the newest; not checked in any way.
    Announced {
        /// Who said it; it may not hold the object yet.
        from: NodeId,
        /// What it said.
        announcement: Announcement,
    },
    /// Something about who takes part in a private fabric.
    Admission(AdmissionEvent),
    /// A node of another fabric or version was met. Told at most once in ten minutes for each.
    Incompatible {
        /// The node.
        peer: NodeId,
        /// Where.
        address: SocketAddr,
        /// In what it differs.
        why: Incompatibility,
    },
}

/// Why the swarm does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A library refuses its settings.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The address cannot be listened on.
    #[error("cannot listen for peers on {address}; is another program using the port?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// No address to listen on, or none came up.
    #[error("there is no address to listen on")]
    NoAddress,
    /// The node's description of itself is refused.
    #[error("this node cannot describe itself so")]
    Me(#[from] MemberError),
    /// Too many first peers.
    #[error("{given} first peers are given, {max} are the most")]
    FirstPeers {
        /// How many.
        given: usize,
        /// The most.
        max: usize,
    },
}

/// Starts swarms.
#[derive(Debug)]
pub struct Swarm;

impl Swarm {
    /// Starts a swarm; it listens when this returns.
    ///
    /// # Errors
    /// [`StartError`] if the node cannot listen or the configuration is refused.
    pub async fn start(config: SwarmConfig) -> Result<(SwarmHandle, mpsc::Receiver<SwarmEvent>), StartError> {
        driver::start(config, None).await
    }

    /// Starts the swarm of a private fabric: only members become peers.
    ///
    /// # Errors
    /// [`StartError`] if the node cannot listen or the configuration is refused.
    pub async fn start_private(
        config: SwarmConfig,
        private: Private,
    ) -> Result<(SwarmHandle, mpsc::Receiver<SwarmEvent>), StartError> {
        driver::start(config, Some(private)).await
    }
}
