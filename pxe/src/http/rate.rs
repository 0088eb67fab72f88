//! An upload limit shared by all connections, as a queue of reservations in time.
//!
//! Each piece is booked behind those booked before it, so connections share the rate fairly by pieces without waking
//! each other. Pure: it is told the time.

use std::time::{Duration, Instant};

/// How much may leave at once after a pause: 50 ms worth keeps the link busy between timer ticks.
const BURST: Duration = Duration::from_millis(50);

/// Grants bytes at a fixed rate.
#[derive(Debug, Clone)]
pub struct RateLimit {
    bytes_per_second: u64,
    /// Everything booked so far has left at this time.
    booked_until: Option<Instant>,
}

impl RateLimit {
    /// A limit of so many bytes per second, at least 1.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), booked_until: None }
    }

    /// Books `bytes` and returns when they may leave: `now` or later.
    pub fn book(&mut self, bytes: u64, now: Instant) -> Instant {
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let start = self.booked_until.map_or(earliest, |booked| booked.max(earliest));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let end = start + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 2));
        self.booked_until = Some(end);
        end.max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_run_rate_holds() {
        let start = Instant::now();
        let mut limit = RateLimit::new(1_000_000);
        let mut now = start;
        for _ in 0..1000 {
            now = limit.book(10_000, now);
        }
        let elapsed = now - start;
        assert!((Duration::from_millis(9_900)..=Duration::from_secs(10)).contains(&elapsed), "{elapsed:?}");
    }

    #[test]
    fn a_pause_saves_only_the_burst() {
        let start = Instant::now();
        let mut limit = RateLimit::new(1_000_000);
        limit.book(1, start);
        let later = start + Duration::from_secs(60);
        assert_eq!(limit.book(50_000, later), later);
        assert_eq!(limit.book(1_000_000, later), later + Duration::from_secs(1));
    }

    #[test]
    fn two_connections_share() {
        let now = Instant::now();
        let mut limit = RateLimit::new(1_000_000);
        let first = limit.book(100_000, now);
        let second = limit.book(100_000, now);
        assert_eq!(second - first, Duration::from_millis(100));
    }

    #[test]
    fn absurd_amounts_do_not_overflow() {
        RateLimit::new(0).book(u64::MAX / 1_000_000_000, Instant::now());
    }
}
