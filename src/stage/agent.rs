//! The agent as a child process: started, listened to, told things, started again when it dies.
//!
//! Owns the process and its two pipes. What its lines mean is [`super::agent_view`]'s; when it may run is the phases'.
//!
//! The agent's words for people go to [`LOG`], not to the console, where they would tear the progress line apart; the last of them
//! are shown when it dies. Its argument zero starts with `@`: systemd spares such processes when it clears up, as the
//! root file-system may be backed by them.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::config::CONFIG;
use super::lines::LineBuffer;
use super::phase::Retry;
use super::reap::Exit;

/// Where the agent's standard error goes.
pub(super) const LOG: &str = "/run/bootfabric/agent.log";

/// The program itself, whatever became of its file.
const PROGRAM: &str = "/proc/self/exe";

/// Pauses before the agent is started again.
const RESTART: Retry = Retry { first: Duration::from_secs(1), most: Duration::from_secs(30) };

/// An agent that ran this long was well: the pauses begin anew.
const WELL: Duration = Duration::from_secs(60);

/// Bytes taken from the agent at a time.
const READ: usize = 16 << 10;

/// Reads in one turn: an agent that talks without end must not keep PID 1 from its other work.
const MAX_READS: usize = 64;

/// A size of [`LOG`] from which on it is emptied before the next start.
const MAX_LOG: u64 = 1 << 20;

/// Lines of [`LOG`] that are shown when the agent dies.
const LAST_WORDS: usize = 3;

/// The agent cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum AgentError {
    /// It does not start.
    #[error("cannot start the agent")]
    Start(#[source] std::io::Error),
    /// It does not run at the moment.
    #[error("the agent is not running")]
    NotRunning,
    /// It does not take its command.
    #[error("the agent does not listen")]
    Tell(#[source] std::io::Error),
}

/// The agent, running or not.
#[derive(Default)]
pub(super) struct Agent {
    running: Option<Running>,
    /// Deaths in a row.
    deaths: u32,
    /// When it is to be started again; `None`: it runs, or is not wanted.
    due: Option<Duration>,
    /// It is on its own: if it dies it stays dead.
    let_go: bool,
    /// It was told to end.
    ending: bool,
}

struct Running {
    pid: Pid,
    stdin: ChildStdin,
    stdout: ChildStdout,
    lines: LineBuffer,
    since: Duration,
    /// It was told to enter the new root.
    told: bool,
}

impl Agent {
    /// Whether it runs.
    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether it is time to start it again.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.due.is_some_and(|due| now >= due)
    }

    /// Leaves it dead if it dies from now on.
    pub(super) fn let_go(&mut self) {
        self.due = None;
        self.let_go = true;
    }

    /// Starts it.
    pub(super) fn start(&mut self, now: Duration) -> Result<(), AgentError> {
        let outcome = spawn(now);
        match outcome {
            Ok(running) => {
                self.running = Some(running);
                self.due = None;
                Ok(())
            }
            Err(error) => {
                self.plan_restart(now);
                Err(AgentError::Start(error))
            }
        }
    }

    /// Waits until it has said something, at most `timeout`.
    pub(super) fn wait(&self, timeout: Duration) {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        // An interrupted wait is only a shorter one.
        let _ = match &self.running {
            Some(running) => poll(&mut [PollFd::new(running.stdout.as_fd(), PollFlags::POLLIN)], timeout),
            None => poll(&mut [], timeout),
        };
    }

    /// The lines it has said since.
    pub(super) fn read(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        let Some(running) = &mut self.running else { return said };
        let mut buffer = [0; READ];
        for _ in 0..MAX_READS {
            match running.stdout.read(&mut buffer) {
                Ok(0) => {
                    // It is dying or of no use: events are all we have of it. Its end is noted by `ended`.
                    self.kill();
                    break;
                }
                Ok(count) => said.extend(running.lines.push(buffer.get(..count).unwrap_or(&[]))),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        said
    }

    /// Tells it to make `root` its root, once in its life: from there the path would lead elsewhere.
    pub(super) fn enter(&mut self, root: &str) -> Result<(), AgentError> {
        let running = self.running.as_mut().ok_or(AgentError::NotRunning)?;
        if !running.told {
            running.tell(&format!("enter {root}"))?;
            running.told = true;
        }
        Ok(())
    }

    /// Asks it what the arriving root holds.
    pub(super) fn list_root(&mut self) -> Result<(), AgentError> {
        self.running.as_mut().ok_or(AgentError::NotRunning)?.tell("list root")
    }

    /// Tells it to fill the empty directory `target` with the arriving root.
    pub(super) fn fill(&mut self, target: &str) -> Result<(), AgentError> {
        self.running.as_mut().ok_or(AgentError::NotRunning)?.tell(&format!("fill {target}"))
    }

    /// Tells it to give the root's blob back. Saying it again does no harm.
    pub(super) fn drop_root(&mut self) -> Result<(), AgentError> {
        self.running.as_mut().ok_or(AgentError::NotRunning)?.tell("drop root")
    }

    /// Tells it to keep a share of the root's blob and to give the rest back as others hold it. Saying it again does no harm.
    pub(super) fn share_root(&mut self) -> Result<(), AgentError> {
        self.running.as_mut().ok_or(AgentError::NotRunning)?.tell("share root")
    }

    /// Ends it at once. It is started again like any agent that died.
    pub(super) fn kill(&self) {
        if let Some(running) = &self.running {
            // It can be gone already, which is as good.
            let _ = kill(running.pid, Signal::SIGKILL);
        }
    }

    /// Tells it to end in good order. It is not started again by itself.
    pub(super) fn end(&mut self) {
        self.due = None;
        if let Some(running) = &self.running {
            self.ending = true;
            // It can be gone already, which is as good.
            let _ = kill(running.pid, Signal::SIGTERM);
        }
    }

    /// Takes note of a process that ended; says how the agent died if it was the agent.
    pub(super) fn ended(&mut self, exit: &Exit, now: Duration) -> Option<String> {
        let running = self.running.take_if(|running| running.pid == exit.pid)?;
        if std::mem::take(&mut self.ending) {
            return None;
        }
        if now.saturating_sub(running.since) >= WELL {
            self.deaths = 0;
        }
        if !self.let_go {
            self.plan_restart(now);
        }
        let words = last_words(Path::new(LOG));
        Some(if words.is_empty() {
            format!("ended ({exit})")
        } else {
            format!("ended ({exit}); its last words: {words}")
        })
    }

    fn plan_restart(&mut self, now: Duration) {
        self.deaths = self.deaths.saturating_add(1);
        self.due = Some(now + RESTART.delay(self.deaths));
    }
}

impl Running {
    fn tell(&mut self, command: &str) -> Result<(), AgentError> {
        self.stdin.write_all(format!("{command}\n").as_bytes()).map_err(AgentError::Tell)
    }
}

fn spawn(now: Duration) -> std::io::Result<Running> {
    let log = OpenOptions::new().append(true).create(true).open(LOG)?;
    if log.metadata()?.len() > MAX_LOG {
        log.set_len(0)?;
    }
    let mut child = Command::new(PROGRAM)
        .arg0("@bootfabric")
        .args(["agent", "--first-stage", CONFIG])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(ErrorKind::BrokenPipe.into());
    };
    let flags = OFlag::from_bits_retain(fcntl(stdout.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(stdout.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    // `child` goes without a wait: `reap` takes note of all children.
    Ok(Running { pid, stdin, stdout, lines: LineBuffer::default(), since: now, told: false })
}

/// The end of a log on one line; empty if there is none.
fn last_words(path: &Path) -> String {
    /// Bytes from the end that are looked at.
    const TAIL: u64 = 2048;
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut tail = Vec::new();
        file.take(TAIL).read_to_end(&mut tail)?;
        Ok(tail)
    };
    let tail = read().unwrap_or_default();
    let text: String =
        String::from_utf8_lossy(&tail).chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.get(lines.len().saturating_sub(LAST_WORDS)..).unwrap_or(&[]).join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_one_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(last_words(file.path()), "");
        std::fs::write(file.path(), format!("{}\n\none\n \x1b[1mtwo\nthree\n", "x".repeat(5000))).unwrap();
        assert_eq!(last_words(file.path()), "one | [1mtwo | three");
        assert_eq!(last_words(Path::new("/nonexistent")), "");
    }
}
