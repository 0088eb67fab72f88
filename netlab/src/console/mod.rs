//! The serial console of a machine: everything it prints, searched as it arrives, and what is typed into it.
//!
//! One thread per console owns the reading side, writes the raw transcript to a file, and ends when the machine is gone.

mod plain;
mod screen;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use screen::Screen;

use crate::events::Timeline;
use crate::{Error, Result, process};

/// A machine that reads its input takes it at once.
const SEND_WAIT: Duration = Duration::from_secs(10);

/// What a wait on the console found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Which of the texts it was.
    pub index: usize,
    /// That text.
    pub text: String,
    /// The whole line as far as it was there at that moment.
    pub line: String,
    /// Time since the start of the lab.
    pub at: Duration,
}

/// A machine's console. Clones are handles to the same one, and share its position.
#[derive(Clone)]
pub struct Console(Arc<Inner>);

struct Inner {
    machine: String,
    transcript: PathBuf,
    timeline: Timeline,
    failures: Vec<String>,
    stream: UnixStream,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    screen: Screen,
    closed: bool,
}

impl Console {
    /// Makes a console and the end of it that becomes the machine's serial port.
    pub(crate) fn open(
        machine: &str,
        transcript: &Path,
        timeline: &Timeline,
        failures: Vec<String>,
    ) -> Result<(Console, OwnedFd)> {
        let (stream, port) = UnixStream::pair().map_err(Error::system("make a socket pair for a console"))?;
        stream.set_write_timeout(Some(SEND_WAIT)).map_err(Error::system("prepare a console"))?;
        let reader = stream.try_clone().map_err(Error::system("prepare a console"))?;
        let file = File::create(transcript).map_err(Error::file("create", transcript))?;
        let console = Console(Arc::new(Inner {
            machine: machine.into(),
            transcript: transcript.into(),
            timeline: timeline.clone(),
            failures,
            stream,
            state: Mutex::default(),
            changed: Condvar::new(),
        }));
        let thread = console.clone();
        std::thread::Builder::new()
            .name(format!("console-{machine}"))
            .spawn(move || thread.read_all(reader, file))
            .map_err(Error::system("start the thread of a console"))?;
        Ok((console, port.into()))
    }

    /// Waits until the machine prints `text` after the place where the last wait ended.
    ///
    /// # Errors
    /// [`Error::Timeout`]; or [`Error::InVain`] at once when the machine has stopped or printed one of its failure texts.
    /// Both show the end of the console.
    pub fn wait_for(&self, text: &str, within: Duration) -> Result<Match> {
        self.wait_for_any(&[text], within)
    }

    /// As [`Console::wait_for`], for whichever text comes first.
    ///
    /// # Errors
    /// As [`Console::wait_for`].
    pub fn wait_for_any(&self, texts: &[&str], within: Duration) -> Result<Match> {
        let deadline = Instant::now() + within;
        let what = || format!("{texts:?} on the console of {}", self.0.machine);
        let mut state = self.lock();
        loop {
            // Wanted texts come first in the list, so that one which is also a failure text counts as wanted.
            let all = texts.iter().copied().chain(self.0.failures.iter().map(String::as_str));
            let found = state.screen.find_next(all);
            let dead = state.closed.then(|| "the machine has stopped".to_owned());
            let failed = match found {
                Some(found) if found.index < texts.len() => {
                    let text = texts.get(found.index).copied().unwrap_or_default().to_owned();
                    return Ok(Match {
                        index: found.index,
                        text,
                        line: found.line,
                        at: self.0.timeline.elapsed(),
                    });
                }
                Some(found) => Some(format!("it printed a failure: {}", found.line)),
                None => dead,
            };
            let tail = |state: &State| process::last_lines(&state.screen.text());
            if let Some(problem) = failed {
                let state =
                    format!("{problem}; the end of {}:\n{}", self.0.transcript.display(), tail(&state));
                return Err(Error::InVain { what: what(), state });
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                let state = format!("the end of {}:\n{}", self.0.transcript.display(), tail(&state));
                return Err(Error::Timeout { what: what(), within, state });
            };
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Leaves what was printed so far out of all waits that follow.
    pub fn skip(&self) {
        self.lock().screen.skip();
    }

    /// Types text. A line ends with `\r` for firmware and `\n` for Linux.
    ///
    /// # Errors
    /// When the machine is gone, or reads nothing for long.
    pub fn send(&self, text: &str) -> Result<()> {
        let mut stream = &self.0.stream;
        stream
            .write_all(text.as_bytes())
            .map_err(Error::system(format!("type on the console of {}", self.0.machine)))
    }

    /// All that was printed so far, without escape sequences (the newest part if it is more than some MiB).
    #[must_use]
    pub fn text(&self) -> String {
        self.lock().screen.text()
    }

    /// Whether `text` was printed at any time.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        self.lock().screen.contains(text)
    }

    /// The last lines, for error messages.
    #[must_use]
    pub fn tail(&self) -> String {
        process::last_lines(&self.text())
    }

    /// The file that holds every byte the machine printed.
    #[must_use]
    pub fn transcript_path(&self) -> &Path {
        &self.0.transcript
    }

    /// The failure text that was printed, if one was.
    pub(crate) fn failure(&self) -> Option<String> {
        let state = self.lock();
        self.0.failures.iter().find(|failure| state.screen.contains(failure)).cloned()
    }

    /// Whether the machine can print nothing more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Ends the thread even if the other side is still open.
    pub(crate) fn close(&self) {
        // Fails only when the other side has closed it already.
        let _ = self.0.stream.shutdown(std::net::Shutdown::Both);
    }

    fn read_all(&self, mut reader: UnixStream, mut transcript: File) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            if let Err(error) = transcript.write_all(read) {
                tracing::warn!(path = %self.0.transcript.display(), %error, "the transcript has a gap");
            }
            self.lock().screen.feed(read);
            self.0.changed.notify_all();
        }
        self.lock().closed = true;
        self.0.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn console() -> (tempfile::TempDir, Console, UnixStream) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console");
        let failures = vec!["Kernel panic".to_owned()];
        let (console, port) = Console::open("a", &path, &Timeline::new(None), failures).unwrap();
        (directory, console, UnixStream::from(port))
    }

    #[test]
    fn waits_go_on_where_the_last_one_ended() {
        let (_directory, console, mut machine) = console();
        machine.write_all(b"\x1b[2Jone login: ").unwrap();
        assert_eq!(console.wait_for("login:", LONG).unwrap().line, "one login:");
        assert!(matches!(console.wait_for("login:", Duration::ZERO), Err(Error::Timeout { .. })));
        machine.write_all(b"\r\ntwo log").unwrap();
        machine.write_all(b"in: ").unwrap();
        let found = console.wait_for_any(&["never", "login:"], LONG).unwrap();
        assert_eq!((found.index, found.line.as_str()), (1, "two login:"));
        assert!(console.contains("one login: \ntwo"));
    }

    #[test]
    fn what_is_typed_arrives_and_the_transcript_is_raw() {
        let (_directory, console, mut machine) = console();
        console.send("yes\n").unwrap();
        let mut typed = [0; 4];
        machine.read_exact(&mut typed).unwrap();
        assert_eq!(&typed, b"yes\n");
        machine.write_all(b"\x1b[1mbold\r\n").unwrap();
        console.wait_for("bold", LONG).unwrap();
        assert_eq!(std::fs::read(console.transcript_path()).unwrap(), b"\x1b[1mbold\r\n");
    }

    #[test]
    fn a_failure_text_or_the_end_ends_the_wait() {
        let (_directory, console, mut machine) = console();
        machine.write_all(b"Kernel panic - not syncing\r\n").unwrap();
        let error = console.wait_for("login:", LONG).unwrap_err().to_string();
        assert!(error.contains("not syncing"), "{error}");
        assert_eq!(console.failure().as_deref(), Some("Kernel panic"));
        drop(machine);
        let error = console.wait_for("login:", LONG).unwrap_err();
        assert!(matches!(error, Error::InVain { .. }), "{error}");
    }

    #[test]
    fn an_expected_failure_is_no_failure() {
        let (_directory, console, mut machine) = console();
        machine.write_all(b"Kernel panic - not syncing\r\n").unwrap();
        assert_eq!(console.wait_for("Kernel panic", LONG).unwrap().index, 0);
    }
}
