//! Packet captures: tcpdump writes a file, and [`crate::pcap`] reads it, also while it grows.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::netns::Namespace;
use crate::pcap::{Follower, Trace};
use crate::shared::{Owned, Shared, Stage};
use crate::wait::{Progress, wait_progress};
use crate::{Error, Process, Result};

/// tcpdump starts in a fraction of a second, and ends at once when it is told to.
const TCPDUMP_WAIT: Duration = Duration::from_secs(20);

/// Of each frame: the headers, a whole DHCP message, the head of an HTTP request. Root images need not be on the disk twice.
const DEFAULT_SNAP_LENGTH: u32 = 1024;

/// Room in the kernel for bursts while tcpdump has no processor time.
const KERNEL_BUFFER_KIB: u32 = 32 * 1024;

/// What to capture.
#[derive(Clone, Debug)]
pub struct CaptureOptions {
    /// A pcap-filter(7) expression; empty means everything.
    pub filter: String,
    /// Bytes kept of each frame. The counts of a [`Trace`] are of whole frames anyhow.
    pub snap_length: u32,
}

impl Default for CaptureOptions {
    fn default() -> CaptureOptions {
        CaptureOptions { filter: String::new(), snap_length: DEFAULT_SNAP_LENGTH }
    }
}

/// tcpdump's own account, known when it has stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureStats {
    /// Frames in the file.
    pub captured: u64,
    /// Frames that the kernel threw away because tcpdump was too slow. A test that counts bytes should want 0 here.
    pub dropped: u64,
}

/// A running or stopped capture. Clones are handles to the same one.
#[derive(Clone)]
pub struct Capture(Arc<Inner>);

struct Inner {
    name: String,
    path: PathBuf,
    process: Process,
    follower: Mutex<Follower>,
}

impl Capture {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        namespace: &Namespace,
        interface: &str,
        name: &str,
        options: &CaptureOptions,
    ) -> Result<Capture> {
        let stem = shared.claim_name(name)?;
        let path = shared.directory().join(format!("{stem}.pcap"));
        let mut command = namespace.command("tcpdump");
        // Each packet at once through the kernel and into the file; as root also after opening it (`-Z`).
        command
            .args(["-n", "-U", "--immediate-mode", "-Z", "root", "-i", interface])
            .args(["-s", &options.snap_length.to_string(), "-B", &KERNEL_BUFFER_KIB.to_string()])
            .arg("-w")
            .arg(&path)
            .arg("--")
            .arg(&options.filter);
        let log = shared.directory().join(format!("{stem}.tcpdump.log"));
        let process = Process::spawn_logged(&format!("tcpdump {name}"), &mut command, &log)?;
        let follower = Mutex::new(Follower::new(&path));
        let capture = Capture(Arc::new(Inner { name: name.into(), path, process, follower }));
        shared.own(Stage::Capture, capture.0.clone());
        capture.0.process.wait_for_log("listening on", TCPDUMP_WAIT)?;
        shared
            .timeline()
            .note(name, json!({"event": "capture", "interface": interface, "filter": options.filter}));
        Ok(capture)
    }

    /// The pcap file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Whether it still records.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.0.process.is_running()
    }

    /// Stops it. What it has recorded stays readable. Fine when it has stopped.
    ///
    /// # Errors
    /// When tcpdump does not end.
    pub fn stop(&self) -> Result<CaptureStats> {
        self.0.stop()
    }

    /// What has passed until now: a frame that tcpdump has not written yet is waited for.
    ///
    /// # Errors
    /// When the file cannot be read or is none, or tcpdump does not come to write.
    pub fn trace(&self) -> Result<Trace> {
        let mut follower = self.0.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = self.0.passed()?;
        wait_progress(&format!("{passed} frames in the capture {}", self.0.name), TCPDUMP_WAIT, || {
            let running = self.is_running();
            follower.read_on()?;
            Ok(if follower.trace().frames >= passed || !running {
                Progress::Done(())
            } else {
                Progress::Pending(follower.trace().to_string())
            })
        })?;
        Ok(follower.trace().clone())
    }

    /// Waits until what it has recorded satisfies `look`.
    ///
    /// # Errors
    /// [`crate::Error::Timeout`] with a summary of what was recorded.
    pub fn wait_for<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&Trace) -> Option<T>,
    ) -> Result<T> {
        wait_progress(&format!("{what} in the capture {}", self.0.name), within, || {
            // Asked before the file is read: what came last still counts.
            let running = self.is_running();
            let mut follower = self.0.follower.lock().unwrap_or_else(PoisonError::into_inner);
            follower.read_on()?;
            Ok(match look(follower.trace()) {
                Some(found) => Progress::Done(found),
                None if running => Progress::Pending(follower.trace().to_string()),
                None => Progress::InVain(format!("it has stopped; {}", follower.trace())),
            })
        })
    }
}

impl Inner {
    /// How many frames the kernel has taken for tcpdump, written or not; 0 when it has stopped. tcpdump says it when it
    /// gets SIGUSR1 (tcpdump(8)).
    fn passed(&self) -> Result<u64> {
        let log = self.process.log_path();
        let answers = || -> Result<Vec<u64>> {
            let log = std::fs::read_to_string(log).map_err(Error::file("read", log))?;
            Ok(log.lines().filter_map(parse_passed).collect())
        };
        let before = answers()?.len();
        self.process.signal(Signal::SIGUSR1)?;
        wait_progress(&format!("tcpdump's counts of {}", self.name), TCPDUMP_WAIT, || {
            let running = self.process.is_running();
            Ok(match answers()?.get(before) {
                Some(&passed) => Progress::Done(passed),
                None if running => Progress::Pending(self.process.describe()),
                None => Progress::Done(0),
            })
        })
    }

    fn stop(&self) -> Result<CaptureStats> {
        self.process.signal(Signal::SIGINT)?;
        self.process.wait(TCPDUMP_WAIT)?;
        Ok(parse_stats(&self.process.log_tail()))
    }
}

impl Owned for Inner {
    fn shut_down(&self) -> Result<()> {
        self.stop().map(|_| ())
    }
}

/// tcpdump's last words: `12 packets captured`, `14 packets received by filter`, `0 packets dropped by kernel`.
fn parse_stats(log: &str) -> CaptureStats {
    let count = |ending: &str| {
        let line = log.lines().rev().find(|line| line.ends_with(ending))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    let either = |one: &str, many: &str| count(many).or_else(|| count(one)).unwrap_or(0);
    CaptureStats {
        captured: either("packet captured", "packets captured"),
        dropped: either("packet dropped by kernel", "packets dropped by kernel"),
    }
}

/// tcpdump's answer to SIGUSR1, in one line:
/// `tcpdump: 12 packets captured, 14 packets received by filter, 0 packets dropped by kernel`.
fn parse_passed(line: &str) -> Option<u64> {
    let number = |part: &str| part.split_ascii_whitespace().next()?.parse::<u64>().ok();
    let (mut received, mut dropped) = (None, 0);
    for part in line.strip_prefix("tcpdump: ")?.split(", ") {
        if part.ends_with("received by filter") {
            received = number(part);
        } else if part.ends_with("dropped by kernel") {
            dropped = number(part)?;
        }
    }
    received?.checked_sub(dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcpdumps_answer() {
        let line = "tcpdump: 1 packet captured, 14 packets received by filter, 2 packets dropped by kernel";
        assert_eq!(parse_passed(line), Some(12));
        assert_eq!(parse_passed("14 packets received by filter"), None);
        assert_eq!(parse_passed("tcpdump: listening on br0, link-type EN10MB"), None);
    }

    #[test]
    fn tcpdumps_last_words() {
        let log = "listening on br0\n  12 packets captured\n  14 packets received by filter\n  1 packet dropped by kernel\n";
        assert_eq!(parse_stats(log), CaptureStats { captured: 12, dropped: 1 });
        assert_eq!(parse_stats("nothing"), CaptureStats::default());
    }
}
