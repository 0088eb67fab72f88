//! A root that is not wanted any more: its mounts are taken away, and its memory given back.

use std::path::Path;

use nix::mount::{MntFlags, umount2};

use super::error::RootError;
use super::mounted::{LOWER, SYSROOT, UPPER};
use crate::stage::boot::Boot;
use crate::stage::mounts::is_mount_point;
use crate::stage::phase::PhaseError;

/// Lets go of what there is of a root, and of the memory that it takes.
pub(in crate::stage) fn leave(boot: &mut Boot) -> Result<(), PhaseError> {
    unmount(&[SYSROOT, UPPER, LOWER])?;
    boot.root = None;
    boot.zram = None;
    Ok(())
}

/// Takes away what is mounted on `paths`.
pub(super) fn unmount(paths: &[&'static str]) -> Result<(), RootError> {
    for path in paths {
        if is_mount_point(Path::new(path)) {
            umount2(*path, MntFlags::MNT_DETACH).map_err(|source| RootError::Leftover { path, source })?;
        }
    }
    Ok(())
}
