//! This node in a private fabric: its admission, what it gives to members alone, what it tells of the gate.
//!
//! Blobs go to members over TLS, on a listener of their own beside the public one: firmware, which shows no token, must be
//! booted all the same. The node's own membership is signed at its start if an operator's key lies beside it.
//!
//! Task: one writes memberships to the store when they changed. Nothing is lost when it is aborted: members tell
//! each other again.

use std::net::SocketAddrV4;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use fabric::id::NodeId;
use fabric::store::Store;
use fabric::swarm::{AdmissionEvent, Private, Swarm, SwarmConfig, SwarmEvent, SwarmHandle, Waiting};
use fabric::tls::TlsServer;
use fabric::trust::{Operator, TrustRoot};
use pxe::files::{BootFiles, FileError, FileRequest, ServedFile};
use pxe::http::{ByteStream, HttpServer, Wrapper};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::config::NodeConfig;
use super::control::SocketRole;
use super::files::blob_for_peer;
use super::join::Join;
use super::not_admitted::NotAdmitted;
use super::services::{self, Sockets};
use crate::event::{Event, Events};
use crate::members::{self, Book, plain_name};

/// Port of the bulk service for members: the one after the swarm's.
fn bulk_port(swarm_port: u16) -> u16 {
    swarm_port.saturating_add(1)
}

/// Makes this node a member if it is none, as `operator`.
pub(super) fn admit_self(store: &Store, operator: &Operator, name: &str, node: NodeId) -> anyhow::Result<()> {
    let mut book = Book::stored(store, operator.trust_root())?;
    if book.admits(node) {
        return Ok(());
    }
    let name = plain_name(name, node);
    if let Some(other) = book.holder(&name) {
        tracing::warn!(name, %other, "this node takes its name from another key: names of running machines must differ");
    }
    let membership = book.sign(operator, &name, Some(node))?;
    book.add(&membership)?;
    members::keep(store, &book.statements())
}

/// A swarm of members with its bulk service.
pub(super) struct Started {
    pub(super) swarm: SwarmHandle,
    pub(super) events: mpsc::Receiver<SwarmEvent>,
    pub(super) bulk: HttpServer,
}

/// Starts the swarm of a private fabric, and the bulk service at the address where it listens.
pub(super) async fn start(
    swarm: SwarmConfig,
    node: &NodeConfig,
    store: &Store,
    sockets: &mut Sockets,
    bounds: &services::Bounds,
    events: &Events,
    stop: CancellationToken,
) -> anyhow::Result<Started> {
    let port = bulk_port(swarm.me.swarm_port);
    let at = SocketAddrV4::new(swarm.me.address, port);
    let memberships = Book::stored(store, node.trust_root)?.statements();
    let private = Private { trust_root: node.trust_root, memberships, bulk_port: port };
    let wrapper = OverTls(TlsServer::new(&swarm.key)?);
    let (swarm, swarm_events) = Swarm::start_private(swarm, private).await?;
    let files = Arc::new(MemberFiles { store: store.clone(), swarm: swarm.clone() });
    let service = services::Http { role: SocketRole::Bulk, at, files, wrapper: Some(Arc::new(wrapper)) };
    let bulk =
        service.start(sockets, bounds, events, stop).context("cannot start the members' bulk service")?;
    Ok(Started { swarm, events: swarm_events, bulk })
}

/// TLS between TCP and HTTP.
struct OverTls(TlsServer);

#[async_trait]
impl Wrapper for OverTls {
    async fn wrap(&self, stream: TcpStream) -> std::io::Result<Box<dyn ByteStream>> {
        Ok(Box::new(self.0.accept(stream).await?))
    }
}

/// What only members are given.
struct MemberFiles {
    store: Store,
    swarm: SwarmHandle,
}

#[async_trait]
impl BootFiles for MemberFiles {
    async fn open(&self, request: &FileRequest) -> Result<ServedFile, FileError> {
        let token = request.bearer.as_ref().and_then(|bearer| bearer.reveal().parse().ok());
        if token.and_then(|token| self.swarm.holder_of(&token)).is_none() {
            return Err(FileError::Forbidden(
                "this is for members that show the token they were given".into(),
            ));
        }
        match request.name.split_once('/') {
            Some(("blob", id)) => blob_for_peer(&self.store, id),
            _ => Err(FileError::NotFound),
        }
    }
}

/// Writes memberships to the store when they changed.
pub(super) fn spawn_keeper(node: &Join) -> Arc<Notify> {
    let changed = Arc::new(Notify::new());
    let (wake, node) = (Arc::clone(&changed), node.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = wake.notified() => {}
                () = node.swarm.stopped() => return,
            }
            let (store, memberships) = (node.store.clone(), node.swarm.memberships());
            let kept = tokio::task::spawn_blocking(move || members::keep(&store, &memberships)).await;
            if let Ok(Err(error)) = kept {
                tracing::warn!("the memberships are not kept: {error:#}");
            }
        }
    });
    changed
}

/// Does what an event of the gate asks for.
pub(super) fn on_event(node: &Join, keeper: &Notify, event: AdmissionEvent) {
    match event {
        AdmissionEvent::Changed => {
            keeper.notify_one();
            if node.swarm.is_admitted() {
                node.view.set_refused(None);
            }
        }
        AdmissionEvent::Asked(waiting) => {
            let WaitingStatus { node: id, name, mac, address } = (&waiting).into();
            tracing::warn!(%id, name, %address, "a machine asks to be admitted: `bootfabric member ls` shows it");
            node.events.emit(Event::MemberWaiting {
                node: id.to_string(),
                name,
                mac,
                address: address.to_string(),
            });
        }
        AdmissionEvent::TurnedAway { why, .. } => {
            let refused = NotAdmitted { why, node: node.swarm.node() };
            // Several members say so, and go on saying it.
            if node.view.set_refused(Some(refused)) {
                tracing::warn!("{refused}; {}", refused.remedy());
                node.events
                    .emit(Event::NotAdmitted { node: refused.node.to_string(), reason: refused.to_string() });
            }
        }
    }
}

/// Who takes part in the fabric, as `bootfabric member ls` shows it. Field names are an interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Members {
    /// All names.
    pub(crate) members: Vec<MemberStatus>,
    /// The machines that ask to be admitted.
    pub(crate) waiting: Vec<WaitingStatus>,
    /// The signed statements, for the command that signs the next; none where people are shown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) statements: Vec<Vec<u8>>,
}

/// A name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MemberStatus {
    /// The name.
    pub(crate) name: String,
    /// The machine that has it; nobody if it was withdrawn.
    pub(crate) node: Option<NodeId>,
    /// How often the name was given or withdrawn.
    pub(crate) generation: u64,
    /// Who did it last.
    pub(crate) operator: String,
    /// Whether the machine is seen in the fabric.
    pub(crate) live: bool,
}

/// A machine that asks to be admitted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WaitingStatus {
    /// Its id, which names its key.
    pub(crate) node: NodeId,
    /// What it calls itself.
    pub(crate) name: String,
    /// The hardware address that it says it has; empty if it says none.
    pub(crate) mac: String,
    /// Where it is.
    pub(crate) address: std::net::IpAddr,
}

impl From<&Waiting> for WaitingStatus {
    fn from(waiting: &Waiting) -> Self {
        let mac = waiting.mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
        Self {
            node: waiting.node,
            name: waiting.name.clone(),
            mac: mac.unwrap_or_default(),
            address: waiting.address.ip(),
        }
    }
}

/// Who takes part, by what the swarm knows.
pub(super) fn members(swarm: &SwarmHandle, trust_root: TrustRoot) -> Members {
    let book = Book::of(trust_root, swarm.memberships());
    let live = swarm.members();
    let waiting = swarm.waiting();
    members_of(&book, |node| live.iter().any(|member| member.node == node), &waiting)
}

/// Who takes part, by what `book` says.
pub(crate) fn members_of(book: &Book, live: impl Fn(NodeId) -> bool, waiting: &[Waiting]) -> Members {
    let member = |entry: &members::Entry| MemberStatus {
        name: entry.membership.name.clone(),
        node: entry.membership.node,
        generation: entry.membership.generation,
        operator: entry.operator.clone(),
        live: entry.membership.node.is_some_and(&live),
    };
    Members {
        members: book.entries().map(member).collect(),
        waiting: waiting.iter().map(WaitingStatus::from).collect(),
        statements: book.statements().iter().map(|bytes| bytes.to_vec()).collect(),
    }
}

/// What came of a statement that an operator handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Taken {
    /// Why it was not taken.
    pub(crate) error: Option<String>,
}

/// Takes an operator's statement in and tells the fabric.
pub(super) async fn take(swarm: &SwarmHandle, statement: &[u8]) -> Taken {
    Taken { error: swarm.admit(statement).await.err().map(|error| error.to_string()) }
}
