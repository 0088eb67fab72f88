//! Installing what is there already, all at once: the way of an operator.
//!
//! Check, plan, mark, write, sync, table.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::check::Installed;
use super::device::DiskName;
use super::error::InstallError;
use super::finish::{Finish, write_fstab};
use super::image::Image;
use super::layout::Needs;
use super::loader::Loader;
use super::partitions::reread;
use super::prepare::{Ids, Wanted};
use super::snapshot::snapshot;

/// Bytes of a block of the root's filesystem.
const BLOCK: u64 = 4096;
/// Bytes that an inode takes beside its blocks.
const INODE: u64 = 256;

/// What to install.
#[derive(Debug, Clone)]
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
    /// The root's files, to be copied; the tree gets an `etc/fstab`. `None`: the machine will run from memory.
    pub root: Option<PathBuf>,
    /// A directory for what is only needed meanwhile, best on the store's filesystem; it is removed.
    pub scratch: PathBuf,
}

/// Installs; says with `step` what is being done.
///
/// # Errors
/// [`InstallError`]; whether something was written is in the text of those that come before.
pub fn install(request: &Request, step: &dyn Fn(&str)) -> Result<Installed, InstallError> {
    let name: DiskName = request.disk.parse()?;
    let loader = Loader::read(&request.loader)?;
    let scratch = Scratch::make(&request.scratch)?;
    let store = scratch.0.join("store");
    snapshot(&request.store, &store, &request.image.release, &request.image.blobs)?;
    let blob = |id: &str| store.join("blobs").join(id);
    let (kernel, first_stage) = (blob(&request.image.kernel), blob(&request.image.first_stage));
    let root = request.root.as_deref();
    let needs = Needs {
        boot: size(&kernel)? + size(&first_stage)? + loader.bytes(),
        store: tree_size(&store)?,
        root: root.map(tree_size).transpose()?,
    };
    let ids = Ids::new(root.is_some());
    let ids = ids.map_err(|source| InstallError::Write { path: request.scratch.clone(), source })?;
    if let (Some(tree), Some(uuid)) = (root, &ids.root) {
        write_fstab(tree, uuid)?;
    }
    let wanted = Wanted { disk: &name, wipe: request.wipe, needs, ids, store: Some(&store), root };
    let prepared = wanted.prepare(step)?;
    let finish = Finish {
        prepared: &prepared,
        image: &request.image,
        line: &request.line,
        loader: &loader,
        kernel: &kernel,
        first_stage: &first_stage,
    };
    let installed = finish.run(step)?;
    let disk = fs::File::open(&prepared.disk);
    disk.and_then(|disk| reread(&disk)).map_err(|source| prepared.write_error(source))?;
    Ok(installed)
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
