//! The running parts of a share: swarm, exchange and HTTP service over one store.
//!
//! # Tasks and the order of their end
//! One task carries the swarm's events to the exchange, one the exchange's messages to the swarm, one tells what happens;
//! they end with swarm and exchange. [`Station::stop`] takes leave of the peers, stops the exchange, and lets answers that
//! are under way finish, briefly. Dropping a station without it only loses the goodbyes.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use fabric::exchange::{Exchange, ExchangeConfig, ExchangeEvent, ExchangeHandle, Outgoing};
use fabric::id::ObjectId;
use fabric::store::Store;
use fabric::swarm::{
    FabricTag, MemberInfo, NodeKey, ObjectSource, Swarm, SwarmConfig, SwarmEvent, SwarmHandle,
};
use pxe::bind::{self, BindOptions};
use pxe::files::{BootFiles, FileError, FileRequest, ServedFile};
use pxe::http::{HttpConfig, HttpServer, UploadLimit};
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::address::ListenAt;
use crate::event::{Event, Events};
use crate::limits::Rate;
use crate::node::bulk::{StoredRuns, source_of};
use crate::node::files::blob_for_peer;
use crate::node::neighbours::{http_address, of_peer};

/// All shares speak under one tag: which blob is meant is in the ticket, and nobody looks for strangers.
const TAG: &[u8] = b"bootfabric share 1";
/// How long answers under way may go on at the end: a run takes a fraction of it on all but the slowest links, and whoever
/// loses one asks somebody else.
const DRAIN: Duration = Duration::from_millis(500);

/// What a station is made of.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Where to listen.
    pub(crate) listen: ListenAt,
    /// The address to tell others; unspecified to let them see it.
    pub(crate) own: Ipv4Addr,
    /// Whom to dial first.
    pub(crate) peers: Vec<SocketAddrV4>,
    /// The most that leaves for others.
    pub(crate) upload_limit: Option<Rate>,
    /// The rack that this machine stands in; empty if nobody said.
    pub(crate) rack: String,
}

/// A node of a share.
pub(crate) struct Station {
    pub(crate) swarm: SwarmHandle,
    pub(crate) exchange: ExchangeHandle,
    pub(crate) objects: Arc<Objects>,
    peers: watch::Receiver<usize>,
    http: HttpServer,
    stop_swarm: CancellationToken,
    stop_http: CancellationToken,
}

impl Station {
    /// Starts a station over `store`; it listens when this returns.
    pub(crate) async fn start(setup: &Setup, store: Store, events: &Events) -> anyhow::Result<Self> {
        let (stop_swarm, stop_http) = (CancellationToken::new(), CancellationToken::new());
        let listener = bind::tcp(setup.listen.http().into(), &BindOptions::default())?;
        let upload_limit = setup.upload_limit.map(|rate| Arc::new(UploadLimit::new(rate.bytes_per_second())));
        let config = HttpConfig { drain: DRAIN, upload_limit: upload_limit.clone(), ..HttpConfig::default() };
        let files = Arc::new(Blobs(store.clone()));
        let http = HttpServer::serve(listener, files, config, stop_http.clone())
            .context("cannot start the HTTP service")?;
        let objects = Arc::new(Objects::default());
        let name =
            nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let me = MemberInfo {
            http_port: http.local_addr().port(),
            rack: setup.rack.clone(),
            ..MemberInfo::new(name.chars().take(63).collect::<String>(), setup.own)
        };
        let swarm_config = SwarmConfig {
            key: NodeKey::generate(),
            fabric: FabricTag::of(TAG),
            listen: vec![setup.listen.swarm().into()],
            first_peers: setup.peers.iter().copied().map(Into::into).collect(),
            mdns: false,
            me,
            objects: Arc::clone(&objects) as Arc<dyn ObjectSource>,
            shutdown: stop_swarm.clone(),
        };
        let (swarm, swarm_events) = Swarm::start(swarm_config).await?;
        swarm.serve_bulk(Arc::new(StoredRuns::new(store.clone(), upload_limit)));
        let config = ExchangeConfig::random().context("the system has no random numbers")?;
        let (exchange, messages) = Exchange::start(store, config);
        let (count, peers) = watch::channel(0);
        tokio::spawn(tell(exchange.events(), events.clone()));
        let rack = setup.rack.clone();
        tokio::spawn(carry(swarm_events, swarm.clone(), exchange.clone(), count, events.clone(), rack));
        tokio::spawn(send(messages, swarm.clone()));
        Ok(Self { swarm, exchange, objects, peers, http, stop_swarm, stop_http })
    }

    /// The port on which the swarm listens.
    pub(crate) fn port(&self) -> u16 {
        self.swarm.listening().first().map_or(0, std::net::SocketAddr::port)
    }

    /// How many peers are connected, as it changes.
    pub(crate) fn peers(&self) -> watch::Receiver<usize> {
        self.peers.clone()
    }

    /// Ends in order.
    pub(crate) async fn stop(self) {
        self.stop_swarm.cancel();
        self.swarm.stopped().await;
        self.exchange.shutdown().await;
        self.stop_http.cancel();
        self.http.stopped().await;
    }
}

/// The indexes of the blobs shared, by hash.
#[derive(Default)]
pub(crate) struct Objects(RwLock<HashMap<ObjectId, Bytes>>);

impl Objects {
    /// Gives `object` to whoever asks for `id`.
    pub(crate) fn insert(&self, id: ObjectId, object: Bytes) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(id, object);
    }
}

impl ObjectSource for Objects {
    fn object(&self, id: &ObjectId) -> Option<Bytes> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}

/// Serves `blob/<id>` and nothing else.
struct Blobs(Store);

#[async_trait]
impl BootFiles for Blobs {
    async fn open(&self, request: &FileRequest) -> Result<ServedFile, FileError> {
        match request.name.as_str().strip_prefix("blob/") {
            Some(id) => blob_for_peer(&self.0, id),
            None => Err(FileError::NotFound),
        }
    }
}

/// Carries what the swarm says. What it hands on has bounded queues and readers that never wait for this task.
async fn carry(
    mut told: mpsc::Receiver<SwarmEvent>,
    swarm: SwarmHandle,
    exchange: ExchangeHandle,
    count: watch::Sender<usize>,
    events: Events,
    rack: String,
) {
    while let Some(event) = told.recv().await {
        match event {
            SwarmEvent::PeerUp(peer, member, remote) => {
                let address = http_address(&member, remote);
                let hint = member.hint_from(&rack);
                events.emit(Event::PeerUp { node: peer.to_string(), address: address.ip().to_string() });
                let source = source_of(peer, address, &swarm, &exchange);
                exchange.peer_up(peer, source, hint).await;
                count.send_modify(|count| *count += 1);
            }
            SwarmEvent::PeerDown(peer) => {
                events.emit(Event::PeerDown { node: peer.to_string() });
                exchange.peer_down(peer).await;
                count.send_modify(|count| *count = count.saturating_sub(1));
            }
            SwarmEvent::Exchange(peer, message) => exchange.incoming(peer, message).await,
            SwarmEvent::Incompatible { peer, address, .. } => {
                let reason = "its program version speaks another protocol: upgrade the older one".into();
                events.emit(Event::Incompatible { peer: format!("{peer} at {address}"), reason });
            }
            SwarmEvent::Records(_)
            | SwarmEvent::Members(_)
            | SwarmEvent::Announced { .. }
            | SwarmEvent::Admission(_) => {}
        }
    }
}

async fn send(mut messages: mpsc::Receiver<Outgoing>, swarm: SwarmHandle) {
    while let Some(Outgoing { to, message }) = messages.recv().await {
        // A peer that is gone is told anew when it comes back.
        let _ = swarm.send(to, message);
    }
}

/// Tells what of the exchange's events concerns people and scripts.
async fn tell(mut exchange: broadcast::Receiver<ExchangeEvent>, events: Events) {
    use broadcast::error::RecvError;
    loop {
        match exchange.recv().await {
            Ok(ExchangeEvent::FirstCopyOut { blob }) => {
                events.emit(Event::FirstCopyOut { blob: blob.to_string() });
            }
            Ok(event) => {
                if let Some(told) = of_peer(event, |_| String::new()) {
                    events.emit(told);
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
