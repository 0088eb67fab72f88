//! A long-lived program that the lab started, and only that one: signals go to its own process group, and only while the
//! program has not been waited for, so that they can never reach a stranger with the same number.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::wait::{Progress, wait_progress};
use crate::{Error, Result, tool};

/// SIGKILL works at once unless the kernel holds the process in a call that cannot be interrupted.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// Shown of a log in error messages.
const TAIL_LINES: usize = 15;
const TAIL_BYTES: u64 = 16 * 1024;

/// A running or ended program. Clones are handles to the same one; the lab ends it at the latest when it is dropped.
#[derive(Clone)]
pub struct Process(Arc<Inner>);

struct Inner {
    name: String,
    pid: u32,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Process {
    /// Starts a command with both output streams in the file `log`.
    pub(crate) fn spawn_logged(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        let file = File::create(log).map_err(Error::file("create", log))?;
        let also = file.try_clone().map_err(Error::file("open", log))?;
        Process::spawn(name, command.stdin(Stdio::null()).stdout(file).stderr(also), log)
    }

    /// Starts a command whose streams are set already; `log` is where its messages go.
    pub(crate) fn spawn(name: &str, command: &mut Command, log: &Path) -> Result<Process> {
        tracing::debug!(name, command = tool::show(command), "start");
        // A group of its own: Ctrl-C at the terminal ends the lab, which then ends its processes in order.
        let child = command
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Start { command: tool::show(command), source })?;
        let inner = Inner { name: name.into(), pid: child.id(), log: log.into(), child: Mutex::new(child) };
        Ok(Process(Arc::new(inner)))
    }

    /// The name given to it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The number of the process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// Where its output goes.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.0.log
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn exit_status(&self) -> Result<Option<ExitStatus>> {
        self.child().try_wait().map_err(Error::system(format!("ask how {} does", self.name())))
    }

    /// Whether it runs still.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.exit_status().is_ok_and(|status| status.is_none())
    }

    /// Sends SIGTERM and does not wait. Fine when it has ended.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Sends a signal to the program and what it started in its group. Fine when it has ended.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let mut child = self.child();
        // Between this question and the signal nobody can reap the child: the lock is held.
        if child.try_wait().map_err(Error::system(format!("ask how {} does", self.name())))?.is_some() {
            return Ok(());
        }
        let group = Pid::from_raw(self.0.pid.cast_signed());
        match killpg(group, signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Error::system(format!("send {signal} to {}", self.name()))(errno.into())),
        }
    }

    /// Sends SIGKILL and waits until the process is gone. Fine when it has ended.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait(KILL_WAIT)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// [`Error::Timeout`] with the end of its log.
    pub fn wait(&self, within: Duration) -> Result<ExitStatus> {
        wait_progress(&format!("{} to end", self.name()), within, || {
            Ok(self.exit_status()?.map_or_else(|| Progress::Pending(self.describe()), Progress::Done))
        })
    }

    /// Waits until its log holds `text`.
    ///
    /// # Errors
    /// [`Error::Timeout`], or [`Error::InVain`] when it ends before, both with the end of the log.
    pub fn wait_for_log(&self, text: &str, within: Duration) -> Result<()> {
        wait_progress(&format!("{text:?} in the log of {}", self.name()), within, || {
            let running = self.is_running();
            let log = fs::read(self.log_path()).map_err(Error::file("read", self.log_path()))?;
            Ok(if String::from_utf8_lossy(&log).contains(text) {
                Progress::Done(())
            } else if running {
                Progress::Pending(self.describe())
            } else {
                Progress::InVain(self.describe())
            })
        })
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(self.log_path())
    }

    /// Its state and the end of its log, for error messages.
    #[must_use]
    pub fn describe(&self) -> String {
        let state = match self.exit_status() {
            Ok(None) => "it runs".to_owned(),
            Ok(Some(status)) => format!("it ended ({status})"),
            Err(error) => error.to_string(),
        };
        format!("{state}; the end of {}:\n{}", self.log_path().display(), self.log_tail())
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.0.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last lines of a file, as far as it can be read.
pub(crate) fn tail(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_or_else(|error| format!("({error})"), |bytes| last_lines(&String::from_utf8_lossy(&bytes)))
}

/// The last lines of a text, indented.
pub(crate) fn last_lines(text: &str) -> String {
    let mut lines: Vec<_> = text.lines().rev().take(TAIL_LINES).map(|line| format!("  {line}")).collect();
    lines.reverse();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn start(script: &str) -> (tempfile::TempDir, Process) {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let process = Process::spawn_logged("it", &mut command, &directory.path().join("log")).unwrap();
        (directory, process)
    }

    #[test]
    fn output_and_status() {
        let (_directory, process) = start("echo out; echo err >&2; exit 7");
        assert_eq!(process.wait(LONG).unwrap().code(), Some(7));
        assert_eq!(process.log_tail(), "  out\n  err");
        assert!(!process.is_running());
        process.terminate().unwrap();
    }

    #[test]
    fn killing_takes_the_group() {
        let (_directory, process) = start("sleep 1000 & echo child=$!; wait");
        process.wait_for_log("child=", LONG).unwrap();
        let child: u32 = process.log_tail().trim().strip_prefix("child=").unwrap().parse().unwrap();
        assert!(!process.kill().unwrap().success());
        crate::wait_until("the grandchild to be gone", LONG, || {
            let stat = fs::read_to_string(format!("/proc/{child}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
        })
        .unwrap();
    }

    #[test]
    fn waiting_for_a_dead_process_is_in_vain() {
        let (_directory, process) = start("echo last words");
        let error = process.wait_for_log("never", LONG).unwrap_err();
        assert!(matches!(&error, Error::InVain { state, .. } if state.contains("last words")), "{error}");
    }
}
