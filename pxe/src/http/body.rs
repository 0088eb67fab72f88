//! Puts an answer on a connection: its head, and its content by the cheapest way that content has.
//!
//! Memory goes out in one vectored write with the head. A file goes out by `sendfile(2)` behind a head that waits for it
//! (`MSG_MORE`, `TCP_CORK`), so no byte is copied into this process. A stream goes through one bounded buffer. What these steps are on
//! a wrapped connection, [`super::wire`] knows. Every wait for the client has a deadline. Dropping the future leaves the
//! connection in the middle of an answer: it must be closed.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::wire::Wire;
use super::{HttpConfig, UploadLimit};
use crate::files::Slice;

/// Bytes offered to the socket in one call. Larger calls gain nothing, as the socket's buffer is about this large; and
/// this bounds how long a call may keep a runtime thread when the page cache has to be filled.
const STEP: usize = 2048 * 1024;
/// After so many bytes the task lets others of its thread run, even if its client takes everything at once: some
/// milliseconds where memory is the limit. Not more often, because a thread that yields wakes another one to take over.
const YIELD_EVERY: usize = 16 * STEP;
/// Buffer of a relayed stream.
const STREAM_BUFFER: usize = 64 * 1024;

/// Why an answer was not sent to its end. The connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("{0}")]
    ClientLeft(io::Error),
    #[error("took nothing for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error("the source ended early")]
    Short,
    #[error("the source gave nothing for {} s", .0.as_secs())]
    SourceStalled(Duration),
    #[error("cannot read: {0}")]
    Source(io::Error),
}

/// Sends one answer.
pub(super) struct BodySender<'a> {
    wire: &'a mut Wire,
    limit: Option<&'a UploadLimit>,
    /// Longest time without a byte taken by the client.
    stall: Duration,
    /// Longest time without a byte from a stream.
    source_stall: Duration,
    /// Bytes that the upload limit lets go and that are not sent yet.
    granted: usize,
    since_yield: usize,
    /// Content bytes of all answers.
    total: &'a AtomicU64,
    /// Content bytes that the socket took.
    pub(super) sent: u64,
}

impl<'a> BodySender<'a> {
    pub(super) fn new(wire: &'a mut Wire, total: &'a AtomicU64, config: &'a HttpConfig) -> Self {
        let (stall, source_stall) = (config.stall, config.source_stall);
        let limit = config.upload_limit.as_deref();
        Self { wire, limit, stall, source_stall, granted: 0, since_yield: 0, total, sent: 0 }
    }

    /// Sends a head, or an answer that is whole in memory.
    pub(super) async fn head(&mut self, mut head: &[u8]) -> Result<(), SendError> {
        while !head.is_empty() {
            let wrote = within(self.stall, self.wire.write(head)).await?;
            head = head.get(wrote..).unwrap_or_default();
        }
        self.flush().await
    }

    /// Sends the head, then exactly `length` bytes of content.
    pub(super) async fn answer(&mut self, head: &[u8], content: Slice, length: u64) -> Result<(), SendError> {
        self.content(head, content, length).await?;
        self.flush().await
    }

    async fn content(&mut self, head: &[u8], content: Slice, length: u64) -> Result<(), SendError> {
        match content {
            Slice::Bytes(bytes) => {
                if bytes.len() as u64 != length {
                    return Err(SendError::Short);
                }
                self.memory(head, bytes).await
            }
            Slice::File { file, range } => {
                if range.end.checked_sub(range.start) != Some(length) {
                    return Err(SendError::Short);
                }
                self.head_before_content(head, length).await?;
                self.file(&file, range).await
            }
            Slice::Stream(stream) => {
                self.head(head).await?;
                self.relay(stream, length).await
            }
        }
    }

    async fn memory(&mut self, mut head: &[u8], mut content: Bytes) -> Result<(), SendError> {
        while !head.is_empty() || content.has_remaining() {
            let step = self.step(content.remaining()).await;
            let piece = content.get(..step).unwrap_or_default();
            let wrote = within(self.stall, self.wire.write_two(head, piece)).await?;
            let of_head = wrote.min(head.len());
            head = head.get(of_head..).unwrap_or_default();
            content.advance(wrote - of_head);
            self.account(wrote - of_head).await;
        }
        Ok(())
    }

    /// Sends a head that leaves together with the content that must follow at once.
    async fn head_before_content(&mut self, mut head: &[u8], length: u64) -> Result<(), SendError> {
        while !head.is_empty() {
            let wrote = within(self.stall, self.wire.write_before_content(head, length)).await?;
            head = head.get(wrote..).unwrap_or_default();
        }
        Ok(())
    }

    async fn file(&mut self, file: &File, range: Range<u64>) -> Result<(), SendError> {
        let mut offset = range.start;
        while offset < range.end {
            let step = self.step(usize::try_from(range.end - offset).unwrap_or(usize::MAX)).await;
            let wrote = within(self.stall, self.wire.send_file(file, offset, step)).await?;
            if wrote == 0 {
                // The file is shorter than it was when its length was promised.
                return Err(SendError::Short);
            }
            offset += wrote as u64;
            self.account(wrote).await;
        }
        Ok(())
    }

    async fn relay(
        &mut self,
        mut stream: Box<dyn AsyncRead + Send + Unpin>,
        length: u64,
    ) -> Result<(), SendError> {
        let mut buffer = vec![0; usize::try_from(length).unwrap_or(usize::MAX).min(STREAM_BUFFER)];
        let mut left = length;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let read =
                match timeout(self.source_stall, stream.read(buffer.get_mut(..room).unwrap_or_default()))
                    .await
                {
                    Err(_) => return Err(SendError::SourceStalled(self.source_stall)),
                    Ok(Err(error)) => return Err(SendError::Source(error)),
                    Ok(Ok(0)) => return Err(SendError::Short),
                    Ok(Ok(read)) => read,
                };
            let mut piece = buffer.get(..read).unwrap_or_default();
            while !piece.is_empty() {
                let step = self.step(piece.len()).await;
                let write = self.wire.write(piece.get(..step).unwrap_or_default());
                let wrote = within(self.stall, write).await?;
                piece = piece.get(wrote..).unwrap_or_default();
                self.account(wrote).await;
            }
            left -= read as u64;
        }
        Ok(())
    }

    /// How many of `left` bytes may be offered to the socket now; waits for the upload limit.
    async fn step(&mut self, left: usize) -> usize {
        let Some(limit) = self.limit else { return left.min(STEP) };
        if self.granted == 0 {
            self.granted = limit.turn(left).await;
        }
        left.min(self.granted)
    }

    async fn account(&mut self, wrote: usize) {
        self.sent += wrote as u64;
        self.total.fetch_add(wrote as u64, Ordering::Relaxed);
        self.granted = self.granted.saturating_sub(wrote);
        self.since_yield += wrote;
        if self.since_yield >= YIELD_EVERY {
            self.since_yield = 0;
            tokio::task::yield_now().await;
        }
    }

    async fn flush(&mut self) -> Result<(), SendError> {
        within(self.stall, self.wire.flush()).await
    }
}

/// A step of the wire, unless the client takes nothing for too long.
async fn within<T>(stall: Duration, step: impl Future<Output = io::Result<T>>) -> Result<T, SendError> {
    match timeout(stall, step).await {
        Ok(result) => result.map_err(SendError::ClientLeft),
        Err(_) => Err(SendError::Stalled(stall)),
    }
}
