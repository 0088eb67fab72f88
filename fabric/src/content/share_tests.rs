use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::content::{ChunkEntry, index_bytes};
use crate::id::{BlobId, Hash};

/// An index whose chunks are told by letters: the same letter, the same chunk. Lengths grow with the letter.
fn blob(letters: &[u8]) -> BlobIndex {
    let entry = |&letter: &u8| ChunkEntry { id: ChunkId(Hash::of(&[letter])), len: 1000 + u32::from(letter) };
    BlobIndex::new(BlobId(Hash::of(letters)), &letters.iter().map(entry).collect::<Vec<_>>()).unwrap()
}

fn bits(len: usize, member: impl Fn(usize) -> bool) -> Bitfield {
    let mut bits = Bitfield::empty(u32::try_from(len).unwrap());
    for at in (0..len).filter(|&at| member(at)) {
        bits.insert(u32::try_from(at).unwrap());
    }
    bits
}

fn run(first: u32, count: u32) -> Run {
    Run { first, count }
}

#[test]
fn runs_follow_both_blobs() {
    let (wanted, none) = (blob(b"abXcdYab"), Bitfield::empty(8));
    let others = [blob(b"cd"), blob(b"zabz")];
    let full: Vec<_> = others.iter().map(|other| Bitfield::full(other.count())).collect();
    let runs = shared_runs(&wanted, &none, others.iter().zip(&full));
    let expected = [(1, 1, run(0, 2)), (0, 0, run(3, 2)), (1, 1, run(6, 2))];
    assert_eq!(runs, expected.map(|(source, first, run)| SharedRun { source, first, run }));
}

#[test]
fn what_is_here_or_not_there_is_no_run() {
    let wanted = blob(b"abcd");
    let other = blob(b"abcd");
    let runs = shared_runs(&wanted, &bits(4, |at| at == 1), [(&other, &bits(4, |at| at != 3))]);
    let expected = [(0, run(0, 1)), (2, run(2, 1))];
    assert_eq!(runs, expected.map(|(first, run)| SharedRun { source: 0, first, run }));
}

#[test]
fn a_run_is_not_longer_than_a_request() {
    let letters: Vec<u8> = (0..=255).collect();
    let entries: Vec<_> =
        letters.iter().map(|letter| ChunkEntry { id: ChunkId(Hash::of(&[*letter])), len: 60_000 }).collect();
    let wanted = BlobIndex::new(BlobId(Hash::of(b"long")), &entries).unwrap();
    let full = Bitfield::full(256);
    let runs = shared_runs(&wanted, &Bitfield::empty(256), [(&wanted, &full)]);
    assert_eq!(runs.iter().map(|run| run.run.count).sum::<u32>(), 256);
    let longest =
        runs.iter().filter_map(|run| wanted.byte_range(run.run)).map(|range| range.end - range.start);
    assert_eq!(longest.max(), Some(17 * 60_000));
}

#[test]
fn one_chunk_repeated_in_both_costs_no_more_than_another() {
    // Chunk by chunk of the one against chunk by chunk of the other would be 10^10 steps.
    let same = blob(&vec![b'a'; 100_000]);
    let difference = Difference::of(&same, [&blob(&vec![b'a'; 100_001])]);
    assert_eq!((difference.fetched_chunks, difference.shared_bytes()), (0, same.size()));
}

#[test]
fn equal_hashes_of_other_lengths_are_other_chunks() {
    let entry = |len| ChunkEntry { id: ChunkId(Hash::of(b"chunk")), len };
    let index = |name: &[u8], len| BlobIndex::new(BlobId(Hash::of(name)), &[entry(len)]).unwrap();
    assert_eq!(Difference::of(&index(b"one", 10), [&index(b"other", 11)]).fetched_bytes, 10);
}

#[test]
fn a_held_blob_moves_nothing_and_another_its_index() {
    let (one, other) = (blob(b"abc"), blob(b"cba"));
    assert_eq!(Difference::of(&one, [&other, &one]).moved_bytes(), 0);
    let moved = Difference::of(&one, [&other]);
    assert_eq!((moved.fetched_bytes, moved.moved_bytes()), (0, one.encode().len() as u64));
}

#[test]
fn an_insertion_moves_little() {
    let mut bytes = vec![0; 4 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let old = index_bytes(&bytes).unwrap();
    bytes.splice(1_000_000..1_000_000, *b"inserted");
    let difference = Difference::of(&index_bytes(&bytes).unwrap(), [&old]);
    assert!((1..=3).contains(&difference.fetched_chunks), "{difference:?}");
}

proptest! {
    /// The oracle: each chunk of the one against each chunk of the others.
    #[test]
    fn agrees_with_looking_at_every_pair(
        wanted in vec(0_u8..12, 0..60),
        have in vec(any::<bool>(), 60),
        others in vec(vec((0_u8..12, prop::bool::weighted(0.8)), 0..40), 0..4),
    ) {
        let index = blob(&wanted);
        let indexes: Vec<_> = others
            .iter()
            .map(|other| blob(&other.iter().map(|(letter, _)| *letter).collect::<Vec<_>>()))
            .collect();
        let held: Vec<_> = others.iter().map(|other| bits(other.len(), |at| other[at].1)).collect();
        let have = bits(wanted.len(), |at| have[at]);

        let runs = shared_runs(&index, &have, indexes.iter().zip(&held));
        let mut copied = vec![false; wanted.len()];
        for run in &runs {
            let (from, to) = (run.first..run.first + run.run.count, run.run.chunks());
            for (from, to) in from.zip(to) {
                prop_assert_eq!(others[run.source][from as usize], (wanted[to as usize], true));
                prop_assert!(!std::mem::replace(&mut copied[to as usize], true), "chunk {} twice", to);
            }
        }
        prop_assert!(runs.is_sorted_by_key(|run| run.run.first));
        for (at, letter) in wanted.iter().enumerate() {
            let there = others.iter().flatten().any(|other| *other == (*letter, true));
            let missing = !have.has(u32::try_from(at).unwrap());
            prop_assert_eq!(copied[at], there && missing, "chunk {}", at);
        }

        let absent: Vec<u64> = index
            .chunks()
            .zip(&wanted)
            .filter(|(_, letter)| !others.iter().flatten().any(|(other, _)| other == *letter))
            .map(|(chunk, _)| chunk.len.into())
            .collect();
        let difference = Difference::of(&index, &indexes);
        prop_assert_eq!((difference.bytes, difference.chunks), (index.size(), wanted.len() as u64));
        prop_assert_eq!(difference.fetched_chunks, absent.len() as u64);
        prop_assert_eq!(difference.fetched_bytes, absent.iter().sum::<u64>());
    }
}
