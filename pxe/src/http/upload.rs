//! The upload limit of a node: one [`RateLimit`] that all who send share, whatever they send over.
//!
//! Owns the clock and the waiting around the pure core. Cancel safety: a wait that is dropped gives back what it booked.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::rate::RateLimit;

/// Largest step: about what one socket buffer takes.
const MAX_STEP: u64 = 64 * 1024;
/// Smallest step: below it each packet would wait for its turn.
const MIN_STEP: u64 = 4 * 1024;
/// Steps in a second, where the bounds allow: few, because each is a timer; and enough that a hundred connections under
/// a low limit all have one within the time that their clients wait.
const STEPS_PER_SECOND: u64 = 50;

/// A limit on what leaves this node, shared by its services.
#[derive(Debug)]
pub struct UploadLimit {
    rate: Mutex<RateLimit>,
    step: u64,
}

impl UploadLimit {
    /// At most so many bytes per second, at least 1.
    #[must_use]
    pub fn new(bytes_per_second: u64) -> Self {
        let step = (bytes_per_second / STEPS_PER_SECOND).clamp(MIN_STEP, MAX_STEP);
        Self { rate: Mutex::new(RateLimit::new(bytes_per_second)), step }
    }

    /// Waits for the turn of a sender that has `left` bytes to send; how many of them it may send now. Senders that take one
    /// turn after the other share the limit evenly.
    pub async fn turn(&self, left: usize) -> usize {
        let bytes = left.min(usize::try_from(self.step).unwrap_or(usize::MAX));
        if bytes == 0 {
            return 0;
        }
        let now = Instant::now();
        let at = self.rate().book(bytes as u64, now);
        if at > now {
            let mut booked = Booked { limit: self, bytes: bytes as u64 };
            tokio::time::sleep_until(at.into()).await;
            booked.bytes = 0;
        }
        bytes
    }

    fn rate(&self) -> MutexGuard<'_, RateLimit> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes booked by a sender that waits for its turn.
struct Booked<'a> {
    limit: &'a UploadLimit,
    bytes: u64,
}

impl Drop for Booked<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.limit.rate().give_back(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn who_leaves_while_waiting_gives_its_turn_back() {
        let limit = UploadLimit::new(1_000_000);
        let booked = || limit.rate().book(0, Instant::now());
        limit.rate().book(10_000_000, Instant::now());
        let before = booked();
        for _ in 0..100 {
            let mut turn = Box::pin(limit.turn(1_000_000));
            assert!(turn.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert!(booked() > before);
        }
        assert_eq!(booked(), before);
    }

    #[tokio::test]
    async fn steps_are_bounded_and_never_more_than_is_left() {
        for (rate, step) in [(1, MIN_STEP), (400_000, 8_000), (u64::MAX, MAX_STEP)] {
            let limit = UploadLimit::new(rate);
            assert_eq!(limit.step, step);
            assert_eq!(limit.turn(0).await, 0);
        }
        assert_eq!(UploadLimit::new(u64::MAX).turn(10).await, 10);
    }
}
