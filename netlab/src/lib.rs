//! A network laboratory on one Linux machine.
//!
//! A [`Lab`] owns switches (bridges), hosts (network namespaces), machines (QEMU with real firmware), the cables between
//! them, the packet captures on them, and one timeline of what all of them said. It takes everything away again when it
//! is dropped, and [`sweep_stale`] takes away what a run left that was killed.
//!
//! ```no_run
//! use std::time::Duration;
//! use netlab::{Firmware, Lab, MachineSpec};
//!
//! # fn main() -> netlab::Result<()> {
//! let lab = Lab::new("hello")?;
//! let switch = lab.switch("sw0")?;
//! let capture = switch.capture("all", "udp port 67 or udp port 68")?;
//! let machine = lab.machine(&MachineSpec::new("a", Firmware::Bios), &switch)?;
//! machine.console().wait_for("iPXE", Duration::from_secs(60))?;
//! capture.wait_for("a DISCOVER of the machine", Duration::from_secs(60), |trace| {
//!     trace.dhcp.iter().find(|message| message.chaddr == machine.mac()).map(|_| ())
//! })?;
//! # Ok(())
//! # }
//! ```
//!
//! The crate knows nothing of what runs in the lab. It needs root; [`check`] says what else is missing. Everything is
//! synchronous: threads and deadlines, no runtime.

mod addr;
mod capture;
mod check;
mod console;
mod error;
mod events;
mod host;
mod lab;
mod machine;
mod manifest;
mod missing;
mod netns;
pub mod pcap;
mod port;
mod process;
mod shape;
mod shared;
mod state;
mod sweep;
mod switch;
mod tool;
mod wait;

pub use addr::{BadAddress, Cidr, Mac};
pub use capture::{Capture, CaptureOptions, CaptureStats};
pub use check::{check, ready_or_skip};
pub use console::{Console, Match};
pub use error::{Error, Result};
pub use events::{Event, EventLog, Source, Subscription, Timeline, Unreadable};
pub use host::{Host, HostSpec};
pub use lab::{Lab, LabOptions};
pub use machine::{Accel, DirectKernel, Firmware, Machine, MachineSpec, Nic, Uefi, UefiBoot};
pub use missing::Missing;
pub use netns::Namespace;
pub use port::{Counters, Port, Traffic};
pub use process::Process;
pub use shape::LinkShape;
pub use sweep::{Swept, sweep_stale};
pub use switch::Switch;
pub use wait::{Progress, wait_progress, wait_until};
