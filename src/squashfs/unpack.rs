//! A tree made anew elsewhere while its bytes arrive.
//!
//! Content is written in whatever order it comes: a piece goes to its files, by all processors, as soon as it is there. A
//! file gets its owner, mode, attributes and time with its last piece; what is in directories comes before the directories' own.
//! What fails leaves an unfinished tree, which is its caller's to throw away.
//!
//! Threads: one for each processor, which end before [`unpack`] returns. The caller's own thread waits for bytes and gives out
//! what can be done with them, at most [`AHEAD`] portions for each.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc::O_NOFOLLOW;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};
use zstd::bulk::Decompressor;

use super::tree::{Entry, Node, Part, Piece, Tree};
use super::{Source, SquashfsError};
use crate::stage::copied::{Properties, data_runs};

/// Bytes of the squashfs that one thread takes at a time. They must all be there, and come in any order: the fewer, the sooner.
const PORTION: u64 = 64 << 10;
/// Files without content that one thread takes at a time.
const BARE: usize = 256;
/// Portions that wait for each thread.
const AHEAD: usize = 2;
/// Threads at most: beyond this they wait for memory, not for processors.
const MAX_THREADS: usize = 32;

/// The tree cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// What arrives is of no use, or nothing does.
    #[error(transparent)]
    Source(#[from] SquashfsError),
    /// One of its files cannot be made.
    #[error("cannot unpack {}", path.display())]
    Make {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What one thread does at a time.
enum Portion {
    /// Entries without content.
    Bare(Range<usize>),
    /// Pieces that lie side by side.
    Pieces(Range<usize>),
}

/// Makes `tree` in the empty directory `to`, with the content that `source` has or will have. `done` counts bytes written.
///
/// # Errors
/// [`UnpackError`]; no thread works on it any more.
///
/// Returns the time of processors that it took, all threads together.
pub(crate) fn unpack(
    tree: &Tree,
    source: &impl Source,
    to: &Path,
    done: &AtomicU64,
) -> Result<Duration, UnpackError> {
    for entry in tree.directories.iter().skip(1) {
        let full = to.join(&entry.path);
        fs::create_dir(&full).map_err(of(&full))?;
    }
    let worked = Work::new(tree, source, to, done).run()?;
    for (name, first) in &tree.links {
        let full = to.join(name);
        let first = tree.entries.get(*first).ok_or(SquashfsError::Damaged("a link"))?;
        fs::hard_link(to.join(&first.path), &full).map_err(of(&full))?;
    }
    // From below, so that a directory's time is set when nothing changes in it any more.
    for entry in tree.directories.iter().rev() {
        let full = to.join(&entry.path);
        finish(entry, &full).map_err(of(&full))?;
    }
    Ok(worked)
}

fn of(path: &Path) -> impl Fn(io::Error) -> UnpackError {
    move |source| UnpackError::Make { path: path.to_owned(), source }
}

/// Gives a file that is there what belongs to it beside its content.
fn finish(entry: &Entry, full: &Path) -> io::Result<()> {
    let properties = Properties {
        owner: entry.owner,
        group: entry.group,
        mode: (!matches!(entry.node, Node::Symlink(_))).then_some(entry.mode.into()),
        attributes: &entry.attributes,
        modified: TimeSpec::new(entry.modified.into(), 0),
    };
    properties.give(full)
}

/// What the threads share.
struct Work<'a, S> {
    tree: &'a Tree,
    source: &'a S,
    to: &'a Path,
    done: &'a AtomicU64,
    /// For each entry, pieces that are not written yet.
    left: Vec<AtomicU32>,
    /// Microseconds that processors worked.
    worked: AtomicU64,
    failed: AtomicBool,
    failure: Mutex<Option<UnpackError>>,
}

impl<'a, S: Source> Work<'a, S> {
    fn new(tree: &'a Tree, source: &'a S, to: &'a Path, done: &'a AtomicU64) -> Self {
        let pieces = |entry: &Entry| match entry.node {
            Node::File { pieces, .. } => pieces,
            _ => 0,
        };
        Self {
            tree,
            source,
            to,
            done,
            left: tree.entries.iter().map(|entry| AtomicU32::new(pieces(entry))).collect(),
            worked: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    fn run(self) -> Result<Duration, UnpackError> {
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
        let (sender, receiver) = sync_channel(threads * AHEAD);
        let receiver = Mutex::new(receiver);
        let given = thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| Worker::new(&self).take(&receiver));
            }
            let given = self.give_out(&sender);
            // Threads end when there is nobody left to give them anything.
            drop(sender);
            given
        });
        match self.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(failure),
            None => given.map(|()| Duration::from_micros(self.worked.into_inner())),
        }
    }

    /// Gives out all portions, each when its bytes are there.
    fn give_out(&self, portions: &SyncSender<Portion>) -> Result<(), UnpackError> {
        // While there are threads they take what is given out, also after a failure.
        for first in (0..self.tree.entries.len()).step_by(BARE) {
            let _ = portions.send(Portion::Bare(first..self.tree.entries.len().min(first + BARE)));
        }
        let mut waiting = split(&self.tree.pieces);
        while !waiting.is_empty() && !self.failed.load(Ordering::Relaxed) {
            waiting.retain(|(bytes, pieces)| {
                let ready = self.source.holds(bytes.clone());
                if ready {
                    let _ = portions.send(Portion::Pieces(pieces.clone()));
                }
                !ready
            });
            if !waiting.is_empty() {
                self.source.wait().map_err(SquashfsError::from)?;
            }
        }
        Ok(())
    }

    fn fail(&self, error: UnpackError) {
        self.failed.store(true, Ordering::Relaxed);
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Pieces that lie side by side, by [`PORTION`], and the bytes that each portion needs.
fn split(pieces: &[Piece]) -> Vec<(Range<u64>, Range<usize>)> {
    let mut portions: Vec<(Range<u64>, Range<usize>)> = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        let end = piece.start + u64::from(piece.length);
        match portions.last_mut() {
            Some((bytes, numbers)) if end.saturating_sub(bytes.start) <= PORTION => {
                (bytes.end, numbers.end) = (bytes.end.max(end), number + 1);
            }
            _ => portions.push((piece.start..end, number..number + 1)),
        }
    }
    portions
}

/// One thread.
struct Worker<'a, S> {
    work: &'a Work<'a, S>,
    stored: Vec<u8>,
    content: Vec<u8>,
    /// The file written last, as its next piece often follows.
    open: Option<Open>,
}

/// A file that is being written.
struct Open {
    entry: usize,
    file: File,
    /// What was written of it since it was opened lies here.
    written: Range<u64>,
}

impl Drop for Open {
    /// Has what was written go to its device now, by this thread: compressed memory is compressed by all processors then, and not by
    /// one of them at the end. Nor are its pages kept beside it.
    fn drop(&mut self) {
        let number = |number| i64::try_from(number).unwrap_or(0);
        let (from, length) = (number(self.written.start), number(self.written.end - self.written.start));
        let _ = posix_fadvise(self.file.as_fd(), from, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}

impl<'a, S: Source> Worker<'a, S> {
    fn new(work: &'a Work<'a, S>) -> Self {
        let content = Vec::with_capacity(work.tree.block_size as usize);
        Self { work, stored: Vec::new(), content, open: None }
    }

    fn take(mut self, portions: &Mutex<Receiver<Portion>>) {
        loop {
            let portion = portions.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(portion) = portion else { break };
            // After a failure the rest is only taken, so that nobody waits to give it out.
            if !self.work.failed.load(Ordering::Relaxed)
                && let Err(error) = self.does(portion)
            {
                self.work.fail(error);
            }
        }
        self.work.worked.fetch_add(processor_time(), Ordering::Relaxed);
    }

    fn does(&mut self, portion: Portion) -> Result<(), UnpackError> {
        match portion {
            Portion::Bare(numbers) => {
                for entry in self.work.tree.entries.get(numbers).unwrap_or_default() {
                    let full = self.work.to.join(&entry.path);
                    bare(entry, &full).map_err(of(&full))?;
                }
            }
            Portion::Pieces(numbers) => {
                let mut decompressor = Decompressor::new().map_err(SquashfsError::from)?;
                for piece in self.work.tree.pieces.get(numbers).unwrap_or_default() {
                    self.load(piece, &mut decompressor).map_err(SquashfsError::from)?;
                    for part in &piece.parts {
                        self.write(part)?;
                    }
                }
                self.open = None;
            }
        }
        Ok(())
    }

    /// Reads and uncompresses a piece.
    fn load(&mut self, piece: &Piece, decompressor: &mut Decompressor<'_>) -> io::Result<()> {
        self.stored.resize(piece.length as usize, 0);
        self.work.source.read(&mut self.stored, piece.start)?;
        if piece.packed {
            self.content.clear();
            decompressor.decompress_to_buffer(&self.stored, &mut self.content)?;
        } else {
            self.content.clone_from(&self.stored);
        }
        Ok(())
    }

    fn write(&mut self, part: &Part) -> Result<(), UnpackError> {
        let work = self.work;
        let entry = work.tree.entries.get(part.entry).ok_or(SquashfsError::Damaged("a piece of no file"))?;
        let from = part.from as usize;
        let content = self.content.get(from..from + part.length as usize);
        let content = content.ok_or(SquashfsError::Damaged("a piece is too short"))?;
        let full = work.to.join(&entry.path);
        let mut write = || {
            let open = match &mut self.open {
                Some(open) if open.entry == part.entry => open,
                other => {
                    let written = part.at..part.at;
                    other.insert(Open { entry: part.entry, file: create(&full)?, written })
                }
            };
            for (offset, run) in data_runs(content) {
                open.file.write_all_at(run, part.at + offset)?;
            }
            open.written.start = open.written.start.min(part.at);
            open.written.end = open.written.end.max(part.at + u64::from(part.length));
            work.done.fetch_add(part.length.into(), Ordering::Relaxed);
            let left = work.left.get(part.entry).map(|left| left.fetch_sub(1, Ordering::AcqRel));
            if left == Some(1) { whole(entry, &open.file, &full) } else { Ok(()) }
        };
        write().map_err(of(&full))
    }
}

/// Microseconds that the processor worked for this thread.
fn processor_time() -> u64 {
    let micros = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0);
    getrusage(UsageWho::RUSAGE_THREAD)
        .map_or(0, |usage| micros(usage.user_time()) + micros(usage.system_time()))
}

/// Opens a file to be written, made by whoever comes first.
fn create(full: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(O_NOFOLLOW)
        .open(full)
}

/// A file whose pieces are all written.
fn whole(entry: &Entry, file: &File, full: &Path) -> io::Result<()> {
    if let Node::File { size, .. } = entry.node {
        file.set_len(size)?;
    }
    finish(entry, full)
}

/// Makes what has no content. Files that have some come with it.
fn bare(entry: &Entry, full: &Path) -> io::Result<()> {
    let device = |kind, number| mknod(full, kind, Mode::empty(), number);
    match &entry.node {
        Node::File { pieces: 0, .. } => return whole(entry, &create(full)?, full),
        Node::File { .. } | Node::Directory => return Ok(()),
        Node::Symlink(target) => symlink(target, full)?,
        Node::Block(number) => device(SFlag::S_IFBLK, *number)?,
        Node::Character(number) => device(SFlag::S_IFCHR, *number)?,
        Node::Fifo => device(SFlag::S_IFIFO, 0)?,
        Node::Socket => device(SFlag::S_IFSOCK, 0)?,
    }
    finish(entry, full)
}
