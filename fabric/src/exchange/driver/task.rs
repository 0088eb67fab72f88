//! The exchange's task: feeds the core and does what it says.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::super::core::grid::Grid;
use super::super::core::{
    Core, Failure, Order, Output, PeerHint, PeerKey, Priority, RequestId, Review, Time,
};
use super::super::event::ExchangeEvent;
use super::super::message::{Message, Run};
use super::super::source::ChunkSource;
use super::outbox::Outbox;
use super::progress::{FetchError, Progress};
use super::reuse::{Copied, Copying, Reuse};
use super::transfer::{Landed, Transfer};
use super::{Events, Report, SharedBlob};
use crate::id::BlobId;

/// Bytes of buffers kept for reuse: a request under way for each of thirty neighbours. New memory costs a page fault and a
/// cleared page for every 4 KiB, more than hashing them.
const SPARE_BYTES: usize = 2 * 1024 * 1024;

/// What a handle asks for.
pub(super) enum Command {
    PeerUp(PeerKey, Arc<dyn ChunkSource>, PeerHint),
    PeerDown(PeerKey),
    Incoming(PeerKey, Message),
    Fetch {
        state: BlobState,
        reuse: Option<Reuse>,
        priority: Priority,
        order: Order,
        progress: watch::Sender<Progress>,
    },
    First(BlobId, Run),
    Stop(BlobId),
    Seed(BlobState),
    Forget(BlobId),
    Share(BlobId, PeerKey, u8),
    Review(BlobId, u64, oneshot::Sender<Option<Review>>),
    Report(oneshot::Sender<Report>),
    Shutdown,
}

/// A blob of the store and its cells.
pub(super) struct BlobState {
    pub(super) blob: SharedBlob,
    grid: Arc<Grid>,
    progress: Option<watch::Sender<Progress>>,
    /// Ends the copying that a fetch waits for.
    copying: Option<CancellationToken>,
}

impl BlobState {
    pub(super) fn new(blob: SharedBlob) -> Self {
        let index = blob.index();
        let grid = Arc::new(Grid::new(index.blob(), index.chunks().map(|chunk| chunk.len)));
        Self { blob, grid, progress: None, copying: None }
    }

    pub(super) fn have_bytes(&self) -> u64 {
        let chunks = self.blob.have();
        chunks
            .iter()
            .map(|chunk| self.grid.bytes_of(chunk..chunk + 1))
            .map(|bytes| bytes.end - bytes.start)
            .sum()
    }

    fn end(&mut self, end: Result<(), FetchError>) {
        if let Some(copying) = self.copying.take() {
            copying.cancel();
        }
        if let Some(progress) = self.progress.take() {
            progress.send_modify(|progress| {
                if end.is_ok() {
                    progress.bytes = progress.total;
                }
                progress.end = Some(end);
            });
        }
    }
}

/// Memory for what arrives, used again and again.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    spare: Vec<Vec<u8>>,
    bytes: usize,
}

impl Buffers {
    fn take(&mut self) -> Vec<u8> {
        let buffer = self.spare.pop().unwrap_or_default();
        self.bytes -= buffer.capacity();
        buffer
    }

    fn put(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() > 0 && self.bytes + buffer.capacity() <= SPARE_BYTES {
            self.bytes += buffer.capacity();
            self.spare.push(buffer);
        }
    }
}

/// The task's state.
pub(super) struct Task {
    pub(super) core: Core,
    pub(super) start: Instant,
    pub(super) sources: BTreeMap<PeerKey, Arc<dyn ChunkSource>>,
    pub(super) blobs: BTreeMap<BlobId, BlobState>,
    pub(super) transfers: JoinSet<Landed>,
    pub(super) cancels: BTreeMap<RequestId, CancellationToken>,
    pub(super) copies: JoinSet<Copied>,
    pub(super) buffers: Buffers,
    pub(super) outbox: Outbox,
    pub(super) events: Events,
}

impl Task {
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            let deadline = self.core.deadline().map(|at| self.start + std::time::Duration::from_micros(at.0));
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Shutdown) | None => break,
                    Some(command) => self.command(command),
                },
                Some(landed) = self.transfers.join_next() => {
                    // A transfer neither panics nor is aborted; were it so, its request would expire.
                    if let Ok(landed) = landed {
                        self.landed(landed);
                    }
                }
                Some(copied) = self.copies.join_next() => {
                    // Neither panics nor is aborted.
                    if let Ok(copied) = copied {
                        self.copied(copied);
                    }
                }
                () = self.outbox.drain() => {}
                () = sleep_until(deadline.unwrap_or(self.start)), if deadline.is_some() => self.core.tick(self.now()),
            }
            for peer in self.outbox.stale() {
                self.core.refresh(peer);
            }
            self.act();
        }
        self.cancels.values().for_each(CancellationToken::cancel);
        self.blobs.values().filter_map(|state| state.copying.as_ref()).for_each(CancellationToken::cancel);
        while self.transfers.join_next().await.is_some() {}
        while self.copies.join_next().await.is_some() {}
        self.blobs.values_mut().for_each(|state| state.end(Err(FetchError::Stopped)));
    }

    fn now(&self) -> Time {
        self.start.elapsed().into()
    }

    fn command(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::PeerUp(peer, source, hint) => {
                self.sources.insert(peer, source);
                self.core.peer_up(now, peer, hint);
            }
            Command::PeerDown(peer) => {
                self.sources.remove(&peer);
                self.core.peer_down(now, peer);
            }
            Command::Incoming(peer, message) => self.core.message(now, peer, &message),
            Command::Fetch { mut state, reuse, priority, order, progress } => {
                self.drop_forgotten();
                let have = state.blob.have();
                let grid = Arc::clone(&state.grid);
                let cancel = CancellationToken::new();
                state.progress = Some(progress.clone());
                state.copying = reuse.is_some().then(|| cancel.clone());
                if let Some(mut old) = self.blobs.insert(grid.blob(), state) {
                    old.end(Err(FetchError::Stopped));
                }
                match reuse {
                    Some(reuse) => {
                        self.core.seed(now, &grid, &have);
                        self.copies.spawn(Copying { reuse, priority, order, progress, cancel }.run());
                    }
                    None => self.core.fetch(now, &grid, &have, priority, order),
                }
            }
            Command::First(blob, run) => self.core.first(now, blob, run),
            Command::Stop(blob) => {
                self.core.stop(now, blob);
                self.end(&blob, Err(FetchError::Stopped));
            }
            Command::Seed(state) => {
                let (grid, have) = (Arc::clone(&state.grid), state.blob.have());
                self.blobs.entry(grid.blob()).or_insert(state);
                self.core.seed(now, &grid, &have);
            }
            Command::Forget(blob) => self.forget(blob),
            Command::Share(blob, me, copies) => self.core.share(now, blob, me, copies),
            Command::Review(blob, room, reply) => {
                let review = self.core.review(now, blob, room);
                // Nobody waits for it any more: what is no longer said to be here stays in the store.
                let _ = reply.send(review);
            }
            Command::Report(reply) => {
                let report = Report {
                    blobs: self.core.blob_reports(),
                    peers: self.core.peer_reports(),
                    bans: self.core.bans(),
                    routes: self.sources.iter().map(|(&peer, source)| (peer, source.route())).collect(),
                };
                // Nobody waits for it any more: nothing to do.
                let _ = reply.send(report);
            }
            Command::Shutdown => {}
        }
    }

    fn forget(&mut self, blob: BlobId) {
        self.core.forget(self.now(), blob);
        self.end(&blob, Err(FetchError::Stopped));
        self.blobs.remove(&blob);
    }

    /// Beginning a blob may have swept others out of the store: their files are let go of.
    fn drop_forgotten(&mut self) {
        let forgotten: Vec<BlobId> =
            self.blobs.iter().filter(|(_, state)| state.blob.is_forgotten()).map(|(id, _)| *id).collect();
        forgotten.into_iter().for_each(|blob| self.forget(blob));
    }

    fn landed(&mut self, landed: Landed) {
        let now = self.now();
        self.cancels.remove(&landed.id);
        for chunks in landed.kept {
            let run = Run { first: chunks.start, count: chunks.end - chunks.start };
            self.core.stored(now, landed.blob, run);
        }
        self.core.finished(now, landed.id, landed.result);
        self.update_progress(&landed.blob);
        if let Some(error) = landed.fatal {
            self.core.stop(now, landed.blob);
            self.end(&landed.blob, Err(error));
        }
        self.buffers.put(landed.buffer);
    }

    /// A fetch has what the store had of it: now peers are asked for the rest.
    fn copied(&mut self, copied: Copied) {
        let id = copied.blob;
        let Some(state) = self.blobs.get_mut(&id).filter(|_| !copied.cancel.is_cancelled()) else { return };
        state.copying = None;
        let (grid, have) = (Arc::clone(&state.grid), state.blob.have());
        match copied.result {
            Ok(bytes) => {
                // Without subscribers events are lost, as they should be.
                let _ = self.events.send(ExchangeEvent::Reused { blob: id, bytes });
                self.core.fetch(self.now(), &grid, &have, copied.priority, copied.order);
            }
            Err(error) => self.end(&id, Err(error)),
        }
    }

    fn update_progress(&mut self, blob: &BlobId) {
        let Some(state) = self.blobs.get(blob).and_then(|state| state.progress.as_ref()) else { return };
        let Some(report) = self.core.blob_report(blob) else { return };
        state.send_modify(|progress| {
            progress.bytes = report.held;
            progress.peers = report.peers;
            progress.rate = report.rate;
        });
    }

    fn end(&mut self, blob: &BlobId, end: Result<(), FetchError>) {
        if let Some(state) = self.blobs.get_mut(blob) {
            state.end(end);
        }
    }

    /// Does everything that the core wants done.
    fn act(&mut self) {
        while let Some(output) = self.core.poll() {
            match output {
                Output::Request { id, peer, blob, run, bytes } => self.request(id, peer, blob, run, bytes),
                Output::Cancel(id) => {
                    if let Some(cancel) = self.cancels.remove(&id) {
                        cancel.cancel();
                    }
                }
                Output::Send { to, message } => self.outbox.push(to, message),
                Output::Event(event) => {
                    if let ExchangeEvent::BlobComplete { blob } = event {
                        self.end(&blob, Ok(()));
                    }
                    // Without subscribers events are lost, as they should be.
                    let _ = self.events.send(event);
                }
            }
        }
    }

    fn request(&mut self, id: RequestId, peer: PeerKey, blob: BlobId, run: Run, bytes: std::ops::Range<u64>) {
        let (Some(source), Some(state)) = (self.sources.get(&peer), self.blobs.get(&blob)) else {
            let failure = Failure::Transport("no source for this peer".into());
            return self.core.finished(self.now(), id, Err(failure));
        };
        let cancel = CancellationToken::new();
        self.cancels.insert(id, cancel.clone());
        let transfer = Transfer {
            id,
            source: Arc::clone(source),
            blob: Arc::clone(&state.blob),
            grid: Arc::clone(&state.grid),
            run,
            bytes,
            buffer: self.buffers.take(),
            cancel,
        };
        self.transfers.spawn(transfer.run());
    }
}
