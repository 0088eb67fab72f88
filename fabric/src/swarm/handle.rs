//! The outside of the swarm.
//!
//! Cheap to clone. What can be answered from shared state is answered at once; the rest is a command to the driver over
//! a bounded channel.

use std::collections::{HashMap, HashSet, VecDeque};
use std::iter;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use super::admission::{AdmitError, BulkAccess, BulkToken, Gate, Waiting};
use super::announce::{AnnounceError, Announcement};
use super::bulk::BulkReader;
use super::member::{MemberError, MemberInfo};
use super::objects::{self, FetchError, ObjectError, ObjectSource};
use super::records::{NewRecord, Record, RecordError};
use super::session::Link;
use super::streams::Opened;
use crate::exchange::message::Message;
use crate::id::{NodeId, ObjectId};

/// Commands that may wait for the driver; their senders wait beyond.
pub(super) const COMMANDS: usize = 256;

/// A peer as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// What it says about itself.
    pub member: MemberInfo,
    /// The other end of the connection; the port is its listening port only if this node dialled.
    pub remote: SocketAddr,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The node is no peer (any more).
    #[error("not connected to that node")]
    NotConnected,
    /// The peer did not take what was sent before; its connection is being closed.
    #[error("the peer is too slow and is dropped")]
    TooSlow,
}

/// What a stream is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Object,
    Bulk,
}

/// What the driver is asked for.
pub(super) enum Command {
    Open {
        to: NodeId,
        purpose: Purpose,
        reply: oneshot::Sender<Opened>,
    },
    UpdateMe {
        me: MemberInfo,
        reply: oneshot::Sender<Result<(), MemberError>>,
    },
    Announce {
        announcement: Announcement,
        reply: oneshot::Sender<Result<(), AnnounceError>>,
    },
    PutRecords {
        records: Vec<NewRecord>,
        reply: oneshot::Sender<Result<(), RecordError>>,
    },
    Topic {
        topic: u8,
        reply: oneshot::Sender<Vec<Record>>,
    },
    Dial(SocketAddr),
    Seek,
    Offence {
        node: NodeId,
        why: &'static str,
    },
    /// Memberships were learnt outside of the driver.
    Learnt(oneshot::Sender<()>),
}

/// A peer's entry in what driver and handles share.
#[derive(Debug, Clone)]
pub(super) struct Connected {
    pub(super) info: PeerInfo,
    pub(super) link: Arc<Link>,
}

/// What driver and handles share.
pub(super) struct Shared {
    pub(super) node: NodeId,
    pub(super) peers: RwLock<HashMap<NodeId, Connected>>,
    pub(super) members: watch::Sender<Arc<[MemberInfo]>>,
    pub(super) listening: Vec<SocketAddr>,
    pub(super) objects: Arc<dyn ObjectSource>,
    pub(super) bulk: OnceLock<Arc<dyn BulkReader>>,
    /// Of a private fabric.
    pub(super) gate: Option<Arc<Gate>>,
    pub(super) fetching: Semaphore,
    pub(super) tasks: TaskTracker,
}

/// Asks a running swarm.
#[derive(Clone)]
pub struct SwarmHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) shared: Arc<Shared>,
}

impl std::fmt::Debug for SwarmHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SwarmHandle").field("node", &self.shared.node).finish_non_exhaustive()
    }
}

impl SwarmHandle {
    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.shared.node
    }

    /// Where the swarm listens, with the ports it got.
    #[must_use]
    pub fn listening(&self) -> &[SocketAddr] {
        &self.shared.listening
    }

    /// Sends a message of the exchange to a peer. Never waits: messages queue for each peer, runs about one blob are
    /// merged while they wait, and a peer for which 4 MiB wait even so is dropped (and greets us anew).
    ///
    /// # Errors
    /// [`SendError`] if the node is no peer or too slow; its `PeerDown` comes or has come.
    pub fn send(&self, to: NodeId, message: Message) -> Result<(), SendError> {
        let link = self.link(to).ok_or(SendError::NotConnected)?;
        link.send_exchange(message).map_err(|_| SendError::TooSlow)
    }

    /// The peers now.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerInfo> {
        let peers = self.shared.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.values().map(|peer| peer.info.clone()).collect()
    }

    /// The live members now, this node included, sorted by node.
    #[must_use]
    pub fn members(&self) -> Arc<[MemberInfo]> {
        self.shared.members.borrow().clone()
    }

    /// The live members as they change.
    #[must_use]
    pub fn watch_members(&self) -> watch::Receiver<Arc<[MemberInfo]>> {
        self.shared.members.subscribe()
    }

    /// The object with this hash: this node's own, or a peer's, verified; `from` is asked first, then the others.
    ///
    /// # Errors
    /// [`ObjectError`] if nobody gives it. Worth trying again when there are new peers.
    pub async fn object(&self, id: ObjectId, from: Option<NodeId>) -> Result<Bytes, ObjectError> {
        let source = self.shared.objects.clone();
        let own = tokio::task::spawn_blocking(move || source.object(&id)).await;
        if let Ok(Some(object)) = own {
            return Ok(object);
        }
        let _permit = self.shared.fetching.acquire().await.map_err(|_| ObjectError::Closed)?;
        let mut order = objects::ask_order(self.shared.node, &id, from, self.nodes());
        if order.is_empty() {
            return Err(ObjectError::NoPeers(id));
        }
        let mut asked: HashSet<NodeId> = HashSet::new();
        for pause in iter::once(None).chain(objects::PAUSES.map(Some)) {
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            let mut again = VecDeque::new();
            while let Some(node) = order.pop_front() {
                asked.insert(node);
                match self.object_from(node, &id).await? {
                    Ok(object) => return Ok(object),
                    Err(error) => {
                        tracing::debug!(?node, %id, %error, "a peer did not give an object");
                        if error.may_pass() {
                            again.push_back(node);
                        }
                        if error.is_offence() {
                            let why = "it answered falsely when asked for an object";
                            let _ = self.commands.send(Command::Offence { node, why }).await;
                        }
                        if let FetchError::Elsewhere(nodes) = error {
                            let peers = self.nodes();
                            let known = nodes.into_iter().filter(|node| peers.contains(node));
                            for node in known.filter(|node| !again.contains(node)).collect::<Vec<_>>() {
                                order.retain(|other| *other != node);
                                order.push_front(node);
                            }
                        }
                    }
                }
            }
            order = again;
            if order.is_empty() {
                break;
            }
        }
        let asked = asked.len();
        Err(ObjectError::NotFound { id, asked })
    }

    /// Changes what this node says about itself; peers hear of it at once.
    ///
    /// # Errors
    /// [`MemberError`] if a text is too long.
    pub async fn update_me(&self, me: MemberInfo) -> Result<(), MemberError> {
        // A swarm that has shut down has nobody to tell.
        self.ask(|reply| Command::UpdateMe { me, reply }).await.unwrap_or(Ok(()))
    }

    /// Tells the fabric, now and every new peer, that a signed object is the newest of its kind and name. Announce only
    /// what was verified. Announcing the same again costs nothing.
    ///
    /// # Errors
    /// [`AnnounceError`] if a newer one was announced, or there are too many.
    pub async fn announce(&self, announcement: Announcement) -> Result<(), AnnounceError> {
        self.ask(|reply| Command::Announce { announcement, reply })
            .await
            .unwrap_or(Err(AnnounceError::Closed))
    }

    /// Replicates a record in this node's name. Returns when it is in this node's table; it leaves within milliseconds.
    ///
    /// # Errors
    /// [`RecordError`] if it is too long, superseded, or the table is full.
    pub async fn put_record(
        &self,
        topic: u8,
        key: Vec<u8>,
        counter: u64,
        value: Vec<u8>,
    ) -> Result<(), RecordError> {
        self.put_records(vec![NewRecord { topic, key, counter, value }]).await
    }

    /// The same for many at once, which costs little more than one.
    ///
    /// # Errors
    /// The first [`RecordError`]; the other records are replicated all the same.
    pub async fn put_records(&self, records: Vec<NewRecord>) -> Result<(), RecordError> {
        self.ask(|reply| Command::PutRecords { records, reply }).await.unwrap_or(Err(RecordError::Closed))
    }

    /// All records of a topic that this node knows.
    pub async fn records(&self, topic: u8) -> Vec<Record> {
        self.ask(|reply| Command::Topic { topic, reply }).await.unwrap_or_default()
    }

    /// Adds a first peer.
    pub async fn dial(&self, address: SocketAddr) {
        let _ = self.commands.send(Command::Dial(address)).await;
    }

    /// The peers do not hold what this node needs: some more of the members are dialled, beyond the number that is wanted
    /// otherwise.
    pub async fn more_peers(&self) {
        let _ = self.commands.send(Command::Seek).await;
    }

    /// From now on answers peers that ask for runs of blobs over the swarm. Only the first reader counts.
    pub fn serve_bulk(&self, reader: Arc<dyn BulkReader>) {
        if self.shared.bulk.set(reader).is_err() {
            tracing::debug!("runs are served already");
        }
    }

    /// Takes a signed membership in; when this returns the peers are being told. True if it was news.
    ///
    /// # Errors
    /// [`AdmitError`] if it does not hold, is older than what is known, or the fabric is not private.
    pub async fn admit(&self, membership: &[u8]) -> Result<bool, AdmitError> {
        let gate = self.shared.gate.as_ref().ok_or(AdmitError::NotPrivate)?;
        let news = gate.learn(membership)?;
        self.ask(Command::Learnt).await.ok_or(AdmitError::Closed)?;
        Ok(news)
    }

    /// All signed memberships that are known, by name; none in an open fabric.
    #[must_use]
    pub fn memberships(&self) -> Vec<Bytes> {
        self.shared.gate.as_ref().map(|gate| gate.memberships()).unwrap_or_default()
    }

    /// The machines that asked to be admitted and still do, by name.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        self.shared.gate.as_ref().map(|gate| gate.waiting(Instant::now())).unwrap_or_default()
    }

    /// Whether this node may take part, as far as it knows: always in an open fabric.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        self.shared.gate.as_ref().is_none_or(|gate| gate.admits(self.shared.node))
    }

    /// Whether only members take part.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.shared.gate.is_some()
    }

    /// How to ask a peer for blobs over TLS; `None` in an open fabric, and for who is no peer or has no such service.
    #[must_use]
    pub fn bulk_access(&self, peer: NodeId) -> Option<BulkAccess> {
        self.shared.gate.as_ref()?.access(peer)
    }

    /// The peer to whom this node gave `token`, as long as it is one. Takes the same time for every token.
    #[must_use]
    pub fn holder_of(&self, token: &BulkToken) -> Option<NodeId> {
        self.shared.gate.as_ref()?.holder(token)
    }

    /// Returns when the swarm has shut down and its last task has ended.
    pub async fn stopped(&self) {
        self.shared.tasks.wait().await;
    }

    /// Opens a stream to a peer; `None` if it is none.
    pub(super) async fn open(&self, to: NodeId, purpose: Purpose) -> Option<Opened> {
        self.ask(|reply| Command::Open { to, purpose, reply }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    async fn object_from(&self, to: NodeId, id: &ObjectId) -> Result<Result<Bytes, FetchError>, ObjectError> {
        let broken = || FetchError::Io(std::io::ErrorKind::NotConnected.into());
        let Some(opened) = self.open(to, Purpose::Object).await else {
            return if self.commands.is_closed() { Err(ObjectError::Closed) } else { Ok(Err(broken())) };
        };
        match tokio::time::timeout(objects::OPEN, opened).await {
            Ok(Ok(Ok(stream))) => Ok(objects::fetch(stream, id).await),
            Ok(_) => Ok(Err(broken())),
            Err(_) => Ok(Err(FetchError::Slow)),
        }
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.shared.peers.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    fn link(&self, to: NodeId) -> Option<Arc<Link>> {
        let peers = self.shared.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers.get(&to).map(|peer| peer.link.clone())
    }
}
