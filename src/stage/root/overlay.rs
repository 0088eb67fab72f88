//! `overlay`: the mounted blob under a file-system in memory. Nothing is unpacked; what is written costs what it compresses to.
//!
//! What is written lands on zram: it is compressed, and deleting gives memory back. The file-system on it makes inodes as
//! it goes: to run out of them while there is room breaks an overlay beyond repair. Where the kernel lacks either, a tmpfs
//! without an inode limit does the same, uncompressed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::mount::MsFlags;
use nix::unistd::{Gid, Uid, chown};

use super::empty::Empty;
use super::error::RootError;
use super::mounted::{LOWER, SYSROOT, UPPER};
use super::options::RootSize;
use super::zram;
use crate::stage::boot::Boot;
use crate::stage::mounts::mount_on;
use crate::stage::zram_device::Zram;

/// Part of memory that what is written may fill, where nothing is said.
const SIZE: RootSize = RootSize::Percent(50);

/// Mounts the overlay over [`LOWER`]. Returns what was said of the part that can be written.
pub(super) fn mount(boot: &mut Boot, memory: u64) -> Result<String, RootError> {
    let size = boot.line.root.size.unwrap_or(SIZE).of(memory);
    let note = match on_zram(boot, size) {
        Ok(note) => note,
        Err(error) if error.is_lack() => {
            boot.console.say(&format!("what is written is kept uncompressed: {}", error.chain()));
            let options = format!("mode=0755,size={}k,nr_inodes=0", size.div_ceil(1024));
            mount_on("tmpfs", "bootfabric", Path::new(UPPER), MsFlags::empty(), &options)?;
            "tmpfs".to_owned()
        }
        Err(error) => return Err(error),
    };
    let (data, work) = (Path::new(UPPER).join("data"), Path::new(UPPER).join("work"));
    make_upper(&data, &work).map_err(RootError::Upper)?;
    let options = format!("lowerdir={LOWER},upperdir={},workdir={}", data.display(), work.display());
    mount_on("overlay", "bootfabric", Path::new(SYSROOT), MsFlags::empty(), &options)?;
    Ok(format!("up to {} MiB on {note}", size >> 20))
}

/// Mounts the part that can be written on zram.
fn on_zram(boot: &mut Boot, size: u64) -> Result<String, RootError> {
    if size < Empty::Xfs.least() {
        return Err(RootError::Small { size_mib: size >> 20, kind: Empty::Xfs.name() });
    }
    zram::mount(boot, Empty::Xfs, size, Path::new(UPPER))?;
    let compression = boot.zram.as_ref().map(Zram::compression).unwrap_or_default();
    Ok(format!("zram ({compression}, {})", Empty::Xfs.name()))
}

/// The directories of the overlay's upper layer. Its top becomes `/` and so must look like the blob's.
fn make_upper(data: &Path, work: &Path) -> std::io::Result<()> {
    fs::create_dir(data)?;
    fs::create_dir(work)?;
    let top = fs::metadata(LOWER)?;
    chown(data, Some(Uid::from_raw(top.uid())), Some(Gid::from_raw(top.gid())))?;
    fs::set_permissions(data, fs::Permissions::from_mode(top.mode() & 0o7777))
}
