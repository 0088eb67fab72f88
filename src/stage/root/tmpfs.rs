//! `tmpfs`: the blob unpacked into plain memory. The simplest root, and the largest.

use std::path::Path;

use nix::mount::MsFlags;

use super::error::RootError;
use super::mounted::SYSROOT;
use super::options::RootSize;
use crate::stage::mounts::mount_on;

/// Part of memory that the root may fill, where nothing is said. The kernel's own default is the same.
const SIZE: RootSize = RootSize::Percent(50);

/// Mounts an empty root for as much as `size` says of `memory` bytes, and at least `content` bytes.
pub(super) fn mount(size: Option<RootSize>, memory: u64, content: u64) -> Result<(), RootError> {
    let bytes = match size {
        Some(size) => size.of(memory),
        None => SIZE.of(memory).max(content),
    };
    // Inodes are memory like all else: no limit of their own.
    let options = format!("mode=0755,size={}k,nr_inodes=0", bytes.div_ceil(1024));
    Ok(mount_on("tmpfs", "bootfabric", Path::new(SYSROOT), MsFlags::empty(), &options)?)
}
