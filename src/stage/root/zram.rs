//! A file-system on compressed memory.

use std::path::Path;

use nix::mount::MsFlags;

use super::empty::Empty;
use super::error::RootError;
use crate::stage::boot::Boot;
use crate::stage::mounts::mount_on;
use crate::stage::zram_device::Zram;

/// Mounts an empty file-system of `size` bytes on `target`; the device becomes the boot's.
pub(super) fn mount(boot: &mut Boot, kind: Empty, size: u64, target: &Path) -> Result<(), RootError> {
    if let Some(modules) = boot.modules.as_mut() {
        modules.load(kind.name()).map_err(RootError::NoFileSystem)?;
    }
    boot.zram = None;
    // A whole number of the file-system's blocks.
    let size = size.max(kind.least()) >> 12 << 12;
    let device = Zram::new(boot.modules.as_mut(), boot.line.root.compression, size)?;
    let node = boot.zram.insert(device).node();
    kind.write(&node).map_err(RootError::Empty)?;
    mount_on(kind.name(), &node.display().to_string(), target, MsFlags::MS_NOATIME, kind.options())?;
    kind.grow(target, size).map_err(RootError::Grow)
}
