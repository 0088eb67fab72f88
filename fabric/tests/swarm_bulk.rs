//! Runs of a blob travel over the swarm's own connection where HTTP does not: the suite of all chunk sources.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod exchange_support;
mod swarm_support;

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use exchange_support::conformance::{self, Transport};
use exchange_support::server::Behaviour;
use fabric::exchange::{ChunkSource, SourceError};
use fabric::id::BlobId;
use fabric::store::Store;
use fabric::swarm::{BulkReader, BulkSource, NotHeld};
use swarm_support::{Node, nodes_around_one};

/// Reads from a store, and misbehaves if told to.
struct Reader(Store, Behaviour);

#[async_trait]
impl BulkReader for Reader {
    async fn read(&self, blob: &BlobId, bytes: Range<u64>) -> Result<Bytes, NotHeld> {
        let blob = self.0.blob(blob).filter(|blob| blob.holds(bytes.clone())).ok_or(NotHeld)?;
        let first = bytes.start <= 1000;
        let mut piece = vec![0; usize::try_from(bytes.end - bytes.start).unwrap()];
        blob.file().read_exact_at(&mut piece, bytes.start).unwrap();
        match self.1 {
            Behaviour::NotHeld => return Err(NotHeld),
            Behaviour::TooFew if !first => return Err(NotHeld),
            Behaviour::Silent => std::future::pending().await,
            Behaviour::Stuck if !first => std::future::pending().await,
            Behaviour::Damaged => piece[0] ^= 1,
            Behaviour::Trickle => piece.truncate(1),
            _ => {}
        }
        if self.1 == Behaviour::Trickle && !first {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(piece.into())
    }
}

struct OverTheSwarm;

async fn two_peers() -> (Node, Node) {
    let mut nodes = nodes_around_one(2).await;
    let (asker, holder) = (nodes.remove(1), nodes.remove(0));
    asker.until_peer(holder.id()).await;
    holder.until_peer(asker.id()).await;
    (asker, holder)
}

#[async_trait]
impl Transport for OverTheSwarm {
    async fn peer(&self, store: Store, behaviour: Behaviour) -> (Arc<dyn ChunkSource>, Box<dyn Send>) {
        let (asker, holder) = two_peers().await;
        holder.handle.serve_bulk(Arc::new(Reader(store, behaviour)));
        let source = BulkSource::new(asker.handle.clone(), holder.id()).with_window(Duration::from_secs(1));
        (Arc::new(source), Box::new((asker, holder)))
    }

    async fn nobody(&self) -> Arc<dyn ChunkSource> {
        let alone = nodes_around_one(1).await.remove(0);
        Arc::new(BulkSource::new(alone.handle.clone(), alone.id()))
    }

    fn knows(&self, behaviour: Behaviour) -> bool {
        use Behaviour::{Damaged, Honest, NotHeld, Silent, Stuck, TooFew, Trickle};
        [Honest, Damaged, TooFew, Silent, Stuck, Trickle, NotHeld].contains(&behaviour)
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
