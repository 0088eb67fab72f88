//! Nodes in one process: a store, its exchange, an HTTP server over the store, and wires that carry messages between them.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

pub mod conformance;
pub mod server;
pub mod stream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fabric::exchange::{
    Exchange, ExchangeConfig, ExchangeEvent, ExchangeHandle, Fetch, HttpSource, PeerHint, PeerKey, Priority,
};
use fabric::id::{BlobId, Hash, NodeId};
use fabric::store::{Store, StoreOptions};
use server::{Behaviour, Server};
use tempfile::TempDir;
use tokio::sync::broadcast;

/// How long anything in these tests may take before it counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that do not compress or repeat.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

pub fn key(name: &str) -> PeerKey {
    NodeId(Hash::of(name.as_bytes()))
}

/// An address at which nobody listens: its port was free a moment ago.
pub async fn deserted() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// One node.
pub struct Node {
    pub key: PeerKey,
    pub store: Store,
    pub handle: ExchangeHandle,
    pub server: Server,
    pub events: broadcast::Receiver<ExchangeEvent>,
    dir: TempDir,
}

/// The switch: nodes that are connected to each other.
#[derive(Clone, Default)]
pub struct Switch {
    handles: Arc<Mutex<BTreeMap<PeerKey, ExchangeHandle>>>,
}

impl Switch {
    pub async fn node(&self, name: &str) -> Node {
        self.node_that(name, Behaviour::Honest).await
    }

    pub async fn node_that(&self, name: &str, behaviour: Behaviour) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(dir.path(), StoreOptions { durable: false, ..StoreOptions::default() }).unwrap();
        let server = Server::start(store.clone(), behaviour).await;
        let seed = name.bytes().map(u64::from).sum();
        let (handle, mut outgoing) = Exchange::start(store.clone(), ExchangeConfig { seed });
        let me = key(name);
        let events = handle.events();
        self.handles.lock().unwrap().insert(me, handle.clone());
        let handles = Arc::clone(&self.handles);
        tokio::spawn(async move {
            while let Some(message) = outgoing.recv().await {
                let to = handles.lock().unwrap().get(&message.to).cloned();
                if let Some(to) = to {
                    to.incoming(me, message.message).await;
                }
            }
        });
        Node { key: me, store, handle, server, events, dir }
    }

    /// Unplugs a node: its server, its connections and its messages are gone.
    pub async fn unplug(&self, node: &Node, neighbours: &[&Node]) {
        self.handles.lock().unwrap().remove(&node.key);
        node.server.stop();
        node.handle.shutdown().await;
        for neighbour in neighbours {
            neighbour.handle.peer_down(node.key).await;
        }
    }
}

impl Node {
    /// Puts `bytes` in the store and serves them.
    pub async fn seed(&self, bytes: &[u8]) -> BlobId {
        let blob = self.store.add_bytes(bytes).unwrap().blob;
        assert!(self.handle.seed(&blob).await.unwrap());
        blob
    }

    /// Fetches the blob that `other` has the index of.
    pub async fn fetch(&self, other: &Node, blob: &BlobId, priority: Priority) -> Fetch {
        let index = other.store.blob(blob).unwrap().index().as_ref().clone();
        self.handle.fetch(index, priority).await.unwrap()
    }

    /// Bytes fetched from `other`.
    pub async fn bytes_from(&self, other: &Node) -> u64 {
        let report = self.handle.report().await.unwrap();
        report.peers.iter().find(|peer| peer.peer == other.key).map_or(0, |peer| peer.bytes)
    }

    /// Waits for an event.
    pub async fn event(&mut self, wanted: impl Fn(&ExchangeEvent) -> bool) -> ExchangeEvent {
        let search = async {
            loop {
                match self.events.recv().await {
                    Ok(event) if wanted(&event) => return event,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => panic!("the exchange ended before the event"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("the event did not come")
    }
}

/// Makes all of `nodes` neighbours.
pub async fn connect(nodes: &[&Node]) {
    for one in nodes {
        for other in nodes.iter().filter(|other| other.key != one.key) {
            let source = Arc::new(HttpSource::new(other.server.address()));
            one.handle.peer_up(other.key, source, PeerHint::default()).await;
        }
    }
}

/// Waits for the blob and checks every byte.
pub async fn arrives(fetch: &Fetch, bytes: &[u8]) {
    let waited = tokio::time::timeout(PATIENCE, fetch.wait()).await;
    let blob = waited.unwrap_or_else(|_| panic!("hung: {:?}", *fetch.progress().borrow())).unwrap();
    assert!(blob.is_complete());
    assert!(std::fs::read(blob.path()).unwrap() == bytes, "the file differs from the blob");
}
