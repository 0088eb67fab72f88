//! What of a root goes into an image.

/// Directories whose contents belong to a running system, not to an image.
const EMPTIED: [&str; 6] = ["dev", "proc", "run", "sys", "tmp", "var/lib/bootfabric"];

/// Directories that every root must have, for file systems to be mounted on, with their permissions.
pub(super) const NEEDED: [(&str, u32); 5] =
    [("dev", 0o755), ("proc", 0o555), ("run", 0o755), ("sys", 0o555), ("tmp", 0o1777)];

/// Where the first stage looks for the root's init.
pub(super) const INITS: [&str; 5] =
    ["sbin/init", "usr/sbin/init", "usr/lib/systemd/systemd", "lib/systemd/systemd", "init"];

/// Programs that tell what machine a root is for: one of these is in most.
const WITNESSES: [&str; 8] = [
    "usr/lib/systemd/systemd",
    "lib/systemd/systemd",
    "usr/bin/bash",
    "bin/bash",
    "usr/bin/dash",
    "bin/dash",
    "usr/bin/busybox",
    "bin/busybox",
];

/// Whether the file `path` tells what machine a root is for.
pub(super) fn tells_machine(path: &[u8]) -> bool {
    INITS.iter().chain(&WITNESSES).any(|witness| witness.as_bytes() == path)
}

/// Whether `path` is left out of images.
pub(in crate::image) fn is_left_out(path: &[u8]) -> bool {
    EMPTIED.iter().any(|dir| path.strip_prefix(dir.as_bytes()).is_some_and(|rest| rest.starts_with(b"/")))
}

/// Whether an extended attribute goes into an image: those that a squashfs can hold, without what another overlay left.
pub(super) fn keeps_attribute(name: &[u8]) -> bool {
    [b"user.".as_slice(), b"security.", b"trusted."].iter().any(|class| name.starts_with(class))
        && !name.starts_with(b"trusted.overlay.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_left_out_and_directories_stay() {
        for path in ["proc/1", "dev/console", "run/x/y", "var/lib/bootfabric/store"] {
            assert!(is_left_out(path.as_bytes()), "{path}");
        }
        for path in ["proc", "device/x", "usr/run/x", "var/lib/bootfabric", "var/tmp/x", ""] {
            assert!(!is_left_out(path.as_bytes()), "{path}");
        }
    }

    #[test]
    fn attributes_of_other_file_systems_stay_behind() {
        assert!(keeps_attribute(b"security.capability"));
        assert!(!keeps_attribute(b"trusted.overlay.opaque"));
        assert!(!keeps_attribute(b"system.posix_acl_access"));
    }
}
