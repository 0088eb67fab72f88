//! The bulk plane of a node: how it fetches runs from a peer, and how it gives its own to peers that cannot reach its HTTP
//! service.
//!
//! Owns no task. Runs are read piece by piece on the blocking pool; how many at once is bounded by the swarm.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fabric::exchange::{ChunkSource, ExchangeHandle, FallbackSource, HttpSource};
use fabric::id::{BlobId, NodeId};
use fabric::store::Store;
use fabric::swarm::{BulkReader, BulkSource, NotHeld, SwarmHandle};
use fabric::tls;
use pxe::http::UploadLimit;

use super::arriving;

/// The source of `peer`, whose HTTP service is at `http`: that one where it can be reached, else streams of the swarm. In a
/// private fabric it is the members' service beside it, over TLS with the token that the peer gave. What changes is told
/// among the events of `exchange`.
pub(crate) fn source_of(
    peer: NodeId,
    http: SocketAddr,
    swarm: &SwarmHandle,
    exchange: &ExchangeHandle,
) -> Arc<dyn ChunkSource> {
    let stream = Arc::new(BulkSource::new(swarm.clone(), peer));
    let secure = swarm.bulk_access(peer).map(|access| tls::source(http.ip(), &access));
    let first = match secure {
        Some(Ok(secure)) => Arc::new(secure),
        None if !swarm.is_private() => Arc::new(HttpSource::new(http)),
        // Blobs of a private fabric never travel in the open.
        none => {
            tracing::warn!(?none, ?peer, "no TLS to a peer: its runs travel over the swarm");
            return stream;
        }
    };
    Arc::new(FallbackSource::new(peer, first, stream, exchange.teller()))
}

/// What a node holds, for peers that ask over the swarm.
pub(crate) struct StoredRuns {
    store: Store,
    limit: Option<Arc<UploadLimit>>,
}

impl StoredRuns {
    /// Runs out of `store`; what leaves counts against `limit`.
    pub(crate) fn new(store: Store, limit: Option<Arc<UploadLimit>>) -> Self {
        Self { store, limit }
    }
}

#[async_trait]
impl BulkReader for StoredRuns {
    async fn read(&self, blob: &BlobId, bytes: Range<u64>) -> Result<Bytes, NotHeld> {
        let blob = self.store.blob(blob).ok_or(NotHeld)?;
        let file = blob.held_file(bytes.clone()).ok_or(NotHeld)?;
        let mut piece = bytes;
        if let Some(limit) = &self.limit {
            let left = usize::try_from(piece.end - piece.start).unwrap_or(usize::MAX);
            piece.end = piece.start + limit.turn(left).await as u64;
        }
        let at = piece.start;
        match arriving::read(file, piece).await {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => {
                tracing::warn!(%error, blob = %blob.id(), offset = at, "a run cannot be read; `bootfabric status` names the store");
                Err(NotHeld)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use fabric::store::StoreOptions;
    use pxe::bind::{BindOptions, tcp};
    use pxe::files::{BootFiles, FileError, FileRequest, ServedFile};
    use pxe::http::{HttpConfig, HttpServer};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::node::files::blob_for_peer;

    fn store(directory: &tempfile::TempDir, content: &[u8]) -> (Store, BlobId) {
        let options = StoreOptions { durable: false, ..StoreOptions::default() };
        let store = Store::open(directory.path(), options).unwrap();
        let blob = store.add_bytes(content).unwrap().blob;
        (store, blob)
    }

    #[tokio::test]
    async fn pieces_of_what_is_held_are_given_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..300_000_u32).map(|n| (n / 3) as u8).collect();
        let (store, blob) = store(&directory, &content);
        for limit in [None, Some(Arc::new(UploadLimit::new(50_000_000)))] {
            let runs = StoredRuns::new(store.clone(), limit.clone());
            let (mut at, mut got) = (1000, Vec::new());
            while at < 201_000 {
                let piece = runs.read(&blob, at..201_000).await.unwrap();
                assert!(!piece.is_empty() && (limit.is_none() || piece.len() <= 64 * 1024));
                at += piece.len() as u64;
                got.extend(piece);
            }
            assert!(got == content[1000..201_000]);
            assert_eq!(runs.read(&blob, 299_999..300_001).await, Err(NotHeld));
            assert_eq!(runs.read(&BlobId(fabric::id::Hash::of(b"other")), 0..1).await, Err(NotHeld));
        }
    }

    struct Blobs(Store);

    #[async_trait]
    impl BootFiles for Blobs {
        async fn open(&self, request: &FileRequest) -> Result<ServedFile, FileError> {
            blob_for_peer(&self.0, &request.name)
        }
    }

    /// Someone reads over HTTP, someone over the swarm: when one has got its part, the other has about as much.
    #[tokio::test]
    async fn both_planes_share_one_limit() {
        const PART: usize = 4_000_000;
        let directory = tempfile::tempdir().unwrap();
        let (store, blob) = store(&directory, &vec![7; 2 * PART]);
        let limit = Arc::new(UploadLimit::new(20_000_000));
        let listener = tcp("127.0.0.1:0".parse().unwrap(), &BindOptions::default()).unwrap();
        let config = HttpConfig { upload_limit: Some(Arc::clone(&limit)), ..HttpConfig::default() };
        let files = Arc::new(Blobs(store.clone()));
        let server = HttpServer::serve(listener, files, config, CancellationToken::new()).unwrap();
        let mut http = tokio::net::TcpStream::connect(server.local_addr()).await.unwrap();
        http.write_all(format!("GET /{blob} HTTP/1.1\r\nHost: node\r\n\r\n").as_bytes()).await.unwrap();
        let runs = StoredRuns::new(store, Some(limit));
        let (mut of_http, mut of_swarm, mut buffer) = (0, 0, vec![0; 64 * 1024]);
        let mut read = Box::pin(runs.read(&blob, 0..256 * 1024));
        while of_http.max(of_swarm) < PART {
            tokio::select! {
                bytes = http.read(&mut buffer) => of_http += bytes.unwrap(),
                piece = &mut read => {
                    of_swarm += piece.unwrap().len();
                    read = Box::pin(runs.read(&blob, of_swarm as u64..of_swarm as u64 + 256 * 1024));
                }
            }
        }
        assert!(of_http.min(of_swarm) * 2 > of_http.max(of_swarm), "{of_http} and {of_swarm} bytes");
    }
}
