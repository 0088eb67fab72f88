//! Nodes on the loopback interface, and waiting for what they tell.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "shared by several test programs"
)]

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fabric::id::{Hash, NodeId, ObjectId};
use fabric::swarm::{
    FabricTag, MemberInfo, NodeKey, ObjectSource, Private, Swarm, SwarmConfig, SwarmEvent, SwarmHandle,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// What any wait may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Objects in memory; `lies` are handed out under a hash that is not theirs.
#[derive(Default)]
pub struct Objects {
    held: Mutex<HashMap<ObjectId, Bytes>>,
    slow: tokio::sync::Mutex<()>,
    asked: watch::Sender<usize>,
}

impl Objects {
    pub fn put(&self, object: &[u8]) -> ObjectId {
        let id = ObjectId(Hash::of(object));
        self.lie(id, object);
        id
    }

    pub fn lie(&self, id: ObjectId, object: &[u8]) {
        self.held.lock().unwrap().insert(id, Bytes::copy_from_slice(object));
    }

    /// Nobody gets an answer while the guard lives.
    pub async fn hold(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.slow.lock().await
    }

    /// How often any was asked for.
    pub fn asked(&self) -> watch::Receiver<usize> {
        self.asked.subscribe()
    }
}

impl ObjectSource for Objects {
    fn object(&self, id: &ObjectId) -> Option<Bytes> {
        self.asked.send_modify(|asked| *asked += 1);
        drop(self.slow.blocking_lock());
        self.held.lock().unwrap().get(id).cloned()
    }
}

/// How a node is to be started.
pub struct Spec {
    pub key: NodeKey,
    pub fabric: FabricTag,
    pub listen: SocketAddr,
    pub address: Ipv4Addr,
    pub first_peers: Vec<SocketAddr>,
    pub mdns: bool,
    pub private: Option<Private>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            key: NodeKey::generate(),
            fabric: FabricTag::of(b"test"),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            address: Ipv4Addr::LOCALHOST,
            first_peers: vec![],
            mdns: false,
            private: None,
        }
    }
}

impl Spec {
    pub fn knowing(peers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self { first_peers: peers.into_iter().collect(), ..Self::default() }
    }
}

/// A running node whose events are read as they come.
pub struct Node {
    pub handle: SwarmHandle,
    pub objects: Arc<Objects>,
    pub shutdown: CancellationToken,
    log: Arc<(Mutex<Vec<SwarmEvent>>, Notify)>,
}

impl Node {
    pub async fn start(spec: Spec) -> Self {
        let objects = Arc::new(Objects::default());
        let shutdown = CancellationToken::new();
        let config = SwarmConfig {
            key: spec.key,
            fabric: spec.fabric,
            listen: vec![spec.listen],
            first_peers: spec.first_peers,
            mdns: spec.mdns,
            me: MemberInfo::new("node", spec.address),
            objects: objects.clone(),
            shutdown: shutdown.clone(),
        };
        let started = match spec.private {
            None => Swarm::start(config).await,
            Some(private) => Swarm::start_private(config, private).await,
        };
        let (handle, mut events) = started.unwrap();
        let log: Arc<(Mutex<Vec<SwarmEvent>>, Notify)> = Arc::default();
        let writer = log.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                writer.0.lock().unwrap().push(event);
                writer.1.notify_waiters();
            }
        });
        Self { handle, objects, shutdown, log }
    }

    pub fn id(&self) -> NodeId {
        self.handle.node()
    }

    pub fn address(&self) -> SocketAddr {
        self.handle.listening()[0]
    }

    pub fn events(&self) -> Vec<SwarmEvent> {
        self.log.0.lock().unwrap().clone()
    }

    /// Waits until what was told so far yields something.
    pub async fn until<T>(&self, what: &str, mut find: impl FnMut(&[SwarmEvent]) -> Option<T>) -> T {
        let wait = async {
            loop {
                let told = self.log.1.notified();
                tokio::pin!(told);
                told.as_mut().enable();
                if let Some(found) = find(&self.log.0.lock().unwrap()) {
                    return found;
                }
                told.await;
            }
        };
        match tokio::time::timeout(DEADLINE, wait).await {
            Ok(found) => found,
            Err(_) => panic!("{:?} waited in vain for {what}; it told {:#?}", self.id(), self.events()),
        }
    }

    pub async fn until_event(&self, what: &str, is: impl Fn(&SwarmEvent) -> bool) -> SwarmEvent {
        self.until(what, |events| events.iter().find(|event| is(event)).cloned()).await
    }

    /// Whether `node` is a peer after all events so far.
    pub async fn until_peer(&self, node: NodeId) {
        self.until("a peer", |events| is_up(events, node).then_some(())).await;
    }

    pub async fn until_gone(&self, node: NodeId) {
        self.until("a peer to go", |events| (!is_up(events, node)).then_some(())).await;
    }

    /// Waits until the live view has exactly these nodes, itself included.
    pub async fn until_members(&self, nodes: &[NodeId]) {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        let mut members = self.handle.watch_members();
        let wait = members.wait_for(|live| live.iter().map(|member| member.node).eq(nodes.iter().copied()));
        if tokio::time::timeout(DEADLINE, wait).await.is_err() {
            panic!("{:?} sees {:?} rather than {nodes:?}", self.id(), self.handle.members());
        }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.handle.stopped()).await.unwrap();
    }
}

fn is_up(events: &[SwarmEvent], node: NodeId) -> bool {
    events.iter().fold(false, |up, event| match event {
        SwarmEvent::PeerUp(peer, ..) if *peer == node => true,
        SwarmEvent::PeerDown(peer) if *peer == node => false,
        _ => up,
    })
}

/// Several nodes, all of which are given the first one's address only.
pub async fn nodes_around_one(count: usize) -> Vec<Node> {
    let mut nodes = vec![Node::start(Spec::default()).await];
    let first = nodes[0].address();
    for _ in 1..count {
        nodes.push(Node::start(Spec::knowing([first])).await);
    }
    nodes
}

/// Two nodes that are each other's peer.
pub async fn two_peers() -> (Node, Node) {
    let mut nodes = nodes_around_one(2).await;
    let (asker, holder) = (nodes.remove(1), nodes.remove(0));
    asker.until_peer(holder.id()).await;
    holder.until_peer(asker.id()).await;
    (asker, holder)
}
