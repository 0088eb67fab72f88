//! Who sends now: short pieces of files leave a few at a time.
//!
//! Thirty neighbours that each fetch a short run at once would share the uplink evenly, so that all runs arrive late, each in
//! many small bursts; and thirty congestion windows at their least are more than the queue of a slow link holds. One after the
//! other the runs arrive earlier on average, in long bursts, and nothing is lost.
//!
//! A turn is a favour, never a right: who waits longer than [`WAIT`] goes ahead, and who holds a turn longer than [`HOLD`],
//! because its client takes little, gives it up and goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Answers that leave at once: with windows of ten segments each, more than a switch port needs to be busy.
const AT_ONCE: usize = 8;
/// Longest answer that takes turns (bytes): a run of a few cells. A longer one would keep all others waiting.
const SHORT: u64 = 256 * 1024;
/// Longest wait for a turn.
const WAIT: Duration = Duration::from_millis(500);
/// Longest time that a turn is held.
pub(super) const HOLD: Duration = Duration::from_millis(250);
/// Bytes of a short answer that may wait in the socket's buffer: an answer counts as sent when no more than this waits.
pub(super) const UNSENT: u32 = 16 * 1024;

/// The turns of a service.
#[derive(Debug)]
pub(super) struct Turns(Arc<Semaphore>);

/// Leave to send. Given back when dropped.
#[derive(Debug)]
pub(super) struct Turn(#[expect(dead_code, reason = "its drop gives the place back")] OwnedSemaphorePermit);

impl Turns {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// Whether an answer of so many bytes takes turns.
    pub(super) fn concern(length: u64) -> bool {
        length <= SHORT
    }

    /// Waits for a turn, in the order of asking, but not long: `None` if it goes ahead without one.
    pub(super) async fn next(&self) -> Option<Turn> {
        let free = Arc::clone(&self.0).acquire_owned();
        tokio::time::timeout(WAIT, free).await.ok()?.ok().map(Turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_turn_is_waited_for_in_order_and_not_for_ever() {
        let turns = Turns::new();
        let mut held = Vec::new();
        for _ in 0..AT_ONCE {
            held.push(turns.next().await.expect("a free place"));
        }
        let begun = tokio::time::Instant::now();
        let (waits, ()) = tokio::join!(turns.next(), async { drop(held.pop()) });
        assert!(waits.is_some() && begun.elapsed() < WAIT);
        assert!(turns.next().await.is_none(), "nobody gives a place back, so it goes ahead");
        assert!(begun.elapsed() >= WAIT);
    }
}
