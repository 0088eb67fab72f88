//! What operators, tests and the status page see of DHCP.
//!
//! Names and fields are an interface: other programs read them.

use std::net::Ipv4Addr;

use serde::{Serialize, Serializer};

use super::class::ClientClass;
use super::lease::Holder;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// A client looks for servers and this node is the one to answer.
    Discover,
    /// This node offered an address.
    Offer,
    /// A client asks this node for an address.
    Request,
    /// This node gave the address.
    Ack,
    /// This node refused the address.
    Nak,
    /// A client found its address in use by somebody else.
    Decline,
    /// A client gave its address back.
    Release,
    /// A client with an address asked for options.
    Inform,
    /// This node offered a boot file next to another server's address.
    ProxyOffer,
    /// This node told a boot file on port 4011.
    ProxyAck,
    /// The client was left without an answer; the reason says why.
    Unanswered,
    /// Two holders of one address were found; this one has to move.
    Conflict,
    /// Another machine has a stronger claim to this node's own address: the node has to move.
    OwnAddressLost,
    /// A DHCP server that is no node of this fabric answers on the link.
    OtherServer,
    /// Another fabric is on the link.
    OtherFabric,
    /// Mode auto: a site's server was found, and from now on this node is a proxy.
    Yielded,
    /// Somebody unknown uses an address of the pool.
    Foreign,
}

/// One stage of one client's boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootEvent {
    /// What happened.
    pub stage: Stage,
    /// The client by hardware address.
    #[serde(serialize_with = "as_text")]
    pub client: Holder,
    /// Its kind, where a packet of it led to this event.
    pub class: Option<ClientClass>,
    /// The address that this is about.
    pub address: Option<Ipv4Addr>,
    /// The boot file that it was told.
    pub boot_file: Option<String>,
    /// Why, in words.
    pub reason: Option<String>,
}

fn as_text<S: Serializer>(holder: &Holder, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(holder)
}

impl BootEvent {
    /// An event without address, file and reason.
    #[must_use]
    pub fn new(stage: Stage, client: Holder) -> Self {
        Self { stage, client, class: None, address: None, boot_file: None, reason: None }
    }
}

/// How often things happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counters {
    /// DISCOVERs received.
    pub discovers: u64,
    /// REQUESTs received.
    pub requests: u64,
    /// DECLINEs received.
    pub declines: u64,
    /// RELEASEs received.
    pub releases: u64,
    /// INFORMs received.
    pub informs: u64,
    /// OFFERs sent, proxy offers included.
    pub offers: u64,
    /// ACKs sent, proxy ACKs included.
    pub acks: u64,
    /// NAKs sent.
    pub naks: u64,
    /// Answers given as a standby, the nodes before this one having been silent.
    pub standby_answers: u64,
    /// Packets that could not be read or were no DHCP.
    pub malformed: u64,
    /// Packets of clients that are left to another fabric.
    pub strangers: u64,
    /// Clients left without an answer although it was this node's turn.
    pub unanswered: u64,
    /// Offers taken back from one client for another because the pool was full.
    pub reclaimed_offers: u64,
    /// Addresses found with two holders.
    pub conflicts: u64,
    /// Lease records refused.
    pub refused_records: u64,
    /// Answers waiting for their turn that were dropped because too many waited.
    pub dropped_standbys: u64,
}
