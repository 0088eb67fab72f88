//! The core's dice: seeded, so that a run replays.

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): enough to break ties, nothing to hide secrets behind.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; zero if `bound` is zero. The bias of 2^-32 does not matter here.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(((self.next() >> 32) * u64::from(bound)) >> 32).unwrap_or(0)
    }

    /// A number below `bound`, which may be large; zero if `bound` is zero.
    pub(crate) fn within(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Puts `items` in random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            let other = self.below(u32::try_from(index + 1).unwrap_or(u32::MAX)) as usize;
            items.swap(index, other);
        }
    }
}
