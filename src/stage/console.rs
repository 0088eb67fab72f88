//! The console and the kernel's log: where a person reads what the first stage does.
//!
//! Owns the standard descriptors of PID 1. Says everything to the console; to the kernel's log, at debug level so that
//! the console does not show it twice, what should still be known in the booted system (`dmesg`).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::Duration;

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::phase::Report;
use super::screen::Screen;

/// The console of whoever started the machine: the last `console=` of the kernel line.
const CONSOLE: &str = "/dev/console";

/// Makes the console the standard input, output and error of this process, and of those it starts.
pub(super) fn adopt() -> std::io::Result<()> {
    let console = OpenOptions::new().read(true).write(true).open(CONSOLE)?;
    dup2_stdin(&console)?;
    dup2_stdout(&console)?;
    dup2_stderr(&console)?;
    Ok(())
}

/// The console of the first stage.
#[derive(Default)]
pub(super) struct Console {
    screen: Screen,
    log: Option<File>,
}

impl Console {
    /// Opens the kernel's log. Without it the console goes on alone.
    pub(super) fn open_log(&mut self) {
        // The kernel else throws away what comes faster than ten lines in five seconds.
        let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
        self.log = OpenOptions::new().write(true).open("/dev/kmsg").ok();
    }

    /// Says something outside the phases.
    pub(super) fn say(&mut self, text: &str) {
        let lines = self.screen.lines(text);
        write(&lines);
        self.log(text);
    }

    /// Tells how a phase goes.
    pub(super) fn report(&mut self, phase: &str, report: &Report<'_>) {
        write(&self.screen.report(phase, report));
        match report {
            Report::Started => {}
            Report::Done { took, note } => {
                self.log(&format!("{phase} done in {} ms {note}", took.as_millis()));
            }
            Report::Failed { error, remedy, .. } => self.log(&format!("{phase} failed: {error}; {remedy}")),
        }
    }

    /// Shows progress on a line that is written over. `text` is only asked for when it is time to.
    pub(super) fn progress(&mut self, now: Duration, phase: &str, text: &str) {
        if let Some(line) = self.screen.rewrite(now, phase, text) {
            write(&line);
        }
    }

    /// Says something to the kernel's log alone.
    pub(super) fn log(&mut self, text: &str) {
        /// Longest record the kernel takes in one write (LOG_LINE_MAX) less its own prefix.
        const RECORD: usize = 900;
        if let Some(log) = &mut self.log {
            for line in text.lines() {
                let line = line.get(..line.floor_char_boundary(RECORD)).unwrap_or(line);
                let _ = log.write_all(format!("<7>bootfabric: {line}\n").as_bytes());
            }
        }
    }
}

/// A console that does not take text is no reason to stop.
fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
