//! A root that is unpacked while it arrives: PID 1 makes it empty and of the right size, the agent fills it.
//!
//! Owns the phase `empty-root` and the wait for the agent. What fails here costs nothing but time: what is half filled is thrown
//! away, and the blob is unpacked once it is complete.

use std::path::Path;
use std::time::Duration;

use super::error::RootError;
use super::leave::unmount;
use super::mounted::{MountedRoot, RootKind, SYSROOT};
use super::room::{make, unpacked};
use crate::event::Event;
use crate::memory;
use crate::stage::agent_view::{Listed, ROOT};
use crate::stage::agent_wait::until;
use crate::stage::boot::{Boot, FROM_DISK};
use crate::stage::init;
use crate::stage::phase::{Host, PhaseError};
use crate::stage::progress::mebibytes;

/// Makes an empty root for the modes that unpack, and has the agent fill it while chunks come.
pub(in crate::stage) fn empty_root(boot: &mut Boot, deadline: Duration) -> Result<String, PhaseError> {
    if boot.is_local() {
        return Ok(FROM_DISK.to_owned());
    }
    let kind = boot.root_kind();
    if kind == RootKind::Overlay {
        return Ok("the root is the blob itself".to_owned());
    }
    (boot.filling, boot.view.filled, boot.view.unfilled) = (false, false, None);
    unmount(&[SYSROOT])?;
    boot.zram = None;
    boot.agent.list_root()?;
    // An agent that cannot tell says so, and comes to hold the root nevertheless.
    let said = until(boot, deadline, |view| view.unfilled.clone().map(Err).or_else(|| view.listed.map(Ok)))?;
    let listed = match said {
        Ok(listed) => listed,
        Err(why) => return Ok(format!("the root is unpacked once it is complete: {why}")),
    };
    // What is still to come of the blob takes memory beside it.
    let coming = if boot.disks.store { 0 } else { boot.view.missing(ROOT) };
    let available = memory::available().map_err(RootError::Memory)?;
    make(boot, kind, available.saturating_sub(coming), content(listed))?;
    boot.agent.fill(SYSROOT)?;
    boot.filling = true;
    boot.filling_since = boot.now();
    Ok(format!("for {} files, {:.1} MiB; filled while they come", listed.files, mebibytes(listed.bytes)))
}

/// Bytes that a root takes unpacked.
fn content(listed: Listed) -> u64 {
    listed.bytes.saturating_add(listed.files.saturating_mul(memory::PER_INODE))
}

/// Waits until the agent has filled the root and finds its init. None if it could not: the root is unpacked without it then.
pub(super) fn wait(boot: &mut Boot, deadline: Duration) -> Result<Option<String>, PhaseError> {
    let filled = until(boot, deadline, |view| {
        view.unfilled.clone().map(Err).or_else(|| view.filled.then_some(Ok(())))
    });
    // Whatever comes of it, it is not waited for again.
    boot.filling = false;
    match filled {
        Ok(Ok(())) => {}
        Ok(Err(why)) => {
            boot.console.say(&format!("warning: the root was not unpacked while it came: {why}"));
            return Ok(None);
        }
        Err(error) => {
            stop_agent(boot);
            return Err(error);
        }
    }
    let blob = boot.view.root.clone().ok_or_else(|| PhaseError::message("the root is not complete"))?;
    let listed = boot.view.listed.ok_or_else(|| PhaseError::message("the root is not listed"))?;
    let kind = boot.root_kind();
    let init = init::find(Path::new(SYSROOT), boot.line.init.as_deref())?;
    let (bytes, began) = (blob.bytes, boot.filling_since);
    boot.root = Some(MountedRoot { kind, blob, device: None, init });
    boot.emit(Event::RootMounted { device: SYSROOT.to_owned(), mode: kind.to_string() });
    unpacked(boot, kind, listed.bytes, content(listed), bytes, began).map(Some)
}

/// Nobody may write to a root that is thrown away: an agent that is stuck could go on.
fn stop_agent(boot: &mut Boot) {
    boot.agent.kill();
    let end = boot.now() + KILLED;
    while boot.agent.is_running() && boot.now() < end {
        boot.turn(LOOK);
    }
}

/// How long a killed process may take to be gone.
const KILLED: Duration = Duration::from_secs(5);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);
