//! What a disk holds already, and whether it may be installed.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::device::{Disk, DiskName};
use super::error::InstallError;
use super::layout;
use super::probe::{self, Content};

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

/// [`check`] for a disk that is open.
pub(super) fn check_content(disk: &Disk, wipe: bool) -> Result<(), InstallError> {
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
