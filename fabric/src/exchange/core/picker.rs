//! Which cell to ask of a peer: the rarest that it holds, that is missing here and that nobody else is asked for.
//!
//! Works on whole words of the bitfields, so one choice costs a pass over cells / 64 words and a look at each candidate.

use std::ops::Range;

use crate::bitfield::Bitfield;

/// What the choice depends on. All bitfields are over cells and of equal length.
#[derive(Clone)]
pub(crate) struct Choice<'a> {
    /// Cells not wholly held here.
    pub(crate) missing: &'a Bitfield,
    /// Cells that have been asked for.
    pub(crate) busy: &'a Bitfield,
    /// Cells that the peer holds wholly.
    pub(crate) held: &'a Bitfield,
    /// For each cell, how many neighbours hold it.
    pub(crate) holders: &'a [u16],
    /// Cells to choose among, and where there is a choice of them, only these.
    pub(crate) window: Range<u32>,
    pub(crate) only: Option<&'a Bitfield>,
}

impl Choice<'_> {
    /// The rarest candidate. Among equally rare ones the first at or after cell `start`, cyclically: a random `start` makes
    /// nodes with the same view choose differently.
    pub(crate) fn rarest(&self, start: u32) -> Option<u32> {
        let words = self.missing.words().len();
        let (first, bit) = (start as usize / 64 % words.max(1), start % 64);
        let below = (1_u64 << bit) - 1;
        let mut best: Option<(u16, u32)> = None;
        // The first word is visited twice: its upper part at the beginning, its lower part at the end.
        for step in 0..=words {
            let index = (first + step) % words.max(1);
            let mask = if step == 0 {
                !below
            } else if step == words {
                below
            } else {
                u64::MAX
            };
            let mut candidates = self.word(index) & mask;
            while candidates != 0 {
                let cell = u32::try_from(index * 64).unwrap_or(u32::MAX) + candidates.trailing_zeros();
                candidates &= candidates - 1;
                let holders = self.holders.get(cell as usize).copied().unwrap_or(u16::MAX);
                if self.window.contains(&cell) && best.is_none_or(|(fewest, _)| holders < fewest) {
                    if holders <= 1 {
                        return Some(cell);
                    }
                    best = Some((holders, cell));
                }
            }
        }
        best.map(|(_, cell)| cell)
    }

    /// Whether `cell` may be asked of the peer.
    pub(crate) fn allows(&self, cell: u32) -> bool {
        self.missing.has(cell)
            && !self.busy.has(cell)
            && self.held.has(cell)
            && self.only.is_none_or(|only| only.has(cell))
    }

    fn word(&self, index: usize) -> u64 {
        let word = |bits: &Bitfield| bits.words().get(index).copied().unwrap_or(0);
        word(self.missing) & !word(self.busy) & word(self.held) & self.only.map_or(u64::MAX, word)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits(flags: &[bool]) -> Bitfield {
        let mut bits = Bitfield::empty(u32::try_from(flags.len()).unwrap());
        for (index, _) in flags.iter().enumerate().filter(|(_, flag)| **flag) {
            bits.insert(u32::try_from(index).unwrap());
        }
        bits
    }

    proptest! {
        /// The oracle: look at every cell, one by one, beginning at `start`.
        #[test]
        fn agrees_with_the_obvious_choice(
            cells in prop::collection::vec((any::<bool>(), prop::bool::weighted(0.2), any::<bool>(), 1_u16..5, any::<bool>()), 0..300),
            restricted in any::<bool>(),
            start in 0_u32..400,
            window in (0_u32..300, 0_u32..300),
        ) {
            let field = |get: fn(&(bool, bool, bool, u16, bool)) -> bool| bits(&cells.iter().map(get).collect::<Vec<_>>());
            let (missing, busy, held) = (field(|cell| cell.0), field(|cell| cell.1), field(|cell| cell.2));
            let holders: Vec<u16> = cells.iter().map(|cell| cell.3).collect();
            let only = field(|cell| cell.4);
            let only = restricted.then_some(&only);
            let window = window.0..window.1;
            let choice = Choice { missing: &missing, busy: &busy, held: &held, holders: &holders, window, only };
            let count = u32::try_from(cells.len()).unwrap();
            let words = count.div_ceil(64).max(1);
            let start = start % (words * 64);
            let obvious = (0..words * 64)
                .map(|step| (start + step) % (words * 64))
                .filter(|&cell| choice.allows(cell) && choice.window.contains(&cell))
                .min_by_key(|&cell| holders[cell as usize]);
            prop_assert_eq!(choice.rarest(start), obvious);
        }
    }
}
