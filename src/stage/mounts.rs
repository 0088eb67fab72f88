//! The phase `mounts`: the file-systems that everything else stands on, and the console.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use super::boot::Boot;
use super::config::STATE;
use super::console;
use super::phase::PhaseError;

/// One file-system of the kernel's.
struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    options: &'static str,
}

const NOSUID: MsFlags = MsFlags::MS_NOSUID;
const PLAIN: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// In the order in which they are mounted. They all move into the booted system.
const MOUNTS: &[Mount] = &[
    Mount { kind: "devtmpfs", target: "/dev", flags: NOSUID, options: "mode=0755" },
    // Group 5 is `tty` in every distribution; systemd mounts it the same.
    Mount {
        kind: "devpts",
        target: "/dev/pts",
        flags: NOSUID.union(MsFlags::MS_NOEXEC),
        options: "mode=0620,gid=5,ptmxmode=0666",
    },
    Mount { kind: "proc", target: "/proc", flags: PLAIN, options: "" },
    Mount { kind: "sysfs", target: "/sys", flags: PLAIN, options: "" },
    Mount {
        kind: "tmpfs",
        target: "/run",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
        options: "mode=0755",
    },
    // The store and the program for the booted system. It holds the root, so it may fill nearly all memory; inodes cost
    // memory only when they are used.
    Mount {
        kind: "tmpfs",
        target: STATE,
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
        options: "mode=0755,size=90%,nr_inodes=0",
    },
];

/// A file-system cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub(super) enum MountError {
    /// There is no place for it.
    #[error("cannot make the directory {target}")]
    Directory {
        /// Where.
        target: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel refused.
    #[error("cannot mount {kind} on {target}")]
    Mount {
        /// What.
        kind: String,
        /// Where.
        target: PathBuf,
        /// Why.
        #[source]
        source: Errno,
    },
}

/// Mounts all that is not mounted yet, and takes the console.
pub(super) fn mounts(boot: &mut Boot, _: Duration) -> Result<String, PhaseError> {
    for Mount { kind, target, flags, options } in MOUNTS {
        if !is_mount_point(Path::new(target)) {
            mount_on(kind, kind, Path::new(target), *flags, options)?;
        }
        // As soon as there is one: whatever fails from here on can be read.
        if *target == "/dev" {
            console::adopt()?;
        }
    }
    boot.console.open_log();
    Ok(String::new())
}

/// Mounts `source` of kind `kind` on `target`, which is made if it is missing.
pub(super) fn mount_on(
    kind: &str,
    source: &str,
    target: &Path,
    flags: MsFlags,
    options: &str,
) -> Result<(), MountError> {
    fs::create_dir_all(target)
        .map_err(|source| MountError::Directory { target: target.to_owned(), source })?;
    mount(Some(source), target, Some(kind), flags, Some(options)).map_err(|source| MountError::Mount {
        kind: kind.to_owned(),
        target: target.to_owned(),
        source,
    })
}

/// Whether something is mounted on `path`.
pub(super) fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.dev());
    let parent = path.parent().unwrap_or(path);
    matches!((device(path), device(parent)), (Ok(own), Ok(above)) if own != above)
}
