//! Coming to hold a release: fetch the signed statement, verify it, then its blobs, boot blobs first.
//!
//! The same steps serve a bare machine, a node with everything in its store, and an agent that took a store over: what
//! is held is not fetched. Every failure is told as an event with a remedy and tried again for ever, with growing pauses:
//! peers come and go, and a machine without a root has nothing better to do.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use fabric::content::{BlobIndex, BlobRef};
use fabric::exchange::{ExchangeEvent, ExchangeHandle, Priority};
use fabric::id::{BlobId, NodeId, ObjectId};
use fabric::store::{Blob, Store, StoreError};
use fabric::swarm::{AnnouncedKind, Announcement, SwarmHandle};
use fabric::trust::{Release, RootMode, Settings, SignedRelease, TrustRoot};
use tokio::sync::{broadcast, mpsc};

use super::arriving_root::ArrivingRoot;
use super::config::NodeConfig;
use super::given_back::{is_given_back, note_given_back};
use super::not_admitted::NotAdmitted;
use super::view::{KnownRelease, View};
use crate::event::{Event, Events, Source};
use crate::home::RELEASE_HEAD;
use crate::memory;
use crate::objects;

/// First pause after a failure, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long to wait for the first neighbour before saying that there is none.
const PEER_PATIENCE: Duration = Duration::from_secs(10);
/// How long a small object may take while peers come and go.
const OBJECT_PATIENCE: Duration = Duration::from_secs(30);
/// How long nobody may announce a release, or give the fabric's settings, before that is said.
const WORD_PATIENCE: Duration = Duration::from_secs(30);
/// What helps when the store has no room.
const ROOM: &str = "make room: `bootfabric store ls` tells what is kept and why, `image rm`, `store unpin` and `store gc` remove it, \
                    `store limit` raises the limit";
/// What helps when the store does not take what it is given.
const DISK: &str = "check what the store is on (`dmesg` tells of a disk that fails), or keep it elsewhere";
/// The role of the root's blob.
const ROOT: &str = "root";
/// How often a machine that waits to be admitted says so again.
const REMIND: Duration = Duration::from_secs(30);
/// Shortest time between two progress events of one download.
const PROGRESS_PACE: Duration = Duration::from_millis(500);

/// What fetching needs.
#[derive(Clone)]
pub(crate) struct Join {
    pub(crate) store: Store,
    pub(crate) view: Arc<View>,
    pub(crate) swarm: SwarmHandle,
    pub(crate) exchange: ExchangeHandle,
    pub(crate) events: Events,
    pub(crate) trust_root: TrustRoot,
    /// The root, as soon as it begins to arrive.
    pub(crate) arriving: Arc<ArrivingRoot>,
    /// Held by the one task that keeps a share of the root's blob.
    pub(crate) sharing: Arc<tokio::sync::Mutex<()>>,
}

impl Join {
    /// Comes to hold the release: boot blobs first, then `booting` starts what boots others, then the root.
    pub(crate) async fn hold(self, config: NodeConfig, takes_over: bool, booting: mpsc::Sender<()>) {
        for blob in self.store.blobs().into_iter().filter(|blob| blob.complete) {
            if let Err(error) = self.exchange.seed(&blob.reference.blob).await {
                tracing::warn!(%error, blob = %blob.reference.blob, "a blob cannot be served");
            }
        }
        let stored = self.store.head(RELEASE_HEAD).ok().flatten();
        let id = match config.release.or(stored) {
            Some(id) => id,
            None => {
                let remedy = "is a node that has an image alive on the switch?";
                let waiting = || soon("announces a release", self.view.wait_announced_release());
                self.until_done("release", remedy, waiting).await
            }
        };
        let release = self.release(id).await;
        if config.awaits_disk {
            let remedy = "does another node hold the root of this release (`bootfabric status` there)? The disk is left as it is until one gives some of it";
            self.until_done(ROOT, remedy, || self.probe(&release.release.root)).await;
            return std::future::pending().await;
        }
        let remedy = "is a node that was booted before alive on the switch?";
        let waiting = || soon("gives the fabric's settings", self.view.wait_settings());
        let settings = self.until_done("settings", remedy, waiting).await;
        // What was unpacked and given back, in whole or in part, is neither weighed nor fetched again.
        let (mode, root) = (release.release.root_mode, release.release.root);
        let (drops, shares) = (config.drops_root(mode), config.shares_root(mode).is_some());
        let died = !takes_over && is_given_back(&config.state, &root.blob);
        let given_back = died || takes_over && (drops || shares && self.store.blob(&root.blob).is_some());
        if config.volatile && !given_back {
            self.memory(&release.release, config.root_mode(mode)).await;
        }
        self.boot_blobs(&release.release).await;
        self.announce(&release, &settings).await;
        if booting.send(()).await.is_err() {
            return;
        }
        if !takes_over && self.store.blob(&root.blob).is_some_and(|blob| blob.is_complete()) {
            // Nothing comes, and who waits for it hears so.
            let (blob, bytes) = (root.blob.to_string(), root.size);
            self.events.emit(Event::BlobComplete {
                role: ROOT.into(),
                blob,
                bytes,
                sources: vec![],
                reused: bytes,
            });
        }
        if !given_back {
            self.root(&release.release).await;
        }
        if takes_over {
            let fetched = self
                .exchange
                .report()
                .await
                .map_or(0, |report| report.peers.iter().map(|peer| peer.bytes).sum());
            self.events.emit(Event::TookOver { fetched });
        }
        if died && drops {
            // The agent that was told to may not have come to it.
            if let Err(error) = self.drop_root().await {
                tracing::error!("cannot give the root's blob back: {error:#}");
            }
        } else if shares && (died || takes_over) {
            self.share_root().await;
        }
    }

    /// Fetches and verifies the release `id`, and makes it the one bare machines are booted with.
    pub(crate) async fn release(&self, id: ObjectId) -> Arc<KnownRelease> {
        let remedy = "is a node that holds this release alive on the switch?";
        self.until_done("release", remedy, || self.try_release(id)).await
    }

    async fn try_release(&self, id: ObjectId) -> anyhow::Result<Arc<KnownRelease>> {
        let bytes = self.object(id).await?;
        let release = SignedRelease::decode(&bytes)?.verify(&self.trust_root)?;
        self.store.set_head(RELEASE_HEAD, &id)?;
        self.events.emit(Event::ReleaseVerified {
            release: id.to_string(),
            name: release.name.clone(),
            version: release.version.clone(),
            generation: release.generation,
            root_mode: release.root_mode.to_string(),
        });
        self.view.set_release(id, release);
        self.view.release().context("the release is not there")
    }

    /// Compares the memory that `release` needs with what this machine has, before anything large is fetched.
    pub(crate) async fn memory(&self, release: &Release, mode: RootMode) {
        if self.store.blob(&release.root.blob).is_some_and(|blob| blob.is_complete()) {
            return;
        }
        let remedy = "give the machine more memory, or boot a smaller image";
        self.until_done("memory", remedy, || async { self.try_memory(release, mode) }).await;
    }

    fn try_memory(&self, release: &Release, mode: RootMode) -> anyhow::Result<()> {
        let held: u64 = self.store.blobs().iter().map(|blob| blob.held_bytes).sum();
        let available = memory::available().context("cannot tell how much memory there is")?;
        let available_mib = available.saturating_add(held) / (1024 * 1024);
        let needed_mib = memory::needed_mib(release, mode);
        ensure!(
            available_mib >= needed_mib,
            "{} {} needs {needed_mib} MiB of memory as {mode}, this machine has {available_mib} MiB left",
            release.name,
            release.version,
        );
        self.events.emit(Event::MemoryChecked { needed_mib, available_mib });
        Ok(())
    }

    /// Fetches the boot blobs of `release`, all at once.
    pub(crate) async fn boot_blobs(&self, release: &Release) {
        let wanted = std::iter::once((&release.kernel, "kernel".to_owned()))
            .chain([(&release.first_stage, "first-stage".to_owned())])
            .chain(release.loaders.iter().map(|loader| (&loader.blob, loader.name.clone())));
        let fetches = wanted.map(|(reference, role)| self.blob(reference, role, Priority::Boot));
        futures::future::join_all(fetches).await;
        self.events.emit(Event::BootBlobsHeld { bytes: release.boot_blobs().map(|blob| blob.size).sum() });
    }

    /// Fetches the root of `release`.
    pub(crate) async fn root(&self, release: &Release) {
        self.blob(&release.root, ROOT.into(), Priority::Root).await;
    }

    /// Comes to hold the blob `reference`.
    async fn blob(&self, reference: &BlobRef, role: String, priority: Priority) -> Arc<Blob> {
        let remedy = "is another node that holds this blob alive on the switch?";
        self.until_done(&role, remedy, || self.try_blob(reference, &role, priority)).await
    }

    /// Gives the root's blob back: it is neither served nor kept any more.
    pub(crate) async fn drop_root(&self) -> anyhow::Result<()> {
        let release = self.view.release().context("no release is known")?;
        let root = release.release.root;
        note_given_back(&self.view.config().state, &root.blob)?;
        self.forget(root.blob).await?;
        self.events.emit(Event::RootDropped { blob: root.blob.to_string(), bytes: root.size });
        Ok(())
    }

    pub(super) async fn try_blob(
        &self,
        reference: &BlobRef,
        role: &str,
        priority: Priority,
    ) -> anyhow::Result<Arc<Blob>> {
        if let Some(blob) = self.store.blob(&reference.blob).filter(|blob| blob.is_complete()) {
            self.arrives(role, &blob);
            return Ok(blob);
        }
        let fetch = self.exchange.fetch(self.index(reference).await?, priority).await?;
        self.arrives(role, fetch.blob());
        let mut tally = Tally::start(&self.exchange, reference.blob);
        let mut progress = fetch.progress();
        let mut pace = tokio::time::interval(PROGRESS_PACE);
        let blob = loop {
            tokio::select! {
                done = fetch.wait() => break done?,
                () = tally.next() => {}
                _ = pace.tick() => {
                    let (bytes, total, peers) = {
                        let now = progress.borrow_and_update();
                        (now.bytes, now.total, now.peers)
                    };
                    self.events.emit(Event::Progress { role: role.to_owned(), bytes, total, peers });
                }
            }
        };
        let bytes = reference.size;
        self.events.emit(Event::Progress { role: role.to_owned(), bytes, total: bytes, peers: 0 });
        let sources = self.sources(tally.count());
        let reused = progress.borrow().reused;
        self.events.emit(Event::BlobComplete {
            role: role.to_owned(),
            blob: reference.blob.to_string(),
            bytes,
            sources,
            reused,
        });
        Ok(blob)
    }

    async fn index(&self, reference: &BlobRef) -> anyhow::Result<BlobIndex> {
        let index = BlobIndex::decode(&self.object(reference.index).await?)?;
        ensure!(index.reference() == *reference, "the index is one of another blob");
        Ok(index)
    }

    /// Waits until some of the blob `reference` has come and is what it should be, says so, and keeps none of it.
    async fn probe(&self, reference: &BlobRef) -> anyhow::Result<()> {
        let fetch = self.exchange.fetch(self.index(reference).await?, Priority::Root).await?;
        let mut progress = fetch.progress();
        let bytes = tokio::select! {
            done = fetch.wait() => done.map(|_| reference.size)?,
            some = progress.wait_for(|now| now.bytes > 0) => some.context("the exchange ends")?.bytes,
        };
        self.forget(reference.blob).await?;
        let (role, total) = (ROOT.to_owned(), reference.size);
        self.events.emit(Event::Progress { role, bytes, total, peers: 1 });
        Ok(())
    }

    async fn forget(&self, blob: BlobId) -> anyhow::Result<()> {
        self.exchange.forget(blob).await;
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.forget(&blob)).await??;
        Ok(())
    }

    /// Tells who waits for the root that there is something of it.
    fn arrives(&self, role: &str, blob: &Arc<Blob>) {
        if role == ROOT {
            self.arriving.begin(blob);
        }
    }

    fn sources(&self, tally: &BTreeMap<NodeId, u64>) -> Vec<Source> {
        let members = self.view.members();
        let address = |node: NodeId| {
            members.iter().find(|member| member.info.node == node).map(|member| member.info.address)
        };
        let source = |(node, bytes): (&NodeId, &u64)| Source {
            node: node.to_string(),
            address: address(*node).map(|address| address.to_string()).unwrap_or_default(),
            bytes: *bytes,
        };
        tally.iter().map(source).collect()
    }

    /// Tells the fabric what was verified here.
    pub(crate) async fn announce(&self, release: &KnownRelease, settings: &Settings) {
        let head = Announcement {
            kind: AnnouncedKind::Release,
            name: release.release.name.clone(),
            generation: release.release.generation,
            object: release.id,
        };
        if let Err(error) = self.swarm.announce(head).await {
            tracing::warn!(%error, "an announcement was not made");
        }
        self.announce_settings(settings).await;
    }

    /// A small object: from the store, else from the peers; kept in the store.
    pub(super) async fn object(&self, id: ObjectId) -> anyhow::Result<bytes::Bytes> {
        if let Some(bytes) = self.store.object(&id) {
            return Ok(bytes);
        }
        self.wait_for_peer().await?;
        let deadline = tokio::time::Instant::now() + OBJECT_PATIENCE;
        let bytes = objects::from_anybody(&self.swarm, id, self.view.watch_peers(), deadline).await;
        let bytes = bytes.with_context(|| format!("cannot get object {id}"))?;
        self.store.put_object(&bytes)?;
        Ok(bytes)
    }

    /// Waits until there is somebody to ask.
    async fn wait_for_peer(&self) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            () = self.view.wait_peer() => Ok(()),
            refused = self.view.wait_refused() => Err(refused.into()),
            () = tokio::time::sleep(PEER_PATIENCE) => {
                bail!("no other node answered within {} s", PEER_PATIENCE.as_secs())
            }
        }
    }

    async fn until_done<T, F: Future<Output = anyhow::Result<T>>>(
        &self,
        phase: &str,
        remedy: &str,
        mut attempt: impl FnMut() -> F,
    ) -> T {
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match attempt().await {
                Ok(done) => return done,
                Err(error) => error,
            };
            let refused = error.downcast_ref::<NotAdmitted>();
            self.events.emit(Event::PhaseFailed {
                phase: phase.to_owned(),
                error: format!("{error:#}"),
                remedy: match refused {
                    Some(refused) => refused.remedy(),
                    None if lacks_room(&error) => ROOM.to_owned(),
                    None if stored(&error, |error| matches!(error, StoreError::Io { .. })) => DISK.to_owned(),
                    None => remedy.to_owned(),
                },
            });
            if refused.is_some() {
                // A person decides when; whoever admits this machine also connects to it.
                let _ = tokio::time::timeout(REMIND, self.view.wait_peer()).await;
                continue;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// What others say, if they say it before long.
async fn soon<T>(what: &str, said: impl Future<Output = Option<T>>) -> anyhow::Result<T> {
    let said = tokio::time::timeout(WORD_PATIENCE, said).await.ok().flatten();
    said.with_context(|| format!("no other node {what} within {} s", WORD_PATIENCE.as_secs()))
}

/// Whether the store has no room, whoever says so.
fn lacks_room(error: &anyhow::Error) -> bool {
    stored(error, StoreError::is_full)
}

/// Whether the store is a cause of `error`, with an error that `is` what is looked for.
fn stored(error: &anyhow::Error, is: impl Fn(&StoreError) -> bool) -> bool {
    error.chain().any(|cause| {
        let shared = cause.downcast_ref::<Arc<StoreError>>().map(AsRef::as_ref);
        shared.or(cause.downcast_ref::<StoreError>()).is_some_and(&is)
    })
}

/// Counts who sends how much of one blob, by the exchange's events, of which only the last thousand wait to be read.
struct Tally {
    events: broadcast::Receiver<ExchangeEvent>,
    blob: BlobId,
    bytes: BTreeMap<NodeId, u64>,
}

impl Tally {
    fn start(exchange: &ExchangeHandle, blob: BlobId) -> Self {
        Self { events: exchange.events(), blob, bytes: BTreeMap::new() }
    }

    /// Counts the next event, waiting for it. Cancel safe.
    async fn next(&mut self) {
        match self.events.recv().await {
            Ok(event) => self.add(&event),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            // The exchange has ended, and with it the fetch, which says so.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }

    /// The sum, with all that has happened until now.
    fn count(&mut self) -> &BTreeMap<NodeId, u64> {
        use broadcast::error::TryRecvError;
        loop {
            match self.events.try_recv() {
                Ok(event) => self.add(&event),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return &self.bytes,
            }
        }
    }

    fn add(&mut self, event: &ExchangeEvent) {
        if let ExchangeEvent::RunDone { blob, peer, bytes, .. } = event
            && *blob == self.blob
        {
            *self.bytes.entry(*peer).or_default() += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_without_room_is_recognised_through_all_layers() {
        let full = || StoreError::Full { dir: "/".into(), needed: 2, available: 1 };
        let fetch = fabric::exchange::FetchError::from(full());
        assert!(lacks_room(&anyhow::Error::from(fetch).context("root")) && lacks_room(&full().into()));
        let other = StoreError::NoStore { dir: "/".into() };
        assert!(!lacks_room(&other.into()) && !lacks_room(&anyhow::anyhow!("no peer")));
    }
}
