//! The two steps of an installation between which the first stage fills the disk.
//!
//! Each runs in a process of its own (`bootfabric disk-install FILE`), so that PID 1 goes on with its duties meanwhile. What it is to
//! do and what came of it are files.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fabric::trust::Release;
use serde::{Deserialize, Serialize};

use super::device::DiskName;
use super::error::InstallError;
use super::finish::{Finish, write_fstab};
use super::image::Image;
use super::layout::Needs;
use super::loader::Loader;
use super::prepare::{Ids, Prepared, Wanted};

/// A step, and all it needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Step {
    /// Makes a disk ready; its partitions can be mounted then.
    Prepare {
        /// The disk, as [`DiskName`] reads it.
        disk: String,
        /// Whether what the disk holds may go.
        wipe: bool,
        /// What is to come there.
        sizes: Sizes,
        /// Directory of the loader's parts.
        loader: PathBuf,
        /// Where [`Prepared`] is written to.
        answer: PathBuf,
    },
    /// Makes a disk start whose store and root are filled and on it.
    Finish {
        /// The disk.
        prepared: Box<Prepared>,
        /// What is on it.
        image: Image,
        /// The kernel line, to which is added where the disk's own parts are.
        line: String,
        /// Directory of the loader's parts.
        loader: PathBuf,
        /// Directory of the store, with the kernel and the first stage.
        store: PathBuf,
        /// The mounted root, which gets an `etc/fstab`.
        root: Option<PathBuf>,
    },
}

/// How much is to come to a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Kernel and first stage.
    pub boot: u64,
    /// All blobs.
    pub blobs: u64,
    /// The root's files in whole blocks; `None` if it stays in memory.
    pub root: Option<u64>,
}

impl Sizes {
    /// Of `release`, with a root that has `root` bytes of files.
    #[must_use]
    pub fn of(release: &Release, root: Option<u64>) -> Self {
        Self {
            boot: release.kernel.size + release.first_stage.size,
            blobs: release.blobs().map(|blob| blob.size).sum(),
            root,
        }
    }

    fn needs(self, loader: &Loader) -> Needs {
        // Indexes have 32 bytes for a chunk of 64 KiB; signed objects and the key are small.
        let store = self.blobs + self.blobs / 1024 + (1 << 20);
        Needs { boot: self.boot + loader.bytes(), store, root: self.root }
    }
}

impl Step {
    /// Does it; says with `say` what is being done.
    ///
    /// # Errors
    /// [`InstallError`]
    pub fn run(&self, say: &dyn Fn(&str)) -> Result<(), InstallError> {
        match self {
            Self::Prepare { disk, wipe, sizes, loader, answer } => {
                let name: DiskName = disk.parse()?;
                let needs = sizes.needs(&Loader::read(loader)?);
                let answer_error = |source| InstallError::Write { path: answer.clone(), source };
                let ids = Ids::new(sizes.root.is_some()).map_err(answer_error)?;
                let wanted = Wanted { disk: &name, wipe: *wipe, needs, ids, store: None, root: None };
                let prepared = wanted.prepare(say)?;
                prepared.show()?;
                let text = serde_json::to_vec(&prepared).map_err(io::Error::from);
                text.and_then(|text| fs::write(answer, text)).map_err(answer_error)
            }
            Self::Finish { prepared, image, line, loader, store, root } => {
                let loader = Loader::read(loader)?;
                if let (Some(root), Some(uuid)) = (root, prepared.root()) {
                    write_fstab(root, uuid)?;
                    settle(root)?;
                }
                settle(store)?;
                let blob = |id: &str| store.join("blobs").join(id);
                let (kernel, first_stage) = (&blob(&image.kernel), &blob(&image.first_stage));
                Finish { prepared, image, line, loader: &loader, kernel, first_stage }.run(say)?;
                Ok(())
            }
        }
    }
}

/// Has all of the filesystem at `path` written to its disk, and makes sure that all that was written before has come there too.
///
/// The kernel tells once of data that a disk did not take (syncfs(2)), and forgets them: who is told must not try again. What
/// concerns the filesystem itself it counts for good (linux/Documentation/ABI/testing/sysfs-fs-ext4).
fn settle(path: &Path) -> Result<(), InstallError> {
    let write_error = |source| InstallError::Write { path: path.to_owned(), source };
    let directory = fs::File::open(path).map_err(write_error)?;
    nix::unistd::syncfs(&directory).map_err(|error| write_error(error.into()))?;
    let device = directory.metadata().map_err(write_error)?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    // Another filesystem than ext4, as of a store that is no partition, counts nothing.
    let Ok(node) = fs::read_link(format!("/sys/dev/block/{major}:{minor}")) else { return Ok(()) };
    let count = node.file_name().map(|name| Path::new("/sys/fs/ext4").join(name).join("errors_count"));
    match count.and_then(|count| fs::read_to_string(count).ok()).as_deref().map(str::trim) {
        None | Some("0") => Ok(()),
        Some(_) => Err(InstallError::Damaged(path.to_owned())),
    }
}
