//! The state of a node as `bootfabric status` shows it.

use std::net::Ipv4Addr;

use fabric::exchange::{BadChunk, Route, ShareReport};
use fabric::id::{Hash, NodeId, ObjectId};
use serde::{Deserialize, Serialize};

/// State of a node. Field names are an interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The node's id as the DHCP ranks use it and the swarm shows it.
    pub node: Hash,
    /// Its name.
    pub name: String,
    /// The interface of the boot link.
    pub interface: String,
    /// Its hardware address.
    pub mac: String,
    /// Its address.
    pub address: Option<Ipv4Addr>,
    /// Version of the program.
    pub version: String,
    /// Whether it boots others.
    pub serves_boot: bool,
    /// Whether only members take part in the fabric.
    #[serde(default)]
    pub private: bool,
    /// Why the private fabric turns this node away, and what to do; `None` if it does not.
    #[serde(default)]
    pub refused: Option<String>,
    /// The release it boots others with.
    pub release: Option<ReleaseStatus>,
    /// The nodes it sees.
    pub peers: Vec<PeerStatus>,
    /// The nodes that it does not ask for chunks any more, here or not.
    #[serde(default)]
    pub bans: Vec<BanStatus>,
    /// What its store holds.
    pub blobs: Vec<BlobStatus>,
    /// The leases it knows.
    pub leases: Vec<LeaseStatus>,
    /// The machines that boot or booted from it, the one heard of last first.
    #[serde(default)]
    pub boots: Vec<BootStatus>,
}

/// A machine that boots from this node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BootStatus {
    /// Its hardware address.
    pub mac: String,
    /// Its class, as DHCP tells it.
    pub class: String,
    /// Its address.
    pub address: Option<Ipv4Addr>,
    /// The last step it took: DHCP's message, or what the event `boot-stage` says.
    pub stage: String,
    /// Bytes of boot files sent to it.
    pub bytes: u64,
    /// Seconds from its first packet to its last step.
    pub seconds: u64,
    /// Seconds since its last step.
    pub idle_seconds: u64,
}

/// A release in short.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReleaseStatus {
    /// Object id of the signed release.
    pub id: ObjectId,
    /// Name of the image.
    pub name: String,
    /// Version of the image.
    pub version: String,
    /// Generation number.
    pub generation: u64,
}

/// A node that this one sees.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Whether there is a direct connection.
    pub connected: bool,
    /// Whether it boots others.
    pub serves_boot: bool,
    /// Verified bytes that came from it.
    pub fetched: u64,
    /// How its chunks come, while there is a connection: `http`, or `swarm` where its HTTP service cannot be reached.
    #[serde(default)]
    pub route: Option<Route>,
}

/// A node that is not asked for chunks any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BanStatus {
    /// Its id.
    pub node: NodeId,
    /// Its name, while it is there.
    pub name: Option<String>,
    /// What it did.
    pub why: String,
    /// What proves it, if it sent a chunk that is not what it should be.
    pub proof: Option<BadChunk>,
}

/// A blob of the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BlobStatus {
    /// What it is in the current release, else `other`.
    pub role: String,
    /// The blob's id.
    pub blob: Hash,
    /// Its size in bytes.
    pub size: u64,
    /// Bytes of it that are held and verified.
    pub held: u64,
    /// The share that is kept of it, if not all of it is.
    #[serde(default)]
    pub share: Option<ShareStatus>,
}

/// The share of a blob that a node keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareStatus {
    /// How many nodes share the blob, as far as this one sees, itself included.
    pub sharers: u32,
    /// How many of them are to hold each chunk.
    pub copies: u8,
    /// Bytes that this node ought to hold and lacks.
    pub lacking: u64,
    /// Bytes of these for which it has no memory.
    pub no_room: u64,
}

impl From<ShareReport> for ShareStatus {
    fn from(report: ShareReport) -> Self {
        let ShareReport { sharers, copies, lacking, no_room, .. } = report;
        Self { sharers, copies, lacking, no_room }
    }
}

/// A lease.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// The address.
    pub address: Ipv4Addr,
    /// The client's hardware address.
    pub client: String,
    /// `offered`, `bound`, …
    pub state: String,
}

impl From<&pxe::dhcp::LeaseRecord> for LeaseStatus {
    fn from(lease: &pxe::dhcp::LeaseRecord) -> Self {
        Self {
            address: lease.address,
            client: lease.holder.to_string(),
            state: format!("{:?}", lease.state).to_lowercase(),
        }
    }
}
