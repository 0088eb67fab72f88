//! The first stage: PID 1 of the initramfs, until the root's own init takes over.
//!
//! Owns the machine from the kernel's first process to `exec` of the root's init: file-systems, modules, the interface, the
//! mounted root, the console. It never fetches, verifies or serves: that is the agent, the node as a child process,
//! whose event lines ([`crate::event`]) PID 1 reads and whose only command is `enter`.
//!
//! Plain synchronous code on one thread. It never exits and never gives up: a phase that fails says why and what to do,
//! and is tried again for ever. `docs/first-stage.md` tells the story, `docs/kernel-line.md` the vocabulary.

pub mod config;

mod agent;
mod agent_phases;
mod agent_view;
mod agent_wait;
mod boot;
mod console;
pub(crate) mod copied;
pub(crate) mod disk;
mod event_sink;
mod hand_over;
mod hash;
mod init;
mod kernel_line;
mod lines;
mod link;
mod loop_device;
mod modules;
mod mounts;
pub(crate) mod netlink;
mod nic;
mod old_root;
mod phase;
mod phases;
mod progress;
mod reap;
mod root;
mod screen;
mod shell;
mod systemd;
mod tree_hash;
mod uevent;
pub(crate) mod value;
mod zram_device;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub use config::StageConfig;
pub use modules::modprobe_main;
pub use root::options::{Compression, RootOptions, RootSize, Seed};

use boot::Boot;

/// Pause before everything begins anew, should the list of phases itself break.
const AGAIN: Duration = Duration::from_secs(10);

/// Is PID 1 until the root's init is. To be called in the initramfs, as its `/init`, and nowhere else.
pub fn main() -> ! {
    std::panic::set_hook(Box::new(|info| {
        // The text goes to the person as the phase's failure; here is where it happened.
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        eprint_quietly(&format!("bootfabric: panic at {place}\n"));
    }));
    loop {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut boot = Boot::new(shell::run);
            boot.console.say(&format!("bootfabric {}: first stage", env!("CARGO_PKG_VERSION")));
            phase::run_all(phases::PHASES, &mut boot);
            boot.idle(AGAIN);
        }));
        if let Err(payload) = outcome {
            let text = phase::panic_text(&*payload);
            eprint_quietly(&format!("bootfabric: the first stage begins anew: {text}\n"));
            std::thread::sleep(AGAIN);
        }
    }
}

/// Writes to the console without minding whether it works: `eprintln!` would panic.
fn eprint_quietly(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stderr().write_all(text.as_bytes());
}
