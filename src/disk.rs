//! Systems on disks: the image that machines boot from memory, installed so that a machine boots it by itself.
//!
//! Owns everything from an empty disk to one that starts with no network at all, by BIOS or UEFI: partition table,
//! filesystems, boot loader, the root's files, and a store from which the machine seeds. What was planned is checked before a
//! byte is written; the partition table comes last, so that a disk either starts or holds nothing that looks as if it did.
//!
//! Never writes to a disk that it was not given by name, that is in use, or that holds anything but zeros, unless told to.
//!
//! | part | owns |
//! |---|---|
//! | [`device`] | names of disks, claiming them |
//! | [`probe`], [`check`] | what a disk holds already, and whether it may go |
//! | [`layout`], [`gpt`] | the plan, and the partition table |
//! | [`mke2fs`], [`loader`], [`partitions`] | filesystems, boot loader, what the kernel knows |
//! | `image`, `line` | what of an image goes there, and the kernel line that does |
//! | [`prepare`], [`finish`] | all that comes before store and root are on the disk, and all after |
//! | [`install`] | an operator's way: store and root are there, and copied in between |
//! | [`step`] | the first stage's way: the disk is filled in between, while chunks come |
//! | [`snapshot`] | the part of a store that goes with an image |
//!
//! Blocks for as long as it takes. In the first stage each half runs as a process of its own (`bootfabric disk-install`), so that
//! PID 1 goes on with its duties meanwhile.

mod check;
mod device;
mod error;
mod finish;
mod gpt;
mod image;
mod install;
mod layout;
mod line;
pub mod loader;
mod mke2fs;
mod partitions;
mod prepare;
mod probe;
mod snapshot;
mod step;

pub use check::{Installed, check, installed};
pub use device::{DeviceError, DiskName, volumes};
pub use error::InstallError;
pub use image::Image;
pub use install::{Request, install};
pub use line::kept_words;
pub(crate) use line::words;
pub use mke2fs::{MakeError, find as mke2fs};
pub use prepare::Prepared;
pub use probe::{Ext, ext};
pub use step::{Sizes, Step};

/// Label of a filesystem that a node keeps its store on.
pub const STORE_LABEL: &str = "bootfabric";
/// Label of an installed root.
pub const ROOT_LABEL: &str = "bootfabric-root";
/// File with the node's key, in the store's filesystem.
pub const KEY_FILE: &str = "node.key";
