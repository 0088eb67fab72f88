//! Two ways to one peer: the suite of all chunk sources over both, and what a fetch sees of a way that does not work.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a step that fails is a test that fails")]

mod exchange_support;
mod swarm_support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use exchange_support::conformance::{self, Transport};
use exchange_support::server::{Behaviour, Server};
use exchange_support::stream::Reader;
use exchange_support::{PATIENCE, deserted, noise};
use fabric::exchange::http::HttpTimeouts;
use fabric::exchange::{
    ChunkSource, Exchange, ExchangeConfig, ExchangeEvent, FallbackSource, HttpSource, Message, PeerHint,
    Priority, Route, SourceError,
};
use fabric::id::BlobId;
use fabric::store::{Store, StoreOptions};
use fabric::swarm::BulkSource;
use swarm_support::{Node, nodes_around_one, two_peers};
use tempfile::TempDir;
use tokio::sync::mpsc;

fn timeouts(behaviour: Behaviour) -> HttpTimeouts {
    HttpTimeouts { stall: behaviour.patience(Duration::from_millis(500)), ..HttpTimeouts::default() }
}

fn over_the_swarm(asker: &Node, holder: &Node, behaviour: Behaviour) -> Arc<dyn ChunkSource> {
    let window = behaviour.patience(Duration::from_secs(1));
    Arc::new(BulkSource::new(asker.handle.clone(), holder.id()).with_window(window))
}

/// A peer whose HTTP service can be reached, or not.
struct Both {
    http: bool,
}

#[async_trait]
impl Transport for Both {
    async fn peer(&self, store: Store, behaviour: Behaviour) -> (Arc<dyn ChunkSource>, Box<dyn Send>) {
        let (asker, holder) = two_peers().await;
        let server = Server::start(store.clone(), behaviour).await;
        holder.handle.serve_bulk(Arc::new(Reader(store, behaviour)));
        let address = if self.http { server.address() } else { deserted().await };
        let http = Arc::new(HttpSource::with_timeouts(address, None, timeouts(behaviour)));
        let source =
            FallbackSource::new(holder.id(), http, over_the_swarm(&asker, &holder, behaviour), |_| {});
        (Arc::new(source), Box::new((server, asker, holder)))
    }

    async fn nobody(&self) -> Arc<dyn ChunkSource> {
        let alone = nodes_around_one(1).await.remove(0);
        let http = Arc::new(HttpSource::new(deserted().await));
        Arc::new(FallbackSource::new(
            alone.id(),
            http,
            over_the_swarm(&alone, &alone, Behaviour::Honest),
            |_| {},
        ))
    }

    fn knows(&self, behaviour: Behaviour) -> bool {
        // What breaks off on one way is continued on the other: see below.
        if self.http { behaviour != Behaviour::TooFew } else { Reader::knows(behaviour) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_where_both_ways_work() {
    conformance::check(&Both { http: true }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_where_http_is_refused() {
    conformance::check(&Both { http: false }).await;
}

/// A peer that holds one blob, with both services.
struct Peer {
    asker: Node,
    holder: Node,
    store: Store,
    blob: BlobId,
    bytes: Vec<u8>,
    _dir: TempDir,
}

impl Peer {
    async fn new(behaviour: Behaviour) -> Self {
        let (asker, holder) = two_peers().await;
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { durable: false, ..StoreOptions::default() };
        let store = Store::open(dir.path(), options).unwrap();
        let bytes = noise(1, 3_000_000);
        let blob = store.add_bytes(&bytes).unwrap().blob;
        holder.handle.serve_bulk(Arc::new(Reader(store.clone(), behaviour)));
        Self { asker, holder, store, blob, bytes, _dir: dir }
    }

    /// A source for it with HTTP at `address`, and what it tells.
    fn source(
        &self,
        address: std::net::SocketAddr,
    ) -> (FallbackSource, mpsc::UnboundedReceiver<ExchangeEvent>) {
        let (tell, told) = mpsc::unbounded_channel();
        let http = Arc::new(HttpSource::with_timeouts(address, None, timeouts(Behaviour::Honest)));
        let second = over_the_swarm(&self.asker, &self.holder, Behaviour::Honest);
        let source = FallbackSource::new(self.holder.id(), http, second, move |event| {
            let _ = tell.send(event);
        });
        (source, told)
    }

    async fn fetch(&self, source: &FallbackSource) -> Result<(), SourceError> {
        let mut sink = Vec::new();
        source.fetch(&self.blob, 1000..601_000, &mut sink).await?;
        assert!(sink == self.bytes[1000..601_000]);
        Ok(())
    }
}

fn route(event: Option<ExchangeEvent>) -> Route {
    match event {
        Some(ExchangeEvent::RouteChanged { route, .. }) => route,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_breaks_off_on_http_is_continued_over_the_swarm() {
    let peer = Peer::new(Behaviour::Honest).await;
    let server = Server::start(peer.store.clone(), Behaviour::TooFew).await;
    let (source, mut told) = peer.source(server.address());
    peer.fetch(&source).await.unwrap();
    assert_eq!((route(told.recv().await), source.route()), (Route::Swarm, Route::Swarm));
    // What follows does not try HTTP again: each request there would have been a connection.
    let before = server.connections.load(std::sync::atomic::Ordering::Relaxed);
    for _ in 0..3 {
        peer.fetch(&source).await.unwrap();
    }
    assert!(server.connections.load(std::sync::atomic::Ordering::Relaxed) <= before + 1);
}

#[tokio::test]
async fn http_is_used_again_when_it_is_back() {
    let peer = Peer::new(Behaviour::Honest).await;
    let server = Server::start(peer.store.clone(), Behaviour::Honest).await;
    let address = server.address();
    drop(server);
    let (source, mut told) = peer.source(address);
    tokio::time::timeout(PATIENCE, async {
        peer.fetch(&source).await.unwrap();
        assert_eq!(route(told.recv().await), Route::Swarm);
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let _server = Server::on(listener, peer.store.clone(), Behaviour::Honest);
        while source.route() == Route::Swarm {
            peer.fetch(&source).await.unwrap();
        }
        assert_eq!(route(told.recv().await), Route::Http);
        // The swarm is not needed any more.
        peer.holder.shutdown.cancel();
        peer.fetch(&source).await.unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn refusals_and_bad_bytes_are_no_reason_to_take_the_other_way() {
    let peer = Peer::new(Behaviour::Honest).await;
    for behaviour in [Behaviour::Busy, Behaviour::NotHeld, Behaviour::Whole, Behaviour::Damaged] {
        let server = Server::start(peer.store.clone(), behaviour).await;
        let (source, mut told) = peer.source(server.address());
        let result = source.fetch(&peer.blob, 0..100_000, &mut Vec::new()).await;
        assert_eq!(result.is_ok(), behaviour == Behaviour::Damaged, "{behaviour:?}");
        assert_eq!(source.route(), Route::Http);
        assert!(told.try_recv().is_err());
    }
}

/// A whole fetch from a peer whose HTTP service refuses or swallows connections sees no failure at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_sees_nothing_of_a_dead_http_service() {
    let peer = Peer::new(Behaviour::Honest).await;
    let (source, mut told) = peer.source(deserted().await);
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreOptions { durable: false, ..StoreOptions::default() }).unwrap();
    let (exchange, _outgoing) = Exchange::start(store, ExchangeConfig { seed: 1 });
    let mut events = exchange.events();
    let key = peer.holder.id();
    exchange.peer_up(key, Arc::new(source), PeerHint::default()).await;
    let held = peer.store.blob(&peer.blob).unwrap();
    let fetch = exchange.fetch(held.index().as_ref().clone(), Priority::Root).await.unwrap();
    exchange.incoming(key, Message::Bitfield { blob: peer.blob, have: held.have() }).await;
    exchange_support::arrives(&fetch, &peer.bytes).await;
    assert_eq!(route(told.recv().await), Route::Swarm);
    assert_eq!(exchange.report().await.unwrap().routes.get(&key), Some(&Route::Swarm));
    exchange.shutdown().await;
    while let Ok(event) = events.try_recv() {
        assert!(!matches!(event, ExchangeEvent::RequestFailed { .. }), "{event:?}");
    }
}
