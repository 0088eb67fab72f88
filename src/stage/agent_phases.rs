//! The phases that the agent does and PID 1 waits for: `agent`, `release`, `memory`, `boot-blobs`, `root`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::agent_wait::until;
use super::boot::{Boot, FROM_DISK};
use super::config::{CONFIG, STATE, STORE, StageConfig};
use super::phase::{Host, PhaseError};
use super::progress::mebibytes;
use super::root::leave::leave;
use super::value::is_hash;

/// The trust root: in the image, never on the kernel line.
const TRUST_ROOT: &str = "/etc/bootfabric/trust-root";

/// There if the fabric is private; in the image, likewise.
const PRIVATE: &str = "/etc/bootfabric/private";

/// The agent cannot be told what to do.
#[derive(Debug, thiserror::Error)]
enum ConfigError {
    #[error("the kernel line names no release")]
    NoRelease,
    #[error("cannot read the trust root {TRUST_ROOT}")]
    TrustRoot(#[source] std::io::Error),
    #[error("the trust root {TRUST_ROOT} is not a key of 64 hexadecimal digits")]
    NotAKey,
    #[error("cannot write {CONFIG}")]
    Write(#[source] std::io::Error),
}

/// Writes what the agent must know and starts it.
pub(super) fn agent(boot: &mut Boot, _: Duration) -> Result<String, PhaseError> {
    if boot.nic.is_none() {
        return Ok("no network interface: this machine is no node until its next start".to_owned());
    }
    let config = config(boot)?;
    config.write(Path::new(CONFIG)).map_err(ConfigError::Write)?;
    if !boot.agent.is_running() {
        boot.view.restart();
        boot.agent.start(boot.now())?;
    }
    Ok(match config.peers.as_slice() {
        [] => "no first peers: looking for some on the link".to_owned(),
        [first] => format!("first peer {first}"),
        [first, others @ ..] => format!("first peer {first} and {} more", others.len()),
    })
}

fn config(boot: &Boot) -> Result<StageConfig, PhaseError> {
    let line = &boot.line;
    // What a store on a disk holds can be booted without being named.
    let stored = boot.disks.store;
    let release = line.release.as_ref().map(ToString::to_string).or(stored.then(String::new));
    let release = release.ok_or_else(|| {
        PhaseError::from(ConfigError::NoRelease).with_remedy(
            "boot through the fabric's boot script, or add bootfabric.release=ID to the kernel line",
        )
    })?;
    let trust_root = trust_root()?;
    let nic = boot.nic()?;
    // Without one the agent takes one of the pool, which needs the settings in the store.
    let address = line.address.map(|address| address.to_string()).or(stored.then(String::new));
    let address = address.ok_or_else(|| PhaseError::message("the kernel line names no address"))?;
    Ok(StageConfig {
        interface: nic.name.clone(),
        mac: nic.mac.to_string(),
        address,
        peers: line.peers.clone(),
        release,
        name: boot.name().to_owned(),
        trust_root,
        http_port: line.http_port,
        swarm_port: line.swarm_port,
        limits: line.limits,
        root: line.root,
        store: STORE.into(),
        store_on_disk: stored,
        awaits_disk: boot.awaits_disk(),
        state: STATE.into(),
        events: line.events.clone(),
        private: Path::new(PRIVATE).exists(),
    })
}

/// The trust root that the image carries, in hexadecimal.
pub(super) fn trust_root() -> Result<String, PhaseError> {
    let text = fs::read_to_string(TRUST_ROOT).map_err(ConfigError::TrustRoot)?;
    let text = text.trim();
    if is_hash(text) { Ok(text.to_owned()) } else { Err(ConfigError::NotAKey.into()) }
}

/// Waits for the release to be found and its signature checked.
pub(super) fn release(boot: &mut Boot, deadline: Duration) -> Result<String, PhaseError> {
    if boot.is_local() {
        return Ok(FROM_DISK.to_owned());
    }
    until(boot, deadline, |view| view.release.clone())
}

/// Waits for the word on memory.
pub(super) fn memory(boot: &mut Boot, deadline: Duration) -> Result<String, PhaseError> {
    if boot.is_local() || boot.disks.store {
        return Ok("the store is on a disk".to_owned());
    }
    let memory = until(boot, deadline, |view| view.memory)?;
    let figures = format!("{} MiB needed, {} MiB available", memory.needed_mib, memory.available_mib);
    if memory.needed_mib > memory.available_mib {
        return Err(PhaseError::message(format!("too little memory for this root: {figures}")));
    }
    Ok(figures)
}

/// Waits for what the next machine needs.
pub(super) fn boot_blobs(boot: &mut Boot, deadline: Duration) -> Result<String, PhaseError> {
    if boot.is_local() {
        return Ok(FROM_DISK.to_owned());
    }
    let bytes = until(boot, deadline, |view| view.boot_blobs)?;
    Ok(format!("{:.1} MiB; the next machine can boot from this one", mebibytes(bytes)))
}

/// Waits for the root.
pub(super) fn root(boot: &mut Boot, deadline: Duration) -> Result<String, PhaseError> {
    if boot.is_local() {
        return Ok(FROM_DISK.to_owned());
    }
    let blob = match until(boot, deadline, |view| view.root.clone()) {
        Ok(blob) => blob,
        Err(error) => {
            give_half_filled_back(boot)?;
            return Err(error);
        }
    };
    let (amount, sources) = (mebibytes(blob.bytes), blob.sources);
    Ok(match sources {
        0 => format!("{amount:.1} MiB"),
        1 => format!("{amount:.1} MiB from one peer"),
        _ => format!("{amount:.1} MiB from {sources} peers"),
    })
}

/// Gives the memory back that a root takes which its agent does not go on filling: the next agent weighs what there is.
fn give_half_filled_back(boot: &mut Boot) -> Result<(), PhaseError> {
    let Some(why) = boot.view.unfilled.clone().filter(|_| boot.filling) else { return Ok(()) };
    boot.filling = false;
    boot.console.say(&format!("warning: the root is unpacked once it is complete: {why}"));
    leave(boot)
}
