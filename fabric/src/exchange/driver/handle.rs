//! The handle through which a node uses its exchange.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::super::core::{Order, PeerHint, PeerKey, Priority, ShareReport};
use super::super::event::ExchangeEvent;
use super::super::message::Message;
use super::super::source::ChunkSource;
use super::fetch::Fetch;
use super::progress::{FetchError, Progress};
use super::reuse::Reuse;
use super::task::{BlobState, Command};
use super::{Events, Report};
use crate::content::BlobIndex;
use crate::id::BlobId;
use crate::store::{Blob, Store};

/// Talks to the exchange's task. Clones talk to the same one.
#[derive(Debug, Clone)]
pub struct ExchangeHandle {
    store: Store,
    commands: mpsc::Sender<Command>,
    events: Events,
}

impl ExchangeHandle {
    pub(super) fn new(store: Store, commands: mpsc::Sender<Command>, events: Events) -> Self {
        Self { store, commands, events }
    }

    /// A neighbour can be told and, through `source`, asked. Said again, it replaces source and hint.
    pub async fn peer_up(&self, peer: PeerKey, source: Arc<dyn ChunkSource>, hint: PeerHint) {
        self.command(Command::PeerUp(peer, source, hint)).await;
    }

    /// A neighbour is gone.
    pub async fn peer_down(&self, peer: PeerKey) {
        self.command(Command::PeerDown(peer)).await;
    }

    /// A neighbour said something. Messages of one neighbour must come in the order in which it sent them.
    pub async fn incoming(&self, peer: PeerKey, message: Message) {
        self.command(Command::Incoming(peer, message)).await;
    }

    /// Fetches what is missing of the blob that the trusted `index` describes, rarest chunks first, and serves it meanwhile.
    /// What other blobs of the store have of it is copied before peers are asked.
    ///
    /// # Errors
    /// [`FetchError`] if the store cannot begin the blob.
    pub async fn fetch(&self, index: BlobIndex, priority: Priority) -> Result<Fetch, FetchError> {
        self.fetch_in(index, priority, Order::Rarest).await
    }

    /// Like [`ExchangeHandle::fetch`], in an order of your own.
    ///
    /// # Errors
    /// [`FetchError`] if the store cannot begin the blob.
    pub async fn fetch_in(
        &self,
        index: BlobIndex,
        priority: Priority,
        order: Order,
    ) -> Result<Fetch, FetchError> {
        let store = self.store.clone();
        let (state, reuse) = on_pool(move || {
            let blob = store.begin(index)?;
            let reuse = Reuse::plan(&store, &blob);
            Ok((BlobState::new(blob), reuse))
        })
        .await?;
        let blob = Arc::clone(&state.blob);
        let (progress, updates) = watch::channel(Progress::new(&blob, state.have_bytes()));
        let fetch = Fetch::new(blob, updates, self.commands.clone());
        if !self.command(Command::Fetch { state, reuse, priority, order, progress }).await {
            return Err(FetchError::Stopped);
        }
        Ok(fetch)
    }

    /// Something waits for the bytes `range` of a blob that is being fetched: they come before its others. Said again, the new
    /// range counts.
    pub async fn first(&self, blob: &Blob, range: Range<u64>) {
        self.command(Command::First(blob.id(), blob.index().covering(range))).await;
    }

    /// Serves what the store holds of a blob; false if it holds nothing of it.
    ///
    /// # Errors
    /// [`FetchError::Stopped`] if the exchange has ended.
    pub async fn seed(&self, blob: &BlobId) -> Result<bool, FetchError> {
        let (store, blob) = (self.store.clone(), *blob);
        let state = on_pool(move || Ok(store.blob(&blob).map(BlobState::new))).await?;
        let Some(state) = state else { return Ok(false) };
        if self.command(Command::Seed(state)).await { Ok(true) } else { Err(FetchError::Stopped) }
    }

    /// Serves what the store holds of a blob and keeps a share of it from now on, so that `copies` nodes that share it hold each
    /// chunk; `me` is this node's name among its neighbours. False if the store holds nothing of it.
    /// [`ExchangeHandle::review_share`] does what there is to do for that.
    ///
    /// # Errors
    /// [`FetchError::Stopped`] if the exchange has ended.
    pub async fn share(&self, blob: &BlobId, me: PeerKey, copies: u8) -> Result<bool, FetchError> {
        if !self.seed(blob).await? {
            return Ok(false);
        }
        let done = self.command(Command::Share(*blob, me, copies)).await;
        if done { Ok(true) } else { Err(FetchError::Stopped) }
    }

    /// Looks at who shares a blob: gives the room of chunks back that enough others hold, fetches those that this node should hold
    /// as far as they fit into `room` bytes. To be called every few seconds, one call after the other; `None` if no share is
    /// kept.
    ///
    /// # Errors
    /// [`FetchError`] if the store fails or the exchange has ended.
    pub async fn review_share(&self, blob: &BlobId, room: u64) -> Result<Option<ShareReport>, FetchError> {
        let (reply, review) = oneshot::channel();
        self.command(Command::Review(*blob, room, reply)).await;
        let Some(review) = review.await.map_err(|_| FetchError::Stopped)? else { return Ok(None) };
        if let Some(blob) = self.store.blob(blob) {
            on_pool(move || {
                blob.withdraw(&review.release)?;
                blob.trim()?;
                Ok(())
            })
            .await?;
        }
        Ok(Some(review.report))
    }

    /// Stops fetching and serving a blob, before it is dropped from the store; the neighbours are told.
    pub async fn forget(&self, blob: BlobId) {
        self.command(Command::Forget(blob)).await;
    }

    /// What was fetched from whom; `None` if the exchange has ended.
    pub async fn report(&self) -> Option<Report> {
        let (reply, report) = oneshot::channel();
        self.command(Command::Report(reply)).await;
        report.await.ok()
    }

    /// Everything that happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<ExchangeEvent> {
        self.events.subscribe()
    }

    /// Puts events of a peer's source among the exchange's own. It does not keep the exchange running.
    pub fn teller(&self) -> impl Fn(ExchangeEvent) + Send + Sync + use<> {
        let events = self.events.clone();
        move |event| {
            // Without subscribers events are lost, as they should be.
            let _ = events.send(event);
        }
    }

    /// Ends the exchange: requests are dropped, writes that have begun are finished. Returns when that is done.
    pub async fn shutdown(&self) {
        self.command(Command::Shutdown).await;
        self.commands.closed().await;
    }

    async fn command(&self, command: Command) -> bool {
        self.commands.send(command).await.is_ok()
    }
}

/// Runs what blocks on the blocking pool.
async fn on_pool<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| FetchError::Stopped)?
}
