//! Kernel modules: which ones a machine's devices ask for, and loading them.
//!
//! Owns what `modprobe` and `udev` do elsewhere: reading the module index, walking `/sys/devices` for modaliases,
//! loading in the order of dependence. Never unloads, never waits: waiting for devices to appear is the caller's.

mod alias;
mod index;
mod load;
mod modprobe;
mod sysfs;

pub use modprobe::modprobe_main;

pub(super) use index::IndexError;
pub(super) use load::{LoadError, Modules};
pub(super) use sysfs::orphan_nics;
