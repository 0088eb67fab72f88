//! Why nothing, or not all, was installed.

use std::io;
use std::path::PathBuf;

use super::device::DeviceError;
use super::layout::TooSmall;
use super::loader::LoaderError;
use super::mke2fs::MakeError;
use super::snapshot::SnapshotError;

/// Nothing, or not all, was installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The disk.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// It holds something.
    #[error("{} holds {what}; nothing was written", path.display())]
    Holds {
        /// The node.
        path: PathBuf,
        /// What, in words.
        what: String,
    },
    /// It is too small.
    #[error("{} is too small; nothing was written", path.display())]
    TooSmall {
        /// The node.
        path: PathBuf,
        /// By how much.
        source: TooSmall,
    },
    /// The part of the store.
    #[error(transparent)]
    Store(#[from] SnapshotError),
    /// A filesystem.
    #[error("cannot make the filesystem for the {what}")]
    Make {
        /// What it is for.
        what: &'static str,
        /// Why.
        source: MakeError,
    },
    /// The boot loader.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// A file that is to be copied.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else wrote to it meanwhile.
    #[error("{} is not the disk that was prepared any more; nothing more was written", .0.display())]
    Changed(PathBuf),
    /// The disk failed while a filesystem on it was filled.
    #[error("the filesystem on {} was damaged while it was filled: its disk fails", .0.display())]
    Damaged(PathBuf),
    /// The disk does not take what is written.
    #[error("cannot write to {}", path.display())]
    Write {
        /// The node.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
