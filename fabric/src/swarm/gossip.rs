//! What travels by gossip, and the settings of gossipsub.
//!
//! Members' statements are signed by the node they speak of; announcements point to signed objects. So gossipsub's own
//! signatures are off, and a message's id is the hash of its bytes: the same announcement by many nodes travels once.
//! Every message is decoded and checked before it is passed on.

use std::time::Duration;

use libp2p::gossipsub::{
    Behaviour, ConfigBuilder, IdentTopic, Message, MessageAuthenticity, MessageId, ValidationMode,
};
use serde::{Deserialize, Serialize};

use super::announce::Announcement;
use super::member::SignedMember;
use super::protocol::Names;
use crate::codec::{self, CodecError};
use crate::id::Hash;

/// Longest message: a member's statement is below 400 bytes.
const MAX_MESSAGE: usize = 2048;
/// Neighbours that get each message at once.
const MESH: usize = 6;
/// How long a message counts as seen: longer than it can travel, and short enough to keep little.
const SEEN: Duration = Duration::from_secs(120);
/// Mesh upkeep; messages do not wait for it.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Messages that may wait for one neighbour.
const QUEUE: usize = 256;

/// One gossip message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Gossip {
    /// A member restates itself.
    Member(SignedMember),
    /// A signed object is the newest of its kind.
    Announce(Announcement),
}

impl Gossip {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, CodecError> {
        codec::encode("gossip", self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("gossip", bytes)
    }
}

fn id(message: &Message) -> MessageId {
    MessageId::from(Hash::of(&message.data).as_bytes().get(..16).unwrap_or_default())
}

pub(crate) fn behaviour(names: &Names) -> Result<Behaviour, String> {
    let config = ConfigBuilder::default()
        .protocol_id_prefix(names.gossip.clone())
        .max_transmit_size(MAX_MESSAGE)
        .mesh_n(MESH)
        .mesh_n_low(MESH - 2)
        .mesh_n_high(MESH * 2)
        .gossip_lazy(2)
        .gossip_factor(0.1)
        .heartbeat_interval(HEARTBEAT)
        .heartbeat_initial_delay(Duration::from_millis(300))
        .duplicate_cache_time(SEEN)
        .connection_handler_queue_len(QUEUE)
        .flood_publish(true)
        .validate_messages()
        .validation_mode(ValidationMode::Anonymous)
        .message_id_fn(id)
        .build()
        .map_err(|error| error.to_string())?;
    let mut behaviour = Behaviour::new(MessageAuthenticity::Anonymous, config)?;
    behaviour.subscribe(&topic(names)).map_err(|error| error.to_string())?;
    Ok(behaviour)
}

pub(crate) fn topic(names: &Names) -> IdentTopic {
    IdentTopic::new(names.topic.clone())
}
