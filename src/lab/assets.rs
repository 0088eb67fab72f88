//! Kernel and root filesystems for lab machines, and images built from them.
//!
//! The files are made by the scripts in `tests/` (`make assets`); images are built by the program itself, the way an
//! operator does it, once for each program and root, and then copied for every lab.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use fabric::id::Hash;
use serde::{Deserialize, Serialize};

/// What lab machines boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum RootKind {
    /// Debian with systemd.
    Debian,
    /// The same with an ssh server that lets root in.
    DebianSsh,
    /// A few megabytes of busybox: boots fast.
    Busybox,
}

impl RootKind {
    /// Its name, which is that of its image.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::DebianSsh => "debian-ssh",
            Self::Busybox => "busybox",
        }
    }

    /// Text on the console that says the root's own init has done its work.
    #[must_use]
    pub fn booted_text(self) -> &'static str {
        match self {
            Self::Debian | Self::DebianSsh => "Reached target multi-user.target",
            Self::Busybox => "busybox root is up",
        }
    }
}

/// Where the assets are.
#[derive(Debug, Clone)]
pub struct Assets {
    directory: PathBuf,
    program: PathBuf,
}

impl Assets {
    /// The assets at `BOOTFABRIC_ASSETS`, by default `target/assets` below the working directory, and the `program` that
    /// builds images from them and goes into them.
    ///
    /// # Errors
    /// If there are none: the message says how to make them.
    pub fn find(program: &Path) -> anyhow::Result<Self> {
        let directory =
            std::env::var_os("BOOTFABRIC_ASSETS").map_or_else(|| "target/assets".into(), PathBuf::from);
        let directory = std::path::absolute(directory)?;
        ensure!(directory.is_dir(), "{} is missing: `make assets` makes it", directory.display());
        Ok(Self { directory, program: program.to_owned() })
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Boots the image of `kind` in `home` another way: `changes` are arguments of `bootfabric image set`.
    ///
    /// # Errors
    /// If it is refused; the program's own words are in the message.
    pub fn set(&self, kind: RootKind, home: &Path, changes: &[&str]) -> anyhow::Result<()> {
        let mut set = Command::new(&self.program);
        run(set.args(["image", "set", kind.name()]).args(changes).arg("--fabric").arg(home))
    }

    /// Kernel arguments of lab images, with `more`.
    #[must_use]
    pub fn kernel_line(more: &str) -> String {
        format!("{LAB_CMDLINE} {more}")
    }

    /// The root of lab images: a tar.
    ///
    /// # Errors
    /// If it is missing: the message says how to make it.
    pub fn root(&self, kind: RootKind) -> anyhow::Result<PathBuf> {
        let path = self.directory.join(format!("{}-root.tar", kind.name()));
        ensure!(path.is_file(), "{} is missing: `make assets` makes it", path.display());
        Ok(path)
    }

    /// The kernel of lab images: a directory laid out like `/`.
    ///
    /// # Errors
    /// If it is missing: the message says how to make it.
    pub fn kernel(&self) -> anyhow::Result<PathBuf> {
        let path = self.directory.join("kernel/current");
        ensure!(path.is_dir(), "{} is missing: `make assets` makes it", path.display());
        Ok(path)
    }

    /// Makes an operator's directory at `home` with an image of `kind` in its store.
    ///
    /// # Errors
    /// If an asset is missing or building fails; the program's own words are in the message.
    pub fn home(&self, kind: RootKind, home: &Path) -> anyhow::Result<()> {
        copy(&self.cached_home(kind, false)?, home)
    }

    /// The same with an image that machines can install on disks, and `line` behind its kernel arguments.
    ///
    /// # Errors
    /// If an asset is missing or building fails; the program's own words are in the message.
    pub fn disk_home(&self, kind: RootKind, line: &str, home: &Path) -> anyhow::Result<()> {
        copy(&self.cached_home(kind, true)?, home)?;
        let mut set = Command::new(&self.program);
        set.args(["image", "set", kind.name(), "--cmdline", &format!("{LAB_CMDLINE} {line}"), "--fabric"]);
        run(set.arg(home))
    }

    /// The home for `kind`, built if this program has not built it before. Processes wait for each other.
    fn cached_home(&self, kind: RootKind, disk: bool) -> anyhow::Result<PathBuf> {
        let name = if disk { format!("{}+disk", kind.name()) } else { kind.name().to_owned() };
        let homes = self.directory.join("homes");
        std::fs::create_dir_all(&homes).with_context(|| format!("cannot make {}", homes.display()))?;
        let lock = std::fs::File::create(homes.join("lock")).context("cannot lock the image cache")?;
        lock.lock().context("cannot lock the image cache")?;
        let root = self.root(kind)?;
        let home = homes.join(format!("{name}-{}", self.fingerprint(&root)?));
        if home.is_dir() {
            return Ok(home);
        }
        // Homes of other programs are of no use any more.
        for old in std::fs::read_dir(&homes)?.flatten() {
            let file = old.file_name();
            if file.to_string_lossy().rsplit_once('-').is_some_and(|(of, _)| of == name) {
                std::fs::remove_dir_all(old.path())
                    .with_context(|| format!("cannot remove {}", old.path().display()))?;
            }
        }
        let fresh = homes.join(format!("{name}-new"));
        run(Command::new(&self.program).args(["init", "--name", "lab", "--fabric"]).arg(&fresh))?;
        let mut more = vec!["--version", "1", "--cmdline", LAB_CMDLINE];
        more.extend(disk.then_some("--disk"));
        self.build(kind, &root, &fresh, &more)?;
        std::fs::rename(&fresh, &home).context("cannot keep the image")?;
        Ok(home)
    }

    /// Builds an image of the name of `kind` from the tar `root` into `home`, with `more` arguments of `bootfabric image build`.
    ///
    /// # Errors
    /// If an asset is missing or building fails; the program's own words are in the message.
    pub fn build(&self, kind: RootKind, root: &Path, home: &Path, more: &[&str]) -> anyhow::Result<()> {
        let mut build = Command::new(&self.program);
        build.args(["image", "build", "--name", kind.name(), "--modules", "virtio"]).args(more);
        build.arg("--fabric").arg(home).arg("--root").arg(root).arg("--kernel").arg(self.kernel()?);
        run(build.arg("--program").arg(&self.program))
    }

    fn fingerprint(&self, root: &Path) -> anyhow::Result<String> {
        let mut hasher = blake3::Hasher::new();
        for path in [self.program.as_path(), root] {
            let file =
                std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            hasher.update_reader(file).with_context(|| format!("cannot read {}", path.display()))?;
        }
        hasher.update(LAB_CMDLINE.as_bytes());
        Ok(Hash::from(hasher.finalize()).short())
    }
}

/// Kernel arguments of lab images: the console on the first serial port, events on the second, systemd's words in the
/// kernel's log (its own lines on the console end where a login prompt begins), no mitigations for processors that an
/// emulator does not have, and the root's hash for the tests to see.
const LAB_CMDLINE: &str = "console=ttyS0 mitigations=off net.ifnames=0 systemd.log_target=kmsg printk.devkmsg=on \
     bootfabric.events=/dev/ttyS1 bootfabric.hash=yes";

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
