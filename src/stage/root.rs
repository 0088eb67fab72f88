//! The phase `mount`: the verified blob becomes a root file-system at [`SYSROOT`].
//!
//! Owns the root modes. A mode takes the blob's file in the store and leaves a writable root; what it stands on is mounted
//! below the state directory, which moves into the booted system.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, umount2};
use nix::unistd::{Gid, Uid, chown};

use super::agent_view::Blob;
use super::boot::Boot;
use super::config::STORE;
use super::init::{self, Init};
use super::loop_device::LoopDevice;
use super::mounts::{MountError, is_mount_point, mount_on};
use super::phase::PhaseError;
use super::progress::mebibytes;
use crate::event::Event;

/// Where the new root is until it is handed over.
pub(super) const SYSROOT: &str = "/sysroot";

/// The blob, mounted.
const LOWER: &str = "/run/bootfabric/lower";

/// What is written to the root.
const UPPER: &str = "/run/bootfabric/upper";

/// How the root is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RootMode {
    /// The mounted blob under a file-system in memory that allocates inodes as it goes.
    Overlay,
}

impl RootMode {
    /// Its name in events and documents.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
        }
    }

    /// Mounts the root from the block device `device`.
    fn mount(self, device: &Path) -> Result<(), RootError> {
        match self {
            Self::Overlay => overlay(device),
        }
    }
}

/// A root that is mounted.
#[derive(Debug)]
pub(super) struct MountedRoot {
    /// What it is made of.
    pub(super) blob: Blob,
    /// The device that holds the blob.
    pub(super) device: LoopDevice,
    /// What it is started with.
    pub(super) init: Init,
}

/// The root cannot be mounted.
#[derive(Debug, thiserror::Error)]
enum RootError {
    #[error("the store does not hold the root's blob {path}")]
    NoBlob {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the root's blob has {found} bytes in the store instead of {expected}")]
    Size { found: u64, expected: u64 },
    #[error("the root's blob is no squashfs that this kernel can read")]
    Squashfs(#[source] MountError),
    #[error("cannot prepare the part of the root that can be written")]
    Upper(#[source] std::io::Error),
    #[error("cannot take away what is left on {path} from the last attempt")]
    Leftover {
        path: &'static str,
        #[source]
        source: nix::Error,
    },
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// Mounts the root and finds its init.
pub(super) fn mount(boot: &mut Boot, _: Duration) -> Result<String, PhaseError> {
    let blob = boot.view.root.clone().or_else(|| boot.root.as_ref().map(|root| root.blob.clone()));
    let blob = blob.ok_or_else(|| PhaseError::message("the root is not complete"))?;
    let path = Path::new(STORE).join("blobs").join(&blob.id);
    let found = fs::metadata(&path).map_err(|source| RootError::NoBlob { path: path.clone(), source })?.len();
    if found != blob.bytes {
        return Err(RootError::Size { found, expected: blob.bytes }.into());
    }
    boot.root = None;
    unmount_leftovers()?;

    let device = LoopDevice::attach(boot, &path)?;
    let mode = RootMode::Overlay;
    mode.mount(&device.path)?;
    let init = init::find(Path::new(SYSROOT), boot.line.init.as_deref()).map_err(|error| {
        PhaseError::from(error).with_remedy(
            "build the image from a root that can start a machine (on Debian: with the package systemd-sysv)",
        )
    })?;
    let node = device.path.display().to_string();
    let note =
        format!("{:.1} MiB on {node}, {}, {}", mebibytes(blob.bytes), mode.name(), init.path.display());
    boot.emit(Event::RootMounted { device: node, mode: mode.name().to_owned() });
    boot.root = Some(MountedRoot { blob, device, init });
    Ok(note)
}

fn unmount_leftovers() -> Result<(), RootError> {
    for path in [SYSROOT, UPPER, LOWER] {
        if is_mount_point(Path::new(path)) {
            umount2(path, MntFlags::MNT_DETACH).map_err(|source| RootError::Leftover { path, source })?;
        }
    }
    Ok(())
}

fn overlay(device: &Path) -> Result<(), RootError> {
    let device = device.display().to_string();
    mount_on("squashfs", &device, Path::new(LOWER), MsFlags::MS_RDONLY, "").map_err(RootError::Squashfs)?;
    // No limit on inodes: to run out of them while there is room breaks an overlay beyond repair.
    mount_on("tmpfs", "bootfabric", Path::new(UPPER), MsFlags::empty(), "mode=0755,size=50%,nr_inodes=0")?;
    let (data, work) = (Path::new(UPPER).join("data"), Path::new(UPPER).join("work"));
    make_upper(&data, &work).map_err(RootError::Upper)?;
    let options = format!("lowerdir={LOWER},upperdir={},workdir={}", data.display(), work.display());
    Ok(mount_on("overlay", "bootfabric", Path::new(SYSROOT), MsFlags::empty(), &options)?)
}

/// The directories of the overlay's upper layer. Its top becomes `/` and so must look like the blob's.
fn make_upper(data: &Path, work: &Path) -> std::io::Result<()> {
    fs::create_dir(data)?;
    fs::create_dir(work)?;
    let top = fs::metadata(LOWER)?;
    chown(data, Some(Uid::from_raw(top.uid())), Some(Gid::from_raw(top.gid())))?;
    fs::set_permissions(data, fs::Permissions::from_mode(top.mode() & 0o7777))
}
