//! One network namespace: made, entered, emptied of processes, deleted.
//!
//! A [`Namespace`] is a name under `/run/netns`, and holds no file open: a namespace lives as long as anything refers
//! to it, and a forgotten descriptor would keep the interfaces of a deleted host alive.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::wait::{Progress, wait_progress};
use crate::{Error, Result, state, tool};

/// Processes die of SIGKILL at once unless the kernel holds them in a call that cannot be interrupted.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// The name of a network namespace of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with its loopback up.
    pub(crate) fn create(name: &str) -> Result<Namespace> {
        {
            // The first `ip netns add` of a machine sets up mounts, and two at once can do it wrong.
            let _lock = state::lock()?;
            tool::run("ip", &["netns", "add", name])?;
        }
        let namespace = Namespace::named(name);
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// A namespace that exists, or perhaps does not any more.
    pub(crate) fn named(name: &str) -> Namespace {
        Namespace { name: name.into() }
    }

    /// The name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for the namespace.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Whether the namespace still has its name.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path().exists()
    }

    /// Runs `ip -n NAMESPACE ARGS` and returns its output.
    ///
    /// # Errors
    /// The command and what it said.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        self.tool("ip", args)
    }

    /// Runs `tc -n NAMESPACE ARGS` and returns its output.
    ///
    /// # Errors
    /// The command and what it said.
    pub fn tc(&self, args: &[&str]) -> Result<String> {
        self.tool("tc", args)
    }

    fn tool(&self, program: &str, args: &[&str]) -> Result<String> {
        let mut all = vec!["-n", &self.name];
        all.extend_from_slice(args);
        tool::run(program, &all)
    }

    /// A command that will run inside the namespace. When the namespace is gone, spawning it fails with `NotFound`.
    #[expect(unsafe_code, reason = "`pre_exec` is the only way to enter a namespace between fork and exec")]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        // A name of the lab has no NUL byte; should it have one, opening the empty path fails with a clear error.
        let path = CString::new(self.path().into_os_string().into_encoded_bytes()).unwrap_or_default();
        let enter = move || -> io::Result<()> {
            let namespace =
                nix::fcntl::open(path.as_c_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
            Ok(setns(&namespace, CloneFlags::CLONE_NEWNET)?)
        };
        // SAFETY: `enter` runs in the child between fork and exec. It makes two system calls, open(2) on a C string made
        // beforehand and setns(2), allocates nothing and takes no lock.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a closure on a thread of its own inside the namespace: sockets it opens belong there for good.
    ///
    /// # Errors
    /// When the namespace cannot be entered. A panic of the closure goes on in the caller.
    pub fn run<T: Send>(&self, closure: impl FnOnce() -> T + Send) -> Result<T> {
        let path = self.path();
        let inside = move || -> Result<T> {
            let file = File::open(&path).map_err(Error::file("open", &path))?;
            setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::File {
                action: "enter",
                path,
                source: errno.into(),
            })?;
            drop(file);
            Ok(closure())
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Turns IPv6 off: for namespaces that only carry frames and must not talk themselves.
    pub(crate) fn disable_ipv6(&self) -> Result<()> {
        self.run(|| {
            for scope in ["all", "default"] {
                let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
                match fs::write(&path, "1") {
                    // A kernel without IPv6 is as good.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(Error::file("write", path)(error));
                    }
                    _ => {}
                }
            }
            Ok(())
        })?
    }

    /// Kills every process inside, and returns how many there were once none is left.
    pub(crate) fn kill_all(&self) -> Result<usize> {
        if !self.exists() {
            return Ok(0);
        }
        let mut killed = Vec::new();
        wait_progress(&format!("the processes in {} to end", self.name), KILL_WAIT, || {
            let inside = self.pids()?;
            for &pid in &inside {
                // Gone in the meantime is fine, and the look after this one says so.
                let _ = kill(pid, Signal::SIGKILL);
                if !killed.contains(&pid) {
                    killed.push(pid);
                }
            }
            Ok(if inside.is_empty() {
                Progress::Done(())
            } else {
                Progress::Pending(format!("alive: {inside:?}"))
            })
        })?;
        Ok(killed.len())
    }

    fn pids(&self) -> Result<Vec<Pid>> {
        let own = Pid::this();
        let listed = match tool::run("ip", &["netns", "pids", &self.name]) {
            Err(_) if !self.exists() => return Ok(Vec::new()),
            listed => listed?,
        };
        let pids = listed.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw);
        Ok(pids.filter(|&pid| pid != own && pid.as_raw() > 1).collect())
    }

    /// Kills what runs inside and deletes the namespace; one that is gone already is fine.
    pub(crate) fn delete(&self) -> Result<usize> {
        let killed = self.kill_all()?;
        let _lock = state::lock()?;
        if self.exists() {
            tool::run("ip", &["netns", "del", &self.name])?;
        }
        Ok(killed)
    }
}
