//! Sets of chunk numbers.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Which chunks of a blob somebody has: one bit per chunk.
///
/// Bits at and beyond `len` are always zero, also after decoding hostile bytes: see [`Bitfield::from_words`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Bitfield {
    len: u32,
    ones: u32,
    words: Vec<u64>,
}

/// A bitfield whose words do not fit its length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a bitfield of {len} chunks does not fit {words} words")]
pub struct BitfieldError {
    len: u32,
    words: usize,
}

#[derive(Serialize, Deserialize)]
struct Wire(u32, Vec<u64>);

impl TryFrom<Wire> for Bitfield {
    type Error = BitfieldError;

    fn try_from(Wire(len, words): Wire) -> Result<Self, Self::Error> {
        Self::from_words(len, words)
    }
}

impl From<Bitfield> for Wire {
    fn from(bits: Bitfield) -> Self {
        Self(bits.len, bits.words)
    }
}

impl std::fmt::Debug for Bitfield {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bitfield({}/{})", self.ones, self.len)
    }
}

impl Bitfield {
    /// No chunk out of `len`.
    #[must_use]
    pub fn empty(len: u32) -> Self {
        Self { len, ones: 0, words: vec![0; (len as usize).div_ceil(64)] }
    }

    /// Every chunk out of `len`.
    #[must_use]
    pub fn full(len: u32) -> Self {
        let mut bits = Self { len, ones: len, words: vec![u64::MAX; (len as usize).div_ceil(64)] };
        if let (Some(last), used @ 1..) = (bits.words.last_mut(), len % 64) {
            *last = (1 << used) - 1;
        }
        bits
    }

    /// A bitfield from its words, lowest chunk in the lowest bit.
    ///
    /// # Errors
    /// [`BitfieldError`] if the number of words is wrong or a bit beyond `len` is set.
    pub fn from_words(len: u32, words: Vec<u64>) -> Result<Self, BitfieldError> {
        let error = BitfieldError { len, words: words.len() };
        if words.len() != (len as usize).div_ceil(64) {
            return Err(error);
        }
        if let (Some(last), used @ 1..) = (words.last(), len % 64)
            && last >> used != 0
        {
            return Err(error);
        }
        let ones = words.iter().map(|word| word.count_ones()).sum();
        Ok(Self { len, ones, words })
    }

    /// How many chunks there are in all.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether the blob has no chunks at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many chunks are in the set.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// Whether every chunk is in the set.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// Whether `chunk` is in the set; false beyond the end.
    #[must_use]
    pub fn has(&self, chunk: u32) -> bool {
        self.words.get(chunk as usize / 64).is_some_and(|word| word >> (chunk % 64) & 1 == 1)
    }

    /// Whether all of `chunks` are in the set; false if some lie beyond the end.
    #[must_use]
    pub fn has_all(&self, chunks: Range<u32>) -> bool {
        if chunks.is_empty() {
            return true;
        }
        let words = chunks.start / 64..=(chunks.end - 1) / 64;
        words.into_iter().all(|index| {
            let mask = mask(index, &chunks);
            self.words.get(index as usize).is_some_and(|word| word & mask == mask)
        })
    }

    /// Adds `chunk`; true if it is new. Chunks beyond the end are ignored.
    pub fn insert(&mut self, chunk: u32) -> bool {
        if chunk >= self.len || self.has(chunk) {
            return false;
        }
        if let Some(word) = self.words.get_mut(chunk as usize / 64) {
            *word |= 1 << (chunk % 64);
            self.ones += 1;
        }
        true
    }

    /// Removes `chunk`; true if it was there.
    pub fn remove(&mut self, chunk: u32) -> bool {
        if !self.has(chunk) {
            return false;
        }
        if let Some(word) = self.words.get_mut(chunk as usize / 64) {
            *word &= !(1 << (chunk % 64));
            self.ones -= 1;
        }
        true
    }

    /// The chunks in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..).zip(&self.words).flat_map(|(index, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                // The lowest bit that is set, cleared; none is left of zero.
                rest &= rest.checked_sub(1)?;
                Some(index * 64 + bit)
            })
        })
    }

    /// The runs of consecutive chunks in the set, ascending.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        let mut members = self.iter().peekable();
        std::iter::from_fn(move || {
            let first = members.next()?;
            let mut end = first + 1;
            while members.next_if_eq(&end).is_some() {
                end += 1;
            }
            Some(first..end)
        })
    }

    /// The runs of consecutive chunks in the set that lie in `range`, ascending.
    pub(crate) fn runs_in(&self, range: Range<u32>) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        for chunk in range.filter(|&chunk| self.has(chunk)) {
            match runs.last_mut() {
                Some(run) if run.end == chunk => run.end += 1,
                _ => runs.push(chunk..chunk + 1),
            }
        }
        runs
    }

    /// The words, lowest chunk in the lowest bit.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }
}

/// The bits of word `index` that lie in `chunks`, which has chunks in that word.
fn mask(index: u32, chunks: &Range<u32>) -> u64 {
    let first = index.saturating_mul(64);
    let low = chunks.start.saturating_sub(first);
    let high = chunks.end.saturating_sub(first).min(64);
    (u64::MAX >> (64 - high)) & (u64::MAX << low)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn insert_remove_count_and_iterate() {
        let mut bits = Bitfield::empty(130);
        assert!(
            bits.insert(0) && bits.insert(64) && bits.insert(129) && !bits.insert(129) && !bits.insert(130)
        );
        assert_eq!((bits.count(), bits.iter().collect::<Vec<_>>()), (3, vec![0, 64, 129]));
        assert!(bits.remove(64) && !bits.remove(64) && !bits.has(64) && !bits.has(4000));
        assert_eq!(Bitfield::full(130).iter().count(), 130);
        assert!(Bitfield::full(64).is_full() && Bitfield::empty(0).is_full());
    }

    #[test]
    fn bits_beyond_the_end_are_refused() {
        assert!(Bitfield::from_words(3, vec![0b1000]).is_err());
        assert!(Bitfield::from_words(3, vec![]).is_err());
        assert_eq!(Bitfield::from_words(3, vec![0b111]), Ok(Bitfield::full(3)));
    }

    proptest! {
        #[test]
        fn agrees_with_a_list_of_flags(
            flags in prop::collection::vec(prop::bool::weighted(0.9), 0..300),
            range in (0_u32..320, 0_u32..320),
        ) {
            let mut bits = Bitfield::empty(u32::try_from(flags.len()).unwrap());
            let members: Vec<u32> = (0_u32..).zip(&flags).filter(|(_, flag)| **flag).map(|(chunk, _)| chunk).collect();
            for &chunk in &members {
                prop_assert!(bits.insert(chunk));
            }
            prop_assert_eq!(bits.iter().collect::<Vec<_>>(), members);
            let all = (range.0..range.1).all(|chunk| flags.get(chunk as usize).copied().unwrap_or(false));
            prop_assert_eq!(bits.has_all(range.0..range.1), all);
            prop_assert_eq!(Bitfield::from_words(bits.len(), bits.words().to_vec()), Ok(bits));
        }
    }
}
