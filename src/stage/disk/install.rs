//! A disk installed while the image comes to it: the phases `partition` and `install`.
//!
//! Between them the agent works over the store on the disk, so that the image is never in memory, and fills the root there as it
//! fills one in memory. Until the last of `install` the disk has no partition table; if power goes, the next start begins anew.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fabric::id::{Hash, ObjectId};
use fabric::store::{Store, StoreOptions};
use fabric::trust::{Release, SignedRelease, TrustRoot};
use nix::mount::MsFlags;

use super::found::Target;
use super::{LOADER, STORE_PATIENCE, find, keep_store, mount_ext4};
use crate::disk::{self, Image, Prepared, Sizes, Step};
use crate::event::Event;
use crate::memory;
use crate::stage::agent_phases;
use crate::stage::agent_view::ROOT;
use crate::stage::agent_wait::until;
use crate::stage::boot::Boot;
use crate::stage::config::STORE;
use crate::stage::mounts::is_mount_point;
use crate::stage::phase::{Host, PhaseError};
use crate::stage::root::mounted::SYSROOT;

/// What a step's process is told, what it answers, and where it says why it failed.
const STEP: &str = "/run/bootfabric/install.json";
const ANSWER: &str = "/run/bootfabric/prepared.json";
const WORDS: &str = "/run/bootfabric/install.log";
/// What to do about a disk that fails.
pub(in crate::stage) const FAILED: &str = "start this machine again: the disk is filled from its beginning then; a disk that fails once more is to be \
     replaced, and without bootfabric.disk and bootfabric.root=disk on the kernel line the machine runs from memory";
/// The program itself.
const PROGRAM: &str = "/proc/self/exe";

/// Makes the disk ready that the kernel line names, and lets the agent work over the store there.
pub(in crate::stage) fn partition(boot: &mut Boot, deadline: Duration) -> Result<String, PhaseError> {
    let Some(name) = boot.line.disk.name.clone() else { return Ok("no disk is named".to_owned()) };
    if boot.disks.root.is_some() || boot.disks.there {
        return Ok("installed already".to_owned());
    }
    if boot.disks.target.is_none() {
        // Until somebody gives some of the root, what is on the disk stays.
        let given = until(boot, UNGIVEN, |view| view.has_begun(ROOT).then_some(()));
        given.map_err(|error| error.or_remedy(NOT_GIVEN))?;
        boot.disks.target = Some(prepare(boot, name)?);
    }
    if !boot.disks.store {
        // What it has in memory is not more than the release.
        end_agent(boot);
        let device = device(boot, |prepared| Some(prepared.store()))?;
        keep_store(boot, &device)?;
        boot.disks.store = true;
    }
    agent_phases::agent(boot, deadline)?;
    let target = target(boot)?;
    let root = if target.has_root() { " and root" } else { "" };
    Ok(format!("store{root} on {}", target.prepared.disk().display()))
}

/// How long nobody may give anything of the root before that is said, and what to do then.
const UNGIVEN: Duration = Duration::from_secs(60);
const NOT_GIVEN: &str = "check that nodes that hold the image are on this switch (`bootfabric status` there); the disk is as it was";
/// How long the agent may take to end in good order.
const ENDING: Duration = Duration::from_secs(10);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(50);

fn end_agent(boot: &mut Boot) {
    boot.agent.end();
    let late = boot.now() + ENDING;
    while boot.agent.is_running() {
        if boot.now() >= late {
            boot.agent.kill();
        }
        boot.turn(LOOK);
    }
}

fn target(boot: &mut Boot) -> Result<&mut Target, PhaseError> {
    boot.disks.target.as_mut().ok_or_else(|| PhaseError::message("no disk was prepared"))
}

/// The device with one of the filesystems of the prepared disk.
fn device(boot: &mut Boot, which: impl FnOnce(&Prepared) -> Option<&str>) -> Result<PathBuf, PhaseError> {
    let id = which(&target(boot)?.prepared).map(str::to_owned);
    let id = id.ok_or_else(|| PhaseError::message("the disk gets no root"))?;
    find(boot, STORE_PATIENCE, |ext| ext.uuid == id)
        .ok_or_else(|| PhaseError::message(format!("the filesystem {id} was made and does not appear")))
}

fn prepare(boot: &mut Boot, disk: String) -> Result<Target, PhaseError> {
    let began = boot.now();
    let (image, release) = release(boot)?;
    let root = boot.root_on_disk().then(|| memory::unpacked_mib(&release) << 20);
    let _ = fs::remove_file(ANSWER);
    let wipe = boot.line.disk.wipe;
    let (sizes, loader, answer) = (Sizes::of(&release, root), LOADER.into(), ANSWER.into());
    run(boot, &Step::Prepare { disk, wipe, sizes, loader, answer })?.map_err(PhaseError::message)?;
    let prepared = serde_json::from_slice(&fs::read(ANSWER)?).map_err(io::Error::from)?;
    Ok(Target {
        prepared,
        image,
        root: None,
        took: boot.now().saturating_sub(began),
        done: false,
        failed: None,
    })
}

/// Mounts the prepared root, with nothing in it.
///
/// # Errors
/// Also if it has no room for `content` bytes.
pub(in crate::stage) fn empty_root(boot: &mut Boot, content: u64) -> Result<(), PhaseError> {
    let device = match &target(boot)?.root {
        Some(device) => device.clone(),
        None => device(boot, Prepared::root)?,
    };
    if !is_mount_point(Path::new(SYSROOT)) {
        let options = "errors=remount-ro";
        mount_ext4(boot, &device.display().to_string(), Path::new(SYSROOT), MsFlags::empty(), options)?;
    }
    target(boot)?.root = Some(device);
    clear(Path::new(SYSROOT)).map_err(|error| {
        let text =
            format!("cannot take away what an attempt before has left of the root on the disk: {error}");
        PhaseError::message(text).with_remedy(FAILED)
    })?;
    let room = nix::sys::statvfs::statvfs(SYSROOT).map_err(io::Error::from)?;
    let room = room.blocks_available().saturating_mul(room.fragment_size());
    if room < content {
        let (need, have) = (content >> 20, room >> 20);
        let text = format!("the root takes {need} MiB, and its filesystem on the disk has {have} MiB");
        return Err(PhaseError::message(text).with_remedy("install on a larger disk"));
    }
    Ok(())
}

fn clear(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        }?;
    }
    Ok(())
}

/// Makes the disk start that was prepared and filled.
pub(in crate::stage) fn install(boot: &mut Boot, _: Duration) -> Result<String, PhaseError> {
    if boot.disks.target.is_none() {
        return Ok(
            if boot.line.disk.name.is_some() { "installed already" } else { "no disk is named" }.to_owned()
        );
    }
    if !target(boot)?.done {
        finish(boot)?;
    }
    let target = target(boot)?;
    let (root, disk) = (target.root.clone(), target.prepared.disk().display().to_string());
    let Some(root) = root else { return Ok(format!("kernel, loader and store on {disk}")) };
    boot.disks.init = Some(boot.root()?.init.clone());
    let note = format!("on {disk}; the root is {}", root.display());
    boot.disks.root = Some(root);
    Ok(note)
}

fn finish(boot: &mut Boot) -> Result<(), PhaseError> {
    let began = boot.now();
    let line = disk::kept_words(&boot.raw_line);
    let Target { prepared, image, failed, .. } = target(boot)?;
    if let Some(why) = failed {
        return Err(PhaseError::message(why.clone()).with_remedy(FAILED));
    }
    let step = Step::Finish {
        prepared: Box::new(prepared.clone()),
        image: image.clone(),
        line,
        loader: LOADER.into(),
        store: STORE.into(),
        root: prepared.root().map(|_| SYSROOT.into()),
    };
    if let Err(why) = run(boot, &step)? {
        target(boot)?.failed = Some(why.clone());
        return Err(PhaseError::message(why).with_remedy(FAILED));
    }
    let took = boot.now().saturating_sub(began);
    let target = target(boot)?;
    let (disk, root, store) = (target.prepared.disk(), target.prepared.root(), target.prepared.store());
    let event = Event::DiskInstalled {
        disk: disk.display().to_string(),
        root: root.unwrap_or_default().to_owned(),
        store: store.to_owned(),
        millis: u64::try_from((target.took + took).as_millis()).unwrap_or(u64::MAX),
    };
    target.done = true;
    boot.emit(event);
    Ok(())
}

/// Runs a step to its end, in a process of its own. What the step itself says against it is told apart from an end that it did not
/// choose.
fn run(boot: &mut Boot, step: &Step) -> Result<Result<(), String>, PhaseError> {
    fs::write(STEP, serde_json::to_vec(step).map_err(io::Error::from)?)?;
    let child = Command::new(PROGRAM)
        .args(["disk-install", STEP])
        .stdin(Stdio::null())
        .stderr(File::create(WORDS)?)
        .env_clear()
        .spawn()?;
    let pid = i64::from(child.id());
    loop {
        let exits = boot.turn(Duration::from_secs(1));
        let Some(exit) = exits.iter().find(|exit| i64::from(exit.pid.as_raw()) == pid) else { continue };
        if exit.is_success() {
            return Ok(Ok(()));
        }
        let words = fs::read_to_string(WORDS).unwrap_or_default();
        let words = words.trim().trim_start_matches("bootfabric: ");
        if exit.is_killed() || words.is_empty() {
            return Err(PhaseError::message(format!("the installing program ended ({exit})")));
        }
        return Ok(Err(words.to_owned()));
    }
}

/// The release that is booted, as the store has it.
fn release(boot: &Boot) -> Result<(Image, Release), PhaseError> {
    let trust_root: TrustRoot = agent_phases::trust_root()?.parse().map_err(PhaseError::from)?;
    let id = boot.view.release_id.clone().or_else(|| boot.line.release.as_ref().map(ToString::to_string));
    let id = id.ok_or_else(|| PhaseError::message("it is not known which release this is"))?;
    let store = Store::open_reader(Path::new(STORE), StoreOptions::default())?;
    let hash: Hash = id.parse().map_err(PhaseError::from)?;
    let bytes =
        store.object(&ObjectId(hash)).ok_or_else(|| PhaseError::message("the store has lost the release"))?;
    let release = SignedRelease::decode(&bytes)?.verify(&trust_root)?;
    Ok((Image::of(&id, &release), release))
}
