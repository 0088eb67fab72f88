//! The progress of one file on standard error: a bar on a terminal, a line for each tenth elsewhere.

use std::cell::Cell;
use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::human::human_bytes;
use crate::share::fetch::Progress;

/// Lines that are written where there is no terminal.
const STEPS: u64 = 10;

/// Shows how far a file is; the bar goes when this is dropped.
pub(super) struct TransferBar {
    title: String,
    total: u64,
    bar: Option<ProgressBar>,
    step: Cell<u64>,
}

impl TransferBar {
    pub(super) fn new(title: &str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "{prefix} {bar:30} {bytes:>10} of {total_bytes}  {msg}  {eta}";
            let bar = ProgressBar::new(total);
            bar.set_style(
                ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar.set_prefix(title.to_owned());
            bar
        });
        Self { title: title.to_owned(), total, bar, step: Cell::new(0) }
    }

    /// It is at `bytes`.
    pub(super) fn at(&self, bytes: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(bytes),
            None => self.line(bytes, ""),
        }
    }

    /// It is where `progress` says.
    pub(super) fn update(&self, progress: Progress) {
        let rate = progress.rate.map_or_else(String::new, |rate| format!("{}/s", human_bytes(rate)));
        let words = match progress.peers {
            1 => format!("{rate} from 1 peer"),
            peers => format!("{rate} from {peers} peers"),
        };
        match &self.bar {
            Some(bar) => {
                bar.set_message(words);
                bar.set_position(progress.bytes);
            }
            None => self.line(progress.bytes, &words),
        }
    }

    fn line(&self, bytes: u64, words: &str) {
        let step = bytes.saturating_mul(STEPS) / self.total.max(1);
        if step > self.step.replace(step) {
            eprintln!("{}: {} of {} {words}", self.title, human_bytes(bytes), human_bytes(self.total));
        }
    }
}

impl Drop for TransferBar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
