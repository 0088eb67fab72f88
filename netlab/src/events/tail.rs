//! Reads growing files of JSON lines into a timeline.
//!
//! One thread per lab looks at all files; it belongs to the [`Tailer`] and ends with it. Anyone may [`Tailer::poll`] in
//! between to be sure that nothing written so far is missing.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::event::Source;
use super::timeline::Timeline;
use crate::{Error, Result};

/// Between two looks at the files; the timeline's precision.
const POLL: Duration = Duration::from_millis(20);

/// Longest line: real events are below 1 KiB; a node that sends garbage without line ends must not fill the memory.
const MAX_LINE: usize = 64 * 1024;

/// Places in a line at which an event is looked for: firmware prints few braces, and a hostile line must not cost much.
const MAX_STARTS: usize = 8;

/// Read at once from one file in one look, so that one noisy node does not starve the others.
const MAX_READ: usize = 256 * 1024;

/// The files of a lab and the thread that reads them.
pub(crate) struct Tailer {
    timeline: Timeline,
    files: Arc<Mutex<Vec<Tail>>>,
    /// Dropping it ends the thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Tailer {
    pub(crate) fn start(timeline: Timeline) -> Result<Tailer> {
        let files = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("netlab-events".into()).spawn({
            let (timeline, files) = (timeline.clone(), Arc::clone(&files));
            move || {
                while stopped.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                    read_all(&files, &timeline);
                }
                read_all(&files, &timeline);
            }
        });
        let thread = thread.map_err(Error::system("start the thread that reads events"))?;
        Ok(Tailer { timeline, files, stop: Some(stop), thread: Some(thread) })
    }

    /// Creates the file and follows it from now on.
    pub(crate) fn follow(&self, node: &str, path: &Path) -> Result<()> {
        File::create(path).map_err(Error::file("create", path))?;
        let file = File::open(path).map_err(Error::file("open", path))?;
        let tail = Tail { node: node.into(), path: path.into(), file, lines: Lines::default() };
        self.files.lock().unwrap_or_else(PoisonError::into_inner).push(tail);
        Ok(())
    }

    /// Reads what the files hold now.
    pub(crate) fn poll(&self) {
        read_all(&self.files, &self.timeline);
    }
}

impl Drop for Tailer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread does not panic; if it did, there is nobody to tell at this point.
            let _ = thread.join();
        }
    }
}

struct Tail {
    node: String,
    path: PathBuf,
    file: File,
    lines: Lines,
}

fn read_all(files: &Mutex<Vec<Tail>>, timeline: &Timeline) {
    let mut buffer = vec![0; MAX_READ];
    for tail in files.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
        match tail.file.read(&mut buffer) {
            Ok(length) => {
                let read = buffer.get(..length).unwrap_or_default();
                let Tail { node, lines, .. } = tail;
                lines.feed(read, |line| keep(timeline, node, line));
            }
            Err(error) => tracing::warn!(path = %tail.path.display(), %error, "events cannot be read"),
        }
    }
}

fn keep(timeline: &Timeline, node: &str, line: &[u8]) {
    let (noise, event) = parse(line);
    if !noise.is_empty() {
        timeline.push_unreadable(node, &String::from_utf8_lossy(noise));
    }
    if let Some(event) = event {
        timeline.push(node, Source::Node, event);
    }
}

/// The event at the end of a line, and what is before it. UEFI firmware uses all serial ports as its console and leaves the
/// last line without an end, so a guest's first event may stand behind it.
fn parse(line: &[u8]) -> (&[u8], Option<Value>) {
    let braces = line.iter().enumerate().filter(|&(_, &byte)| byte == b'{').map(|(place, _)| place);
    for place in braces.take(MAX_STARTS) {
        let Some((noise, rest)) = line.split_at_checked(place) else { break };
        if let Ok(value) = serde_json::from_slice::<Value>(rest) {
            return (noise.trim_ascii(), Some(value));
        }
    }
    (line, None)
}

/// Cuts a stream into lines; a line that is too long is cut where the bound is.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for &byte in bytes {
            if byte != b'\n' {
                self.partial.push(byte);
            }
            if byte == b'\n' || self.partial.len() >= MAX_LINE {
                let whole = self.partial.trim_ascii();
                if !whole.is_empty() {
                    line(whole);
                }
                self.partial.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in pieces {
            lines.feed(piece, |line| found.push(String::from_utf8_lossy(line).into_owned()));
        }
        found
    }

    #[test]
    fn serial_line_ends_and_split_lines() {
        assert_eq!(lines(&[b"{\"a\"", b":1}\r\n\r\n{}\r", b"\nrest"]), ["{\"a\":1}", "{}"]);
    }

    #[test]
    fn endless_lines_are_cut() {
        let noise = vec![b'x'; MAX_LINE + 10];
        assert_eq!(lines(&[&noise, b"\n"]).iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE, 10]);
    }

    #[test]
    fn an_event_behind_the_firmwares_last_words() {
        let line = b"\x1b[2J\r>>Start PXE over IPv4.{x {\"event\":\"up\",\"in\":{\"a\":1}}";
        let (noise, event) = parse(line);
        assert_eq!(noise, b"\x1b[2J\r>>Start PXE over IPv4.{x");
        assert_eq!(event.unwrap()["in"]["a"], 1);
        assert_eq!(parse(b"[{}]"), (&b"[{}]"[..], None));
        assert_eq!(parse(&[b'{'; 1000]).1, None);
    }

    #[test]
    fn objects_are_events_and_the_rest_is_kept_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events");
        let timeline = Timeline::new(None);
        let tailer = Tailer::start(timeline.clone()).unwrap();
        tailer.follow("a", &path).unwrap();
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(
            b"{\"event\":\"one\"}\r\nbooting\xff...\r\n17\r\n[1]\n{\"event\":\"two\"}\n{\"event\":\"thr",
        )
        .unwrap();
        timeline.wait_for("two", Duration::from_secs(60), |event| event.is("two")).unwrap();
        file.write_all(b"ee\"}\n").unwrap();
        tailer.poll();
        let names: Vec<_> = timeline.events().iter().map(|event| event.name().unwrap().to_owned()).collect();
        assert_eq!(names, ["one", "two", "three"]);
        assert_eq!(timeline.unreadable()["a"].count, 3);
    }
}
