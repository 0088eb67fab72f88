//! A disk made ready to be filled: nobody else's, planned, marked, with its filesystems.
//!
//! From the first byte that is written until [`super::finish`] it carries a mark and has no partition table: it starts nothing, and
//! may be prepared again without being told so.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::check::check_content;
use super::device::{Disk, DiskName};
use super::error::InstallError;
use super::gpt::{self, Guid};
use super::layout::{Layout, Needs};
use super::probe::{ENDS, MARK, MARK_AT};
use super::{ROOT_LABEL, STORE_LABEL, mke2fs, partitions};

/// A disk that is ready to be filled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepared {
    /// Its node.
    pub(super) disk: PathBuf,
    pub(super) size: u64,
    pub(super) block: u64,
    pub(super) layout: Layout,
    /// What its filesystems are known by.
    pub(super) ids: Ids,
}

impl Prepared {
    /// Its node.
    #[must_use]
    pub fn disk(&self) -> &Path {
        &self.disk
    }

    /// UUID of the filesystem for the store.
    #[must_use]
    pub fn store(&self) -> &str {
        &self.ids.store
    }

    /// UUID of the filesystem for the root, if there is to be one.
    #[must_use]
    pub fn root(&self) -> Option<&str> {
        self.ids.root.as_deref()
    }

    /// The disk, open for writing, if it is still the one that was prepared.
    pub(super) fn open(&self) -> Result<File, InstallError> {
        let opened = OpenOptions::new().read(true).write(true).open(&self.disk);
        let file = opened.map_err(|source| self.write_error(source))?;
        let mut mark = vec![0; MARK.len()];
        let read = file.read_exact_at(&mut mark, MARK_AT);
        read.map_err(|source| InstallError::Read { path: self.disk.clone(), source })?;
        if mark == MARK { Ok(file) } else { Err(InstallError::Changed(self.disk.clone())) }
    }

    /// Has the kernel know the partitions, so that they can be mounted before there is a table.
    pub(super) fn show(&self) -> Result<(), InstallError> {
        let file = self.open()?;
        for (number, place) in (1..).zip(self.layout.places()) {
            partitions::add(&file, number, place).map_err(|source| self.write_error(source))?;
        }
        Ok(())
    }

    /// Takes both copies of a partition table away that an attempt before has written, and nothing of what is in partitions.
    pub(super) fn clear_table(&self, disk: &File) -> io::Result<()> {
        let end = self.size / self.block * self.block;
        clear(disk, 0..MARK_AT)?;
        clear(disk, end - gpt::tail(self.block)..end)?;
        disk.sync_all()
    }

    pub(super) fn write_error(&self, source: io::Error) -> InstallError {
        InstallError::Write { path: self.disk.clone(), source }
    }
}

/// UUIDs of filesystems.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ids {
    pub(super) root: Option<String>,
    pub(super) store: String,
}

impl Ids {
    /// New ones.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub(super) fn new(with_root: bool) -> io::Result<Self> {
        let one = || Guid::random().map(|guid| guid.to_string());
        Ok(Self { root: with_root.then(one).transpose()?, store: one()? })
    }
}

/// What a disk is prepared for.
pub(super) struct Wanted<'a> {
    pub(super) disk: &'a DiskName,
    /// Whether what it holds may go.
    pub(super) wipe: bool,
    pub(super) needs: Needs,
    pub(super) ids: Ids,
    /// What the filesystems are made with: the store's files, the root's.
    pub(super) store: Option<&'a Path>,
    pub(super) root: Option<&'a Path>,
}

impl Wanted<'_> {
    /// Prepares the disk; says with `step` what is being done.
    ///
    /// # Errors
    /// [`InstallError`]; until the disk has turned out to be free and large enough nothing is written.
    pub(super) fn prepare(self, step: &dyn Fn(&str)) -> Result<Prepared, InstallError> {
        mke2fs::find().map_err(|source| InstallError::Make { what: "root", source })?;
        let disk = Disk::claim(self.disk)?;
        check_content(&disk, self.wipe)?;
        let small = |source| InstallError::TooSmall { path: disk.path.clone(), source };
        let layout = Layout::plan(disk.size, disk.block, self.needs).map_err(small)?;
        let write_error = |source| InstallError::Write { path: disk.path.clone(), source };
        begin(&disk).map_err(write_error)?;
        let Disk { path, file, size, block } = disk;
        // `mke2fs` claims the disk for itself.
        drop(file);
        let prepared = Prepared { disk: path, size, block, layout, ids: self.ids };

        let Prepared { disk, ids, .. } = &prepared;
        step(&format!("store, {} MiB", self.needs.store >> 20));
        mke2fs::make(disk, layout.store, &ids.store, STORE_LABEL, self.store)
            .map_err(|source| InstallError::Make { what: "store", source })?;
        if let (Some(place), Some(uuid)) = (layout.root, &ids.root) {
            step(&format!("root, {} MiB", self.needs.root.unwrap_or(0) >> 20));
            mke2fs::make(disk, place, uuid, ROOT_LABEL, self.root)
                .map_err(|source| InstallError::Make { what: "root", source })?;
        }
        Ok(prepared)
    }
}

/// Marks the disk as one that is being filled, and takes away what it was.
fn begin(disk: &Disk) -> io::Result<()> {
    let Disk { file, size, .. } = disk;
    file.write_all_at(MARK, MARK_AT)?;
    file.sync_all()?;
    clear(file, 0..ENDS / 2)?;
    clear(file, size - ENDS / 2..*size)?;
    file.sync_all()?;
    // Partitions that it had.
    partitions::reread(file)
}

/// Writes zeros to `range`, which is short.
fn clear(disk: &File, range: Range<u64>) -> io::Result<()> {
    disk.write_all_at(&vec![0; usize::try_from(range.end - range.start).unwrap_or(0)], range.start)
}
