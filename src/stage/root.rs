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
pub(crate) mod options;
mod overlay;
mod tmpfs;
mod unpack;
mod zram;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fabric::trust::RootMode;
use nix::mount::{MntFlags, MsFlags, umount2};

use super::agent_view::{AgentView, Blob};
use super::agent_wait::until;
use super::boot::{Boot, FROM_DISK};
use super::config::STORE;
use super::disk;
use super::init::{self, Init};
use super::loop_device::LoopDevice;
use super::modules::LoadError;
use super::mounts::{MountError, is_mount_point, mount_on};
use super::phase::{Host, PhaseError};
use super::progress::{Progress, mebibytes};
use crate::event::Event;
use crate::memory;
pub(super) use arriving::empty_root;
use empty::Empty;
use options::{RootSize, Seed};
use unpack::{Tree, UnpackError};
pub(super) use zram::Zram;
use zram::ZramError;

/// Where the new root is until it is handed over.
pub(super) const SYSROOT: &str = "/sysroot";

/// The blob, mounted.
const LOWER: &str = "/run/bootfabric/lower";

/// What is written to the root.
const UPPER: &str = "/run/bootfabric/upper";

/// Where what is in the root is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RootKind {
    /// In the mounted blob, below a writable filesystem in RAM.
    Overlay,
    /// Unpacked into a filesystem on compressed RAM.
    Zram,
    /// Unpacked into plain RAM.
    Tmpfs,
    /// Unpacked onto the disk that is being installed.
    Disk,
}

impl From<RootMode> for RootKind {
    fn from(mode: RootMode) -> Self {
        match mode {
            RootMode::Overlay => Self::Overlay,
            RootMode::Zram => Self::Zram,
            RootMode::Tmpfs => Self::Tmpfs,
        }
    }
}

impl fmt::Display for RootKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Overlay => "overlay",
            Self::Zram => "zram",
            Self::Tmpfs => "tmpfs",
            Self::Disk => "disk",
        })
    }
}

/// A root that is mounted.
#[derive(Debug)]
pub(super) struct MountedRoot {
    /// How it is held.
    kind: RootKind,
    /// What it is made of.
    pub(super) blob: Blob,
    /// The device that holds the blob, until it is let go.
    pub(super) device: Option<LoopDevice>,
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
    #[error("the kernel lacks the file-system for compressed memory")]
    NoFileSystem(#[source] LoadError),
    #[error("{size_mib} MiB are too little for {kind}")]
    Small { size_mib: u64, kind: &'static str },
    #[error("cannot write an empty file-system")]
    Empty(#[source] std::io::Error),
    #[error("cannot grow the file-system to its size")]
    Grow(#[source] std::io::Error),
    #[error("cannot tell how much memory there is")]
    Memory(#[source] std::io::Error),
    #[error(
        "the root takes {content_mib} MiB unpacked, and {size_mib} MiB are allowed for it by bootfabric.root-size"
    )]
    TooSmall { content_mib: u64, size_mib: u64 },
    #[error(transparent)]
    Zram(#[from] ZramError),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error(transparent)]
    Mount(#[from] MountError),
}

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

    let device = LoopDevice::attach(boot, &path)?;
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

/// Lets go of what there is of a root, and of the memory that it takes.
pub(super) fn leave(boot: &mut Boot) -> Result<(), PhaseError> {
    unmount(&[SYSROOT, UPPER, LOWER])?;
    boot.root = None;
    boot.zram = None;
    Ok(())
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

/// Says what an unpacked root takes: `bytes` of files, `content` bytes with what else is in it.
fn unpacked(
    boot: &mut Boot,
    kind: RootKind,
    bytes: u64,
    content: u64,
    blob: u64,
    began: Duration,
) -> Result<String, PhaseError> {
    let used = match &boot.zram {
        Some(zram) => {
            // What waits to be written is not compressed yet.
            sync(Path::new(SYSROOT)).map_err(RootError::Upper)?;
            let usage = zram.usage()?;
            usage.used
        }
        None if kind == RootKind::Disk => 0,
        None => content,
    };
    let millis = u64::try_from(boot.now().saturating_sub(began).as_millis()).unwrap_or(u64::MAX);
    let compression = boot.zram.as_ref().map(Zram::compression);
    boot.emit(Event::RootUnpacked {
        mode: kind.to_string(),
        compression: compression.clone().unwrap_or_default(),
        original: bytes,
        used,
        blob,
        millis,
    });
    Ok(match compression {
        Some(name) => format!("{:.1} MiB, {:.1} MiB in memory ({name})", mebibytes(bytes), mebibytes(used)),
        None if kind == RootKind::Disk => format!("{:.1} MiB on the disk", mebibytes(bytes)),
        None => format!("{:.1} MiB in plain memory", mebibytes(bytes)),
    })
}

/// How often it is looked at how far unpacking has come.
const LOOK: Duration = Duration::from_millis(50);

/// Room beside the content that a root on zram gets at least: a quarter of it.
const SPARE: u64 = 4;

/// Part of memory that a root on zram may fill, where nothing is said.
const ZRAM_SIZE: RootSize = RootSize::Percent(60);

/// Mounts an empty root with room for `content` bytes.
fn make(boot: &mut Boot, kind: RootKind, available: u64, content: u64) -> Result<(), PhaseError> {
    if kind == RootKind::Disk {
        return disk::install::empty_root(boot, content);
    }
    let said = boot.line.root.size;
    if let Some(size) = said.map(|size| size.of(available)).filter(|size| *size < content) {
        return Err(RootError::TooSmall { content_mib: content >> 20, size_mib: size >> 20 }.into());
    }
    if kind == RootKind::Tmpfs {
        return Ok(tmpfs::mount(said, available, content)?);
    }
    let size = match said {
        Some(size) => size.of(available),
        None => ZRAM_SIZE.of(available).max(content + content / SPARE),
    };
    Ok(zram::mount(boot, Empty::Ext4, size, Path::new(SYSROOT))?)
}

/// Writes everything of the file-system at `path` to its device.
fn sync(path: &Path) -> std::io::Result<()> {
    Ok(nix::unistd::syncfs(fs::File::open(path)?)?)
}

fn unmount(paths: &[&'static str]) -> Result<(), RootError> {
    for path in paths {
        if is_mount_point(Path::new(path)) {
            umount2(*path, MntFlags::MNT_DETACH).map_err(|source| RootError::Leftover { path, source })?;
        }
    }
    Ok(())
}
