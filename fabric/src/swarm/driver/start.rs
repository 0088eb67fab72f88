//! Building a driver: listen, know the ports, spawn.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::swarm::SwarmEvent as Libp2pEvent;
use libp2p::{Multiaddr, TransportError};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::bans::Bans;
use super::{Driver, FRAMES, Me};
use crate::swarm::address::{multiaddr, socket_addr};
use crate::swarm::admission::waiting::Newcomer;
use crate::swarm::admission::{Gate, Private};
use crate::swarm::announce::Heads;
use crate::swarm::behaviour::{self, BuildError};
use crate::swarm::bulk::MAX_SERVING_BULK;
use crate::swarm::dial::{DialPolicy, MAX_FIRST_PEERS, Source, TARGET_DEGREE};
use crate::swarm::gossip;
use crate::swarm::handle::{COMMANDS, Shared, SwarmHandle};
use crate::swarm::member::{SignedMember, Statement};
use crate::swarm::members::{Members, refresh_after};
use crate::swarm::objects::{MAX_FETCHING, MAX_SERVING};
use crate::swarm::protocol::{Names, ProtocolRange};
use crate::swarm::records::replicate::Replica;
use crate::swarm::records::table::Table;
use crate::swarm::watch::Watch;
use crate::swarm::{EVENTS, StartError, SwarmConfig, SwarmEvent};

/// An address to listen on comes up at once, unless there is none.
const LISTENING: Duration = Duration::from_secs(5);

pub(in crate::swarm) async fn start(
    config: SwarmConfig,
    private: Option<Private>,
) -> Result<(SwarmHandle, mpsc::Receiver<SwarmEvent>), StartError> {
    let SwarmConfig { key, fabric: tag, listen, first_peers, mdns, mut me, objects, shutdown } = config;
    if first_peers.len() > MAX_FIRST_PEERS {
        return Err(StartError::FirstPeers { given: first_peers.len(), max: MAX_FIRST_PEERS });
    }
    let node = key.node_id();
    let names = Names::new(tag).map_err(|error| BuildError::Setup(error.to_string()))?;
    let newcomer = Newcomer { name: me.name.clone(), mac: me.mac, swarm_port: me.swarm_port };
    let gate = private.map(|private| Gate::new(node, newcomer, private));
    let mut swarm = behaviour::build(&key, &names, gate.clone())?;
    let (listening, listeners) = listen_on(&mut swarm, &listen).await?;

    me.node = node;
    me.protocols = ProtocolRange::OURS;
    if me.swarm_port == 0 {
        me.swarm_port = listening.first().map_or(0, SocketAddr::port);
    }
    if let Some(gate) = &gate {
        gate.listens_on(me.swarm_port);
    }
    let signed = SignedMember::sign(&key, tag, &me, Statement(0))?;

    let now = Instant::now();
    let mut dial = DialPolicy::new(node, TARGET_DEGREE);
    for peer in first_peers {
        dial.learn(peer, Source::First, now);
    }
    let tasks = TaskTracker::new();
    let shared = Arc::new(Shared {
        node,
        peers: std::sync::RwLock::default(),
        members: watch::Sender::new([me.clone()].into()),
        listening,
        objects,
        bulk: std::sync::OnceLock::new(),
        gate: gate.clone(),
        fetching: Semaphore::new(MAX_FETCHING),
        tasks: tasks.clone(),
    });
    let (command_sender, commands) = mpsc::channel(COMMANDS);
    let (to_driver, frames) = mpsc::channel(FRAMES);
    let (events, event_receiver) = mpsc::channel(EVENTS);
    let driver = Driver {
        topic: gossip::topic(&names),
        swarm,
        key,
        tag,
        names,
        me: Me { info: me, statement: Statement(0), signed },
        shared: shared.clone(),
        commands,
        frames,
        to_driver,
        events,
        backlog: VecDeque::new(),
        shutdown,
        gate,
        connections: HashMap::new(),
        dials: HashMap::new(),
        sessions: HashMap::new(),
        peers: HashMap::new(),
        session_tasks: JoinSet::new(),
        serving_tasks: JoinSet::new(),
        serving: Arc::new(Semaphore::new(MAX_SERVING)),
        elsewhere: Arc::default(),
        serving_bulk: Arc::new(Semaphore::new(MAX_SERVING_BULK)),
        next_session: 0,
        members: Members::new(node),
        dial,
        watch: Watch::new(node),
        replica: Replica::new(Table::default()),
        heads: Heads::default(),
        bans: Bans::default(),
        met: Bans::default(),
        unpublished: Vec::new(),
        publish_at: None,
        restate_at: now + refresh_after(1),
        expire_at: now,
        neighbours_at: None,
        listeners,
        mdns: None,
        mdns_wanted: mdns,
        mdns_at: mdns.then_some(now),
    };
    tasks.spawn(driver.run());
    tasks.close();
    Ok((SwarmHandle { commands: command_sender, shared }, event_receiver))
}

type Listeners = Vec<(libp2p::core::transport::ListenerId, Multiaddr)>;

/// Listens, and waits until the ports are known.
async fn listen_on(
    swarm: &mut libp2p::Swarm<behaviour::Behaviour>,
    addresses: &[SocketAddr],
) -> Result<(Vec<SocketAddr>, Listeners), StartError> {
    let mut waiting = HashMap::new();
    let mut listening = Vec::new();
    for &address in addresses {
        let id = swarm.listen_on(multiaddr(address)).map_err(|error| StartError::Listen {
            address,
            source: match error {
                TransportError::Other(source) => source,
                TransportError::MultiaddrNotSupported(_) => io::ErrorKind::Unsupported.into(),
            },
        })?;
        if address.port() == 0 {
            waiting.insert(id, address);
        } else {
            listening.push(address);
        }
    }
    let mut listeners = Vec::new();
    let deadline = tokio::time::sleep(LISTENING);
    tokio::pin!(deadline);
    while !waiting.is_empty() {
        let event = tokio::select! {
            event = swarm.select_next_some() => event,
            () = &mut deadline => return Err(StartError::NoAddress),
        };
        if let Libp2pEvent::NewListenAddr { listener_id, address } = event {
            if let (Some(wanted), Some(got)) = (waiting.remove(&listener_id), socket_addr(&address)) {
                listening.push((wanted.ip(), got.port()).into());
            }
            listeners.push((listener_id, address));
        }
    }
    if listening.is_empty() { Err(StartError::NoAddress) } else { Ok((listening, listeners)) }
}
