//! A root that is mounted: where it is, how it is held, and what it is made of.

use std::fmt;

use fabric::trust::RootMode;

use crate::stage::agent_view::Blob;
use crate::stage::init::Init;
use crate::stage::loop_device::LoopDevice;

/// Where the new root is until it is handed over.
pub(in crate::stage) const SYSROOT: &str = "/sysroot";

/// The blob, mounted.
pub(super) const LOWER: &str = "/run/bootfabric/lower";

/// What is written to the root.
pub(super) const UPPER: &str = "/run/bootfabric/upper";

/// Where what is in the root is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::stage) enum RootKind {
    /// In the mounted blob, below a writable filesystem in RAM.
    Overlay,
    /// Unpacked into a filesystem on compressed RAM.
    Zram,
    /// Unpacked into plain RAM.
    Tmpfs,
    /// Unpacked onto the disk that is being installed.
    Disk,
}

impl From<RootMode> for RootKind {
    fn from(mode: RootMode) -> Self {
        match mode {
            RootMode::Overlay => Self::Overlay,
            RootMode::Zram => Self::Zram,
            RootMode::Tmpfs => Self::Tmpfs,
        }
    }
}

impl fmt::Display for RootKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Overlay => "overlay",
            Self::Zram => "zram",
            Self::Tmpfs => "tmpfs",
            Self::Disk => "disk",
        })
    }
}

/// A root that is mounted.
#[derive(Debug)]
pub(in crate::stage) struct MountedRoot {
    /// How it is held.
    pub(super) kind: RootKind,
    /// What it is made of.
    pub(in crate::stage) blob: Blob,
    /// The device that holds the blob, until it is let go.
    pub(in crate::stage) device: Option<LoopDevice>,
    /// What it is started with.
    pub(in crate::stage) init: Init,
}
