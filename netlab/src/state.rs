//! Where the lab keeps what must outlive a crash of its process: `/run/netlab`, which a reboot empties.
//!
//! Holds manifests (`ID.json`), short paths for sockets (`ID/`), and the lock that all lab processes of the machine share.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::{Error, Result};

/// The directory of all labs of this machine.
pub(crate) const DIRECTORY: &str = "/run/netlab";

/// Held while something is done that two processes must not do at once; given back on drop.
pub(crate) type Lock = Flock<File>;

/// Waits for the lock of all labs. Holders only run short commands, so the wait is short.
pub(crate) fn lock() -> Result<Lock> {
    let path = directory()?.join("lock");
    let file = File::create(&path).map_err(Error::file("create", &path))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::File {
        action: "lock",
        path,
        source: errno.into(),
    })
}

/// The directory, made if needed.
pub(crate) fn directory() -> Result<&'static Path> {
    let path = Path::new(DIRECTORY);
    fs::create_dir_all(path).map_err(Error::file("create", path))?;
    Ok(path)
}

/// Replaces a file so that a reader sees the old or the new content, never a part.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let mut new = PathBuf::from(path).into_os_string();
    new.push(".new");
    fs::write(&new, content).map_err(Error::file("write", &new))?;
    fs::rename(&new, path).map_err(Error::file("rename", path))
}
