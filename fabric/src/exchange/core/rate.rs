//! How fast bytes come: measured while something is under way, forgotten slowly.

use super::time::{SECOND, Time};

/// Samples shorter than this say more about bursts than about the link.
const SAMPLE: u64 = 20_000;

/// Bytes per second over the busy time of a peer, or of all of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rate {
    per_second: Option<u64>,
    since: Time,
    bytes: u64,
}

impl Rate {
    /// Something is under way again after a pause.
    pub(crate) fn resumed(&mut self, now: Time) {
        self.since = now;
        self.bytes = 0;
    }

    /// `bytes` have come.
    pub(crate) fn received(&mut self, now: Time, bytes: u64) {
        self.bytes += bytes;
        let elapsed = now.since(self.since);
        if elapsed < SAMPLE && self.per_second.is_some() {
            return;
        }
        let sample = self.bytes.saturating_mul(SECOND) / elapsed.max(1);
        // A quarter of the new sample: four samples follow a change, one outlier does not.
        self.per_second = Some(self.per_second.map_or(sample, |old| old - old / 4 + sample / 4));
        self.since = now;
        self.bytes = 0;
    }

    /// Bytes per second; `None` before the first bytes.
    pub(crate) fn per_second(&self) -> Option<u64> {
        self.per_second
    }

    /// Microseconds that `bytes` take; with no measurement, as if the link gave `fallback` bytes per second.
    pub(crate) fn time_for(&self, bytes: u64, fallback: u64) -> u64 {
        bytes.saturating_mul(SECOND) / self.per_second.unwrap_or(fallback).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_do_not_count() {
        let mut rate = Rate::default();
        rate.resumed(Time(0));
        for step in 1..=20 {
            rate.received(Time(step * 50_000), 50_000);
        }
        assert_eq!(rate.per_second(), Some(SECOND));
        rate.resumed(Time(90 * SECOND));
        rate.received(Time(90 * SECOND + 50_000), 50_000);
        assert_eq!(rate.per_second(), Some(SECOND));
        assert_eq!(Rate::default().time_for(500, 1000), SECOND / 2);
    }
}
