//! Reading a blob while it arrives.
//!
//! A reader gets each piece as soon as its chunks are verified and stored. It waits for the store's own signal, never
//! for a clock, but gives up when nothing at all arrives for [`STALL`]. The task that reads ahead ends when the reader
//! goes away: its pipe is then closed.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use fabric::store::Blob;
use tokio::io::{AsyncRead, AsyncWriteExt, DuplexStream};

/// How long a firmware client is kept waiting for the next piece; it would give up about then itself.
const STALL: Duration = Duration::from_secs(20);
/// Bytes that may wait between the store and a slow client.
const PIPE: usize = 256 * 1024;
/// Bytes read at a time.
const PIECE: u64 = 64 * 1024;

/// A range of a blob that is still arriving.
pub(crate) struct Arriving;

impl Arriving {
    /// The bytes of `range`, each as soon as it is held. Ends early when the download stalls.
    pub(crate) fn stream(blob: Arc<Blob>, range: Range<u64>) -> Box<dyn AsyncRead + Send + Unpin> {
        let (writer, reader) = tokio::io::duplex(PIPE);
        tokio::spawn(copy(blob, range, writer));
        Box::new(reader)
    }
}

async fn copy(blob: Arc<Blob>, range: Range<u64>, mut writer: DuplexStream) {
    let mut at = range.start;
    while at < range.end {
        let piece = at..range.end.min(at + PIECE);
        if !held(&blob, piece.clone()).await {
            tracing::warn!(blob = %blob.index().blob(), offset = at, "nothing arrived, a waiting client is let go");
            return;
        }
        match read(blob.file(), piece.clone()).await {
            Ok(bytes) if writer.write_all(&bytes).await.is_ok() => at = piece.end,
            // The client went away, which ends this task; or the store failed, which ends the transfer.
            _ => return,
        }
    }
}

/// Waits until `piece` is held; false if nothing new arrived for [`STALL`].
async fn held(blob: &Blob, piece: Range<u64>) -> bool {
    let mut changes = blob.subscribe();
    loop {
        changes.mark_unchanged();
        if blob.holds(piece.clone()) {
            return true;
        }
        match tokio::time::timeout(STALL, changes.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return blob.holds(piece),
            Err(_) => return false,
        }
    }
}

/// The bytes of `piece`, which are held, read from `file` on the blocking pool.
pub(super) async fn read(file: Arc<File>, piece: Range<u64>) -> std::io::Result<Vec<u8>> {
    let length = usize::try_from(piece.end - piece.start).unwrap_or(0);
    let read = move || {
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, piece.start).map(|()| bytes)
    };
    tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)?
}
