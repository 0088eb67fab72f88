//! The order in which a disk is filled.
//!
//! Check, plan, mark, write, sync, table. A disk on which this was interrupted carries a mark, has no partition table, and may be
//! installed again without being told so.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use fabric::trust::Release;
use serde::{Deserialize, Serialize};

use super::device::{DeviceError, Disk, DiskName};
use super::gpt::{Guid, Piece};
use super::layout::{self, Layout, Needs, TooSmall};
use super::loader::{self, Loader, LoaderError};
use super::mke2fs::{self, MakeError};
use super::probe::{self, Content, ENDS, MARK, MARK_AT};
use super::reread::reread;
use super::snapshot::{SnapshotError, snapshot};
use super::{KEY_FILE, ROOT_LABEL, STORE_LABEL};

/// Bytes of a block of the root's filesystem.
const BLOCK: u64 = 4096;
/// Bytes that an inode takes beside its blocks.
const INODE: u64 = 256;

/// What to install.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The disk, as [`DiskName`] reads it.
    pub disk: String,
    /// Whether what the disk holds may go.
    pub wipe: bool,
    /// What is installed.
    pub image: Image,
    /// The kernel line, to which the installation adds where its own parts are.
    pub line: String,
    /// Directory of the store that holds the image.
    pub store: PathBuf,
    /// Directory of the loader's parts.
    pub loader: PathBuf,
    /// The root's files, to be copied; the tree gets an `etc/fstab`. `None`: the machine runs from memory.
    pub root: Option<PathBuf>,
    /// The key that the node keeps.
    pub key: Option<PathBuf>,
    /// A directory for what is only needed meanwhile, best on the store's filesystem; it is removed.
    pub scratch: PathBuf,
}

/// An image, as far as a disk is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Object id of the signed release, in hexadecimal.
    pub release: String,
    /// What the boot menu calls it.
    pub title: String,
    /// Blob of the kernel.
    pub kernel: String,
    /// Blob of the first stage.
    pub first_stage: String,
    /// Blob of the root.
    pub root: String,
    /// All its blobs.
    pub blobs: Vec<String>,
}

impl Image {
    /// The image of `release`, whose object id is `id`.
    #[must_use]
    pub fn of(id: &str, release: &Release) -> Self {
        Self {
            release: id.to_owned(),
            title: format!("{} {}", release.name, release.version),
            kernel: release.kernel.blob.to_string(),
            first_stage: release.first_stage.blob.to_string(),
            root: release.root.blob.to_string(),
            blobs: release.blobs().map(|blob| blob.blob.to_string()).collect(),
        }
    }
}

/// An installation on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The disk's node.
    pub disk: PathBuf,
    /// UUID of the root's filesystem.
    pub root: Option<String>,
    /// UUID of the store's filesystem.
    pub store: String,
}

/// Nothing, or not all, was installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The disk.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It holds something.
    #[error("{} holds {what}; nothing was written", path.display())]
    Holds {
        /// The node.
        path: PathBuf,
        /// What, in words.
        what: String,
    },
    /// It is too small.
    #[error("{} is too small; nothing was written", path.display())]
    TooSmall {
        /// The node.
        path: PathBuf,
        /// By how much.
        source: TooSmall,
    },
    /// The part of the store.
    #[error(transparent)]
    Store(#[from] SnapshotError),
    /// A filesystem.
    #[error("cannot make the filesystem for the {what}")]
    Make {
        /// What it is for.
        what: &'static str,
        /// Why.
        source: MakeError,
    },
    /// The boot loader.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// A file that is to be copied.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The disk does not take what is written.
    #[error("cannot write to {}", path.display())]
    Write {
        /// The node.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes sure that a disk may be installed: that it is there, not in use, and empty unless what it holds may go. Whether it is
/// large enough is only known with the image. Writes nothing.
///
/// # Errors
/// [`InstallError`]
pub fn check(name: &DiskName, wipe: bool) -> Result<(), InstallError> {
    check_content(&Disk::claim(name)?, wipe)
}

/// Looks for an installation of `release` on a disk, or of a store for machines that run from memory, whose release does not
/// matter; `None` if there is none.
///
/// # Errors
/// If the disk is not there or cannot be read.
pub fn installed(name: &DiskName, release: &str) -> Result<Option<Installed>, InstallError> {
    let disk = Disk::look(name)?;
    let error = |source| InstallError::Read { path: disk.path.clone(), source };
    let Content::Installed(table) = probe::content(&disk.file, disk.size, disk.block).map_err(error)? else {
        return Ok(None);
    };
    let uuid = |wanted: &str| -> Result<Option<String>, InstallError> {
        let Some(part) = table.partitions.iter().find(|part| part.name == wanted) else { return Ok(None) };
        let mut head = vec![0; 4096];
        disk.file.read_exact_at(&mut head, part.start).map_err(error)?;
        Ok(probe::parse_ext(&head).map(|ext| ext.uuid))
    };
    let (root, store) = (uuid(&layout::root_name(release))?, uuid(layout::STORE_NAME)?);
    let rootless = !table.partitions.iter().any(|part| part.name.starts_with(layout::ROOT_NAME));
    let known = root.is_some() || rootless;
    Ok(store.filter(|_| known).map(|store| Installed { disk: disk.path.clone(), root, store }))
}

/// Installs; says with `step` what is being done.
///
/// # Errors
/// [`InstallError`]; whether something was written is in the text of those that come before.
pub fn install(request: &Request, step: &dyn Fn(&str)) -> Result<Installed, InstallError> {
    let name: DiskName = request.disk.parse()?;
    let loader = Loader::read(&request.loader)?;
    mke2fs::find().map_err(|source| InstallError::Make { what: "root", source })?;
    let scratch = Scratch::make(&request.scratch)?;
    let part = scratch.0.join("store");
    snapshot(&request.store, &part, &request.image.release, &request.image.blobs)?;
    if let Some(key) = &request.key {
        fs::copy(key, part.join(KEY_FILE))
            .map_err(|source| InstallError::Read { path: key.clone(), source })?;
    }
    let (kernel, first_stage) =
        (part.join("blobs").join(&request.image.kernel), part.join("blobs").join(&request.image.first_stage));

    let disk = Disk::claim(&name)?;
    check_content(&disk, request.wipe)?;
    let needs = Needs {
        boot: size(&kernel)? + size(&first_stage)? + loader.bytes(),
        store: tree_size(&part)?,
        root: request.root.as_deref().map(tree_size).transpose()?,
    };
    let small = |source| InstallError::TooSmall { path: disk.path.clone(), source };
    let layout = Layout::plan(disk.size, disk.block, needs).map_err(small)?;

    let writer = Writer { disk, layout };
    writer.fill(request, &loader, &part, [&kernel, &first_stage], step)
}

fn check_content(disk: &Disk, wipe: bool) -> Result<(), InstallError> {
    let error = |source| InstallError::Read { path: disk.path.clone(), source };
    let what = match probe::content(&disk.file, disk.size, disk.block).map_err(error)? {
        Content::Nothing | Content::Unfinished => return Ok(()),
        Content::Installed(table) => {
            let root = table.partitions.iter().find_map(|part| part.name.strip_prefix(layout::ROOT_NAME));
            format!(
                "an installation of {}",
                root.map_or_else(|| "a store".to_owned(), |release| format!("the release {release}…"))
            )
        }
        Content::Foreign(what) => what.to_owned(),
    };
    if wipe { Ok(()) } else { Err(InstallError::Holds { path: disk.path.clone(), what }) }
}

/// A disk that is being filled.
struct Writer {
    disk: Disk,
    layout: Layout,
}

impl Writer {
    fn fill(
        self,
        request: &Request,
        loader: &Loader,
        store: &Path,
        [kernel, first_stage]: [&Path; 2],
        step: &dyn Fn(&str),
    ) -> Result<Installed, InstallError> {
        let guid = || Guid::random().map(|guid| guid.to_string()).map_err(|source| self.write_error(source));
        let ids = Installed {
            disk: self.disk.path.clone(),
            root: self.layout.root.map(|_| guid()).transpose()?,
            store: guid()?,
        };
        self.begin().map_err(|source| self.write_error(source))?;
        // `mke2fs` claims the disk for itself.
        let again = fs::OpenOptions::new().read(true).write(true).open(&self.disk.path);
        let file = again.map_err(|source| self.write_error(source))?;
        let Self { disk: Disk { path, file: claim, size, block }, layout } = self;
        drop(claim);
        let write_error = |source| InstallError::Write { path: path.clone(), source };

        step(&format!("store, {} MiB", tree_size(store)? >> 20));
        mke2fs::make(&path, layout.store, &ids.store, STORE_LABEL, store)
            .map_err(|source| InstallError::Make { what: "store", source })?;
        if let (Some(place), Some(tree), Some(uuid)) = (layout.root, &request.root, &ids.root) {
            write_fstab(tree, uuid)
                .map_err(|source| InstallError::Read { path: tree.join("etc/fstab"), source })?;
            step(&format!("root, {} MiB", tree_size(tree)? >> 20));
            mke2fs::make(&path, place, uuid, ROOT_LABEL, tree)
                .map_err(|source| InstallError::Make { what: "root", source })?;
        }
        step("boot loader");
        let boot_code = loader.place_bios(&file, layout.bios)?;
        let config = loader::config(&request.image.title, &line(request, &ids));
        loader.place_efi(&file, layout.efi, block, kernel, first_stage, &config)?;
        file.sync_all().map_err(write_error)?;

        step("partition table");
        let table = layout.table(&request.image.release).map_err(write_error)?;
        for Piece { at, bytes } in table.pieces(size, block, &boot_code) {
            file.write_all_at(&bytes, at).map_err(write_error)?;
        }
        file.sync_all().map_err(write_error)?;
        file.write_all_at(&vec![0; MARK.len()], MARK_AT).map_err(write_error)?;
        file.sync_all().map_err(write_error)?;
        reread(&file).map_err(write_error)?;
        Ok(ids)
    }

    fn write_error(&self, source: io::Error) -> InstallError {
        InstallError::Write { path: self.disk.path.clone(), source }
    }

    /// Marks the disk as one that is being filled, and takes away what it was.
    fn begin(&self) -> io::Result<()> {
        let (file, size) = (&self.disk.file, self.disk.size);
        file.write_all_at(MARK, MARK_AT)?;
        file.sync_all()?;
        let zeros = vec![0; usize::try_from(ENDS / 2).unwrap_or(0)];
        file.write_all_at(&zeros, 0)?;
        file.write_all_at(&zeros, size - ENDS / 2)?;
        file.sync_all()
    }
}

/// The kernel line of the installation: where it finds its parts, by what cannot change with cables and slots.
fn line(request: &Request, ids: &Installed) -> String {
    let root = ids.root.as_ref().map(|uuid| format!(" bootfabric.root=disk:{uuid}")).unwrap_or_default();
    format!("{}{root} bootfabric.store={}", request.line.trim(), ids.store)
}

/// The root's own `fstab`, with another line for `/`.
fn write_fstab(tree: &Path, uuid: &str) -> io::Result<()> {
    let path = tree.join("etc/fstab");
    let old = match fs::read_to_string(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        old => old.unwrap_or_default(),
    };
    fs::create_dir_all(tree.join("etc"))?;
    fs::write(path, fstab(&old, uuid))
}

fn fstab(old: &str, uuid: &str) -> String {
    let others = old
        .lines()
        .filter(|line| line.split_whitespace().nth(1) != Some("/") || line.trim_start().starts_with('#'));
    let mut text = format!("UUID={uuid} / ext4 errors=remount-ro 0 1\n");
    for line in others {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn size(path: &Path) -> Result<u64, InstallError> {
    Ok(fs::metadata(path).map_err(|source| InstallError::Read { path: path.to_owned(), source })?.len())
}

/// Bytes that the files below `directory` take on a disk. Files with several names count once for each, which is never too little.
fn tree_size(directory: &Path) -> Result<u64, InstallError> {
    let mut total = 0;
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        let error = |source| InstallError::Read { path: directory.clone(), source };
        for entry in fs::read_dir(&directory).map_err(error)? {
            let entry = entry.map_err(error)?;
            let metadata = entry.metadata().map_err(error)?;
            total += metadata.size().next_multiple_of(BLOCK) + INODE;
            if metadata.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(total)
}

/// A directory that goes in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn make(path: &Path) -> Result<Self, InstallError> {
        let error = |source| InstallError::Read { path: path.to_owned(), source };
        if path.exists() {
            // Left by an attempt that was ended.
            fs::remove_dir_all(path).map_err(error)?;
        }
        fs::create_dir_all(path).map_err(error)?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

#[cfg(test)]
#[path = "install_tests.rs"]
mod tests;
