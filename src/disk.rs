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
//! | [`probe`] | what a disk holds already |
//! | [`layout`], [`gpt`] | the plan, and the partition table |
//! | [`mke2fs`], [`loader`] | filesystems, boot loader |
//! | `line` | the kernel line that goes onto the disk |
//! | [`snapshot`] | the part of a store that goes with an image |
//! | [`install`] | the order of it all |
//!
//! Blocks for as long as it takes. In the first stage it runs as a process of its own (`bootfabric disk-install`), so that
//! PID 1 goes on with its duties meanwhile.

mod device;
mod gpt;
mod install;
mod layout;
mod line;
pub mod loader;
mod mke2fs;
mod probe;
mod reread;
mod snapshot;

pub use device::{DeviceError, DiskName, volumes};
pub use install::{Image, InstallError, Installed, Request, check, install, installed};
pub use line::kept_words;
pub(crate) use line::words;
pub use mke2fs::{MakeError, find as mke2fs};
pub use probe::{Ext, ext};

/// Label of a filesystem that a node keeps its store on.
pub const STORE_LABEL: &str = "bootfabric";
/// Label of an installed root.
pub const ROOT_LABEL: &str = "bootfabric-root";
/// File with the node's key, in the store's filesystem.
pub const KEY_FILE: &str = "node.key";
