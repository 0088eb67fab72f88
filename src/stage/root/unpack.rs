//! Unpacking: a mounted file-system copied to another one, with all that makes it what it is.
//!
//! Kept are types, owners, modes, times, extended attributes (and with them capabilities and ACLs), hard links, devices and
//! holes. What is one file-system stays one: nothing that is mounted below is entered. The tree is walked first, which
//! tells how much there is; directories are made; all processors copy the rest; links between names and the
//! directories' own properties come last.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::sys::time::TimeSpec;

use crate::stage::copied::{PAGE, Properties, data_runs};

/// Bytes read at a time: a block of the squashfs or several.
const PIECE: usize = 1 << 20;

/// Threads at most: beyond this they wait for memory, not for processors.
const MAX_THREADS: usize = 32;

/// Something cannot be copied.
#[derive(Debug, thiserror::Error)]
#[error("cannot unpack {}", path.display())]
pub(super) struct UnpackError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A tree to be copied.
#[derive(Debug, Default)]
pub(super) struct Tree {
    from: PathBuf,
    directories: Vec<(PathBuf, Metadata)>,
    /// Files, symbolic links, devices, pipes and sockets.
    entries: Vec<(PathBuf, Metadata)>,
    /// Further names, and the first.
    links: Vec<(PathBuf, PathBuf)>,
    /// Bytes of all files, in whole pages.
    bytes: u64,
}

impl Tree {
    /// Walks the file-system that is mounted on `from`.
    pub(super) fn walk(from: &Path) -> Result<Self, UnpackError> {
        let top = fs::symlink_metadata(from).map_err(of(from))?;
        let device = top.dev();
        let mut tree = Self { from: from.to_owned(), ..Self::default() };
        let mut first = HashMap::new();
        tree.directories.push((PathBuf::new(), top));
        let mut next = 0;
        while let Some((directory, _)) = tree.directories.get(next) {
            let directory = directory.clone();
            let full = from.join(&directory);
            next += 1;
            for entry in fs::read_dir(&full).map_err(of(&full))? {
                let name = directory.join(entry.map_err(of(&full))?.file_name());
                let full = from.join(&name);
                let meta = fs::symlink_metadata(&full).map_err(of(&full))?;
                if meta.dev() == device {
                    tree.note(name, meta, &mut first);
                }
            }
        }
        Ok(tree)
    }

    fn note(&mut self, name: PathBuf, meta: Metadata, first: &mut HashMap<u64, PathBuf>) {
        if meta.is_dir() {
            return self.directories.push((name, meta));
        }
        if meta.nlink() > 1 {
            if let Some(known) = first.get(&meta.ino()) {
                return self.links.push((name, known.clone()));
            }
            first.insert(meta.ino(), name.clone());
        }
        if meta.is_file() {
            self.bytes += meta.len().next_multiple_of(PAGE as u64);
        }
        self.entries.push((name, meta));
    }

    /// Bytes of all files, in whole pages: what they take unpacked and uncompressed, holes included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Files, directories and all else.
    pub(super) fn count(&self) -> usize {
        self.directories.len() + self.entries.len()
    }

    /// Copies it into the empty directory `to`. `watch` is called again and again meanwhile, with the bytes copied.
    pub(super) fn unpack(&self, to: &Path, mut watch: impl FnMut(u64)) -> Result<(), UnpackError> {
        for (name, _) in self.directories.iter().skip(1) {
            let full = to.join(name);
            fs::create_dir(&full).map_err(of(&full))?;
        }
        self.copy_entries(to, &mut watch)?;
        for (name, first) in &self.links {
            let full = to.join(name);
            fs::hard_link(to.join(first), &full).map_err(of(&full))?;
        }
        // From below, so that a directory's time is set when nothing changes in it any more.
        for (name, meta) in self.directories.iter().rev() {
            let full = to.join(name);
            properties(&self.from.join(name), &full, meta).map_err(of(&full))?;
        }
        Ok(())
    }

    fn copy_entries(&self, to: &Path, watch: &mut impl FnMut(u64)) -> Result<(), UnpackError> {
        let threads = thread::available_parallelism().map_or(1, |count| count.get().min(MAX_THREADS));
        let (next, done) = (AtomicUsize::new(0), AtomicU64::new(0));
        let (stop, failure) = (AtomicBool::new(false), Mutex::new(None));
        let work = || {
            let mut piece = vec![0; PIECE];
            while !stop.load(Ordering::Relaxed) {
                let Some((name, meta)) = self.entries.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    break;
                };
                let target = to.join(name);
                if let Err(source) = copy(&self.from.join(name), &target, meta, &mut piece, &done) {
                    stop.store(true, Ordering::Relaxed);
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(of(&target)(source));
                }
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
                watch(done.load(Ordering::Relaxed));
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

fn of(path: &Path) -> impl Fn(io::Error) -> UnpackError {
    move |source| UnpackError { path: path.to_owned(), source }
}

/// Copies what is not a directory.
fn copy(from: &Path, to: &Path, meta: &Metadata, piece: &mut [u8], done: &AtomicU64) -> io::Result<()> {
    let kind = meta.file_type();
    if kind.is_file() {
        copy_file(from, to, meta.len(), piece, done)?;
    } else if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else {
        let kind = match () {
            () if kind.is_block_device() => SFlag::S_IFBLK,
            () if kind.is_char_device() => SFlag::S_IFCHR,
            () if kind.is_fifo() => SFlag::S_IFIFO,
            () => SFlag::S_IFSOCK,
        };
        mknod(to, kind, Mode::empty(), meta.rdev())?;
    }
    properties(from, to, meta)
}

fn copy_file(from: &Path, to: &Path, length: u64, piece: &mut [u8], done: &AtomicU64) -> io::Result<()> {
    let mut source = File::open(from)?;
    let target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let mut at = 0;
    loop {
        let count = match source.read(piece) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let read = piece.get(..count).unwrap_or(&[]);
        for (offset, run) in data_runs(read) {
            target.write_all_at(run, at + offset)?;
        }
        at += count as u64;
        done.fetch_add(count as u64, Ordering::Relaxed);
    }
    if at != length {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{at} bytes instead of {length}")));
    }
    target.set_len(length)?;
    // What was read is not read again: its pages would only push others out.
    let _ = posix_fadvise(source.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    Ok(())
}

/// Gives `to` the owner, mode, attributes and times of `from`.
fn properties(from: &Path, to: &Path, meta: &Metadata) -> io::Result<()> {
    let names = match xattr::list(from) {
        Ok(names) => names.collect(),
        // What a squashfs says when none of its files has any.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => vec![],
        Err(error) => return Err(error),
    };
    let mut attributes = Vec::new();
    for name in names {
        if let Some(value) = xattr::get(from, &name)? {
            attributes.push((name, value));
        }
    }
    let properties = Properties {
        owner: meta.uid(),
        group: meta.gid(),
        mode: (!meta.file_type().is_symlink()).then_some(meta.mode() & 0o7777),
        attributes: &attributes,
        modified: TimeSpec::new(meta.mtime(), meta.mtime_nsec()),
    };
    properties.give(to)
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
