//! Why there is no root.

use std::path::PathBuf;

use super::unpack::UnpackError;
use crate::stage::modules::LoadError;
use crate::stage::mounts::MountError;
use crate::stage::phase::PhaseError;
use crate::stage::zram_device::ZramError;

/// The root cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub(super) enum RootError {
    #[error("the store does not hold the root's blob {path}")]
    NoBlob {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the root's blob has {found} bytes in the store instead of {expected}")]
    Size { found: u64, expected: u64 },
    #[error("the root's blob is no squashfs that this kernel can read")]
    Squashfs(#[source] MountError),
    #[error("cannot prepare the part of the root that can be written")]
    Upper(#[source] std::io::Error),
    #[error("cannot take away what is left on {path} from the last attempt")]
    Leftover {
        path: &'static str,
        #[source]
        source: nix::Error,
    },
    #[error("the kernel lacks the file-system for compressed memory")]
    NoFileSystem(#[source] LoadError),
    #[error("{size_mib} MiB are too little for {kind}")]
    Small { size_mib: u64, kind: &'static str },
    #[error("cannot write an empty file-system")]
    Empty(#[source] std::io::Error),
    #[error("cannot grow the file-system to its size")]
    Grow(#[source] std::io::Error),
    #[error("cannot tell how much memory there is")]
    Memory(#[source] std::io::Error),
    #[error(
        "the root takes {content_mib} MiB unpacked, and {size_mib} MiB are allowed for it by bootfabric.root-size"
    )]
    TooSmall { content_mib: u64, size_mib: u64 },
    #[error(transparent)]
    Zram(#[from] ZramError),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error(transparent)]
    Mount(#[from] MountError),
}

impl RootError {
    /// Whether the kernel merely lacks something that can be done without.
    pub(super) fn is_lack(&self) -> bool {
        matches!(self, Self::NoFileSystem(_) | Self::Small { .. } | Self::Zram(ZramError::NoDriver(_)))
    }

    /// All that went wrong, on one line.
    pub(super) fn chain(self) -> String {
        PhaseError::from(self).chain()
    }
}
