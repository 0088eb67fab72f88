use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn index_of(lengths: &[u32]) -> BlobIndex {
    let entries: Vec<_> = (0u32..)
        .zip(lengths)
        .map(|(at, &len)| ChunkEntry { id: ChunkId(Hash::of(&at.to_le_bytes())), len })
        .collect();
    BlobIndex::new(BlobId(Hash::of(b"blob")), &entries).unwrap()
}

#[test]
fn places_and_ranges() {
    let index = index_of(&[10, 20, 30]);
    assert_eq!((index.size(), index.count()), (60, 3));
    assert_eq!(index.entry(1).unwrap().range(), 10..30);
    assert_eq!(index.entry(3), None);
    let run = |first, count| Run { first, count };
    assert_eq!(index.byte_range(run(1, 2)), Some(10..60));
    assert_eq!(index.byte_range(run(1, 0)), None);
    assert_eq!(index.byte_range(run(1, 3)), None);
    assert_eq!(index.byte_range(run(u32::MAX, 2)), None);
    assert_eq!(index.covering(0..60), run(0, 3));
    assert_eq!(index.covering(0..10), run(0, 1));
    assert_eq!(index.covering(9..11), run(0, 2));
    assert_eq!(index.covering(59..u64::MAX), run(2, 1));
    assert_eq!((index.covering(60..61).count, index.covering(5..5).count), (0, 0));
}

#[test]
fn an_empty_blob_has_an_index() {
    let index = index_of(&[]);
    assert_eq!((index.size(), index.count()), (0, 0));
    assert_eq!(BlobIndex::decode(&index.encode()), Ok(index));
}

#[test]
fn each_kind_of_damage_has_its_error() {
    let good = index_of(&[10, 20]).encode();
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        BlobIndex::decode(&bad).unwrap_err()
    };
    assert_eq!(with(0, b"ELF"), IndexError::NotAnIndex);
    assert_eq!(with(7, b"2"), IndexError::Version { version: b'2' });
    assert_eq!(with(40, &[31]), IndexError::Sum { sum: 30, size: 31 });
    assert_eq!(with(48, &[3]), IndexError::Length { promised: 160, actual: 124 });
    assert!(matches!(with(48, &[0xff; 4]), IndexError::Length { .. }));
    assert_eq!(with(HEADER + 32, &[0]), IndexError::ChunkLength { chunk: 0, len: 0 });
    assert_eq!(with(HEADER + 34, &[2]), IndexError::ChunkLength { chunk: 0, len: 0x2_000a });
    assert_eq!(BlobIndex::decode(&good[..20]), Err(IndexError::NotAnIndex));
}

#[test]
fn a_reference_accepts_only_its_index() {
    let (index, other) = (index_of(&[10, 20]), index_of(&[10, 21]));
    assert_eq!(index.reference().index_from(&index.encode()), Ok(index.clone()));
    assert!(matches!(index.reference().index_from(&other.encode()), Err(IndexError::Other { .. })));
    let lie = BlobRef { size: 31, ..index.reference() };
    assert!(matches!(lie.index_from(&index.encode()), Err(IndexError::Other { .. })));
}

#[test]
fn the_encoding_stays_as_it_is() {
    let pinned = "013542164bfe46275e388b84b4275c0c8c1099e18d5bc3f2a9f177b455f39f9e";
    assert_eq!(
        index_of(&[10, 20, 30]).object_id().to_string(),
        pinned,
        "another encoding needs another magic"
    );
}

#[test]
fn too_many_chunks_are_refused() {
    let entry = ChunkEntry { id: ChunkId(Hash::of(b"")), len: 1 };
    let entries = vec![entry; MAX_CHUNKS as usize + 1];
    let error = BlobIndex::new(BlobId(Hash::of(b"")), &entries).unwrap_err();
    assert_eq!(error, IndexError::TooManyChunks { count: u64::from(MAX_CHUNKS) + 1 });
    let entry = ChunkEntry { len: MAX_CHUNK as u32, ..entry };
    let error = BlobIndex::new(BlobId(Hash::of(b"")), &vec![entry; 1 << 20]).unwrap_err();
    assert_eq!(error, IndexError::TooLarge { size: 128 << 30 });
}

proptest! {
    #[test]
    fn encoding_round_trips(lengths in vec(1u32..=MAX_CHUNK as u32, 0..200)) {
        let index = index_of(&lengths);
        let bytes = index.encode();
        prop_assert_eq!(index.object_id(), ObjectId(Hash::of(&bytes)));
        prop_assert_eq!(BlobIndex::decode(&bytes), Ok(index));
    }

    #[test]
    fn what_decodes_encodes_to_the_same_bytes(
        lengths in vec(1u32..1000, 0..8), at in any::<prop::sample::Index>(), byte: u8, cut in 0usize..40,
    ) {
        let mut bytes = index_of(&lengths).encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut.min(bytes.len()) / 20);
        if let Ok(index) = BlobIndex::decode(&bytes) {
            prop_assert_eq!(index.encode(), bytes);
        }
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..300)) {
        let _ = BlobIndex::decode(&bytes);
        let _ = BlobIndex::decode(&[MAGIC.as_slice(), &bytes].concat());
    }

    #[test]
    fn a_range_lies_within_its_covering_run(lengths in vec(1u32..50, 1..20), from in 0u64..1000, len in 1u64..300) {
        let index = index_of(&lengths);
        let run = index.covering(from..from + len);
        match index.byte_range(run) {
            Some(bytes) => {
                prop_assert!(bytes.start <= from && bytes.end >= (from + len).min(index.size()));
                let inner = Run { first: run.first + 1, count: run.count.saturating_sub(2) };
                prop_assert!(index.byte_range(inner).is_none_or(|bytes| bytes.start > from && bytes.end < from + len));
            }
            None => prop_assert!(from >= index.size()),
        }
    }
}
