//! A build's progress on standard error: a bar on a terminal, a line for each step elsewhere.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::image::progress::{Progress, Step};

/// How often a step of unknown length shows that it is alive.
const TICK: Duration = Duration::from_millis(100);

/// One bar at a time, for the step that is going on.
#[derive(Debug, Default)]
pub(super) struct Bars {
    bar: RefCell<Option<ProgressBar>>,
}

impl Bars {
    pub(super) fn new() -> Self {
        Self::default()
    }
}

impl Progress for Bars {
    fn begin(&self, step: Step, total: Option<u64>) {
        self.end();
        if !std::io::stderr().is_terminal() {
            eprintln!("{} …", step.title());
            return;
        }
        let bar = match total {
            Some(total) => ProgressBar::new(total)
                .with_style(style("{msg:<32} {bar:30} {bytes:>10} of {total_bytes}  {eta}")),
            None => ProgressBar::new_spinner().with_style(style("{msg:<32} {spinner} {bytes}")),
        };
        bar.set_message(step.title());
        bar.enable_steady_tick(TICK);
        self.bar.replace(Some(bar));
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &*self.bar.borrow() {
            bar.inc(bytes);
        }
    }

    fn end(&self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
