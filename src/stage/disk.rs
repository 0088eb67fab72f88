//! Disks in the first stage: a store that outlives power, a root that does, and the way from the network to them.
//!
//! Owns the phases `disk` (what is on disks already, before the network is looked at), and in [`install`] those that
//! install one. What they pass on is in [`found`], what the kernel line says of disks in [`options`]. Writing to a disk is
//! [`crate::disk`]'s, in a process of its own.
//!
//! | the kernel line says | `disk` | `partition` | `install` |
//! |---|---|---|---|
//! | nothing | a filesystem labelled `bootfabric` becomes the store, if there is one | | |
//! | `root=disk:UUID` | that filesystem becomes the root; nothing waits for the network | | |
//! | `disk=NAME root=disk` | the same if the release is installed there; else the disk is checked | makes the disk's filesystems; its store becomes the store, and the agent fills its root | makes it start; its root becomes the root |
//! | `disk=NAME` | the same check | makes a store, which becomes the store; the root stays in memory | makes the disk start |

pub(super) mod found;
pub(super) mod install;
pub(super) mod options;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fabric::swarm::NodeKey;
use nix::mount::MsFlags;

use super::boot::Boot;
use super::config::{STATE, STORE};
use super::init;
use super::mounts::{is_mount_point, mount_on};
use super::phase::PhaseError;
use super::root::mounted::SYSROOT;
use super::uevent::Uevents;
use crate::disk::{self, DiskName, InstallError, Installed, KEY_FILE, STORE_LABEL};
use crate::event::Event;
use options::DiskRoot;

/// How often it is looked whether a disk has appeared.
const LOOK: Duration = Duration::from_millis(100);
/// How long a store that the kernel line names is waited for: without it there is the network.
const STORE_PATIENCE: Duration = Duration::from_secs(10);
/// Where the image has the parts of the boot loader.
pub(crate) const LOADER: &str = "/usr/lib/bootfabric/disk";

/// Looks for store and root on disks, and whether the disk to install on can be.
pub(super) fn disk(boot: &mut Boot, deadline: Duration) -> Result<String, PhaseError> {
    let said = boot.line.disk.clone();
    let mut ids = (None, said.store.clone());
    match (&said.root, &said.name) {
        (Some(DiskRoot::There(id)), _) => ids.0 = Some(id.clone()),
        (Some(DiskRoot::Install), None) => {
            return Err(PhaseError::message("the root is to be on a disk, and no disk is named")
                .with_remedy("add bootfabric.disk=/dev/NAME to the kernel line, or say which filesystem: bootfabric.root=disk:UUID"));
        }
        (_, Some(name)) => {
            if let Some(there) = look(boot, name, deadline)? {
                ids = (there.root.filter(|_| said.root.is_some()), Some(there.store));
                boot.disks.there = true;
            } else {
                // It brings its own store; one of an earlier installation goes with what it holds.
                return Ok("to be installed".to_owned());
            }
        }
        (None, None) => {}
    }
    if let Some(id) = &ids.0 {
        let found = find(boot, deadline, |ext| ext.uuid == *id);
        boot.disks.root = Some(found.ok_or_else(|| {
            PhaseError::message(format!("no disk has the filesystem {id}"))
                .with_remedy("is the disk there, and has the first stage its driver? (`image build --disk` takes the usual ones in)")
        })?);
    }
    let store = match &ids.1 {
        Some(id) => find(boot, STORE_PATIENCE, |ext| ext.uuid == *id),
        None => find(boot, Duration::ZERO, |ext| ext.label == STORE_LABEL),
    };
    let mut notes = Vec::new();
    if let Some(device) = store {
        keep_store(boot, &device)?;
        boot.disks.store = true;
        notes.push(format!("store on {}", device.display()));
    }
    if let Some(device) = &boot.disks.root {
        notes.push(format!("root on {}", device.display()));
    }
    Ok(if notes.is_empty() { "none needed".to_owned() } else { notes.join(", ") })
}

/// What is installed on the disk `name`, if it is the release that is booted. Otherwise makes sure that it can be installed.
fn look(boot: &mut Boot, name: &str, deadline: Duration) -> Result<Option<Installed>, PhaseError> {
    let name: DiskName = name.parse().map_err(PhaseError::from)?;
    let release = boot.line.release.as_ref().map(ToString::to_string).unwrap_or_default();
    let wipe = boot.line.disk.wipe;
    let root = boot.line.disk.root.is_some();
    let uevents = Uevents::open();
    let began = Instant::now();
    loop {
        boot.modules()?.load_for_devices();
        let there = match disk::installed(&name, &release) {
            Ok(Some(there)) if there.root.is_some() == root => return Ok(Some(there)),
            Ok(_) => disk::check(&name, wipe),
            Err(error) => Err(error),
        };
        match there {
            Ok(()) => return Ok(None),
            // It may yet appear.
            Err(InstallError::Device(disk::DeviceError::Absent { .. })) if began.elapsed() < deadline => {
                boot.show_waiting("disk", began.elapsed(), "the disk");
                uevents.wait(LOOK);
            }
            Err(error @ InstallError::Holds { .. }) => {
                return Err(PhaseError::from(error).with_remedy(
                    "is it the right disk? bootfabric.disk-wipe=yes on the kernel line takes what it holds away",
                ));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The first volume whose filesystem is `wanted`, waiting for it until `deadline`.
fn find(boot: &mut Boot, deadline: Duration, wanted: impl Fn(&disk::Ext) -> bool) -> Option<PathBuf> {
    let uevents = Uevents::open();
    let began = Instant::now();
    loop {
        if let Ok(modules) = boot.modules() {
            modules.load_for_devices();
        }
        let holds = |path: &PathBuf| {
            File::open(path).and_then(|file| disk::ext(&file)).ok().flatten().is_some_and(|ext| wanted(&ext))
        };
        if let Some(found) = disk::volumes().into_iter().find(holds) {
            return Some(found);
        }
        if began.elapsed() >= deadline {
            return None;
        }
        boot.show_waiting("disk", began.elapsed(), "the disk");
        uevents.wait(LOOK);
    }
}

/// Makes the filesystem on `device` the store. A node with one keeps its key there too, and with it who it is: the key that is there
/// already, else the one that it has, else a new one.
fn keep_store(boot: &mut Boot, device: &Path) -> Result<(), PhaseError> {
    if !is_mount_point(Path::new(STORE)) {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
        mount_ext4(boot, &device.display().to_string(), Path::new(STORE), flags, "")?;
    }
    let (kept, own) = (Path::new(STORE).join(KEY_FILE), Path::new(STATE).join(KEY_FILE));
    // `copy` takes the mode with it.
    if own.exists() && !kept.exists() {
        fs::copy(&own, &kept)?;
    }
    NodeKey::load_or_create(&kept).map_err(PhaseError::from)?;
    if !own.exists() {
        fs::copy(&kept, &own)?;
    }
    Ok(())
}

fn mount_ext4(
    boot: &mut Boot,
    device: &str,
    target: &Path,
    flags: MsFlags,
    options: &str,
) -> Result<(), PhaseError> {
    if let Ok(modules) = boot.modules() {
        // It may be built in, of which an index need not tell; then mounting works, and else mounting fails.
        let _ = modules.load("ext4");
    }
    Ok(mount_on("ext4", device, target, flags, options)?)
}

/// Mounts the root that is on a disk.
pub(super) fn mount(boot: &mut Boot, device: &Path) -> Result<String, PhaseError> {
    let node = device.display().to_string();
    if !is_mount_point(Path::new(SYSROOT)) {
        mount_ext4(boot, &node, Path::new(SYSROOT), MsFlags::empty(), "errors=remount-ro")?;
    }
    let init = init::find(Path::new(SYSROOT), boot.line.init.as_deref())?;
    boot.emit(Event::RootMounted { device: node.clone(), mode: "disk".to_owned() });
    let note = format!("{node}, {}", init.path.display());
    boot.disks.init = Some(init);
    Ok(note)
}
