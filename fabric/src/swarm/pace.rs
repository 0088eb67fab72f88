//! Core: a token bucket, for how fast a peer may talk.

use std::time::{Duration, Instant};

/// Allows `burst` messages at once and `per_second` in the long run.
#[derive(Debug)]
pub(crate) struct Pace {
    per_second: u32,
    burst: u32,
    /// When the bucket is, or would have been, full again.
    full_at: Option<Instant>,
}

impl Pace {
    pub(crate) const fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst, full_at: None }
    }

    /// Takes one token; how long to wait until it is there.
    pub(crate) fn take(&mut self, now: Instant) -> Duration {
        let token = Duration::from_secs(1) / self.per_second.max(1);
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + token;
        self.full_at = Some(full_at);
        (full_at - now).saturating_sub(token * self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_the_rest_waits() {
        let mut now = Instant::now();
        let mut pace = Pace::new(10, 3);
        assert!((0..3).all(|_| pace.take(now).is_zero()));
        assert_eq!(pace.take(now), Duration::from_millis(100));
        now += Duration::from_secs(10);
        assert!((0..3).all(|_| pace.take(now).is_zero()));
        assert_eq!(pace.take(now), Duration::from_millis(100));
    }
}
