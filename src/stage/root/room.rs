//! Room for what is unpacked: made before, measured after.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::empty::Empty;
use super::error::RootError;
use super::mounted::{RootKind, SYSROOT};
use super::options::RootSize;
use super::{tmpfs, zram};
use crate::event::Event;
use crate::stage::boot::Boot;
use crate::stage::disk;
use crate::stage::phase::{Host, PhaseError};
use crate::stage::progress::mebibytes;
use crate::stage::zram_device::Zram;

/// Room beside the content that a root on zram gets at least: a quarter of it.
const SPARE: u64 = 4;

/// Part of memory that a root on zram may fill, where nothing is said.
const ZRAM_SIZE: RootSize = RootSize::Percent(60);

/// Mounts an empty root with room for `content` bytes.
pub(super) fn make(boot: &mut Boot, kind: RootKind, available: u64, content: u64) -> Result<(), PhaseError> {
    if kind == RootKind::Disk {
        return disk::install::empty_root(boot, content);
    }
    let said = boot.line.root.size;
    if let Some(size) = said.map(|size| size.of(available)).filter(|size| *size < content) {
        return Err(RootError::TooSmall { content_mib: content >> 20, size_mib: size >> 20 }.into());
    }
    if kind == RootKind::Tmpfs {
        return Ok(tmpfs::mount(said, available, content)?);
    }
    let size = match said {
        Some(size) => size.of(available),
        None => ZRAM_SIZE.of(available).max(content + content / SPARE),
    };
    Ok(zram::mount(boot, Empty::Ext4, size, Path::new(SYSROOT))?)
}

/// Says what an unpacked root takes: `bytes` of files, `content` bytes with what else is in it.
pub(super) fn unpacked(
    boot: &mut Boot,
    kind: RootKind,
    bytes: u64,
    content: u64,
    blob: u64,
    began: Duration,
) -> Result<String, PhaseError> {
    let used = match &boot.zram {
        Some(zram) => {
            // What waits to be written is not compressed yet.
            sync(Path::new(SYSROOT)).map_err(RootError::Upper)?;
            let usage = zram.usage()?;
            usage.used
        }
        None if kind == RootKind::Disk => 0,
        None => content,
    };
    let millis = u64::try_from(boot.now().saturating_sub(began).as_millis()).unwrap_or(u64::MAX);
    let compression = boot.zram.as_ref().map(Zram::compression);
    boot.emit(Event::RootUnpacked {
        mode: kind.to_string(),
        compression: compression.clone().unwrap_or_default(),
        original: bytes,
        used,
        blob,
        millis,
    });
    Ok(match compression {
        Some(name) => format!("{:.1} MiB, {:.1} MiB in memory ({name})", mebibytes(bytes), mebibytes(used)),
        None if kind == RootKind::Disk => format!("{:.1} MiB on the disk", mebibytes(bytes)),
        None => format!("{:.1} MiB in plain memory", mebibytes(bytes)),
    })
}

/// Writes everything of the file-system at `path` to its device.
fn sync(path: &Path) -> std::io::Result<()> {
    Ok(nix::unistd::syncfs(fs::File::open(path)?)?)
}
