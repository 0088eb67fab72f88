//! The driver: the one task that owns the libp2p swarm and the cores.
//!
//! It waits for whichever comes first: a libp2p event, a command, a frame from a session, the end of a session or of a
//! serving task, room in the channel of events, a deadline of a core, shutdown. Each is handled without waiting. While
//! [`EVENTS`](super::EVENTS) events wait for the user it takes no frames, so sessions wait, so peers wait. Every branch
//! is safe to cancel: `recv`, `join_next`, `reserve`, `woken` and `select_next_some` lose nothing.
//!
//! Its parts: [`connections`] (libp2p events), [`peers`] (who is a peer; frames), [`admitting`], [`gossiping`], [`commands`], [`timers`].

mod admitting;
mod bans;
mod commands;
mod connections;
mod gossiping;
mod peers;
mod start;
mod timers;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::gossipsub::IdentTopic;
use libp2p::swarm::ConnectionId;
use libp2p::{Multiaddr, PeerId};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::admission::Gate;
use super::announce::Heads;
use super::behaviour::{Behaviour, MdnsMode};
use super::dial::DialPolicy;
use super::elsewhere::Elsewhere;
use super::frame::{Frame, Goodbye};
use super::gossip::Gossip;
use super::handle::{Command, Shared};
use super::key::NodeKey;
use super::member::{MemberInfo, SignedMember, Statement};
use super::members::Members;
use super::pace::Pace;
use super::protocol::{FabricTag, Names};
use super::records::replicate::Replica;
use super::session::{Ended, FromSession, Link, SessionId};
use super::watch::Watch;
use super::{EVENTS, SwarmEvent};
use crate::id::NodeId;
use admitting::woken;
use bans::Bans;
pub(super) use start::start;

/// Peers accepted; the next is told of others and sent away. Twice the target, because others choose us too.
const MAX_PEERS: usize = 64;
/// Frames that may wait for the driver.
const FRAMES: usize = 256;
/// What peers have to take our goodbye.
const FAREWELL: Duration = Duration::from_secs(1);

/// A libp2p connection.
struct Connection {
    peer: PeerId,
    node: NodeId,
    remote: SocketAddr,
    dialled: Option<SocketAddr>,
    session: Option<SessionId>,
    greet_by: Instant,
}

/// A session of any state.
struct SessionState {
    node: NodeId,
    connection: ConnectionId,
    /// What our greeting says of us.
    said: Statement,
    link: Arc<Link>,
}

/// A greeted peer.
struct Peer {
    session: SessionId,
    connection: ConnectionId,
    link: Arc<Link>,
    since: Instant,
    dialled_by_us: bool,
    gossip_pace: Pace,
}

/// What this node says about itself, and how often it has.
struct Me {
    info: MemberInfo,
    statement: Statement,
    signed: SignedMember,
}

struct Driver {
    swarm: libp2p::Swarm<Behaviour>,
    key: NodeKey,
    tag: FabricTag,
    names: Names,
    topic: IdentTopic,
    me: Me,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    frames: mpsc::Receiver<(SessionId, FromSession)>,
    to_driver: mpsc::Sender<(SessionId, FromSession)>,
    events: mpsc::Sender<SwarmEvent>,
    backlog: VecDeque<SwarmEvent>,
    shutdown: CancellationToken,
    /// Of a private fabric.
    gate: Option<Arc<Gate>>,

    connections: HashMap<ConnectionId, Connection>,
    dials: HashMap<ConnectionId, SocketAddr>,
    sessions: HashMap<SessionId, SessionState>,
    peers: HashMap<NodeId, Peer>,
    session_tasks: JoinSet<(SessionId, Ended)>,
    serving_tasks: JoinSet<()>,
    serving: Arc<Semaphore>,
    elsewhere: Arc<Elsewhere>,
    serving_bulk: Arc<Semaphore>,
    next_session: u64,

    members: Members,
    dial: DialPolicy,
    watch: Watch,
    replica: Replica,
    heads: Heads,
    bans: Bans,
    met: Bans,

    unpublished: Vec<Gossip>,
    publish_at: Option<Instant>,
    restate_at: Instant,
    expire_at: Instant,
    neighbours_at: Option<Instant>,
    listeners: Vec<(ListenerId, Multiaddr)>,
    mdns: Option<MdnsMode>,
    mdns_wanted: bool,
    mdns_at: Option<Instant>,
}

impl Driver {
    async fn run(mut self) {
        let events = self.events.clone();
        let mut deadline = tokio::time::Instant::now();
        // What only passes through, words of the exchange, makes nothing due: they are most of what comes in a crowd.
        let mut passing = false;
        loop {
            if !std::mem::take(&mut passing) {
                self.act(Instant::now());
                deadline = tokio::time::Instant::from_std(self.next_deadline(Instant::now()));
            }
            let room = self.backlog.len() < EVENTS;
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                event = self.swarm.select_next_some() => self.on_swarm_event(event, Instant::now()),
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command, Instant::now()),
                    None => break,
                },
                Some((session, what)) = self.frames.recv(), if room => {
                    passing = what.passes_through();
                    self.on_session(session, what, Instant::now());
                }
                Some(ended) = self.session_tasks.join_next(), if !self.session_tasks.is_empty() => {
                    if let Ok((session, why)) = ended {
                        self.on_session_end(session, &why, Instant::now());
                    }
                }
                Some(_) = self.serving_tasks.join_next(), if !self.serving_tasks.is_empty() => {}
                () = woken(&self.gate) => self.on_gate(None, Instant::now()),
                permit = events.reserve(), if !self.backlog.is_empty() => match permit {
                    Ok(permit) => {
                        passing = true;
                        if let Some(event) = self.backlog.pop_front() {
                            permit.send(event);
                        }
                    }
                    Err(_) => break,
                },
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
        self.farewell().await;
    }

    /// Says goodbye to all peers and waits for them to take it, but not long.
    async fn farewell(mut self) {
        self.frames.close();
        if let Ok(goodbye) = Frame::Goodbye(Goodbye::Leaving).encode() {
            for session in self.sessions.values() {
                let _ = session.link.send_frame(goodbye.clone());
                session.link.finish();
            }
        }
        let deadline = tokio::time::sleep(FAREWELL);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                ended = self.session_tasks.join_next() => if ended.is_none() { break },
                _ = self.swarm.select_next_some() => {}
                () = &mut deadline => break,
            }
        }
        self.session_tasks.shutdown().await;
        self.serving_tasks.shutdown().await;
        self.shared.peers.write().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
        self.shared.fetching.close();
    }

    /// Queues an event for the user; joins it with the last one where that loses nothing.
    fn emit(&mut self, event: SwarmEvent) {
        match (self.backlog.back_mut(), event) {
            (Some(SwarmEvent::Members(last)), SwarmEvent::Members(next)) => *last = next,
            (Some(SwarmEvent::Records(last)), SwarmEvent::Records(mut more)) => last.append(&mut more),
            (_, event) => self.backlog.push_back(event),
        }
    }

    /// Sends a frame to a peer; one that is too slow is being dropped by its link.
    fn send(&self, to: NodeId, frame: &Frame) {
        if let Some(peer) = self.peers.get(&to) {
            match frame.encode() {
                Ok(bytes) => drop(peer.link.send_frame(bytes)),
                Err(error) => tracing::warn!(%error, "a frame cannot be sent"),
            }
        }
    }

    /// Sends one frame to many peers, encoding it once.
    fn send_all<'a>(&self, to: impl IntoIterator<Item = &'a NodeId>, frame: &Frame) {
        match frame.encode() {
            Ok(bytes) => {
                for peer in to.into_iter().filter_map(|node| self.peers.get(node)) {
                    let _ = peer.link.send_frame(bytes.clone());
                }
            }
            Err(error) => tracing::warn!(%error, "a frame cannot be sent"),
        }
    }
}
