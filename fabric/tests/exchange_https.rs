//! The HTTP source over TLS, as a private fabric uses it, against the same servers.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod exchange_support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use exchange_support::conformance::{self, Transport};
use exchange_support::server::{Behaviour, Server};
use exchange_support::{PATIENCE, noise};
use fabric::exchange::http::{HttpTimeouts, Private};
use fabric::exchange::{ChunkSource, HttpSource, SourceError};
use fabric::store::{Store, StoreOptions};
use fabric::swarm::{NodeKey, NodePublicKey};
use fabric::tls::{TlsClient, TlsServer};

const TOKEN: &str = "0123456789abcdef";

struct Https(NodeKey);

fn source(address: SocketAddr, key: NodePublicKey, token: &str) -> HttpSource {
    patient_source(address, key, token, PATIENCE)
}

fn patient_source(address: SocketAddr, key: NodePublicKey, token: &str, stall: Duration) -> HttpSource {
    let private = Private { secure: Arc::new(TlsClient::new(key).unwrap()), token: token.into() };
    HttpSource::with_timeouts(address, Some(private), HttpTimeouts { stall, ..HttpTimeouts::default() })
}

#[async_trait]
impl Transport for Https {
    async fn peer(&self, store: Store, behaviour: Behaviour) -> (Arc<dyn ChunkSource>, Box<dyn Send>) {
        let server = Server::start_private(store, behaviour, TlsServer::new(&self.0).unwrap(), TOKEN).await;
        let stall = behaviour.patience(Duration::from_millis(500));
        (Arc::new(patient_source(server.address(), self.0.public(), TOKEN, stall)), Box::new(server))
    }

    async fn nobody(&self) -> Arc<dyn ChunkSource> {
        // A port that was free a moment ago.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        Arc::new(source(listener.local_addr().unwrap(), self.0.public(), TOKEN))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_is_a_chunk_source() {
    conformance::check(&Https(NodeKey::generate())).await;
}

#[tokio::test]
async fn a_peer_with_another_key_a_plain_server_and_a_wrong_token_give_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreOptions { durable: false, ..StoreOptions::default() }).unwrap();
    let bytes = noise(1, 50_000);
    let blob = store.add_bytes(&bytes).unwrap().blob;
    let (key, other) = (NodeKey::generate(), NodeKey::generate());
    let tls = TlsServer::new(&key).unwrap();
    let server = Server::start_private(store.clone(), Behaviour::Honest, tls, TOKEN).await;
    let plain = Server::start(store, Behaviour::Honest).await;
    let mut sink = Vec::new();
    let impostor = source(server.address(), other.public(), TOKEN);
    let error = impostor.fetch(&blob, 0..1000, &mut sink).await.unwrap_err();
    assert!(matches!(&error, SourceError::Unreachable(why) if why.contains("not the key")), "{error}");
    let error =
        source(plain.address(), key.public(), TOKEN).fetch(&blob, 0..1000, &mut sink).await.unwrap_err();
    assert!(matches!(error, SourceError::Unreachable(_)), "{error}");
    let error =
        source(server.address(), key.public(), "made-up").fetch(&blob, 0..1000, &mut sink).await.unwrap_err();
    assert!(matches!(error, SourceError::Refused { .. }), "{error}");
    assert!(sink.is_empty());
    source(server.address(), key.public(), TOKEN).fetch(&blob, 0..1000, &mut sink).await.unwrap();
    assert_eq!(sink, bytes[..1000]);
}
