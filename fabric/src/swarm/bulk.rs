//! Runs of a blob over a stream, for when a peer's HTTP cannot be reached.
//!
//! Costs several times the CPU of HTTP (Noise and Yamux), so it is the second choice. One short stream per request: the
//! asker sends the blob's hash and the first and past-the-last byte (64 bit each, big endian); the holder answers with
//! one byte of status and then the bytes. Nothing is verified here: whoever stores the bytes hashes them.
//!
//! [`BulkSource`](super::bulk_source) is the asking end; the answering end reads through a [`BulkReader`], piece by piece.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::exchange::SourceError;
use crate::id::{BlobId, Hash};

/// Longest range of one request: runs are about 1 MiB.
pub const MAX_BULK: u64 = 16 * 1024 * 1024;
/// Requests answered at once, with one [`PIECE`] of memory each. More only share the same core: Yamux and Noise.
pub(crate) const MAX_SERVING_BULK: usize = 16;
/// Read from the store and written at once.
const PIECE: u64 = 256 * 1024;
/// Read from the stream at once: a few Noise messages.
const READ: usize = 256 * 1024;
/// Time for a request, and for the asker to take a piece.
const STALL: Duration = Duration::from_secs(5);
/// In each window of this length the asker wants [`MIN_PROGRESS`] bytes.
pub(super) const WINDOW: Duration = Duration::from_secs(3);
/// A tenth of what Yamux and Noise carry on the slowest machine over a loaded gigabit link shared by hundreds.
const MIN_PROGRESS: usize = 16 * 1024;
/// How long to leave a peer alone that has no turn free.
const RETRY_AFTER: Duration = Duration::from_millis(300);

const REQUEST_LEN: usize = 48;
const HELD: u8 = 0;
const NOT_HELD: u8 = 1;
const BUSY: u8 = 2;

/// Gives the bytes of blobs that this node holds.
#[async_trait]
pub trait BulkReader: Send + Sync + 'static {
    /// The first of these bytes, at least one and at most all of them, of which there are at most 256 KiB. To give few is
    /// how a reader keeps to a rate: the next are asked for when these have left.
    ///
    /// # Errors
    /// [`NotHeld`] if not all of them are held, or they cannot be read.
    async fn read(&self, blob: &BlobId, bytes: Range<u64>) -> Result<Bytes, NotHeld>;
}

/// The bytes are not held, or cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not held")]
pub struct NotHeld;

fn request(blob: &BlobId, bytes: &Range<u64>) -> [u8; REQUEST_LEN] {
    let mut request = [0; REQUEST_LEN];
    let (hash, range) = request.split_at_mut(32);
    let (start, end) = range.split_at_mut(8);
    hash.copy_from_slice(blob.0.as_bytes());
    start.copy_from_slice(&bytes.start.to_be_bytes());
    end.copy_from_slice(&bytes.end.to_be_bytes());
    request
}

fn parse(request: &[u8; REQUEST_LEN]) -> (BlobId, Range<u64>) {
    let (mut hash, mut start, mut end) = ([0; 32], [0; 8], [0; 8]);
    hash.copy_from_slice(&request[..32]);
    start.copy_from_slice(&request[32..40]);
    end.copy_from_slice(&request[40..]);
    (BlobId(Hash::from_bytes(hash)), u64::from_be_bytes(start)..u64::from_be_bytes(end))
}

/// Asks over a fresh stream.
pub(super) async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    blob: &BlobId,
    bytes: Range<u64>,
    sink: &mut Vec<u8>,
    window: Duration,
) -> Result<(), SourceError> {
    let wanted = bytes.end.saturating_sub(bytes.start);
    if wanted == 0 {
        return Ok(());
    }
    if wanted > MAX_BULK {
        return Err(SourceError::Protocol(format!("{wanted} bytes in one request, {MAX_BULK} are the most")));
    }
    let unreachable = |error: io::Error| SourceError::Unreachable(error.to_string());
    let asked = async {
        stream.write_all(&request(blob, &bytes)).await?;
        stream.flush().await?;
        let mut status = [0];
        stream.read_exact(&mut status).await.map(|()| status[0])
    };
    let silent = SourceError::Stalled { bytes: 0, window };
    match timeout(window, asked).await.map_err(|_| silent)?.map_err(unreachable)? {
        HELD => {}
        NOT_HELD => return Err(SourceError::NotHeld),
        BUSY => return Err(SourceError::Refused { retry_after: RETRY_AFTER }),
        other => return Err(SourceError::Protocol(format!("status {other}"))),
    }
    let mut left = usize::try_from(wanted).unwrap_or(usize::MAX);
    let mut piece = vec![0; left.min(READ)];
    let (mut until, mut progress) = (Instant::now() + window, 0);
    while left > 0 {
        let room = piece.get_mut(..left.min(READ)).unwrap_or_default();
        match timeout_at(until, stream.read(room)).await {
            Ok(Ok(0)) => return Err(SourceError::Unreachable("it stopped in the middle".into())),
            Ok(Ok(read)) => {
                sink.extend_from_slice(piece.get(..read).unwrap_or_default());
                left -= read;
                progress += read;
            }
            Ok(Err(error)) => return Err(unreachable(error)),
            Err(_) if progress >= MIN_PROGRESS => (until, progress) = (Instant::now() + window, 0),
            Err(_) => return Err(SourceError::Stalled { bytes: progress as u64, window }),
        }
    }
    Ok(())
}

/// Why a request was not answered to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("the asker is too slow")]
    Slow,
    #[error("the stream broke")]
    Io(#[from] io::Error),
    #[error("{0}")]
    NotHeld(#[from] NotHeld),
}

/// Answers one request, if one of `turns` is free.
pub(crate) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    reader: Arc<dyn BulkReader>,
    turns: &Semaphore,
) -> Result<(), ServeError> {
    let mut bytes = [0; REQUEST_LEN];
    timeout(STALL, stream.read_exact(&mut bytes)).await.map_err(|_| ServeError::Slow)??;
    let (blob, range) = parse(&bytes);
    let Ok(_turn) = turns.try_acquire() else { return write(&mut stream, &[BUSY]).await };
    let sane = range.start < range.end && range.end - range.start <= MAX_BULK;
    let first = if sane { reader.read(&blob, piece(&range, range.start)).await } else { Err(NotHeld) };
    let Ok(mut bytes) = first else { return write(&mut stream, &[NOT_HELD]).await };
    write(&mut stream, &[HELD]).await?;
    let mut at = range.start;
    loop {
        write(&mut stream, &bytes).await?;
        at += bytes.len() as u64;
        if at >= range.end || bytes.is_empty() {
            break;
        }
        bytes = reader.read(&blob, piece(&range, at)).await?;
    }
    stream.close().await?;
    Ok(())
}

fn piece(range: &Range<u64>, at: u64) -> Range<u64> {
    at..range.end.min(at + PIECE)
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), ServeError> {
    let write = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    Ok(timeout(STALL, write).await.map_err(|_| ServeError::Slow)??)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    use super::*;

    /// Holds the first half of one blob.
    struct Half(BlobId, Vec<u8>);

    #[async_trait]
    impl BulkReader for Half {
        async fn read(&self, blob: &BlobId, bytes: Range<u64>) -> Result<Bytes, NotHeld> {
            let range = usize::try_from(bytes.start).unwrap()..usize::try_from(bytes.end).unwrap();
            let held = self.1.get(..self.1.len() / 2).unwrap();
            let bytes = held.get(range).filter(|_| *blob == self.0).ok_or(NotHeld)?;
            Ok(Bytes::copy_from_slice(bytes))
        }
    }

    fn contents() -> Vec<u8> {
        (0..3_000_000u32).map(|n| (n / 7) as u8).collect()
    }

    async fn fetch(range: Range<u64>, turns: usize) -> (Result<(), SourceError>, Vec<u8>) {
        let (asker, holder) = tokio::io::duplex(10_000);
        let blob = BlobId(Hash::of(b"blob"));
        let reader = Arc::new(Half(blob, contents()));
        let turns = Semaphore::new(turns);
        let mut sink = Vec::new();
        let serve = async { drop(serve(holder.compat(), reader, &turns).await) };
        let (result, ()) = tokio::join!(ask(asker.compat(), &blob, range, &mut sink, WINDOW), serve);
        (result, sink)
    }

    #[tokio::test]
    async fn a_range_is_given_refused_or_not_held() {
        let (result, bytes) = fetch(1_000..1_200_000, 1).await;
        assert_eq!((result, bytes.as_slice()), (Ok(()), &contents()[1_000..1_200_000]));
        assert_eq!(fetch(2_000_000..2_000_001, 1).await, (Err(SourceError::NotHeld), vec![]));
        assert!(matches!(fetch(0..9, 0).await.0, Err(SourceError::Refused { .. })));
        assert!(matches!(fetch(0..u64::MAX, 1).await.0, Err(SourceError::Protocol(_))));
    }

    #[tokio::test]
    async fn what_came_before_a_failure_is_a_true_prefix() {
        let (result, bytes) = fetch(1_000_000..2_000_000, 1).await;
        assert!(matches!(result, Err(SourceError::Unreachable(_))));
        assert!(!bytes.is_empty() && contents()[1_000_000..].starts_with(&bytes));
    }

    proptest! {
        #[test]
        fn requests_round_trip_and_any_bytes_are_one(bytes in any::<[u8; 24]>(), more in any::<[u8; 24]>()) {
            let mut whole = [0; REQUEST_LEN];
            whole[..24].copy_from_slice(&bytes);
            whole[24..].copy_from_slice(&more);
            let (blob, range) = parse(&whole);
            prop_assert_eq!(request(&blob, &range), whole);
        }
    }
}
