//! Runs of a blob travel over the swarm's own connection where HTTP does not: the suite of all chunk sources.

mod exchange_support;
mod swarm_support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use exchange_support::conformance::{self, Transport};
use exchange_support::server::Behaviour;
use exchange_support::stream::Reader;
use fabric::exchange::{ChunkSource, SourceError};
use fabric::id::BlobId;
use fabric::store::Store;
use fabric::swarm::BulkSource;
use swarm_support::{nodes_around_one, two_peers};

struct OverTheSwarm;

#[async_trait]
impl Transport for OverTheSwarm {
    async fn peer(&self, store: Store, behaviour: Behaviour) -> (Arc<dyn ChunkSource>, Box<dyn Send>) {
        let (asker, holder) = two_peers().await;
        holder.handle.serve_bulk(Arc::new(Reader(store, behaviour)));
        let source = BulkSource::new(asker.handle.clone(), holder.id())
            .with_window(behaviour.patience(Duration::from_secs(1)));
        (Arc::new(source), Box::new((asker, holder)))
    }

    async fn nobody(&self) -> Arc<dyn ChunkSource> {
        let alone = nodes_around_one(1).await.remove(0);
        Arc::new(BulkSource::new(alone.handle.clone(), alone.id()))
    }

    fn knows(&self, behaviour: Behaviour) -> bool {
        Reader::knows(behaviour)
    }
}

#[tokio::test]
async fn the_suite_of_chunk_sources() {
    conformance::check(&OverTheSwarm).await;
}

#[tokio::test]
async fn a_peer_that_serves_no_runs_says_so_by_closing() {
    let (asker, holder) = two_peers().await;
    let source = BulkSource::new(asker.handle.clone(), holder.id());
    let blob = BlobId(fabric::id::Hash::of(b"any"));
    assert!(matches!(source.fetch(&blob, 0..10, &mut Vec::new()).await, Err(SourceError::Unreachable(_))));
}
