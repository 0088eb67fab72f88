//! When to send again: a round-trip estimate after RFC 6298 and its back-off. Never reads a clock.

use std::time::Duration;

/// Wait before anything was measured (RFC 6298 section 2.1).
const INITIAL: Duration = Duration::from_secs(1);
/// Shortest wait. RFC 6298 wants 1 s, which would cost a boot a second per lost window; Linux's TCP has shown 200 ms
/// to be safe, and a needless repetition only costs a window.
const MIN: Duration = Duration::from_millis(200);
/// Longest wait: firmware gives up after about 20 s, so backing off further means to be too late.
const MAX: Duration = Duration::from_secs(8);

/// The retransmission timeout of one transfer.
#[derive(Debug, Clone)]
pub(super) struct RetransmitTimeout {
    smoothed: Option<(Duration, Duration)>,
    current: Duration,
    max: Duration,
}

impl RetransmitTimeout {
    /// `asked` is the client's `timeout` option: it bounds every wait.
    pub(super) fn new(asked: Option<Duration>) -> Self {
        let max = asked.map_or(MAX, |asked| asked.min(MAX));
        Self { smoothed: None, current: INITIAL.min(max), max }
    }

    /// How long to wait for an answer now.
    pub(super) fn current(&self) -> Duration {
        self.current
    }

    /// An answer that belongs to exactly one transmission (Karn's rule) came after `round_trip`.
    pub(super) fn measured(&mut self, round_trip: Duration) {
        let (mean, deviation) = match self.smoothed {
            None => (round_trip, round_trip / 2),
            Some((mean, deviation)) => {
                ((mean * 7 + round_trip) / 8, (deviation * 3 + mean.abs_diff(round_trip)) / 4)
            }
        };
        self.smoothed = Some((mean, deviation));
        self.current = (mean + deviation * 4).clamp(MIN.min(self.max), self.max);
    }

    /// Progress was made without a measurement: back-off ends.
    pub(super) fn progressed(&mut self) {
        if let Some((mean, deviation)) = self.smoothed {
            self.current = (mean + deviation * 4).clamp(MIN.min(self.max), self.max);
        }
    }

    /// A wait passed without an answer.
    pub(super) fn back_off(&mut self) {
        self.current = (self.current * 2).min(self.max);
    }

    /// No answer to something sent can have come within this time.
    pub(super) fn too_soon(&self) -> Duration {
        self.smoothed.map_or(Duration::ZERO, |(mean, _)| mean / 2)
    }

    /// How long an answer usually takes, generously; `None` before the first measurement. Shorter than
    /// [`Self::current`]: for repeating early on a hint of loss.
    pub(super) fn usual(&self) -> Option<Duration> {
        self.smoothed.map(|(mean, deviation)| (mean + deviation * 4).min(self.current))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_measured_round_trip() {
        let mut timeout = RetransmitTimeout::new(None);
        assert_eq!(timeout.current(), INITIAL);
        timeout.measured(Duration::from_millis(1));
        assert_eq!(timeout.current(), MIN);
        assert_eq!(timeout.usual(), Some(Duration::from_millis(3)));
        for _ in 0..50 {
            timeout.measured(Duration::from_millis(400));
        }
        assert!((400..500).contains(&timeout.current().as_millis()), "{timeout:?}");
    }

    #[test]
    fn backs_off_and_recovers() {
        let mut timeout = RetransmitTimeout::new(None);
        timeout.measured(Duration::from_millis(2));
        for _ in 0..10 {
            timeout.back_off();
        }
        assert_eq!(timeout.current(), MAX);
        timeout.progressed();
        assert_eq!(timeout.current(), MIN);
    }

    #[test]
    fn never_waits_longer_than_the_client_asked() {
        let mut timeout = RetransmitTimeout::new(Some(Duration::from_secs(2)));
        for _ in 0..10 {
            timeout.back_off();
        }
        assert_eq!(timeout.current(), Duration::from_secs(2));
        timeout.measured(Duration::from_secs(100));
        assert_eq!(timeout.current(), Duration::from_secs(2));
    }
}
