//! What a lossy link does to TCP: nothing is lost, some of it comes late, and now and then a connection breaks.
//!
//! Lost segments are sent again: after about a round trip where others follow them, after the retransmission timer where they
//! were the last. Whatever follows on the same connection waits. That senders also slow down for a while is left out.

use super::super::core::rng::Rng;

/// Payload of a segment.
const SEGMENT: u64 = 1448;
/// Microseconds until a segment is sent again that others followed: the queues of a busy link and back.
const FAST_AGAIN: u64 = 20_000;
/// Microseconds until the last segment of a message or burst is sent again (Linux: the least retransmission timeout).
const TIMEOUT: u64 = 200_000;
/// One in so many lost segments of a bulk flow has none behind it.
const LAST: u32 = 10;
const MILLION: u32 = 1_000_000;

/// How often what is lost, in parts per million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loss {
    /// Segments.
    pub segments: u32,
    /// Answers whose connection breaks half-way.
    pub resets: u32,
}

/// What becomes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Whole,
    /// The connection breaks after this many 256ths of it.
    Breaks(u32),
}

/// The dice over it.
#[derive(Debug)]
pub(super) struct Losses {
    loss: Loss,
    rng: Rng,
}

impl Losses {
    pub(super) fn new(loss: Loss, seed: u64) -> Self {
        Self { loss, rng: Rng::new(seed) }
    }

    /// Microseconds that a message comes late.
    pub(super) fn message(&mut self) -> u64 {
        if self.happens(self.loss.segments) { TIMEOUT } else { 0 }
    }

    /// Microseconds that `bytes` of an answer come late.
    pub(super) fn quantum(&mut self, bytes: u64) -> u64 {
        let segments = u32::try_from(bytes.div_ceil(SEGMENT)).unwrap_or(u32::MAX);
        // For rare losses the chance that one of several is lost is the sum of theirs.
        if !self.happens(self.loss.segments.saturating_mul(segments)) {
            return 0;
        }
        if self.rng.below(LAST) == 0 { TIMEOUT } else { FAST_AGAIN }
    }

    pub(super) fn answer(&mut self) -> Fate {
        if self.happens(self.loss.resets) { Fate::Breaks(self.rng.below(256)) } else { Fate::Whole }
    }

    /// True `parts` times in a million; draws nothing where nothing can happen.
    fn happens(&mut self, parts: u32) -> bool {
        parts > 0 && self.rng.below(MILLION) < parts
    }
}
