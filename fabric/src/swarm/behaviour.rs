//! The libp2p swarm: its transport, its behaviours and their settings.
//!
//! TCP + Noise + Yamux, with [`admission`](super::admission) before Yamux in a private fabric; identify (tells fabrics and versions apart), gossipsub (members and announcements), mDNS, our own
//! streams, and limits on connections. No Kademlia: it connects everybody to everybody. No libp2p ping: see
//! [`watch`](super::watch), which costs less and notices sooner.

use std::sync::Arc;
use std::time::Duration;

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::upgrade::Version;
use libp2p::core::{ConnectedPoint, Transport};
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{self, NetworkBehaviour};
use libp2p::{PeerId, gossipsub, identify, mdns, noise, tcp, yamux};
use nix::sys::socket::{setsockopt, sockopt};

use super::address::socket_addr;
use super::admission::Gate;
use super::admission::upgrade::{self, Admission};
use super::gossip;
use super::key::NodeKey;
use super::protocol::Names;
use super::streams;

/// Established connections: two for each neighbour accepted (while both dial at once) and newcomers that are turned away.
const MAX_CONNECTIONS: u32 = 160;
/// Handshakes from outside under way at once: each costs some 3 ms of CPU.
const MAX_PENDING: u32 = 64;
/// Both sides may have dialled at the same moment, and a restarted node may return before its old connection is gone.
const MAX_PER_PEER: u32 = 3;
/// Streams on one connection: the channel, identify, gossip both ways, and requests.
const MAX_STREAMS: usize = 64;
/// Inbound streams under negotiation on one connection.
const MAX_NEGOTIATING: usize = 16;
/// A connection without streams is closed: the channel keeps that of a peer open.
const IDLE: Duration = Duration::from_secs(10);
/// Handshake of a connection, on a machine busy with booting.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The kernel gives up a connection whose bytes stay unacknowledged for so long (RFC 5482): a machine that lost power.
const USER_TIMEOUT: Duration = Duration::from_secs(6);
/// mDNS queries while alone; the answer to the first usually comes within 100 ms.
const MDNS_EAGER: Duration = Duration::from_secs(5);
/// mDNS queries otherwise: they find the other half after a split.
const MDNS_CALM: Duration = Duration::from_secs(300);

/// All behaviours of a node.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    identify: identify::Behaviour,
    pub(crate) gossip: gossipsub::Behaviour,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
    pub(crate) streams: streams::Behaviour,
}

/// Why the swarm cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A setting is refused by a library: an error in this program.
    #[error("cannot set up the swarm: {0}")]
    Setup(String),
    /// The Noise handshake cannot be prepared from the key.
    #[error("cannot set up Noise with the node's key")]
    Noise(#[from] noise::Error),
}

/// Builds the swarm; with a gate it is that of a private fabric.
pub(crate) fn build(
    key: &NodeKey,
    names: &Names,
    gate: Option<Arc<Gate>>,
) -> Result<swarm::Swarm<Behaviour>, BuildError> {
    let local = key.keypair().public().to_peer_id();
    let limits = ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING))
        .with_max_established(Some(MAX_CONNECTIONS))
        .with_max_established_per_peer(Some(MAX_PER_PEER));
    let identity = identify::Config::new(names.identity.clone(), key.keypair().public())
        .with_agent_version(concat!("bootfabric/", env!("CARGO_PKG_VERSION")).to_owned())
        .with_interval(Duration::from_secs(24 * 3600))
        .with_cache_size(0);
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        identify: identify::Behaviour::new(identity),
        gossip: gossip::behaviour(names).map_err(BuildError::Setup)?,
        mdns: Toggle::from(None),
        streams: streams::Behaviour::new([names.channel.clone(), names.object.clone(), names.bulk.clone()]),
    };
    let config = swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE)
        .with_max_negotiating_inbound_streams(MAX_NEGOTIATING);
    Ok(swarm::Swarm::new(transport(key, names, gate)?, behaviour, local, config))
}

fn transport(
    key: &NodeKey,
    names: &Names,
    gate: Option<Arc<Gate>>,
) -> Result<libp2p::core::transport::Boxed<(PeerId, StreamMuxerBox)>, BuildError> {
    let mut streams = yamux::Config::default();
    streams.set_max_num_streams(MAX_STREAMS);
    let authenticated = tcp::tokio::Transport::new(tcp::Config::new())
        .map(|stream, _| {
            let millis = u32::try_from(USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
            if let Err(error) = setsockopt(&stream.0, sockopt::TcpUserTimeout, &millis) {
                tracing::debug!(%error, "no TCP user timeout: a dead peer is noticed by silence alone");
            }
            stream
        })
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key.keypair())?);
    let Some(gate) = gate else {
        return Ok(authenticated.multiplex(streams).timeout(HANDSHAKE).boxed());
    };
    let protocol = names.admission.clone();
    let admission = move |peer: &PeerId, at: &ConnectedPoint| {
        let other = upgrade::other(peer, socket_addr(at.get_remote_address()));
        Admission { gate, protocol, streams, other }
    };
    Ok(authenticated.multiplex_ext(admission).timeout(HANDSHAKE).boxed())
}

/// How eagerly mDNS asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MdnsMode {
    /// No peers: ask every few seconds.
    Eager,
    /// Answer others, ask every few minutes.
    Calm,
}

pub(crate) fn mdns(mode: MdnsMode, local: PeerId) -> std::io::Result<mdns::tokio::Behaviour> {
    let query_interval = match mode {
        MdnsMode::Eager => MDNS_EAGER,
        MdnsMode::Calm => MDNS_CALM,
    };
    mdns::tokio::Behaviour::new(mdns::Config { ttl: MDNS_CALM, query_interval, enable_ipv6: false }, local)
}
