//! The HTTP source against servers that answer, refuse, lie, stall and die.

mod exchange_support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use exchange_support::conformance::{self, Transport};
use exchange_support::server::{Behaviour, Server};
use exchange_support::{deserted, noise};
use fabric::exchange::http::HttpTimeouts;
use fabric::exchange::{ChunkSource, HttpSource};
use fabric::store::{Store, StoreOptions};

struct Http;

fn impatient() -> HttpTimeouts {
    HttpTimeouts { stall: Duration::from_millis(500), ..HttpTimeouts::default() }
}

#[async_trait]
impl Transport for Http {
    async fn peer(&self, store: Store, behaviour: Behaviour) -> (Arc<dyn ChunkSource>, Box<dyn Send>) {
        let server = Server::start(store, behaviour).await;
        (Arc::new(HttpSource::with_timeouts(server.address(), None, impatient())), Box::new(server))
    }

    async fn nobody(&self) -> Arc<dyn ChunkSource> {
        Arc::new(HttpSource::new(deserted().await))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_is_a_chunk_source() {
    conformance::check(&Http).await;
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
    assert_eq!(server.connections.load(std::sync::atomic::Ordering::Relaxed), 1);
}
