//! The bytes of one transfer, read in pieces ahead of the window.
//!
//! Holds the pieces that the window touches and at most one more, which is read while the window is on the wire. Never
//! reads a file on a runtime thread: files are read on the blocking pool.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio_util::task::AbortOnDropHandle;

use crate::files::{FileBody, FileError, Slice};

/// Bytes read at once, rounded down to whole blocks: large enough that the hand-over to the blocking pool is noise,
/// small enough that 256 transfers hold 64 MiB at most in the usual case.
const PIECE: u64 = 128 * 1024;

/// Longest wait for one piece: a relay that is slower than this is no help to firmware, which gives up before.
const READ_DEADLINE: Duration = Duration::from_secs(20);

pub(super) struct Reader {
    body: Arc<dyn FileBody>,
    len: u64,
    blksize: u64,
    blocks_per_piece: u64,
    /// Consecutive pieces, by index.
    held: VecDeque<(u64, Bytes)>,
    ahead: Option<(u64, AbortOnDropHandle<Result<Bytes, FileError>>)>,
}

impl Reader {
    pub(super) fn new(body: Arc<dyn FileBody>, blksize: u16) -> Self {
        let blksize = u64::from(blksize).max(1);
        Self {
            len: body.len(),
            body,
            blksize,
            blocks_per_piece: (PIECE / blksize).max(1),
            held: VecDeque::new(),
            ahead: None,
        }
    }

    /// Makes the bytes of `blocks` available to [`Self::block`], forgets those before `blocks`, and begins to read what
    /// follows. Cancelling it loses nothing.
    pub(super) async fn load(&mut self, blocks: &RangeInclusive<u64>) -> Result<(), FileError> {
        let first = self.piece_of(*blocks.start());
        let last = self.piece_of(*blocks.end());
        while self.held.front().is_some_and(|(index, _)| *index < first) {
            self.held.pop_front();
        }
        let missing = self.held.back().map_or(first, |(index, _)| index + 1);
        for index in missing..=last {
            let bytes = self.take(index).await?;
            self.held.push_back((index, bytes));
        }
        let next = last + 1;
        if self.ahead.is_none() && !self.range_of(next).is_empty() {
            self.ahead = Some((next, spawn_read(&self.body, self.range_of(next))));
        }
        Ok(())
    }

    /// The payload of a block within those loaded last; empty for the empty last block.
    pub(super) fn block(&self, block: u64) -> &[u8] {
        let index = self.piece_of(block);
        let Some((_, piece)) = self.held.iter().find(|(held, _)| *held == index) else { return &[] };
        let start = (block - 1) % self.blocks_per_piece * self.blksize;
        let end = (start + self.blksize).min(piece.len() as u64);
        // Both lie within a piece of PIECE or one block's bytes, so they fit a usize.
        piece.get(start as usize..end as usize).unwrap_or_default()
    }

    fn piece_of(&self, block: u64) -> u64 {
        block.saturating_sub(1) / self.blocks_per_piece
    }

    fn range_of(&self, piece: u64) -> Range<u64> {
        let bytes = self.blocks_per_piece * self.blksize;
        let start = (piece * bytes).min(self.len);
        start..(start + bytes).min(self.len)
    }

    async fn take(&mut self, index: u64) -> Result<Bytes, FileError> {
        let range = self.range_of(index);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let (_, task) = match &mut self.ahead {
            Some(ahead) if ahead.0 == index => ahead,
            other => other.insert((index, spawn_read(&self.body, range))),
        };
        let outcome = tokio::time::timeout(READ_DEADLINE, task).await;
        self.ahead = None;
        match outcome {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(FileError::Io(error.to_string())),
            Err(_) => Err(FileError::Io(format!("no bytes within {} s", READ_DEADLINE.as_secs()))),
        }
    }
}

fn spawn_read(body: &Arc<dyn FileBody>, range: Range<u64>) -> AbortOnDropHandle<Result<Bytes, FileError>> {
    let body = Arc::clone(body);
    AbortOnDropHandle::new(tokio::spawn(async move { read(&*body, range).await }))
}

/// All bytes of `range`: exactly its length, or an error.
async fn read(body: &dyn FileBody, range: Range<u64>) -> Result<Bytes, FileError> {
    let length =
        usize::try_from(range.end - range.start).map_err(|error| FileError::Io(error.to_string()))?;
    let io_error = |error: std::io::Error| FileError::Io(error.to_string());
    match body.slice(range).await? {
        Slice::Bytes(bytes) if bytes.len() == length => Ok(bytes),
        Slice::Bytes(bytes) => Err(FileError::Io(format!("{} bytes instead of {length}", bytes.len()))),
        Slice::File { file, range } => tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; length];
            file.read_exact_at(&mut buffer, range.start).map(|()| buffer.into())
        })
        .await
        .map_err(|error| FileError::Io(error.to_string()))?
        .map_err(io_error),
        Slice::Stream(mut stream) => {
            let mut buffer = vec![0; length];
            stream.read_exact(&mut buffer).await.map_err(io_error)?;
            Ok(buffer.into())
        }
    }
}
