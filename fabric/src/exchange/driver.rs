//! The exchange in a running node: the task around the [core](super::core), and the handle to it.
//!
//! Tasks
//! - *exchange*, one, spawned by [`Exchange::start`]: owns the core, feeds it and does what it says. Ends when the last
//!   [`ExchangeHandle`] and [`Fetch`] are gone or after [`ExchangeHandle::shutdown`].
//! - *transfer*, one for each request under way, owned by the exchange task: fetches a run, verifies and stores it on the
//!   blocking pool, reports. Their number is bounded by what the core has under way. Cancelling stops the fetch; a write
//!   that has begun is finished and reported, so the core never misses chunks that were kept.
//! - *copying*, one for each fetch of a blob of which the store has a part in other blobs, owned by the exchange task: on
//!   the blocking pool, until peers are asked for the rest. Stopping the fetch ends it after the run under way.
//!
//! Channels
//! - commands, bounded by [`COMMANDS`]: callers wait while it is full.
//! - outgoing messages, bounded by [`OUTGOING`], with a queue of [`MAX_QUEUED`] before it. The exchange never waits for
//!   its neighbours, so two nodes or two layers cannot wait for each other; should the queue overflow, the peers concerned
//!   are told everything anew once it has drained.
//! - events, a broadcast of [`EVENTS`]: slow readers lose the oldest.
//!
//! Dropping the runtime or the handle loses nothing verified: what is stored is in the store, and a later fetch resumes.

mod fetch;
mod handle;
mod outbox;
mod progress;
mod reuse;
mod task;
mod transfer;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ban::Ban;
use super::core::{BlobReport, Core, PeerKey, PeerReport};
use super::event::ExchangeEvent;
use super::message::Message;
use super::source::Route;
use crate::store::Store;
pub use fetch::Fetch;
pub use handle::ExchangeHandle;
use outbox::Outbox;
pub use progress::{FetchError, Progress};

/// Commands waiting. Neighbours' messages are most of them; a few per neighbour.
const COMMANDS: usize = 1024;
/// Messages handed out and not yet taken by the swarm.
const OUTGOING: usize = 256;
/// Messages waiting before that: a burst to every neighbour, several times over.
const MAX_QUEUED: usize = 8192;
/// Events that a slow reader may lag behind.
const EVENTS: usize = 1024;

/// Settings of the exchange.
#[derive(Debug, Clone, Copy)]
pub struct ExchangeConfig {
    /// Breaks ties: a different number on each node.
    pub seed: u64,
}

impl ExchangeConfig {
    /// Settings with a seed from the system's random numbers.
    ///
    /// # Errors
    /// If the system has none.
    pub fn random() -> Result<Self, getrandom::Error> {
        Ok(Self { seed: getrandom::u64()? })
    }
}

/// A message for a neighbour, to be sent over the swarm's ordered channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// To whom.
    pub to: PeerKey,
    /// What.
    pub message: Message,
}

/// What the exchange has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// For each blob known.
    pub blobs: Vec<BlobReport>,
    /// For each neighbour.
    pub peers: Vec<PeerReport>,
    /// Who is not asked any more, here or not, and why.
    pub bans: BTreeMap<PeerKey, Ban>,
    /// How each neighbour is reached.
    pub routes: BTreeMap<PeerKey, Route>,
}

/// Starts exchanges.
#[derive(Debug)]
pub struct Exchange;

impl Exchange {
    /// Starts the exchange over `store`, inside a tokio runtime. Nothing is served or fetched until the handle says so; the
    /// receiver gives the messages for the neighbours.
    #[must_use]
    pub fn start(store: Store, config: ExchangeConfig) -> (ExchangeHandle, mpsc::Receiver<Outgoing>) {
        let (commands, queue) = mpsc::channel(COMMANDS);
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let (events, _) = broadcast::channel(EVENTS);
        let task = task::Task {
            core: Core::new(config.seed),
            start: Instant::now(),
            sources: BTreeMap::new(),
            blobs: BTreeMap::new(),
            transfers: JoinSet::new(),
            cancels: BTreeMap::new(),
            copies: JoinSet::new(),
            buffers: task::Buffers::default(),
            outbox: Outbox::new(outgoing),
            events: events.clone(),
        };
        tokio::spawn(task.run(queue));
        (ExchangeHandle::new(store, commands, events), messages)
    }
}

/// Names of what the tasks share.
type SharedBlob = Arc<crate::store::Blob>;
type Events = broadcast::Sender<ExchangeEvent>;
