//! The initramfs, given back to the machine: nothing of it is used once the root is entered.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::statfs::{FsType, statfs};

/// `RAMFS_MAGIC` of linux/magic.h.
const RAMFS: i64 = 0x8584_58f6;

/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS: i64 = 0x0102_1994;

/// How deep directories may be nested; module trees are about eight deep.
const MAX_DEPTH: usize = 64;

/// Whether `/` is an initramfs, which may be emptied. On anything else that would destroy somebody's system.
pub(super) fn is_initramfs() -> bool {
    // The type is an integer of differing width.
    statfs("/").is_ok_and(|stat| {
        let kind = stat.filesystem_type();
        kind == FsType(RAMFS as _) || kind == FsType(TMPFS as _)
    })
}

/// Deletes everything below `directory` that is on its file-system. What is mounted somewhere below is neither entered nor
/// deleted. Returns the number of files and directories that are gone; what cannot be deleted stays.
pub(super) fn empty(directory: &Path) -> io::Result<usize> {
    let device = fs::symlink_metadata(directory)?.dev();
    Ok(empty_below(directory, device, 0))
}

fn empty_below(directory: &Path, device: u64, depth: usize) -> usize {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let mut gone = 0;
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.dev() != device {
            continue;
        }
        let removed = if meta.is_dir() {
            if depth < MAX_DEPTH {
                gone += empty_below(&path, device, depth + 1);
            }
            fs::remove_dir(&path)
        } else {
            fs::remove_file(&path)
        };
        gone += usize::from(removed.is_ok());
    }
    gone
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_deleted_and_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        let old = tempfile::tempdir().unwrap();
        fs::create_dir_all(old.path().join("lib/modules/kernel")).unwrap();
        fs::write(old.path().join("lib/modules/kernel/a.ko"), "").unwrap();
        symlink(outside.path(), old.path().join("link")).unwrap();
        assert_eq!(empty(old.path()).unwrap(), 5);
        assert_eq!(fs::read_dir(old.path()).unwrap().count(), 0);
        assert!(outside.path().join("kept").exists());
    }

    #[test]
    fn another_file_system_is_left_alone() {
        let old = tempfile::tempdir().unwrap();
        fs::write(old.path().join("file"), "").unwrap();
        assert_eq!(empty_below(old.path(), u64::MAX, 0), 0);
        assert!(old.path().join("file").exists());
    }
}
