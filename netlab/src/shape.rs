//! How fast a cable is: one token bucket (tc-tbf(8)) for each direction.

/// The rate of one direction of a cable. Rates count Ethernet frames, headers included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkShape {
    /// Bits per second.
    pub rate_bit: u64,
    /// Bytes that may pass at once after a silence.
    pub burst_bytes: u64,
    /// Bytes that may wait before frames are dropped: the buffer of the switch port.
    pub queue_bytes: u64,
}

/// A bucket smaller than this cannot hold one frame of the kernel's timer tick at common rates.
const MIN_BURST: u64 = 16 * 1024;
/// A larger bucket would let short transfers pass at the speed of the machine.
const MAX_BURST: u64 = 256 * 1024;
/// Room for a few dozen full frames also on slow links.
const MIN_QUEUE: u64 = 64 * 1024;

impl LinkShape {
    /// A rate with a bucket of 10 ms and a queue of 50 ms of it, within sensible bounds.
    #[must_use]
    pub fn rate(rate_bit: u64) -> LinkShape {
        let per_second = rate_bit / 8;
        LinkShape {
            rate_bit,
            burst_bytes: (per_second / 100).clamp(MIN_BURST, MAX_BURST),
            queue_bytes: (per_second / 20).max(MIN_QUEUE),
        }
    }

    /// The words for `tc qdisc replace dev DEVICE …`.
    pub(crate) fn words(&self) -> Vec<String> {
        let LinkShape { rate_bit, burst_bytes, queue_bytes } = self;
        let words = format!("root tbf rate {rate_bit}bit burst {burst_bytes}b limit {queue_bytes}b");
        words.split(' ').map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_follow_the_rate() {
        let gigabit = LinkShape::rate(1_000_000_000);
        assert_eq!((gigabit.burst_bytes, gigabit.queue_bytes), (MAX_BURST, 6_250_000));
        let slow = LinkShape::rate(1_000_000);
        assert_eq!((slow.burst_bytes, slow.queue_bytes), (MIN_BURST, MIN_QUEUE));
        assert_eq!(slow.words().join(" "), "root tbf rate 1000000bit burst 16384b limit 65536b");
    }
}
