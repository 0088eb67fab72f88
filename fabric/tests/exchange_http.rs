//! The HTTP source against servers that answer, refuse, lie, stall and die.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod exchange_support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use exchange_support::conformance::{self, Transport};
use exchange_support::server::{Behaviour, Server};
use exchange_support::{PATIENCE, deserted, noise};
use fabric::exchange::http::HttpTimeouts;
use fabric::exchange::{ChunkSource, HttpSource, SourceError};
use fabric::id::{BlobId, Hash};
use fabric::store::{Store, StoreOptions};
use tokio::io::AsyncReadExt;

struct Http;

fn timeouts(behaviour: Behaviour) -> HttpTimeouts {
    HttpTimeouts { stall: behaviour.patience(Duration::from_millis(500)), ..HttpTimeouts::default() }
}

#[async_trait]
impl Transport for Http {
    async fn peer(&self, store: Store, behaviour: Behaviour) -> (Arc<dyn ChunkSource>, Box<dyn Send>) {
        let server = Server::start(store, behaviour).await;
        (Arc::new(HttpSource::with_timeouts(server.address(), None, timeouts(behaviour))), Box::new(server))
    }

    async fn nobody(&self) -> Arc<dyn ChunkSource> {
        Arc::new(HttpSource::new(deserted().await))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_is_a_chunk_source() {
    conformance::check(&Http).await;
}

/// An address whose port takes no more connections: requests for one are dropped, as a packet filter does.
fn deaf() -> (std::net::SocketAddr, Vec<std::net::TcpStream>, tokio::net::TcpListener) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let full = Duration::from_millis(100);
    let queued = std::iter::from_fn(|| std::net::TcpStream::connect_timeout(&address, full).ok()).collect();
    (address, queued, listener)
}

/// One attempt for all who wait, not one for each: those would add up to more than the test's patience.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_for_a_connection_fail_together() {
    let (address, _queued, _listener) = deaf();
    let timeouts = HttpTimeouts { connect: Duration::from_secs(1), ..HttpTimeouts::default() };
    let source = HttpSource::with_timeouts(address, None, timeouts);
    let blob = BlobId(Hash::of(b"any"));
    let requests = (0..2 * PATIENCE.as_secs()).map(|at| {
        let source = &source;
        async move { source.fetch(&blob, at..at + 1, &mut Vec::new()).await }
    });
    let failed = tokio::time::timeout(PATIENCE, futures::future::join_all(requests)).await.unwrap();
    assert!(failed.iter().all(|result| matches!(result, Err(SourceError::Unreachable(_)))), "{failed:?}");
}

/// A peer takes requests and never answers. Once nobody waits for them any more, a new request gets a new connection at once,
/// however long a stall may last.
#[tokio::test]
async fn requests_that_were_given_up_do_not_hold_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreOptions { durable: false, ..StoreOptions::default() }).unwrap();
    let blob = store.add_bytes(&noise(1, 500_000)).unwrap().blob;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let timeouts = HttpTimeouts { stall: 10 * PATIENCE, ..HttpTimeouts::default() };
    let source = HttpSource::with_timeouts(address, None, timeouts);
    let mut sinks = vec![Vec::new(); 8];
    let requests = sinks.iter_mut().map(|sink| source.fetch(&blob, 0..1000, sink));
    let mut given_up = Box::pin(futures::future::join_all(requests));
    let asked = async {
        let (mut stream, _) = silent.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        stream
    };
    let _stream = tokio::select! {
        stream = asked => stream,
        _ = &mut given_up => unreachable!("nobody answers"),
    };
    drop(given_up);
    let server = Server::on(silent, store, Behaviour::Honest);
    let mut sink = Vec::new();
    let answer = source.fetch(&blob, 0..1000, &mut sink);
    tokio::time::timeout(PATIENCE, answer).await.expect("it waits for the silent connection").unwrap();
    assert_eq!(server.connections.load(Ordering::Relaxed), 1, "one for those who gave up");
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreOptions { durable: false, ..StoreOptions::default() }).unwrap();
    let blob = store.add_bytes(&noise(1, 500_000)).unwrap().blob;
    let server = Server::start(store, Behaviour::Honest).await;
    let source = HttpSource::new(server.address());
    let mut sink = Vec::new();
    for start in 0..50 {
        sink.clear();
        source.fetch(&blob, start * 1000..(start + 1) * 1000, &mut sink).await.unwrap();
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}
