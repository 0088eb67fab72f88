//! Where a blob is cut: before zstd frames, and where there are none by FastCDC (Xia et al., USENIX ATC 2016; the crate's
//! `v2020` variant, normalization level 1).
//!
//! Cuts depend on the bytes around them alone, so that two versions of a blob share the chunks that did not change,
//! wherever they moved to. In a compressed root filesystem each block of a file is a frame of its own (RFC 8878 section
//! 3.1.1) and changes as a whole: a cut at its beginning parts what changed from what did not, which a cut somewhere in
//! it cannot. Four bytes that are no frame's beginning but look like one do no harm.
//!
//! The sizes belong to the content format: with other sizes the same bytes give another index, and two such indexes share
//! few chunks. They were chosen by measuring: see the crate's README.

use fastcdc::v2020::FastCDC;
use memchr::memmem;

/// No chunk that FastCDC cuts is shorter, but for the last of a blob (bytes).
pub const MIN_CHUNK: usize = 8 * 1024;

/// The size at which FastCDC aims; measured means are about a quarter above it. Smaller chunks share more between versions
/// and cost 36 bytes of index each (bytes).
pub const AVERAGE_CHUNK: usize = 32 * 1024;

/// No chunk is longer: what a peer can waste with one bad chunk (bytes).
pub const MAX_CHUNK: usize = 128 * 1024;

/// No chunk that ends before a frame is shorter: smaller frames stay together (bytes). A third of the files of a root
/// filesystem are smaller, and would double its index.
pub const MIN_FRAME_CHUNK: usize = 1024;

/// The rule of the content format, [`CutRule::FORMAT`], and others to compare it with. All sizes are even (bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutRule {
    /// The shortest chunk that FastCDC cuts.
    pub min: usize,
    /// The size at which it aims.
    pub average: usize,
    /// The longest chunk.
    pub max: usize,
    /// The shortest chunk that ends before a frame; `None` to look for no frames.
    pub min_frame: Option<usize>,
}

/// How a zstd frame begins.
const FRAME: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Cuts the beginning of `bytes`, which continues a blob at a cut, and appends the lengths of the chunks to `lengths`.
///
/// Returns how many bytes were cut. With `end` false, up to [`MAX_CHUNK`] - 1 bytes are left over, because their cut
/// depends on what follows: pass them again in front of the next bytes. With `end` true, everything is cut.
pub fn cut(bytes: &[u8], end: bool, lengths: &mut Vec<u32>) -> usize {
    CutRule::FORMAT.cut(bytes, end, lengths)
}

impl CutRule {
    /// What all blobs are cut by.
    pub const FORMAT: Self =
        Self { min: MIN_CHUNK, average: AVERAGE_CHUNK, max: MAX_CHUNK, min_frame: Some(MIN_FRAME_CHUNK) };

    /// Like [`cut`], by this rule.
    pub fn cut(&self, bytes: &[u8], end: bool, lengths: &mut Vec<u32>) -> usize {
        let gear = FastCDC::new(bytes, self.min, self.average, self.max);
        let searched = if self.min_frame.is_some() { bytes } else { &[] };
        let mut frames = memmem::find_iter(searched, &FRAME).peekable();
        let mut start = 0;
        while start < bytes.len() && (end || bytes.len() - start >= self.max) {
            let nearest = start + self.min_frame.unwrap_or(0).max(1);
            while frames.next_if(|&frame| frame < nearest).is_some() {}
            let next = match frames.peek() {
                Some(&frame) if frame + FRAME.len() <= start + self.max => frame,
                _ => gear.cut(start, bytes.len() - start).1,
            };
            lengths.push(u32::try_from(next - start).unwrap_or(u32::MAX));
            start = next;
        }
        start
    }
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
    fn a_frame_begins_a_chunk_unless_the_chunk_would_be_tiny_or_too_long() {
        let mut bytes = noise(3, 2 * MAX_CHUNK);
        for at in [700, 1024, 2000, 9000, 9000 + MAX_CHUNK - 3] {
            bytes[at..at + 4].copy_from_slice(&FRAME);
        }
        // 700 and 2000 are too near to a cut, and of the last frame one byte lies beyond the longest chunk.
        let lengths = whole(&bytes);
        assert_eq!(lengths[..2], [1024, 7976]);
        let later: Vec<u32> = lengths
            .iter()
            .scan(0, |end, len| {
                *end += len;
                Some(*end)
            })
            .skip(2)
            .collect();
        let frame = (9000 + MAX_CHUNK - 3) as u32;
        assert!(later[0] < frame && later.contains(&frame), "{later:?}");
    }

    #[test]
    fn a_changed_frame_is_a_changed_chunk() {
        let frame = |seed: u64, len: usize| [FRAME.to_vec(), noise(seed, len)].concat();
        let old: Vec<Vec<u8>> =
            (0..200).map(|seed| frame(seed, 100 + (seed as usize * 7919) % 50_000)).collect();
        let mut new = old.clone();
        for changed in [3, 90, 91, 170] {
            new[changed] = frame(1000 + changed as u64, 12_345);
        }
        let index = |frames: &[Vec<u8>]| super::super::index_bytes(&frames.concat()).unwrap();
        let difference = super::super::Difference::of(&index(&new), [&index(&old)]);
        let neighbours = 4 * MIN_FRAME_CHUNK as u64;
        assert!((4 * 12_349..4 * 12_349 + neighbours).contains(&difference.fetched_bytes), "{difference:?}");
    }

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
        fn cutting_in_pieces_is_cutting_the_whole(
            seed: u64,
            len in 0usize..900_000,
            step in 1usize..400_000,
            frames in prop::collection::vec(0usize..900_000, 0..40),
        ) {
            let mut bytes = noise(seed, len);
            for frame in frames {
                let to = bytes.iter_mut().skip(frame).zip(FRAME);
                to.for_each(|(to, byte)| *to = byte);
            }
            let (mut lengths, mut start) = (Vec::new(), 0);
            for end in (step..len).step_by(step).chain([len]) {
                start += cut(&bytes[start..end], end == len, &mut lengths);
            }
            prop_assert_eq!(start, len);
            prop_assert!(lengths.iter().all(|&len| (1..=MAX_CHUNK).contains(&(len as usize))));
            prop_assert!(lengths.iter().rev().skip(1).all(|&len| len as usize >= MIN_FRAME_CHUNK));
            prop_assert_eq!(lengths, whole(&bytes));
        }
    }
}
