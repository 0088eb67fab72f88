//! What every [`ChunkSource`] must do, whatever carries the bytes. One suite for all transports: implement [`Transport`] and
//! call [`check`].

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fabric::exchange::{ChunkSource, SourceError};
use fabric::id::{BlobId, Hash};
use fabric::store::{Store, StoreOptions};

use super::server::Behaviour;
use super::{PATIENCE, noise};

/// A transport under test.
#[async_trait]
pub trait Transport: Sync {
    /// A source whose peer serves `store` and behaves so. The peer lives as long as the returned guard. Stalls must be found out
    /// within a second or two.
    async fn peer(&self, store: Store, behaviour: Behaviour) -> (Arc<dyn ChunkSource>, Box<dyn Send>);

    /// A source whose peer does not exist.
    async fn nobody(&self) -> Arc<dyn ChunkSource>;

    /// Whether the transport can show this behaviour: a stream has no HTTP status to get wrong.
    fn knows(&self, _behaviour: Behaviour) -> bool {
        true
    }
}

/// Runs the suite.
pub async fn check(transport: &impl Transport) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreOptions { durable: false, ..StoreOptions::default() }).unwrap();
    let bytes = noise(42, 1_000_000);
    let blob = store.add_bytes(&bytes).unwrap().blob;
    let suite = async {
        brings_ranges(transport, &store, blob, &bytes).await;
        answers_several_at_once(transport, &store, blob, &bytes).await;
        survives_a_dropped_request(transport, &store, blob, &bytes).await;
        names_what_is_wrong(transport, &store, blob, &bytes).await;
    };
    tokio::time::timeout(PATIENCE, suite).await.expect("the suite hangs");
}

async fn brings_ranges(transport: &impl Transport, store: &Store, blob: BlobId, bytes: &[u8]) {
    let (source, _peer) = transport.peer(store.clone(), Behaviour::Honest).await;
    let mut sink = Vec::new();
    for range in [0..1, 999_999..1_000_000, 0..1_000_000, 65_535..65_537, 7..7] {
        sink.clear();
        source.fetch(&blob, range.start..range.end, &mut sink).await.unwrap();
        assert!(sink == bytes[range.start as usize..range.end as usize], "{range:?}");
    }
    sink.clear();
    let unknown = BlobId(Hash::of(b"no such blob"));
    assert_eq!(source.fetch(&unknown, 0..10, &mut sink).await, Err(SourceError::NotHeld));
    // A refusal does not spoil the connection for what follows.
    source.fetch(&blob, 10..20, &mut sink).await.unwrap();
    assert_eq!(sink, &bytes[10..20]);
}

async fn answers_several_at_once(transport: &impl Transport, store: &Store, blob: BlobId, bytes: &[u8]) {
    for behaviour in [Behaviour::Honest, Behaviour::OneShot] {
        if !transport.knows(behaviour) {
            continue;
        }
        let (source, _peer) = transport.peer(store.clone(), behaviour).await;
        let requests = (0..20_u64).map(|index| {
            let source = Arc::clone(&source);
            async move {
                let (mut sink, range) = (Vec::new(), index * 50_000..(index + 1) * 50_000);
                // A peer that closes after each answer may be told from a dead one only by asking again.
                while source.fetch(&blob, range.clone(), &mut sink).await.is_err() {
                    assert_eq!(behaviour, Behaviour::OneShot);
                    sink.clear();
                }
                assert!(sink == bytes[range.start as usize..range.end as usize], "{range:?}");
            }
        });
        futures::future::join_all(requests).await;
    }
}

async fn survives_a_dropped_request(transport: &impl Transport, store: &Store, blob: BlobId, bytes: &[u8]) {
    let (source, _peer) = transport.peer(store.clone(), Behaviour::Honest).await;
    for round in 0..20 {
        let mut given_up = Vec::new();
        // Dropped at a different point each time: unsent, unanswered, half read.
        let request = source.fetch(&blob, 0..1_000_000, &mut given_up);
        if tokio::time::timeout(Duration::from_micros(100 * round), request).await.is_err() {
            assert!(given_up.is_empty(), "a request that was given up left something behind");
        }
        let mut sink = Vec::new();
        source.fetch(&blob, 500..600, &mut sink).await.unwrap();
        assert_eq!(sink, &bytes[500..600], "round {round}");
    }
}

async fn names_what_is_wrong(transport: &impl Transport, store: &Store, blob: BlobId, bytes: &[u8]) {
    let nobody = transport.nobody().await;
    let error = nobody.fetch(&blob, 0..10, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, SourceError::Unreachable(_)), "{error}");
    for behaviour in Behaviour::ALL.into_iter().filter(|&behaviour| transport.knows(behaviour)) {
        let (source, _peer) = transport.peer(store.clone(), behaviour).await;
        let mut sink = Vec::new();
        let result = source.fetch(&blob, 1000..301_000, &mut sink).await;
        let as_it_should = match behaviour {
            // Content is for whoever stores it to verify.
            Behaviour::Honest | Behaviour::Damaged | Behaviour::OneShot => {
                result.is_ok() && sink.len() == 300_000
            }
            // More than was asked for may be noticed at once, or spoil only what follows.
            Behaviour::TooMany => match &result {
                Ok(()) => sink == bytes[1000..301_000],
                Err(error) => matches!(error, SourceError::Protocol(_)),
            },
            Behaviour::TooFew => {
                matches!(result, Err(SourceError::Unreachable(_) | SourceError::Protocol(_)))
                    && sink == bytes[1000..1000 + sink.len()]
            }
            Behaviour::Silent | Behaviour::Stuck | Behaviour::Trickle => {
                matches!(result, Err(SourceError::Stalled { .. }))
            }
            Behaviour::Whole | Behaviour::Garbage => matches!(result, Err(SourceError::Protocol(_))),
            Behaviour::Busy => result == Err(SourceError::Refused { retry_after: Duration::from_secs(1) }),
            Behaviour::NotHeld => result == Err(SourceError::NotHeld),
        };
        assert!(as_it_should, "{behaviour:?}: {result:?} after {} bytes", sink.len());
        assert!(sink.len() <= 300_000, "{behaviour:?} filled the sink beyond the range");
    }
}
