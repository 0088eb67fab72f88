//! Damage for the corpora of tests, the same on every machine.

/// xorshift64*: the same copies on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}

/// A copy with some bytes changed, cut, doubled, or replaced by a part of another entry.
pub(crate) fn damaged(entry: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut copy = entry.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(copy.len() + 1);
        match random.below(5) {
            0 => copy.truncate(at),
            1 => copy.insert(at, random.below(256) as u8),
            2 if at < copy.len() => {
                copy[at] = [0, b'%', b'/', b'.', 0xff, b'\r', b'\n', b' '][random.below(8)];
            }
            3 => {
                drop(copy.splice(at..at, other.iter().copied().skip(random.below(other.len() + 1)).take(40)));
            }
            _ if at < copy.len() => copy[at] ^= 1 << random.below(8),
            _ => {}
        }
    }
    copy
}
