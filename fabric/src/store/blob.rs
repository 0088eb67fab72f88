//! One blob: its file, and which of its chunks are in it.

mod lend;
mod withdraw;

use std::fs::{File, Permissions};
use std::ops::Range;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use tokio::sync::watch;

use super::BlobInfo;
use super::check;
use super::dir::Dir;
use super::error::{StoreError, WriteError};
use super::journal::Journal;
use crate::bitfield::Bitfield;
use crate::content::{BlobIndex, BlobRef};
use crate::exchange::message::Run;
use crate::id::{BlobId, Hash};

/// Mode of a complete blob's file: nothing writes to it any more.
const COMPLETE_MODE: u32 = 0o444;
/// Mode of a partial blob's file.
const PARTIAL_MODE: u32 = 0o644;

/// A blob in the store, complete or partial. Any number of threads may read and write at once.
pub struct Blob {
    index: Arc<BlobIndex>,
    dir: Arc<Dir>,
    partial_path: PathBuf,
    complete_path: PathBuf,
    /// The owner's file that has the content, if it is not in the store's directory.
    elsewhere: OnceLock<PathBuf>,
    /// Held while the blob changes between partial, complete and forgotten, which needs I/O; before `state`.
    transition: Mutex<()>,
    state: Mutex<State>,
    /// Held for reading while chunks are checked and written, for writing while they are taken out; before `transition`.
    writing: RwLock<()>,
    /// There may be bytes in the file that are not held: the files through which somebody may still read them.
    untrimmed: Mutex<Option<Vec<Arc<File>>>>,
    complete: AtomicBool,
    held: watch::Sender<u32>,
}

struct State {
    /// Read-only; stays the same file when the blob gets its final name.
    file: Arc<File>,
    have: Bitfield,
    held_bytes: u64,
    phase: Phase,
}

enum Phase {
    Partial(Writer),
    Complete,
    Forgotten,
    HandedOver,
    /// Partial, and another process writes to it.
    ReadOnly,
}

struct Writer {
    file: Arc<File>,
    journal: Journal,
}

impl State {
    /// The file to write to; none if the blob is not partial.
    fn writer_file(&self) -> Option<Arc<File>> {
        match &self.phase {
            Phase::Partial(writer) => Some(writer.file.clone()),
            Phase::Complete | Phase::Forgotten | Phase::HandedOver | Phase::ReadOnly => None,
        }
    }
}

/// Good chunks that follow one another: `at` is where they lie in the bytes given, `offset` where in the blob.
struct Segment {
    run: Run,
    at: Range<usize>,
    offset: u64,
}

impl Blob {
    /// The complete blob in `blobs/`.
    pub(super) fn open_complete(dir: &Arc<Dir>, index: BlobIndex) -> Result<Arc<Self>, StoreError> {
        let path = dir.blob(&index.blob());
        let file = File::open(&path).map_err(|error| dir.error("open", &path, error))?;
        let have = Bitfield::full(index.count());
        Ok(Self::new(dir, index, file, have, Phase::Complete))
    }

    /// The blob in `partial/`, made if it is not there, with those chunks of `claimed` that are good. It becomes complete
    /// at once if nothing is missing.
    pub(super) fn open_partial(
        dir: &Arc<Dir>,
        index: BlobIndex,
        claimed: &[Run],
    ) -> Result<Arc<Self>, StoreError> {
        let (id, path) = (index.blob(), dir.partial(&index.blob()));
        let open = || {
            let writer = File::options().write(true).create(true).truncate(false).open(&path)?;
            writer.set_len(index.size())?;
            Ok((writer, File::open(&path)?))
        };
        let (writer, file) = open().map_err(|error| dir.error("open", &path, error))?;
        let have = check::good_chunks(&file, &index, claimed);
        let journal = Journal::replace(dir, &dir.journal(&id), &check::runs_of(&have))?;
        let phase = Phase::Partial(Writer { file: Arc::new(writer), journal });
        let blob = Self::new(dir, index, file, have, phase);
        blob.finish_if_full()?;
        Ok(blob)
    }

    /// What a reader found in `file`.
    pub(super) fn open_reader(
        dir: &Arc<Dir>,
        index: BlobIndex,
        file: File,
        have: Bitfield,
        complete: bool,
    ) -> Arc<Self> {
        let phase = if complete { Phase::Complete } else { Phase::ReadOnly };
        Self::new(dir, index, file, have, phase)
    }

    fn new(dir: &Arc<Dir>, index: BlobIndex, file: File, have: Bitfield, phase: Phase) -> Arc<Self> {
        let held_bytes = bytes_of(&index, &have);
        Arc::new(Self {
            partial_path: dir.partial(&index.blob()),
            complete_path: dir.blob(&index.blob()),
            elsewhere: OnceLock::new(),
            dir: dir.clone(),
            index: Arc::new(index),
            transition: Mutex::new(()),
            complete: AtomicBool::new(matches!(phase, Phase::Complete)),
            held: watch::Sender::new(have.count()),
            untrimmed: Mutex::new(matches!(phase, Phase::Partial(_)).then(Vec::new)),
            writing: RwLock::default(),
            state: Mutex::new(State { file: Arc::new(file), have, held_bytes, phase }),
        })
    }

    /// Which blob it is.
    #[must_use]
    pub fn id(&self) -> BlobId {
        self.index.blob()
    }

    /// Its index.
    #[must_use]
    pub fn index(&self) -> &Arc<BlobIndex> {
        &self.index
    }

    /// What a release says of it.
    #[must_use]
    pub fn reference(&self) -> BlobRef {
        self.index.reference()
    }

    /// The chunks held at this moment.
    #[must_use]
    pub fn have(&self) -> Bitfield {
        self.state().have.clone()
    }

    /// Whether all bytes of `range` are held; an empty range within the blob is.
    #[must_use]
    pub fn holds(&self, range: Range<u64>) -> bool {
        if range.start > range.end || range.end > self.index.size() {
            return false;
        }
        if self.is_complete() || range.is_empty() {
            return true;
        }
        let run = self.index.covering(range);
        self.state().have.has_all(run.first..run.first.saturating_add(run.count))
    }

    /// Whether everything is held and the file has its final name.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Bytes held.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.state().held_bytes
    }

    /// The file, for reading ranges that are [held](Self::holds). It stays valid when the blob becomes complete, and after
    /// it was forgotten.
    #[must_use]
    pub fn file(&self) -> Arc<File> {
        self.state().file.clone()
    }

    /// Where the file is now. The path of a complete blob is final, unless it is [released](super::Store::release_file).
    #[must_use]
    pub fn path(&self) -> &Path {
        match self.elsewhere.get() {
            Some(path) => path,
            None if self.is_complete() => &self.complete_path,
            None => &self.partial_path,
        }
    }

    /// Whether its content lies in a file outside of the store: [lent](super::Store::lend_file), or
    /// [released](super::Store::release_file). The next process that opens the store does not have this blob.
    #[must_use]
    pub fn is_lent(&self) -> bool {
        self.elsewhere.get().is_some()
    }

    /// Whether it left the store, by being forgotten or collected: what is held stays readable through [`Blob::file`].
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        matches!(self.state().phase, Phase::Forgotten)
    }

    /// How many chunks are held, as it grows. The number of all chunks is sent only once the blob
    /// [is complete](Self::is_complete); the number falls if damage is found.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u32> {
        self.held.subscribe()
    }

    /// One line of a listing.
    #[must_use]
    pub fn info(&self) -> BlobInfo {
        let (held_chunks, held_bytes) = {
            let state = self.state();
            (state.have.count(), state.held_bytes)
        };
        BlobInfo {
            reference: self.reference(),
            chunks: self.index.count(),
            held_chunks,
            held_bytes,
            complete: self.is_complete(),
            lent: self.is_lent(),
            path: self.path().into(),
        }
    }

    /// Keeps the chunks that `bytes` holds, of which the first is number `first`, after verifying each. Returns the run,
    /// all of which is held now. Chunks held already are neither hashed nor written again. Whoever brings the last chunk
    /// also flushes the file and gives it its final name.
    ///
    /// Blocks while it hashes and writes.
    ///
    /// # Errors
    /// [`WriteError`]; every good chunk in `bytes` is kept nevertheless, as far as the store can.
    pub fn write_run(&self, first: u32, bytes: &[u8]) -> Result<Run, WriteError> {
        let (run, rest) = self.whole_chunks(first, bytes);
        let mut bad = Vec::new();
        let _writing = self.writing.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = self.writer()? {
            for segment in self.verify_missing(run, bytes, &mut bad) {
                let data = bytes.get(segment.at).unwrap_or_default();
                file.write_all_at(data, segment.offset).map_err(|error| self.write_error(error))?;
                self.commit(segment.run)?;
            }
            self.finish_if_full()?;
        }
        let blob = self.id();
        match bad.first() {
            Some(&chunk) => {
                Err(WriteError::BadChunk { blob, chunk, bad: u32::try_from(bad.len()).unwrap_or(u32::MAX) })
            }
            None if rest > 0 || run.count == 0 => Err(WriteError::Length { blob, first, len: bytes.len() }),
            None => Ok(run),
        }
    }

    /// The chunks that lie in `bytes` as a whole, and how many bytes are left over.
    fn whole_chunks(&self, first: u32, bytes: &[u8]) -> (Run, usize) {
        let mut run = Run { first, count: 0 };
        let mut rest = bytes.len();
        while rest > 0
            && let Some(chunk) = first.checked_add(run.count).and_then(|chunk| self.index.entry(chunk))
            && let Some(after) = rest.checked_sub(chunk.len as usize)
        {
            (run.count, rest) = (run.count + 1, after);
        }
        (run, rest)
    }

    /// The file to write to; none if the blob is complete.
    fn writer(&self) -> Result<Option<Arc<File>>, StoreError> {
        match &self.state().phase {
            Phase::Partial(writer) => return Ok(Some(writer.file.clone())),
            Phase::Complete => return Ok(None),
            Phase::Forgotten | Phase::HandedOver | Phase::ReadOnly => {}
        }
        Err(self.ended())
    }

    /// Hashes those chunks of `run` that are not held; `bad` gets the numbers of the wrong ones.
    fn verify_missing(&self, run: Run, bytes: &[u8], bad: &mut Vec<u32>) -> Vec<Segment> {
        let have = self.have();
        let mut segments: Vec<Segment> = Vec::new();
        let mut start = 0;
        for chunk in run.first..run.first + run.count {
            let Some(entry) = self.index.entry(chunk) else { break };
            let at = start..start + entry.len as usize;
            start = at.end;
            if have.has(chunk) {
                continue;
            }
            if bytes.get(at.clone()).is_none_or(|data| Hash::of(data) != entry.id.0) {
                bad.push(chunk);
                continue;
            }
            match segments.last_mut() {
                Some(last) if last.run.first + last.run.count == chunk => {
                    last.run.count += 1;
                    last.at.end = at.end;
                }
                _ => segments.push(Segment { run: Run { first: chunk, count: 1 }, at, offset: entry.offset }),
            }
        }
        segments
    }

    /// Records a run whose bytes are written.
    fn commit(&self, run: Run) -> Result<(), StoreError> {
        let mut state = self.state();
        let State { have, held_bytes, phase, .. } = &mut *state;
        let chunks = run.first..run.first.saturating_add(run.count);
        if have.has_all(chunks.clone()) {
            return Ok(());
        }
        let Phase::Partial(writer) = phase else {
            drop(state);
            return Err(self.ended());
        };
        if let Err(error) = writer.journal.append(run) {
            drop(state);
            return Err(self.write_error(error));
        }
        for chunk in chunks {
            if have.insert(chunk) {
                *held_bytes += self.index.entry(chunk).map_or(0, |entry| entry.len.into());
            }
        }
        if !have.is_full() {
            self.held.send_replace(have.count());
        }
        Ok(())
    }

    /// Gives a full blob its final name.
    fn finish_if_full(&self) -> Result<(), StoreError> {
        if !self.state().have.is_full() {
            return Ok(());
        }
        let _transition = self.transition();
        let file = match &self.state().phase {
            Phase::Partial(writer) => writer.file.clone(),
            Phase::Complete | Phase::Forgotten | Phase::HandedOver | Phase::ReadOnly => return Ok(()),
        };
        self.dir.sync(&file).map_err(|error| self.dir.error("flush", &self.partial_path, error))?;
        let read_only = file.set_permissions(Permissions::from_mode(COMPLETE_MODE));
        read_only.map_err(|error| self.dir.error("write-protect", &self.partial_path, error))?;
        self.dir.rename(&self.partial_path, &self.complete_path)?;
        let journal = self.dir.journal(&self.id());
        if let Err(error) = self.dir.remove(&journal) {
            tracing::warn!(path = %journal.display(), %error, "a journal that is no longer needed stays");
        }
        self.state().phase = Phase::Complete;
        self.complete.store(true, Ordering::Release);
        self.held.send_replace(self.index.count());
        Ok(())
    }

    /// Ends all writing: the blob leaves the store.
    pub(super) fn retire(&self) {
        let _transition = self.transition();
        self.state().phase = Phase::Forgotten;
    }

    /// Ends all writing: another process goes on with it. A complete blob stays as it is.
    pub(super) fn hand_over(&self) {
        let _transition = self.transition();
        let mut state = self.state();
        if matches!(state.phase, Phase::Partial(_)) {
            state.phase = Phase::HandedOver;
        }
    }

    /// Why there is no writing any more.
    fn ended(&self) -> StoreError {
        match self.state().phase {
            Phase::HandedOver => StoreError::HandedOver { dir: self.dir.root().into() },
            Phase::ReadOnly => StoreError::ReadOnly { dir: self.dir.root().into() },
            _ => StoreError::Forgotten { blob: self.id() },
        }
    }

    pub(super) fn missing_bytes(&self) -> u64 {
        self.index.size().saturating_sub(self.held_bytes())
    }

    fn write_error(&self, error: std::io::Error) -> StoreError {
        self.dir.error_for("write", &self.partial_path, error, self.missing_bytes())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transition(&self) -> MutexGuard<'_, ()> {
        self.transition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes_of(index: &BlobIndex, have: &Bitfield) -> u64 {
    let held = |chunk: u32| index.entry(chunk).filter(|_| have.has(chunk));
    (0..index.count()).filter_map(held).map(|chunk| u64::from(chunk.len)).sum()
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Blob({:?}, {:?})", self.id(), self.state().have)
    }
}
