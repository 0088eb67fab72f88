//! An image's root, mounted with a layer over it that takes what is written. Seen by this process alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

const NONE: Option<&str> = None;

/// A mounted image.
#[derive(Debug)]
pub(super) struct Tree {
    directory: PathBuf,
    /// Whether the directory is a tmpfs of our own.
    in_memory: bool,
}

impl Drop for Tree {
    fn drop(&mut self) {
        for path in [self.root(), self.lower()] {
            // What cannot be unmounted goes with the process.
            let _ = umount2(&path, MntFlags::MNT_DETACH);
        }
        if self.in_memory {
            let _ = umount2(&self.directory, MntFlags::MNT_DETACH);
        }
    }
}

impl Tree {
    /// Mounts the squashfs `blob` below `directory`, which is made; what is written stays in memory.
    pub(super) fn in_memory(blob: &Path, directory: &Path) -> anyhow::Result<Self> {
        own_mounts()?;
        std::fs::create_dir(directory)?;
        mount(Some("bootfabric"), directory, Some("tmpfs"), MsFlags::empty(), NONE)
            .context("cannot mount a tmpfs")?;
        let tree = Self { directory: directory.to_owned(), in_memory: true };
        tree.fill(blob)?;
        Ok(tree)
    }

    /// The same, with what is written in `directory` itself.
    pub(super) fn on_disk(blob: &Path, directory: &Path) -> anyhow::Result<Self> {
        own_mounts()?;
        std::fs::create_dir(directory)?;
        let tree = Self { directory: directory.to_owned(), in_memory: false };
        tree.fill(blob)?;
        Ok(tree)
    }

    /// The whole, as it is with what was written.
    pub(super) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// The image alone.
    pub(super) fn lower(&self) -> PathBuf {
        self.directory.join("lower")
    }

    /// What was written, as overlayfs keeps it.
    pub(super) fn upper(&self) -> PathBuf {
        self.directory.join("upper")
    }

    fn fill(&self, blob: &Path) -> anyhow::Result<()> {
        let [lower, upper, scratch, root] =
            [self.lower(), self.upper(), self.directory.join("work"), self.root()];
        for path in [&lower, &upper, &scratch, &root] {
            std::fs::create_dir(path)?;
        }
        let mut command = Command::new("mount");
        command.args(["-t", "squashfs", "-o", "loop,ro"]).arg(blob).arg(&lower);
        let output = command.output().context("cannot run `mount`")?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cannot mount the image: {}", words.trim());
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            scratch.display()
        );
        mount(Some("bootfabric"), &root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
            .context("cannot mount an overlay")
    }
}

/// Mounts that nobody else sees.
fn own_mounts() -> anyhow::Result<()> {
    let context = "cannot have mounts of its own";
    unshare(CloneFlags::CLONE_NEWNS).context(context)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).context(context)
}
