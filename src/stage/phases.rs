//! The first stage as a list.

use std::fs::File;
use std::io::Read;
use std::time::Duration;

use super::boot::Boot;
use super::kernel_line::{self, Parsed};
use super::modules::{IndexError, Modules};
use super::phase::{Phase, PhaseError, Retry};
use super::{agent_phases, disk, hand_over, hash, link, mounts, root};

/// What the machine itself does: a failure seldom goes away, and never soon.
const LOCAL: Retry = Retry { first: Duration::from_secs(2), most: Duration::from_secs(60) };

/// What needs others: a cable, a switch, a peer that just now starts.
const REMOTE: Retry = Retry { first: Duration::from_secs(1), most: Duration::from_secs(15) };

/// Names of modules that are always loaded, one a line.
const ALWAYS: &str = "/etc/bootfabric/modules";

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// All phases, in order.
pub(super) const PHASES: &[Phase<Boot>] = &[
    Phase {
        name: "mounts",
        deadline: seconds(10),
        retry: LOCAL,
        remedy: "the kernel must have devtmpfs, proc, sysfs and tmpfs built in: build the image with another kernel",
        run: mounts::mounts,
    },
    Phase {
        name: "kernel-line",
        deadline: seconds(10),
        retry: LOCAL,
        remedy: "correct the kernel line where it is written: the boot script, or the boot menu",
        run: kernel_line,
    },
    Phase {
        name: "modules",
        deadline: seconds(30),
        retry: LOCAL,
        remedy: "build the image again: its kernel and its first stage must be of the same version",
        run: modules,
    },
    Phase {
        name: "disk",
        deadline: seconds(30),
        retry: LOCAL,
        remedy: "check the disk, and bootfabric.disk on the kernel line (docs/disk.md)",
        run: disk::disk,
    },
    Phase {
        name: "link",
        deadline: seconds(15),
        retry: REMOTE,
        remedy: "check the network card, the cable and the switch port",
        run: link::link,
    },
    Phase {
        name: "address",
        deadline: seconds(5),
        retry: REMOTE,
        remedy: "check bootfabric.address and bootfabric.gateway on the kernel line",
        run: link::address,
    },
    Phase {
        name: "agent",
        deadline: seconds(10),
        retry: LOCAL,
        remedy: "build the image again, so that the first stage carries the fabric's trust root",
        run: agent_phases::agent,
    },
    Phase {
        name: "release",
        deadline: seconds(60),
        retry: REMOTE,
        remedy: "check that a node that holds the release is on this switch and can be reached (`bootfabric status` there)",
        run: agent_phases::release,
    },
    Phase {
        name: "partition",
        deadline: seconds(600),
        retry: LOCAL,
        remedy: "check the disk (docs/disk.md); the installing program's words are in /run/bootfabric/install.log",
        run: disk::install::partition,
    },
    Phase {
        name: "memory",
        deadline: seconds(30),
        retry: LOCAL,
        remedy: "give the machine more memory, or build a smaller image",
        run: agent_phases::memory,
    },
    Phase {
        name: "drivers",
        deadline: seconds(30),
        retry: LOCAL,
        remedy: "build the image again: its kernel and its first stage must be of the same version",
        run: root::drivers,
    },
    Phase {
        name: "boot-blobs",
        deadline: seconds(60),
        retry: REMOTE,
        remedy: "check that a node that holds the image is on this switch (`bootfabric status` there)",
        run: agent_phases::boot_blobs,
    },
    Phase {
        name: "empty-root",
        deadline: seconds(60),
        retry: REMOTE,
        remedy: "give the machine more memory, or boot with bootfabric.root=overlay, which unpacks nothing",
        run: root::empty_root,
    },
    Phase {
        name: "root",
        deadline: seconds(60),
        retry: REMOTE,
        remedy: "check that nodes that hold the image are on this switch (`bootfabric status` there)",
        run: agent_phases::root,
    },
    Phase {
        name: "mount",
        deadline: seconds(15),
        retry: LOCAL,
        remedy: "build the image again; its module list must have loop, squashfs and overlay, unless its kernel contains them",
        run: root::mount,
    },
    Phase {
        name: "hash",
        deadline: seconds(60),
        retry: LOCAL,
        remedy: "what was verified on arrival is damaged now: test this machine's memory",
        run: hash::hash,
    },
    Phase {
        name: "unpack",
        deadline: seconds(30),
        retry: LOCAL,
        remedy: "give the machine more memory, or boot with bootfabric.root=overlay, which unpacks nothing",
        run: root::unpack,
    },
    Phase {
        name: "install",
        deadline: seconds(600),
        retry: LOCAL,
        remedy: "check the disk (docs/disk.md); the installing program's words are in /run/bootfabric/install.log",
        run: disk::install::install,
    },
    Phase {
        name: "hand-over",
        deadline: seconds(30),
        retry: LOCAL,
        remedy: "the agent must move into the root before init starts; its words are in /run/bootfabric/agent.log",
        run: hand_over::hand_over,
    },
];

/// Reads the kernel line and opens the event device.
fn kernel_line(boot: &mut Boot, _: Duration) -> Result<String, PhaseError> {
    let mut bytes = Vec::new();
    File::open("/proc/cmdline")?.take(kernel_line::MAX_LINE as u64).read_to_end(&mut bytes)?;
    boot.raw_line = String::from_utf8_lossy(&bytes).into_owned();
    let Parsed { line, errors, unknown } = Parsed::read(&boot.raw_line);
    boot.line = line;
    match &boot.line.events {
        None => boot.events.close(),
        Some(device) => {
            if let Err(error) = boot.events.open(device) {
                boot.console.say(&format!("warning: no events on {}: {error}", device.display()));
                boot.events.close();
            }
        }
    }
    for key in &unknown {
        boot.console.say(&format!("warning: `{key}` on the kernel line means nothing to this version"));
    }
    match errors.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(String::new()),
    }
}

/// Loads the modules that are always needed, then those of the devices.
fn modules(boot: &mut Boot, _: Duration) -> Result<String, PhaseError> {
    let mut modules = Modules::open(&boot.raw_line)?;
    let always = match std::fs::read_to_string(ALWAYS) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(IndexError::Read { path: ALWAYS.into(), source }.into()),
    };
    for name in always.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        // A kernel that says nothing of its built-in drivers may yet have it; the phase that needs it will tell.
        if let Err(error) = modules.load(name) {
            boot.console.say(&format!("warning: {}", PhaseError::from(error).chain()));
        }
    }
    modules.load_for_devices();
    let note = if modules.is_empty() {
        "the image carries none".to_owned()
    } else {
        format!("{} loaded", modules.count())
    };
    boot.modules = Some(modules);
    Ok(note)
}
