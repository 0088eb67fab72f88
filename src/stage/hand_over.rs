//! The phase `hand-over`: PID 1 becomes the root's own init, and the agent goes on.
//!
//! Everything that can fail is done first, while it can still be undone and tried again. The kernel's file-systems are in both
//! roots while the agent moves, so that it finds its files at any moment. Behind the point of no return there is no
//! error to report to anyone but the person at the console; the machine then starts anew.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::{chdir, chroot};

use super::agent_wait::until;
use super::boot::Boot;
use super::config::PROGRAM;
use super::init::Init;
use super::mounts::is_mount_point;
use super::phase::PhaseError;
use super::root::mounted::SYSROOT;
use super::{console, old_root, systemd};
use crate::event::Event;

/// What moves into the new root, with all that is mounted below.
const MOVED: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];

/// How long the event device may take to swallow the last events.
const DRAIN: Duration = Duration::from_secs(2);

/// How long a person has to read why the machine starts anew.
const LAST_WORD: Duration = Duration::from_secs(60);

/// The hand-over cannot begin.
#[derive(Debug, thiserror::Error)]
enum HandOverError {
    #[error("cannot keep the program for the booted system as {PROGRAM}")]
    Program(#[source] io::Error),
    #[error("cannot write the units for systemd")]
    Units(#[source] io::Error),
    #[error("cannot make {path} in the root")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot mount {0} in the root")]
    Bind(&'static str, #[source] nix::Error),
}

/// Hands over. Returns only if it could not begin.
pub(super) fn hand_over(boot: &mut Boot, deadline: Duration) -> Result<String, PhaseError> {
    let init = boot.init()?;
    keep_program().map_err(HandOverError::Program)?;
    if init.is_systemd {
        // A machine without an interface is no node.
        if let Some(nic) = &boot.nic {
            systemd::write_units(Path::new("/run"), nic).map_err(HandOverError::Units)?;
        }
    }
    bind_all()?;
    if let Err(error) = take_agent_along(boot, deadline) {
        if !boot.is_local() {
            return Err(error);
        }
        // A machine with a root on its disk starts, whatever becomes of the node.
        boot.console.say(&format!("warning: the node does not come along: {}", error.chain()));
        boot.agent.let_go();
        boot.agent.kill();
    }

    boot.console.say(&format!("handing over to {}", init.path.display()));
    // From here on there is no way back.
    let error = match leave() {
        Ok(()) => become_init(boot, &init),
        Err(error) => error,
    };
    stranded(boot, &init, &error)
}

fn take_agent_along(boot: &mut Boot, deadline: Duration) -> Result<(), PhaseError> {
    if boot.nic.is_none() {
        return Ok(());
    }
    boot.agent.enter(SYSROOT)?;
    until(boot, deadline, |view| view.entered.then_some(()))?;
    boot.agent.let_go();
    Ok(())
}

/// Copies the program to where the booted system finds it.
fn keep_program() -> io::Result<()> {
    let program = Path::new(PROGRAM);
    if let Some(directory) = program.parent() {
        fs::create_dir_all(directory)?;
    }
    let next = program.with_extension("new");
    fs::copy("/proc/self/exe", &next)?;
    fs::rename(next, program)
}

/// Shows the kernel's file-systems in the new root too. What an earlier attempt left is used as it is.
fn bind_all() -> Result<(), HandOverError> {
    for source in MOVED {
        let target = Path::new(SYSROOT).join(source.trim_start_matches('/'));
        if !is_mount_point(&target) {
            fs::create_dir_all(&target)
                .map_err(|error| HandOverError::Directory { path: target.clone(), source: error })?;
            mount(Some(source), &target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
                .map_err(|error| HandOverError::Bind(source, error))?;
        }
    }
    Ok(())
}

/// Leaves the old root: takes its mounts away, gives its memory back and makes the new root the root.
fn leave() -> io::Result<()> {
    chdir(SYSROOT)?;
    for target in MOVED {
        umount2(target, MntFlags::MNT_DETACH)?;
    }
    if old_root::is_initramfs() {
        old_root::empty(Path::new("/"))?;
    }
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    chroot(".")?;
    chdir("/")?;
    Ok(())
}

/// Executes the init; returns only if the kernel refuses.
fn become_init(boot: &mut Boot, init: &Init) -> io::Error {
    // The console of the new root; the old descriptors lead to the same device if this fails.
    let _ = console::adopt();
    boot.emit(Event::HandedOver { init: init.path.display().to_string() });
    boot.events.drain(DRAIN);
    // As the kernel itself starts an init: its arguments, a home and a terminal, nothing else.
    Command::new(&init.path)
        .args(std::env::args_os().skip(1))
        .env_clear()
        .env("HOME", "/")
        .env("TERM", std::env::var_os("TERM").unwrap_or_else(|| "linux".into()))
        .exec()
}

/// Says why the machine cannot go on, and starts it anew: over the network it will come back.
fn stranded(boot: &mut Boot, init: &Init, error: &io::Error) -> ! {
    boot.console.say(&format!(
        "[fail] hand-over to {} failed behind the point of no return: {error}\n       the machine starts anew in {} s",
        init.path.display(),
        LAST_WORD.as_secs()
    ));
    loop {
        boot.idle(LAST_WORD);
        let refused = reboot(RebootMode::RB_AUTOBOOT);
        boot.console.say(&format!("[fail] the machine does not start anew: {refused:?}"));
    }
}
