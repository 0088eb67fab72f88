//! What the phases of disks pass on: what was found on disks, and the disk that is being installed.

use std::path::PathBuf;
use std::time::Duration;

use crate::disk::{Image, Prepared};
use crate::stage::init::Init;

/// What was found on disks.
#[derive(Debug, Default)]
pub(in crate::stage) struct Disks {
    /// Whether the store is on one.
    pub(in crate::stage) store: bool,
    /// The device of the root, if it is on one.
    pub(in crate::stage) root: Option<PathBuf>,
    /// Init of that root, once it is mounted.
    pub(in crate::stage) init: Option<Init>,
    /// Whether the disk to install on has nothing to install.
    pub(super) there: bool,
    /// The disk that is being installed; from the phase `partition` on.
    pub(in crate::stage) target: Option<Target>,
}

/// A disk that is being installed.
#[derive(Debug)]
pub(in crate::stage) struct Target {
    pub(super) prepared: Prepared,
    pub(super) image: Image,
    /// The device of its root, unless that stays in memory.
    pub(super) root: Option<PathBuf>,
    /// How long the work on it took, the filling aside.
    pub(super) took: Duration,
    /// Whether it is installed.
    pub(super) done: bool,
    /// Why it cannot be: what it did not take is told once, so that another attempt would not know what is missing.
    pub(super) failed: Option<String>,
}

impl Target {
    /// Whether its root is to be filled.
    pub(in crate::stage) fn has_root(&self) -> bool {
        self.prepared.root().is_some()
    }
}
