//! One request: fetch a run, verify and store it, say what came of it.

use std::ops::Range;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::super::ban::BadChunk;
use super::super::core::grid::Grid;
use super::super::core::{Failure, RequestId};
use super::super::message::Run;
use super::super::source::{ChunkSource, SourceError};
use super::SharedBlob;
use super::progress::FetchError;
use crate::bitfield::Bitfield;
use crate::id::{BlobId, Hash};
use crate::store::{StoreError, WriteError};

/// Runs of at most so many bytes are hashed and written by the task that fetched them. It takes some ten microseconds per
/// 32 KiB; handing them to another thread and back costs as much, and wakes two threads where one would sleep on.
const SHORT: u64 = 256 * 1024;

/// A request to carry out.
pub(super) struct Transfer {
    pub(super) id: RequestId,
    pub(super) source: Arc<dyn ChunkSource>,
    pub(super) blob: SharedBlob,
    pub(super) grid: Arc<Grid>,
    pub(super) run: Run,
    pub(super) bytes: Range<u64>,
    pub(super) buffer: Vec<u8>,
    pub(super) cancel: CancellationToken,
}

/// What came of it.
pub(super) struct Landed {
    pub(super) id: RequestId,
    pub(super) blob: BlobId,
    /// Chunks that are held now.
    pub(super) kept: Vec<Range<u32>>,
    pub(super) result: Result<(), Failure>,
    /// The store failed: the fetch cannot go on.
    pub(super) fatal: Option<FetchError>,
    pub(super) buffer: Vec<u8>,
}

impl Transfer {
    /// Carries the request out. Never fails and never panics; cancelling shortens it.
    pub(super) async fn run(mut self) -> Landed {
        let blob = self.grid.blob();
        self.buffer.clear();
        let mut buffer = std::mem::take(&mut self.buffer);
        let fetched = tokio::select! {
            fetched = self.source.fetch(&blob, self.bytes.clone(), &mut buffer) => fetched,
            () = self.cancel.cancelled() => {
                let failure = Failure::Transport("cancelled".into());
                return Landed { id: self.id, blob, kept: Vec::new(), result: Err(failure), fatal: None, buffer: Vec::new() };
            }
        };
        let id = self.id;
        if self.bytes.end - self.bytes.start <= SHORT {
            return self.store(buffer, fetched);
        }
        let stored = tokio::task::spawn_blocking(move || self.store(buffer, fetched)).await;
        stored.unwrap_or_else(|error| Landed {
            id,
            blob,
            kept: Vec::new(),
            result: Err(Failure::Local(error.to_string())),
            fatal: None,
            buffer: Vec::new(),
        })
    }

    /// Keeps the whole chunks that came.
    fn store(&self, mut buffer: Vec<u8>, fetched: Result<(), SourceError>) -> Landed {
        let run = self.whole_chunks(&mut buffer);
        let written =
            if run.count == 0 { Ok(()) } else { self.blob.write_run(run.first, &buffer).map(|_| ()) };
        let kept = match &written {
            Ok(()) => vec![run.chunks()],
            Err(_) => held(&self.blob.have(), run.chunks()),
        };
        let mut fatal = None;
        let result = match (written, fetched) {
            (Ok(()), Ok(())) if run == self.run => Ok(()),
            (Ok(()), Ok(())) => Err(Failure::Protocol("fewer bytes than the run has".into())),
            (Ok(()), Err(error)) => Err(failure(error)),
            (Err(WriteError::BadChunk { chunk, .. }), _) => Err(self.blame(&buffer, chunk)),
            (Err(error @ WriteError::Length { .. }), _) => Err(Failure::Protocol(error.to_string())),
            (Err(WriteError::Store(error)), _) => {
                let words = words(&error);
                fatal = Some(error.into());
                Err(Failure::Local(words))
            }
        };
        Landed { id: self.id, blob: self.grid.blob(), kept, result, fatal, buffer }
    }

    /// The failure of `chunk`, which the store refused. Its sender is blamed with a proof in hand only.
    fn blame(&self, buffer: &[u8], chunk: u32) -> Failure {
        let blob = self.grid.blob();
        let in_buffer = |at: u64| usize::try_from(at.checked_sub(self.bytes.start)?).ok();
        let bytes = self.grid.bytes_of(chunk..chunk.saturating_add(1));
        let sent =
            in_buffer(bytes.start).zip(in_buffer(bytes.end)).and_then(|(from, to)| buffer.get(from..to));
        let (Some(sent), Some(entry)) = (sent, self.blob.index().entry(chunk)) else {
            return Failure::Local(format!("chunk {chunk} of blob {blob} is not part of the run"));
        };
        let (expected, got) = (entry.id.0, Hash::of(sent));
        if expected == got {
            // The store found it wrong a moment ago.
            return Failure::Local(format!("chunk {chunk} of blob {blob} changed in this machine's memory"));
        }
        Failure::BadChunk(BadChunk { blob, chunk, expected, got })
    }

    /// Cuts `buffer` down to the whole chunks in it; their run.
    fn whole_chunks(&self, buffer: &mut Vec<u8>) -> Run {
        let chunks = self.run.chunks();
        let came = self.bytes.start.saturating_add(buffer.len() as u64);
        let whole =
            chunks.clone().take_while(|&chunk| self.grid.bytes_of(chunk..chunk + 1).end <= came).count();
        let count = u32::try_from(whole).unwrap_or(0);
        let bytes = self.grid.bytes_of(chunks.start..chunks.start + count);
        buffer.truncate(usize::try_from(bytes.end - bytes.start).unwrap_or(0));
        Run { first: chunks.start, count }
    }
}

/// The runs of `chunks` that are in `have`.
fn held(have: &Bitfield, chunks: Range<u32>) -> Vec<Range<u32>> {
    chunks.filter(|&chunk| have.has(chunk)).map(|chunk| chunk..chunk + 1).collect()
}

fn failure(error: SourceError) -> Failure {
    match error {
        SourceError::NotHeld => Failure::NotHeld,
        SourceError::Refused { retry_after } => Failure::Refused { retry_after },
        SourceError::Protocol(why) => Failure::Protocol(why),
        error @ (SourceError::Unreachable(_) | SourceError::Stalled { .. }) => {
            Failure::Transport(error.to_string())
        }
    }
}

/// An error and its causes on one line.
fn words(error: &StoreError) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        words.push_str(&format!(": {next}"));
        cause = next.source();
    }
    words
}
