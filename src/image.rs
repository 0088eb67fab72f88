//! Building images: a root and a kernel become blobs and a signed release.
//!
//! | module | owns |
//! |---|---|
//! | [`build`] | the whole: what is asked for, the order of the work, what came out |
//! | [`recipe`] | a Debian or Ubuntu made of packages |
//! | [`oci`] | container images as roots: layouts, archives, registries |
//! | `root`, `tar`, `archive` | the root filesystem, from a directory, a tar or layers to a squashfs |
//! | `kernel`, `modules` | the kernel, its modules, and which of them the first stage needs |
//! | `first_stage`, `cpio`, `closure`, `elf` | the initramfs with this program as `/init` |
//! | [`firmware`] | the firmware files that modules ask for |
//! | [`loaders`] | what firmware loads first |
//! | [`grub`] | the boot loader of disks |
//! | [`uki`] | a kernel that firmware starts by itself |
//! | [`heads`] | the images that a store has, and their earlier versions |
//! | [`diff`](mod@diff) | what a node that holds one image would fetch to hold another |
//! | [`changed`] | an image with another root |
//! | [`inventory`] | what a first stage holds |
//! | [`export`] | what images are made of, as files |
//! | [`progress`] | how far a build has come |
//! | `tool` | the external programs that it needs |
//!
//! Building is reproducible: the same inputs give the same blobs, or nodes would fetch again what they have. Nothing here
//! prints, and nothing but [`oci`] and, through a program, [`recipe`] talks to a network.

pub mod again;
mod archive;
pub mod build;
pub mod changed;
mod closure;
mod cpio;
pub mod diff;
mod elf;
pub mod export;
pub mod firmware;
mod first_stage;
pub mod grub;
pub mod heads;
pub mod inventory;
mod kernel;
pub mod loaders;
mod modules;
pub mod oci;
pub mod progress;
pub mod recipe;
mod root;
mod tar;
mod tool;
pub mod uki;

pub use archive::ArchiveError;
pub use closure::ClosureError;
pub use cpio::CpioError;
pub use elf::ElfError;
pub use first_stage::{FirstStageError, Part};
pub use grub::GrubError;
pub use kernel::{KernelError, KernelImageError, KernelSource};
pub use modules::{Absent, IndexError, ModuleSet, PackError, SETS, SelectError};
pub use root::{RootError, RootSource, SQUASHFS_OPTIONS};
pub use tar::TarError;
pub use tool::ToolError;
