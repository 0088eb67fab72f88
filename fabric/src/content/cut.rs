//! Where a blob is cut: FastCDC (Xia et al., USENIX ATC 2016; the crate's `v2020` variant, normalization level 1).
//!
//! Cuts depend on the bytes around them alone, so that two versions of a blob share the chunks that did not change,
//! wherever they moved to. The three sizes belong to the content format: with other sizes the same bytes give another
//! index, and two such indexes share almost no chunk.

use fastcdc::v2020::FastCDC;

/// No chunk but the last of a blob is shorter (bytes).
pub const MIN_CHUNK: usize = 8 * 1024;

/// The size the cutter aims at; measured means are about a quarter above it. Smaller chunks share more between
/// versions and cost 36 bytes of index each: 32 KiB is a tenth of a percent (bytes).
pub const AVERAGE_CHUNK: usize = 32 * 1024;

/// No chunk is longer: what a peer can waste with one bad chunk (bytes).
pub const MAX_CHUNK: usize = 128 * 1024;

/// Cuts the beginning of `bytes`, which continues a blob at a cut, and appends the lengths of the chunks to `lengths`.
///
/// Returns how many bytes were cut. With `end` false, up to [`MAX_CHUNK`] - 1 bytes are left over, because their cut
/// depends on what follows: pass them again in front of the next bytes. With `end` true, everything is cut.
pub fn cut(bytes: &[u8], end: bool, lengths: &mut Vec<u32>) -> usize {
    let mut done = 0;
    for chunk in FastCDC::new(bytes, MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK) {
        if !end && bytes.len() - chunk.offset < MAX_CHUNK {
            break;
        }
        lengths.push(u32::try_from(chunk.length).unwrap_or(u32::MAX));
        done = chunk.offset + chunk.length;
    }
    done
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes that look random but are the same in every run.
    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    /// The oracle: the whole blob at once.
    fn whole(bytes: &[u8]) -> Vec<u32> {
        let mut lengths = Vec::new();
        assert_eq!(cut(bytes, true, &mut lengths), bytes.len());
        lengths
    }

    #[test]
    fn nothing_gives_no_chunk_and_little_gives_one() {
        assert_eq!(whole(&[]), Vec::<u32>::new());
        assert_eq!(whole(&[7]), vec![1]);
        assert_eq!(whole(&vec![0; MAX_CHUNK + 1]), vec![128 * 1024, 1]);
    }

    #[test]
    fn the_cutting_rule_stays_as_it_is() {
        let lengths = whole(&noise(1, 512 * 1024));
        assert_eq!(lengths, PINNED, "other cuts of the same bytes: a new content format");
    }

    const PINNED: &[u32] =
        &[34830, 48574, 68346, 39685, 42356, 40534, 25542, 16513, 92549, 46322, 36701, 32336];

    #[test]
    fn an_insertion_changes_few_chunks() {
        let old = noise(2, 4 << 20);
        let mut new = old.clone();
        new.splice(2_000_000..2_000_000, *b"inserted");
        let chunks = |bytes: &[u8]| {
            let mut rest = bytes;
            whole(bytes)
                .into_iter()
                .map(|len| {
                    let (chunk, after) = rest.split_at(len as usize);
                    rest = after;
                    blake3::hash(chunk)
                })
                .collect::<std::collections::HashSet<_>>()
        };
        let (old, new) = (chunks(&old), chunks(&new));
        assert!(
            new.difference(&old).count() <= 3,
            "{} of {} differ",
            new.difference(&old).count(),
            new.len()
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn cutting_in_pieces_is_cutting_the_whole(seed: u64, len in 0usize..900_000, step in 1usize..400_000) {
            let bytes = noise(seed, len);
            let (mut lengths, mut start) = (Vec::new(), 0);
            for end in (step..len).step_by(step).chain([len]) {
                start += cut(&bytes[start..end], end == len, &mut lengths);
            }
            prop_assert_eq!(start, len);
            prop_assert!(lengths.iter().all(|&len| (1..=MAX_CHUNK).contains(&(len as usize))));
            prop_assert!(lengths.iter().rev().skip(1).all(|&len| len as usize >= MIN_CHUNK));
            prop_assert_eq!(lengths, whole(&bytes));
        }
    }
}
