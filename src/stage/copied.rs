//! What is common to all ways to unpack: a file's properties, and its holes.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};

/// What is a hole if it is all zeroes: a page of memory.
pub(crate) const PAGE: usize = 4096;

/// What a file has beside its content.
pub(crate) struct Properties<'a> {
    pub(crate) owner: u32,
    pub(crate) group: u32,
    /// Permissions, with the set-id and sticky bits; symbolic links have none.
    pub(crate) mode: Option<u32>,
    /// Extended attributes, and so capabilities and ACLs.
    pub(crate) attributes: &'a [(OsString, Vec<u8>)],
    pub(crate) modified: TimeSpec,
}

impl Properties<'_> {
    /// Gives them to the file at `path`, in which nothing will be written any more.
    pub(crate) fn give(&self, path: &Path) -> io::Result<()> {
        let (user, group) = (Uid::from_raw(self.owner), Gid::from_raw(self.group));
        fchownat(AT_FDCWD, path, Some(user), Some(group), nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)?;
        if let Some(mode) = self.mode {
            // After the owner, which takes away set-user-id bits.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        // After the owner too, which takes away capabilities.
        for (name, value) in self.attributes {
            xattr::set(path, name, value)?;
        }
        utimensat(AT_FDCWD, path, &self.modified, &self.modified, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    }
}

/// The parts of `piece` that are not zero, in whole pages, and where they begin.
pub(crate) fn data_runs(piece: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let zero = |page: &&[u8]| page.iter().all(|byte| *byte == 0);
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let rest = piece.get(at..).filter(|rest| !rest.is_empty())?;
            let begin = at;
            let data = rest.chunks(PAGE).take_while(|page| !zero(page)).map(<[u8]>::len).sum::<usize>();
            if data > 0 {
                at += data;
                return Some((begin as u64, piece.get(begin..at)?));
            }
            at += rest.chunks(PAGE).take_while(zero).map(<[u8]>::len).sum::<usize>();
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_put_together_are_the_piece(pages in prop::collection::vec((any::<bool>(), 1_usize..3), 0..8), tail in 0_usize..4096) {
            let mut piece: Vec<u8> = pages.iter().flat_map(|(data, count)| vec![u8::from(*data); count * PAGE]).collect();
            piece.extend(vec![1; tail]);
            let mut again = vec![0; piece.len()];
            let mut end = 0;
            for (at, run) in data_runs(&piece) {
                let at = usize::try_from(at).unwrap();
                prop_assert!(at >= end && !run.is_empty());
                end = at + run.len();
                again[at..end].copy_from_slice(run);
                prop_assert!(run.chunks(PAGE).all(|page| page.iter().any(|byte| *byte != 0)));
            }
            prop_assert_eq!(again, piece);
        }
    }
}
