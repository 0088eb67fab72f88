//! The event device: a second serial line, usually, on which programs follow the boot.
//!
//! Owns the device and a bounded queue in front of it, so that a device that takes nothing never stops the boot.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use crate::event::{Event, Record};

/// Bytes that wait for a slow device. A boot says about 20 KiB, most of it progress.
const MAX_WAITING: usize = 256 << 10;

/// From this fill level on, progress is dropped: later progress says more, and the room is kept for what is said once.
const PROGRESS_LEVEL: usize = MAX_WAITING / 2;

/// Where events go.
#[derive(Default)]
pub(super) struct EventSink {
    device: Option<File>,
    queue: Queue,
    /// There is no device, and none will come.
    closed: bool,
}

impl EventSink {
    /// Sends events to `device` from now on, those that wait already included.
    pub(super) fn open(&mut self, device: &Path) -> std::io::Result<()> {
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = OpenOptions::new().write(true).custom_flags(flags.bits()).open(device)?;
        // Raw, so that a line ends in \n alone. What is not a terminal needs none of it.
        if let Ok(mut terminal) = tcgetattr(file.as_fd()) {
            cfmakeraw(&mut terminal);
            tcsetattr(file.as_fd(), SetArg::TCSANOW, &terminal)?;
        }
        self.closed = false;
        self.device = Some(file);
        self.flush();
        Ok(())
    }

    /// Keeps no events: nobody asked for them.
    pub(super) fn close(&mut self) {
        *self = Self { closed: true, ..Self::default() };
    }

    /// Queues one event.
    pub(super) fn emit(&mut self, record: &Record) {
        if self.closed {
            return;
        }
        if let Ok(mut line) = serde_json::to_vec(record) {
            line.push(b'\n');
            self.queue.push(line, matches!(record.event, Event::Progress { .. }));
        }
        self.flush();
    }

    /// Gives the device what it takes at once. A device that fails is left alone from then on.
    pub(super) fn flush(&mut self) {
        if let Some(device) = &mut self.device
            && self.queue.write_to(device).is_err()
        {
            self.close();
        }
    }

    /// Waits until the device has taken everything, at most `deadline`.
    pub(super) fn drain(&mut self, deadline: Duration) {
        let end = Instant::now() + deadline;
        while let Some(device) = &self.device
            && !self.queue.lines.is_empty()
        {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let mut set = [PollFd::new(device.as_fd(), PollFlags::POLLOUT)];
            if left.is_zero() || !poll(&mut set, timeout).is_ok_and(|ready| ready > 0) {
                return;
            }
            self.flush();
        }
    }
}

/// Lines that wait.
#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    /// Bytes of all lines.
    bytes: usize,
    /// Bytes of the first line that are written already.
    written: usize,
}

impl Queue {
    fn push(&mut self, line: Vec<u8>, is_progress: bool) {
        let level = if is_progress { PROGRESS_LEVEL } else { MAX_WAITING };
        if self.bytes + line.len() <= level {
            self.bytes += line.len();
            self.lines.push_back(line);
        }
    }

    /// Writes as much as `out` takes without blocking.
    fn write_to(&mut self, out: &mut impl Write) -> std::io::Result<()> {
        while let Some(line) = self.lines.front() {
            match out.write(line.get(self.written..).unwrap_or(&[])) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.written >= line.len() {
                self.bytes = self.bytes.saturating_sub(line.len());
                self.written = 0;
                self.lines.pop_front();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that takes `room` bytes and then blocks.
    struct Slow {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let count = bytes.len().min(self.room);
            self.room -= count;
            self.taken.extend(&bytes[..count]);
            if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_stay_whole_through_a_device_that_stutters() {
        let mut queue = Queue::default();
        let mut slow = Slow { taken: Vec::new(), room: 0 };
        for n in 0..10 {
            queue.push(format!("line {n}\n").into_bytes(), false);
        }
        while !queue.lines.is_empty() {
            slow.room = 3;
            queue.write_to(&mut slow).unwrap();
        }
        let text = String::from_utf8(slow.taken).unwrap();
        assert_eq!(text.lines().count(), 10);
        assert!(text.ends_with("line 9\n"));
        assert_eq!((queue.bytes, queue.written), (0, 0));
    }

    #[test]
    fn a_stuck_device_costs_bounded_memory_and_progress_first() {
        let mut queue = Queue::default();
        for _ in 0..10_000 {
            queue.push(vec![b'x'; 100], true);
        }
        assert!(queue.bytes <= PROGRESS_LEVEL);
        queue.push(vec![b'y'; 100], false);
        assert_eq!(queue.lines.back().unwrap()[0], b'y');
        for _ in 0..10_000 {
            queue.push(vec![b'y'; 100], false);
        }
        assert!(queue.bytes <= MAX_WAITING);
    }

    #[test]
    fn an_event_reaches_a_plain_file_as_one_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut sink = EventSink::default();
        let event = Event::HandedOver { init: "/sbin/init".into() };
        sink.emit(&Record { at: 7, from: "a".into(), event });
        sink.open(file.path()).unwrap();
        sink.drain(Duration::from_secs(1));
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text, "{\"at\":7,\"from\":\"a\",\"event\":\"handed-over\",\"init\":\"/sbin/init\"}\n");
    }
}
