//! The directory: its lock, its paths, and the few ways in which files in it are written.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::StoreOptions;
use super::error::StoreError;
use super::lock::DirLock;
use crate::id::{BlobId, ObjectId};

const FORMAT: &str = "bootfabric store 1";

/// Longest format file that is shown in an error (bytes).
const MAX_FORMAT: u64 = 80;

/// Room on a filesystem (bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What this process may still use.
    pub available: u64,
}

/// An open store directory, locked unless it is only read.
pub(super) struct Dir {
    root: PathBuf,
    durable: bool,
    /// Whether what has no room as a whole is refused at once.
    whole: bool,
    temporary: AtomicU64,
    reader: bool,
    /// None for a reader, and once another process may have the directory.
    lock: Mutex<Option<DirLock>>,
}

impl Dir {
    /// Makes what is missing, takes the lock, checks the format and empties `tmp`.
    pub(super) fn open(root: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let io = |action, path: &Path, source| StoreError::Io { action, path: path.into(), source };
        fs::create_dir_all(root).map_err(|error| io("create", root, error))?;
        let lock = DirLock::take(root, options.lock)?;
        let dir = Self {
            root: root.to_path_buf(),
            durable: options.durable,
            whole: options.whole,
            temporary: AtomicU64::new(0),
            reader: false,
            lock: Mutex::new(Some(lock)),
        };
        if !dir.check_format()? {
            dir.write_format()?;
        }
        match fs::remove_dir_all(dir.tmp()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io("empty", &dir.tmp(), error));
            }
            _ => {}
        }
        for name in ["blobs", "partial", "indexes", "objects", "heads", "pins", "tmp"] {
            let path = dir.root.join(name);
            fs::create_dir_all(&path).map_err(|error| dir.error("create", &path, error))?;
        }
        Ok(dir)
    }

    /// For reading alone: takes no lock, makes nothing.
    pub(super) fn open_reader(root: &Path) -> Result<Self, StoreError> {
        let dir = Self {
            root: root.to_path_buf(),
            durable: false,
            whole: true,
            temporary: AtomicU64::new(0),
            reader: true,
            lock: Mutex::new(None),
        };
        if dir.check_format()? { Ok(dir) } else { Err(StoreError::NoStore { dir: root.to_path_buf() }) }
    }

    pub(super) fn is_reader(&self) -> bool {
        self.reader
    }

    /// Lets go of the lock: from now on nothing is changed.
    pub(super) fn release_lock(&self) {
        *self.lock() = None;
    }

    /// An error unless this process may change the directory.
    pub(super) fn check_lock(&self) -> Result<(), StoreError> {
        if self.reader {
            return Err(StoreError::ReadOnly { dir: self.root.clone() });
        }
        if self.lock().is_some() { Ok(()) } else { Err(StoreError::HandedOver { dir: self.root.clone() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<DirLock>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn format_file(root: &Path) -> PathBuf {
        root.join("format")
    }

    /// False if there is no format yet, as in an empty directory.
    fn check_format(&self) -> Result<bool, StoreError> {
        let path = Self::format_file(&self.root);
        let read = File::open(&path).and_then(|file| io::read_to_string(io::Read::take(file, MAX_FORMAT)));
        match read {
            Ok(found) if found.trim_end() == FORMAT => Ok(true),
            Ok(found) => Err(StoreError::Format {
                dir: self.root.clone(),
                found: found.trim_end().escape_default().to_string(),
                known: FORMAT,
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.error("read", &path, error)),
        }
    }

    fn write_format(&self) -> Result<(), StoreError> {
        let (path, aside) = (Self::format_file(&self.root), self.root.join("format.new"));
        let write = || {
            fs::write(&aside, format!("{FORMAT}\n"))?;
            fs::rename(&aside, &path)
        };
        write().map_err(|error| self.error("write", &path, error))
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn blob(&self, id: &BlobId) -> PathBuf {
        self.blobs().join(id.to_string())
    }

    pub(super) fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    pub(super) fn partial(&self, id: &BlobId) -> PathBuf {
        self.partials().join(format!("{id}.data"))
    }

    pub(super) fn journal(&self, id: &BlobId) -> PathBuf {
        self.partials().join(format!("{id}.have"))
    }

    pub(super) fn indexes(&self) -> PathBuf {
        self.root.join("indexes")
    }

    pub(super) fn index(&self, id: &BlobId) -> PathBuf {
        self.indexes().join(id.to_string())
    }

    pub(super) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    pub(super) fn object(&self, id: &ObjectId) -> PathBuf {
        self.objects().join(id.to_string())
    }

    pub(super) fn heads(&self) -> PathBuf {
        self.root.join("heads")
    }

    pub(super) fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    pub(super) fn limit(&self) -> PathBuf {
        self.root.join("limit")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// A path in `tmp` that nothing else uses.
    pub(super) fn temporary(&self) -> PathBuf {
        self.tmp().join(self.temporary.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// A name for a file in a directory that is not the store's.
    pub(super) fn temporary_name(&self) -> String {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        format!(".bootfabric-{}-{number}", std::process::id())
    }

    /// Writes `bytes` aside, then renames: readers and crashes see the old file or the new one.
    pub(super) fn write_whole(&self, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
        self.check_lock()?;
        let aside = self.temporary();
        let write = || {
            let mut file = File::create(&aside)?;
            file.write_all(bytes)?;
            self.sync(&file)
        };
        let written = write().map_err(|error| self.error_for("write", path, error, bytes.len() as u64));
        if let Err(error) = written.and_then(|()| self.rename(&aside, path)) {
            let _ = fs::remove_file(&aside);
            return Err(error);
        }
        Ok(())
    }

    /// Renames, and flushes the directories if the store is durable.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        self.check_lock()?;
        let rename = || {
            fs::rename(from, to)?;
            to.parent().map_or(Ok(()), |parent| self.sync_directory(parent))
        };
        rename().map_err(|error| self.error("rename", from, error))
    }

    /// Removes a file; none is fine.
    pub(super) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        self.check_lock()?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.error("remove", path, error)),
            _ => Ok(()),
        }
    }

    /// Removes a blob's files. The data first: without it, what is left is no blob.
    pub(super) fn remove_blob(&self, id: &BlobId) -> Result<(), StoreError> {
        let files = [self.blob(id), self.partial(id), self.journal(id), self.index(id)];
        files.iter().try_for_each(|path| self.remove(path))
    }

    /// Flushes a file to the device if the store is durable.
    pub(super) fn sync(&self, file: &File) -> io::Result<()> {
        if self.durable { file.sync_all() } else { Ok(()) }
    }

    /// Flushes the names in a directory to the device if the store is durable.
    pub(super) fn sync_directory(&self, path: &Path) -> io::Result<()> {
        if self.durable { File::open(path)?.sync_all() } else { Ok(()) }
    }

    pub(super) fn space(&self) -> Result<Space, StoreError> {
        let stat = nix::sys::statvfs::statvfs(&self.root)
            .map_err(|errno| self.error("look at", &self.root, errno.into()))?;
        let unit = stat.fragment_size();
        Ok(Space {
            total: stat.blocks().saturating_mul(unit),
            available: stat.blocks_available().saturating_mul(unit),
        })
    }

    /// An error now rather than in the middle, if `needed` bytes do not fit and all are wanted.
    pub(super) fn check_room(&self, needed: u64) -> Result<(), StoreError> {
        let available = self.space()?.available;
        if needed <= available || !self.whole {
            return Ok(());
        }
        Err(StoreError::Full { dir: self.root.clone(), needed, available })
    }

    /// The typed form of an error at `path`.
    pub(super) fn error(&self, action: &'static str, path: &Path, source: io::Error) -> StoreError {
        self.error_for(action, path, source, 0)
    }

    /// The same, where `needed` bytes were to be written.
    pub(super) fn error_for(
        &self,
        action: &'static str,
        path: &Path,
        source: io::Error,
        needed: u64,
    ) -> StoreError {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            let available = self.space().map_or(0, |space| space.available);
            return StoreError::Full { dir: self.root.clone(), needed, available };
        }
        StoreError::Io { action, path: path.into(), source }
    }
}
