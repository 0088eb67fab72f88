//! A command inside of a mounted root: what it finds at `/dev`, `/proc`, `/sys` and `/run`, and in which namespaces it runs.
//!
//! Processes, mounts and host name are its own, and end with it and with this program; the network is this machine's. What is mounted here is gone
//! before the root is looked at.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const NONE: Option<&str> = None;

/// Devices that are the same everywhere.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The name servers' file.
const RESOLVER: &str = "/etc/resolv.conf";

/// Variables of the caller that a command inside keeps.
const KEPT: [&str; 5] = ["TERM", "LANG", "http_proxy", "https_proxy", "no_proxy"];

/// A root that is ready for commands.
#[derive(Debug)]
pub(super) struct Inside<'a> {
    root: &'a Path,
    mounted: Vec<PathBuf>,
    /// An empty file that was made to mount the name servers on.
    made: Option<PathBuf>,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        for path in self.mounted.iter().rev() {
            // What cannot be unmounted goes with the process.
            let _ = umount2(path, MntFlags::MNT_DETACH);
        }
        if let Some(path) = &self.made {
            let _ = fs::remove_file(path);
        }
    }
}

impl<'a> Inside<'a> {
    /// Mounts in `root` what every program expects. The caller has mounts of its own.
    pub(super) fn prepare(root: &'a Path) -> anyhow::Result<Self> {
        let mut inside = Self { root, mounted: Vec::new(), made: None };
        for name in ["dev", "proc", "run", "sys"] {
            let is_directory = root.join(name).symlink_metadata().is_ok_and(|found| found.is_dir());
            ensure!(is_directory, "the root has no directory /{name}");
        }
        let safe = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        inside.mount("tmpfs", "dev", "tmpfs", safe, Some("mode=755"))?;
        inside.mount("tmpfs", "run", "tmpfs", safe | MsFlags::MS_NODEV, Some("mode=755"))?;
        inside.mount("sysfs", "sys", "sysfs", safe | MsFlags::MS_NODEV | MsFlags::MS_RDONLY, NONE)?;
        inside.devices()?;
        inside.name_servers()?;
        Ok(inside)
    }

    fn mount(
        &mut self,
        source: &str,
        target: &str,
        kind: &str,
        flags: MsFlags,
        data: Option<&str>,
    ) -> anyhow::Result<()> {
        let target = self.root.join(target);
        mount(Some(source), &target, Some(kind), flags, data)
            .with_context(|| format!("cannot mount {}", target.display()))?;
        self.mounted.push(target);
        Ok(())
    }

    fn devices(&mut self) -> anyhow::Result<()> {
        let dev = self.root.join("dev");
        for name in DEVICES {
            File::create(dev.join(name))?;
            self.mount(&format!("/dev/{name}"), &format!("dev/{name}"), "", MsFlags::MS_BIND, NONE)?;
        }
        for (name, target) in LINKS {
            symlink(target, dev.join(name))?;
        }
        for name in ["pts", "shm"] {
            fs::create_dir(dev.join(name))?;
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        self.mount("devpts", "dev/pts", "devpts", flags, Some("newinstance,ptmxmode=0666,mode=620"))?;
        self.mount("tmpfs", "dev/shm", "tmpfs", flags | MsFlags::MS_NODEV, Some("mode=1777"))
    }

    /// Lends the root this machine's name servers, wherever it looks for them, without a trace.
    fn name_servers(&mut self) -> anyhow::Result<()> {
        if !Path::new(RESOLVER).is_file() {
            return Ok(());
        }
        let own = self.root.join(RESOLVER.trim_start_matches('/'));
        match own.symlink_metadata() {
            Ok(found) if found.is_symlink() => {
                // Into /run, which is empty here, or to somewhere that is none of ours.
                let target = fs::read_link(&own)?;
                let plain = target.components().filter_map(|part| match part {
                    Component::Normal(name) => Some(name),
                    _ => None,
                });
                let plain: PathBuf = plain.collect();
                if let (true, Some(parent)) = (plain.starts_with("run"), plain.parent()) {
                    fs::create_dir_all(self.root.join(parent))?;
                    fs::copy(RESOLVER, self.root.join(&plain))?;
                }
                return Ok(());
            }
            Ok(found) if found.is_file() => {}
            Err(_) if own.parent().is_some_and(Path::is_dir) => {
                File::create(&own)?;
                self.made = Some(own);
            }
            _ => return Ok(()),
        }
        self.mount(RESOLVER, RESOLVER.trim_start_matches('/'), "", MsFlags::MS_BIND, NONE)
    }

    /// Runs `command`, or a shell if it is empty, to its end, and everything that it started.
    pub(super) fn run(&self, command: &[String]) -> anyhow::Result<ExitStatus> {
        let shell = if self.root.join("bin/bash").is_file() { "/bin/bash" } else { "/bin/sh" };
        // Whatever ends this program ends all that runs inside, and so what is mounted there.
        let mut inside = Command::new("setpriv");
        inside.args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        inside.arg(format!("--root={}", self.root.display())).args(["--wd=/", "--"]);
        if command.is_empty() {
            inside.arg(shell)
        } else {
            inside.args(command)
        };
        inside.env_clear().envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        inside.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        inside.env("HOME", "/root").env("USER", "root").env("SHELL", shell);
        inside.status().context("cannot run `setpriv` (Debian package util-linux)")
    }
}
