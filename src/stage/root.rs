//! The phases `mount` and `unpack`: the verified blob becomes a root file-system at [`SYSROOT`].
//!
//! Owns the root modes. Each has a file of its own; what it stands on is mounted below the state directory, which moves
//! into the booted system.
//!
//! | mode | `mount` | `unpack` |
//! |---|---|---|
//! | [`overlay`] | the blob, and over it what can be written | nothing |
//! | [`zram`], [`tmpfs`], [disk] | nothing: the agent fills an [empty root](arriving) while chunks come | waits for that |
//!
//! Where the agent does not get there (a squashfs of a kind that only the kernel reads, an agent that died) the blob is mounted
//! and copied once it is complete.

mod arriving;
mod empty;
mod error;
pub(super) mod leave;
pub(super) mod mounted;
pub(crate) mod options;
mod overlay;
mod room;
mod tmpfs;
mod unpack;
mod zram;

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::mount::MsFlags;

use super::agent_view::AgentView;
use super::agent_wait::until;
use super::boot::{Boot, FROM_DISK};
use super::config::STORE;
use super::disk;
use super::init;
use super::loop_device::LoopDevice;
use super::mounts::mount_on;
use super::phase::{Host, PhaseError};
use super::progress::{Progress, mebibytes};
use crate::event::Event;
use crate::memory;
pub(super) use arriving::empty_root;
use empty::Empty;
use error::RootError;
use leave::unmount;
use mounted::{LOWER, MountedRoot, RootKind, SYSROOT, UPPER};
use options::Seed;
use room::{make, unpacked};
use unpack::Tree;

/// Mounts the root, or what it is to be unpacked from, and finds its init.
pub(super) fn mount(boot: &mut Boot, _: Duration) -> Result<String, PhaseError> {
    if let Some(device) = boot.disks.root.clone() {
        return disk::mount(boot, &device);
    }
    let blob = boot.view.root.clone().or_else(|| boot.root.as_ref().map(|root| root.blob.clone()));
    let blob = blob.ok_or_else(|| PhaseError::message("the root is not complete"))?;
    let path = Path::new(STORE).join("blobs").join(&blob.id);
    let found = fs::metadata(&path).map_err(|source| RootError::NoBlob { path: path.clone(), source })?.len();
    if found != blob.bytes {
        return Err(RootError::Size { found, expected: blob.bytes }.into());
    }
    let kind = boot.root_kind();
    if boot.filling {
        return Ok("nothing to mount: the root is filled by the agent".to_owned());
    }
    boot.root = None;
    unmount(&[SYSROOT, UPPER, LOWER])?;
    boot.zram = None;

    let device = LoopDevice::attach(&path, |pause| boot.idle(pause))?;
    let node = device.path.display().to_string();
    mount_on("squashfs", &node, Path::new(LOWER), MsFlags::MS_RDONLY, "").map_err(RootError::Squashfs)?;
    let (held, root) = match kind {
        RootKind::Overlay => {
            let memory = memory::available().map_err(RootError::Memory)?;
            (format!("{kind}, {}", overlay::mount(boot, memory)?), SYSROOT)
        }
        RootKind::Zram | RootKind::Tmpfs | RootKind::Disk => (kind.to_string(), LOWER),
    };
    let init = init::find(Path::new(root), boot.line.init.as_deref()).map_err(|error| {
        PhaseError::from(error).with_remedy(
            "build the image from a root that can start a machine (on Debian: with the package systemd-sysv)",
        )
    })?;
    let note = format!("{:.1} MiB on {node}, {held}, {}", mebibytes(blob.bytes), init.path.display());
    boot.emit(Event::RootMounted { device: node, mode: kind.to_string() });
    boot.root = Some(MountedRoot { kind, blob, device: Some(device), init });
    Ok(note)
}

/// Loads what the root will stand on, while the agent fetches it. What cannot be loaded is told when it is needed.
pub(super) fn drivers(boot: &mut Boot, _: Duration) -> Result<String, PhaseError> {
    if boot.is_local() {
        return Ok(FROM_DISK.to_owned());
    }
    let kind = boot.root_kind();
    let empty = match kind {
        RootKind::Overlay => Empty::Xfs,
        RootKind::Zram => Empty::Ext4,
        RootKind::Tmpfs => return Ok("tmpfs needs none".to_owned()),
        RootKind::Disk => return Ok("the disk's are loaded".to_owned()),
    };
    // Compressors are modules of their own; the kernel would ask for them one by one, each with a new process.
    let compression = boot.line.root.compression.unwrap_or(options::Compression::Zstd).name();
    if let Some(modules) = boot.modules.as_mut() {
        for name in [empty.name(), "zram", compression] {
            let _ = modules.load(name);
        }
    }
    Ok(format!("for {kind}, while the root comes"))
}

/// Unpacks the root where the mode wants it, and lets the blob go as far as it is not kept for others.
pub(super) fn unpack(boot: &mut Boot, deadline: Duration) -> Result<String, PhaseError> {
    if boot.is_local() {
        return Ok(FROM_DISK.to_owned());
    }
    if boot.root_kind() == RootKind::Overlay {
        return Ok("the root is the blob itself".to_owned());
    }
    let filled = if boot.filling { arriving::wait(boot, deadline)? } else { None };
    if boot.root.is_none() {
        // The agent did not fill it, or not all: from the blob, which is whole by now.
        mount(boot, deadline)?;
    }
    let root = boot.root()?;
    let (kind, blob_bytes, unpacked) = (root.kind, root.blob.bytes, root.device.is_none());
    let note = match filled {
        Some(note) => note,
        None if unpacked => "unpacked already".to_owned(),
        None if kind == RootKind::Disk => {
            fill(boot, kind, blob_bytes).map_err(|error| error.or_remedy(disk::install::FAILED))?
        }
        None => fill(boot, kind, blob_bytes)?,
    };
    let seed = boot.line.root.seed;
    let kept = match seed {
        Seed::All => "kept for others",
        _ if kind == RootKind::Disk => "on the disk, kept for others",
        Seed::Share { .. } if boot.disks.store => "on the disk, kept for others",
        Seed::Share { .. } => {
            boot.view.unfilled = None;
            boot.agent.share_root()?;
            given_back(
                boot,
                deadline,
                |view| view.root_shared,
                "kept in part, as others come to hold the rest",
            )?
        }
        Seed::None => {
            boot.view.unfilled = None;
            boot.agent.drop_root()?;
            given_back(boot, deadline, |view| view.root_dropped, "given back")?
        }
    };
    Ok(format!("{note}; the blob's {:.1} MiB {kept}", mebibytes(blob_bytes)))
}

/// Waits until the agent has done with the root's blob what it was told to; an agent that cannot keeps all of it.
fn given_back(
    boot: &mut Boot,
    deadline: Duration,
    done: impl Fn(&AgentView) -> bool,
    kept: &'static str,
) -> Result<&'static str, PhaseError> {
    let said =
        until(boot, deadline, |view| done(view).then_some(None).or_else(|| view.unfilled.clone().map(Some)))?;
    let Some(why) = said else { return Ok(kept) };
    boot.console.say(&format!("warning: the root's blob is not given back: {why}"));
    Ok("kept for others")
}

/// Makes an empty root, fills it and lets go of the blob's device.
fn fill(boot: &mut Boot, kind: RootKind, blob_bytes: u64) -> Result<String, PhaseError> {
    unmount(&[SYSROOT])?;
    boot.zram = None;
    let began = boot.now();
    let tree = Tree::walk(Path::new(LOWER)).map_err(RootError::from)?;
    let content = tree.bytes() + tree.count() as u64 * memory::PER_INODE;
    let available = memory::available().map_err(RootError::Memory)?;
    make(boot, kind, available, content)?;
    let mut shown = Progress::default();
    tree.unpack(Path::new(SYSROOT), |done| {
        boot.turn(LOOK);
        let now = boot.now();
        shown.update(now, done, tree.bytes());
        boot.console.progress(now, "unpack", &shown.text());
    })
    .map_err(RootError::from)?;
    unmount(&[LOWER])?;
    if let Some(root) = boot.root.as_mut() {
        root.device = None;
    }
    unpacked(boot, kind, tree.bytes(), content, blob_bytes, began)
}

/// How often it is looked at how far unpacking has come.
const LOOK: Duration = Duration::from_millis(50);
