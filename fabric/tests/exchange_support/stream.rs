//! A reader of runs for peers over the swarm, which can be told to misbehave as [`Server`](super::server::Server) can.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use fabric::id::BlobId;
use fabric::store::Store;
use fabric::swarm::{BulkReader, NotHeld};

use super::server::Behaviour;

/// Reads from a store, and misbehaves if told to.
pub struct Reader(pub Store, pub Behaviour);

impl Reader {
    /// What a stream can show: it has no HTTP status to get wrong.
    pub fn knows(behaviour: Behaviour) -> bool {
        use Behaviour::{Damaged, Honest, NotHeld, Silent, Stuck, TooFew, Trickle};
        [Honest, Damaged, TooFew, Silent, Stuck, Trickle, NotHeld].contains(&behaviour)
    }
}

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
