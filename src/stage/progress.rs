//! Progress as a person sees it: how far, and how fast.
//!
//! Pure: takes figures and the time, gives text.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

/// Span over which the rate is measured: long enough to be calm, short enough to show a peer that dies.
const SPAN: Duration = Duration::from_secs(5);

/// Figures kept for the rate; more often than this within [`SPAN`] the newest replaces its predecessor.
const MAX_SAMPLES: usize = 64;

/// Characters of the bar between its brackets: with all figures the line still fits a screen of 80 columns.
const BAR: usize = 10;

/// Work on a known number of bytes.
#[derive(Debug, Default)]
pub(super) struct Progress {
    samples: VecDeque<(Duration, u64)>,
    total: u64,
}

impl Progress {
    /// Takes the figures at `now`: bytes done, bytes in all.
    pub(super) fn update(&mut self, now: Duration, bytes: u64, total: u64) {
        if self.samples.back().is_some_and(|&(_, last)| bytes < last) {
            // It began anew.
            self.samples.clear();
        }
        if self.samples.len() >= MAX_SAMPLES {
            self.samples.pop_back();
        }
        self.samples.push_back((now, bytes));
        while self.samples.get(1).is_some_and(|&(at, _)| now.saturating_sub(at) >= SPAN) {
            self.samples.pop_front();
        }
        self.total = total;
    }

    /// Bytes that are not done.
    pub(super) fn left(&self) -> u64 {
        self.total.saturating_sub(self.samples.back().map_or(0, |&(_, bytes)| bytes))
    }

    /// Bytes per second, as far as it can be told.
    fn rate(&self) -> Option<f64> {
        let (&(from, first), &(to, last)) = (self.samples.front()?, self.samples.back()?);
        let span = to.checked_sub(from).filter(|span| !span.is_zero())?;
        Some(last.saturating_sub(first) as f64 / span.as_secs_f64())
    }

    /// `[####------]  41 %  23.1/56.0 MiB  12.3 MiB/s`
    pub(super) fn text(&self) -> String {
        let bytes = self.samples.back().map_or(0, |&(_, bytes)| bytes);
        let done = part(bytes, self.total, BAR as u64) as usize;
        let percent = part(bytes, self.total, 100);
        let mut text =
            format!("[{}{}] {percent:3} %", "#".repeat(done), "-".repeat(BAR.saturating_sub(done)));
        // Writing to a string cannot fail.
        let _ = write!(text, "  {:.1}/{:.1} MiB", mebibytes(bytes), mebibytes(self.total));
        if let Some(rate) = self.rate() {
            let _ = write!(text, "  {:.1} MiB/s", rate / f64::from(1 << 20));
        }
        text
    }
}

/// `bytes` of `total` on a scale to `full`; never more than `full`.
fn part(bytes: u64, total: u64, full: u64) -> u64 {
    match total {
        0 => 0,
        _ => {
            u64::try_from(u128::from(bytes.min(total)) * u128::from(full) / u128::from(total)).unwrap_or(full)
        }
    }
}

/// Bytes in MiB.
pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn shows_share_amount_rate_and_peers() {
        let mut progress = Progress::default();
        progress.update(Duration::from_secs(10), 0, 100 * MIB);
        assert_eq!(progress.text(), "[----------]   0 %  0.0/100.0 MiB");
        progress.update(Duration::from_secs(12), 50 * MIB, 100 * MIB);
        assert_eq!(progress.text(), "[#####-----]  50 %  50.0/100.0 MiB  25.0 MiB/s");
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut progress = Progress::default();
        for second in 0..20 {
            progress.update(Duration::from_secs(second), second.min(10) * MIB, 100 * MIB);
        }
        assert!(progress.text().contains(" 0.0 MiB/s"), "{}", progress.text());
    }

    #[test]
    fn a_download_that_begins_anew_has_no_rate_below_zero() {
        let mut progress = Progress::default();
        progress.update(Duration::from_secs(1), 90, 100);
        progress.update(Duration::from_secs(2), 10, 100);
        assert_eq!(progress.rate(), None);
    }

    proptest! {
        #[test]
        fn any_figures_make_a_line(figures in proptest::collection::vec((0_u64..90_000, any::<u64>(), any::<u64>()), 0..200)) {
            let mut progress = Progress::default();
            for (millis, bytes, total) in figures {
                progress.update(Duration::from_millis(millis), bytes, total);
                prop_assert!(progress.text().chars().count() < 200);
                prop_assert!(progress.samples.len() <= MAX_SAMPLES);
                prop_assert!(progress.rate().is_none_or(|rate| rate >= 0.0));
            }
        }
    }
}
