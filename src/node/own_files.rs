//! An operator's own files (`up --files DIR`), read-only.
//!
//! The kernel keeps every name below the directory (`openat2(2)`, `RESOLVE_BENEATH`), whatever it is made of: `..`, absolute
//! paths, links that lead out, and links of `/proc`. Links within the directory work. Only regular files are served.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use pxe::files::{DiskBody, FileError, ServedFile};

/// A directory that is served.
#[derive(Debug, Clone)]
pub(crate) struct OwnFiles(Arc<OwnedFd>);

impl OwnFiles {
    /// The files below `directory`. It stays the same one when it is renamed or replaced.
    ///
    /// # Errors
    /// If it is no directory, or may not be read.
    pub(crate) fn below(directory: &Path) -> anyhow::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = open(directory, flags, Mode::empty());
        let fd = opened.with_context(|| format!("cannot serve the files of {}", directory.display()))?;
        Ok(Self(Arc::new(fd)))
    }

    /// The file `name`; `None` if there is none.
    pub(crate) async fn open(&self, name: &str) -> Result<Option<ServedFile>, FileError> {
        let (directory, name) = (Arc::clone(&self.0), name.to_owned());
        // A directory may lie on a disk that sleeps, or on another machine.
        let served = tokio::task::spawn_blocking(move || served(&directory, &name));
        served.await.map_err(|error| FileError::Io(error.to_string()))?
    }
}

fn served(directory: &OwnedFd, name: &str) -> Result<Option<ServedFile>, FileError> {
    let how = OpenHow::new()
        // A pipe without a writer must not hold anybody up.
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = match openat2(directory, name, how) {
        Ok(fd) => File::from(fd),
        // No such file, or none that may be served.
        Err(
            Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::EXDEV
            | Errno::ELOOP
            | Errno::ENAMETOOLONG
            | Errno::ENXIO
            | Errno::EINVAL,
        ) => return Ok(None),
        Err(error) => return Err(FileError::Io(error.to_string())),
    };
    let meta = file.metadata().map_err(|error| FileError::Io(error.to_string()))?;
    if !meta.is_file() {
        return Ok(None);
    }
    let etag = format!("{:x}-{:x}-{:x}.{:x}", meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
    let body = DiskBody::new(Arc::new(file))?;
    Ok(Some(ServedFile { content_type: None, etag: Some(etag), body: Arc::new(body) }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn directory() -> (tempfile::TempDir, OwnFiles) {
        let outer = tempfile::tempdir().unwrap();
        std::fs::write(outer.path().join("secret"), "secret").unwrap();
        let dir = outer.path().join("files");
        std::fs::create_dir_all(dir.join("boot/deep")).unwrap();
        std::fs::write(dir.join("boot/grub.cfg"), "menu").unwrap();
        symlink("grub.cfg", dir.join("boot/link")).unwrap();
        symlink("../boot", dir.join("boot/up-and-down")).unwrap();
        symlink("../../secret", dir.join("boot/out")).unwrap();
        symlink("/etc/passwd", dir.join("absolute")).unwrap();
        symlink("/proc/self/root/etc/passwd", dir.join("magic")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        nix::unistd::mkfifo(&dir.join("pipe"), Mode::S_IRWXU).unwrap();
        let files = OwnFiles::below(&dir).unwrap();
        (outer, files)
    }

    fn length(files: &OwnFiles, name: &str) -> Option<u64> {
        served(&files.0, name).unwrap().map(|file| file.body.len())
    }

    #[test]
    fn files_and_links_within_the_directory_are_served() {
        let (_outer, files) = directory();
        for name in
            ["boot/grub.cfg", "boot//grub.cfg", "./boot/grub.cfg", "boot/link", "boot/up-and-down/grub.cfg"]
        {
            assert_eq!(length(&files, name), Some(4), "{name}");
        }
    }

    #[test]
    fn nothing_else_is() {
        let (outer, files) = directory();
        let absolute = outer.path().join("files/boot/grub.cfg").display().to_string();
        let long = "a/".repeat(3000);
        for name in [
            "",
            ".",
            "boot",
            "boot/deep",
            "none",
            "boot/grub.cfg/x",
            "boot/out",
            "absolute",
            "magic",
            "loop",
            "pipe",
            "..",
            "../secret",
            "boot/../../secret",
            "boot/../boot/../../secret",
            "/etc/passwd",
            &absolute,
            &long,
            "a\0b",
        ] {
            assert_eq!(length(&files, name), None, "{name}");
        }
        assert!(OwnFiles::below(&outer.path().join("secret")).is_err());
        assert!(OwnFiles::below(&outer.path().join("missing")).unwrap_err().to_string().contains("missing"));
    }

    #[test]
    fn a_changed_file_has_another_tag() {
        let (outer, files) = directory();
        let tag = || served(&files.0, "boot/grub.cfg").unwrap().unwrap().etag;
        let before = tag();
        assert_eq!(before, tag());
        std::fs::write(outer.path().join("files/boot/grub.cfg"), "another").unwrap();
        assert_ne!(before, tag());
    }

    proptest! {
        #[test]
        fn no_name_leads_out(parts in proptest::collection::vec(
            prop_oneof![Just(".."), Just("boot"), Just("out"), Just("up-and-down"), Just("secret"), Just(""), Just("absolute")],
            0..8,
        )) {
            let (_outer, files) = directory();
            let name = parts.join("/");
            prop_assert_ne!(length(&files, &name), Some(6), "the secret was served as {}", name);
        }
    }
}
