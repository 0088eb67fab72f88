//! Unpacking the root while its chunks arrive, at PID 1's word: `list root`, then `fill DIRECTORY`.
//!
//! Glue between the blob in the store, whose signals tell what has come, and [`crate::squashfs`], which reads it. The tables of
//! the root are asked of peers before all else; its content comes in whatever order is best for the swarm, and is
//! unpacked in that order.
//!
//! Tasks: one for each word of PID 1; `fill` works on the blocking pool and on threads of its own, which end with it. Cancelled
//! with the process: what is half filled then is PID 1's to throw away.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fabric::store::Blob;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};

use super::join::Join;
use crate::event::Event;
use crate::squashfs::unpack::unpack;
use crate::squashfs::{Source, Superblock, Tree};

/// How often it is looked whether the blob is still in the store, if nothing comes of it.
const LOOK: Duration = Duration::from_secs(1);
/// Shortest time between two looks at what has come: thousands of portions are looked at each time.
const PAUSE: Duration = Duration::from_millis(10);
/// Shortest time between two progress events.
const PROGRESS_PACE: Duration = Duration::from_millis(250);
/// What failures are failures of, and what a person can do: the first stage unpacks by itself then.
const PHASE: &str = "unpack";
const REMEDY: &str = "the root is unpacked once it is here";
/// What becomes of a blob that is not given back.
pub(super) const STAYS: &str = "all that is held of the root's blob stays in memory and serves others";

/// Tells what the root holds, as soon as that is known.
pub(super) async fn list(join: Join) {
    let listed = async {
        let mut known = join.arriving.tree.lock().await;
        let tree = match known.take() {
            Some(tree) => tree,
            None => read_tree(&join).await?,
        };
        let tree = known.insert(tree);
        anyhow::Ok(Event::RootListed { bytes: tree.bytes(), files: tree.count() as u64 })
    };
    let event = listed.await.unwrap_or_else(|error| failed(&error, REMEDY));
    join.events.emit(event);
}

/// Fills the empty directory `to` with the root.
pub(super) async fn fill(join: Join, to: PathBuf) {
    let began = Instant::now();
    let filled = async {
        let listed = join.arriving.tree.lock().await.take();
        let tree = match listed {
            Some(tree) => tree,
            None => read_tree(&join).await?,
        };
        let arriving = Arriving::new(join.arriving.blob().await?);
        let (total, done) = (tree.content(), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&done);
        let mut work = tokio::task::spawn_blocking(move || {
            let result = unpack(&tree, &arriving, &to, &counted);
            result.map(|worked| u64::try_from(worked.as_millis()).unwrap_or(u64::MAX))
        });
        let mut pace = tokio::time::interval(PROGRESS_PACE);
        let worked_millis = loop {
            tokio::select! {
                result = &mut work => break result??,
                _ = pace.tick() => {
                    let bytes = done.load(Ordering::Relaxed);
                    join.events.emit(Event::Progress { role: PHASE.to_owned(), bytes, total, peers: 0 });
                }
            }
        };
        let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        anyhow::Ok(Event::RootFilled { millis, worked_millis })
    };
    let event = filled.await.unwrap_or_else(|error| failed(&error, REMEDY));
    join.events.emit(event);
}

/// What PID 1 hears of something that it told and that cannot be done.
pub(super) fn failed(error: &anyhow::Error, remedy: &str) -> Event {
    Event::PhaseFailed { phase: PHASE.to_owned(), error: format!("{error:#}"), remedy: remedy.to_owned() }
}

/// All names in the root, read as soon as their part of it is here.
async fn read_tree(join: &Join) -> anyhow::Result<Tree> {
    let blob = join.arriving.blob().await?;
    let arriving = Arriving::new(Arc::clone(&blob));
    let fetch = async |range: Range<u64>| {
        if !blob.holds(range.clone()) {
            join.exchange.first(&blob, range.clone()).await;
        }
        arriving.held(range).await
    };
    fetch(Superblock::RANGE).await?;
    let superblock = Superblock::read(&arriving)?;
    let range = superblock.tables();
    anyhow::ensure!(range.end <= blob.index().size(), "the squashfs is longer than its blob");
    fetch(range.clone()).await?;
    let tree = tokio::task::spawn_blocking(move || {
        let mut tables = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
        arriving.read(&mut tables, range.start)?;
        anyhow::Ok(Tree::read(&superblock, &tables)?)
    });
    tree.await?
}

/// A blob of which more and more is here.
struct Arriving {
    blob: Arc<Blob>,
    changes: Mutex<watch::Receiver<u32>>,
    runtime: Handle,
}

impl Arriving {
    fn new(blob: Arc<Blob>) -> Self {
        Self { changes: Mutex::new(blob.subscribe()), blob, runtime: Handle::current() }
    }

    /// Waits until something has come since this was called last.
    async fn more(&self) -> std::io::Result<()> {
        let mut changes = self.changes.lock().await;
        loop {
            if self.blob.is_forgotten() {
                return Err(std::io::Error::other("the blob left the store"));
            }
            if let Ok(changed) = tokio::time::timeout(LOOK, changes.changed()).await {
                return changed.map_err(std::io::Error::other);
            }
        }
    }

    /// Waits for all bytes of `range`.
    async fn held(&self, range: Range<u64>) -> std::io::Result<()> {
        while !self.blob.holds(range.clone()) {
            self.more().await?;
        }
        Ok(())
    }
}

impl Source for Arriving {
    fn holds(&self, range: Range<u64>) -> bool {
        self.blob.holds(range)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.blob.file().read_exact_at(buffer, offset)
    }

    fn wait(&self) -> std::io::Result<()> {
        std::thread::sleep(PAUSE);
        self.runtime.block_on(self.more())
    }
}
