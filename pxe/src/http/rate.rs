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
        let end = start + self.time_for(bytes);
        self.booked_until = Some(end);
        end.max(now)
    }

    /// Gives back `bytes` that were booked and will not leave: clients that come and go must not use the limit up. Those
    /// who booked behind them keep their times.
    pub fn give_back(&mut self, bytes: u64) {
        self.booked_until = self.booked_until.and_then(|booked| booked.checked_sub(self.time_for(bytes)));
    }

    fn time_for(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 2))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What one of several senders does next.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Books(u64),
        GivesBack,
        Passes(u64),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1_u64..65_536).prop_map(Step::Books),
            1 => Just(Step::GivesBack),
            2 => (0_u64..200).prop_map(Step::Passes),
        ]
    }

    proptest! {
        /// The oracle is a count: until any moment no more has left than the rate allows, and a burst.
        #[test]
        fn no_more_leaves_than_the_limit_allows(
            rate in 10_000_u64..10_000_000,
            steps in prop::collection::vec(any_step(), 1..200),
        ) {
            let start = Instant::now();
            let (mut limit, mut now) = (RateLimit::new(rate), start);
            let mut leaves: Vec<(Instant, u64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Books(bytes) => leaves.push((limit.book(bytes, now), bytes)),
                    // Only who still waits gives back, as a connection does that closes.
                    Step::GivesBack => {
                        if let Some((_, bytes)) = leaves.pop_if(|(at, _)| *at > now) {
                            limit.give_back(bytes);
                        }
                    }
                    Step::Passes(millis) => now += Duration::from_millis(millis),
                }
            }
            leaves.sort_unstable();
            let mut sum = 0;
            for (at, bytes) in leaves {
                sum += bytes;
                let allowed = (at - start + BURST).as_secs_f64() * rate as f64;
                prop_assert!(sum as f64 <= allowed + 1.0, "{sum} bytes after {:?}", at - start);
            }
        }
    }

    #[test]
    fn what_is_given_back_can_be_booked_again() {
        let now = Instant::now();
        let mut limit = RateLimit::new(1_000_000);
        let first = limit.book(100_000, now);
        limit.book(900_000, now);
        limit.give_back(900_000);
        assert_eq!(limit.book(100_000, now), first + Duration::from_millis(100));
        RateLimit::new(1).give_back(u64::MAX);
    }

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
