//! Coming to hold a file: join the swarm of a ticket, fetch, verify, put the file in its place.
//!
//! Until it is complete, the file is in a store of its own beside its place (`.NAME.bootfabric`), so that a fetch that was
//! stopped at any instant goes on from what was verified. The file appears under its name at once and whole.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fabric::content::BlobIndex;
use fabric::exchange::Priority;
use fabric::store::{Blob, LockMode, Store, StoreOptions};
use fabric::swarm::ObjectError;

use super::station::{Setup, Station};
use super::ticket::Ticket;
use crate::event::{Event, Events};
use crate::objects;

/// How often progress is told.
const PACE: Duration = Duration::from_millis(500);

/// What to fetch and how.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) ticket: Ticket,
    pub(crate) output: PathBuf,
    pub(crate) setup: Setup,
    /// How long to go on without a byte and without a peer.
    pub(crate) patience: Duration,
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Verified bytes.
    pub(crate) bytes: u64,
    /// All bytes.
    pub(crate) total: u64,
    /// Peers that hold a part.
    pub(crate) peers: usize,
    /// Bytes per second, once measured.
    pub(crate) rate: Option<u64>,
}

/// A file that has arrived and is served on.
pub(crate) struct Arrived {
    station: Station,
    work: PathBuf,
}

impl Arrived {
    /// Stops serving and tidies up.
    pub(crate) async fn stop(self) {
        self.station.stop().await;
        tidy(&self.work);
    }
}

/// Fetches; `watch` is told how far it is. Returns when the file is in its place.
pub(crate) async fn fetch(plan: &Plan, events: &Events, watch: &dyn Fn(Progress)) -> anyhow::Result<Arrived> {
    let begun = Instant::now();
    let work = work_directory(&plan.output)?;
    let store = open_store(&work, plan)?;
    let station = Station::start(&plan.setup, store.clone(), events).await?;
    let index = index(plan, &station).await?;
    station.objects.insert(index.object_id(), index.encode().into());
    let blob = download(plan, &station, index, events, watch).await?;
    let (place, placed) = (plan.output.clone(), store.clone());
    tokio::task::spawn_blocking(move || placed.release_file(&blob.id(), &place)).await??;
    let file = plan.output.display().to_string();
    let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    events.emit(Event::Done { file, bytes: plan.ticket.blob.size, millis });
    Ok(Arrived { station, work })
}

/// `.NAME.bootfabric` beside the file.
fn work_directory(output: &Path) -> anyhow::Result<PathBuf> {
    ensure!(!output.is_dir(), "{} is a directory: name the file in it with -o", output.display());
    let name = output.file_name().with_context(|| format!("{} names no file", output.display()))?;
    let parent = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    ensure!(parent.is_dir(), "there is no directory {}: make it first", parent.display());
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".bootfabric");
    Ok(parent.join(hidden))
}

/// Opens the store of the fetch; what another ticket left there is removed.
fn open_store(work: &Path, plan: &Plan) -> anyhow::Result<Store> {
    let store =
        Store::open(work, StoreOptions { durable: false, lock: LockMode::Fail, ..StoreOptions::default() })
            .with_context(|| format!("cannot keep what arrives in {}", work.display()))?;
    for other in store.blobs().iter().map(|info| info.reference).filter(|other| *other != plan.ticket.blob) {
        store.forget(&other.blob)?;
    }
    Ok(store)
}

/// Removes what is left beside the file. What cannot be removed is in nobody's way.
fn tidy(work: &Path) {
    if let Err(error) = std::fs::remove_dir_all(work) {
        tracing::warn!("{} stays behind: {error}", work.display());
    }
}

/// The blob's index, from whoever has it.
async fn index(plan: &Plan, station: &Station) -> anyhow::Result<BlobIndex> {
    let deadline = tokio::time::Instant::now() + plan.patience;
    let id = plan.ticket.blob.index;
    match objects::from_anybody(&station.swarm, id, station.peers(), deadline).await {
        Ok(object) => {
            let index = plan.ticket.blob.index_from(&object);
            index.context("the index in the swarm is not that of the ticket's blob: the ticket is wrong")
        }
        Err(ObjectError::NoPeers(_)) => {
            let asked: Vec<_> = plan.setup.peers.iter().map(ToString::to_string).collect();
            bail!(
                "no peer answers at {}: is `bootfabric seed` running there, and does a firewall let its port through? \
                 Name others with --peer",
                asked.join(", ")
            )
        }
        Err(error @ ObjectError::NotFound { .. }) => {
            Err(error).context("no peer gives the index of this blob: is the ticket an old one?")
        }
        Err(error @ ObjectError::Closed) => Err(error.into()),
    }
}

/// Fetches the blob.
async fn download(
    plan: &Plan,
    station: &Station,
    index: BlobIndex,
    events: &Events,
    watch: &dyn Fn(Progress),
) -> anyhow::Result<Arc<Blob>> {
    let fetch = station.exchange.fetch(index, Priority::Root).await?;
    let progress = fetch.progress();
    let mut pace = tokio::time::interval(PACE);
    let (mut last, mut since) = (0, Instant::now());
    loop {
        tokio::select! {
            blob = fetch.wait() => return Ok(blob?),
            _ = pace.tick() => {}
        }
        let now = progress.borrow().clone();
        let told = Progress { bytes: now.bytes, total: now.total, peers: now.peers, rate: now.rate };
        watch(told);
        events.emit(Event::Progress {
            role: "file".into(),
            bytes: now.bytes,
            total: now.total,
            peers: now.peers,
        });
        if now.bytes != last {
            (last, since) = (now.bytes, Instant::now());
        }
        ensure!(
            since.elapsed() < plan.patience,
            "nothing came for {} s, {} of {} bytes are here and kept: start the same command again to go on",
            plan.patience.as_secs(),
            now.bytes,
            now.total
        );
    }
}
