//! What a blob has in common with others: chunks of the same hash and length, wherever they lie.
//!
//! Two answers from one search: which chunks to copy rather than fetch ([`shared_runs`]), and what fetching a blob moves
//! where others are held ([`Difference`]). The search sorts the numbers of the wanted chunks by their hashes and looks the
//! chunks of the others up among them: 16 bytes for each wanted chunk, less than its index takes, however much is held.
//! Equal chunks are found all at once, so an index that repeats one chunk a million times costs no more than another.

use serde::Serialize;

use super::index::{BlobIndex, Chunk};
use crate::bitfield::Bitfield;
use crate::exchange::message::Run;
use crate::id::ChunkId;

/// The longest run of chunks copied at a time (bytes): what peers are asked for at a time, so that copying can be stopped
/// soon and takes no more memory.
pub const MAX_SHARED_RUN: u64 = 1 << 20;

/// Consecutive chunks of a blob that are consecutive in another one too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedRun {
    /// Which of the others has them: its place among those that were given.
    pub source: usize,
    /// Number of the first of these chunks there.
    pub first: u32,
    /// The chunks here; together at most [`MAX_SHARED_RUN`] bytes.
    pub run: Run,
}

/// The chunks of `wanted` that are not in `have` but in one of `others`, each given with the chunks held of it: in the
/// order in which they lie in `wanted`.
#[must_use]
pub fn shared_runs<'a>(
    wanted: &BlobIndex,
    have: &Bitfield,
    others: impl IntoIterator<Item = (&'a BlobIndex, &'a Bitfield)>,
) -> Vec<SharedRun> {
    let missing = |at: &u32| !have.has(*at);
    let held = (0..).zip(others).flat_map(|(source, (index, held))| {
        numbered(index).filter(|(at, _)| held.has(*at)).map(move |(at, chunk)| (Place { source, at }, chunk))
    });
    let mut runs: Vec<SharedRun> = Vec::new();
    let mut bytes = 0;
    for (at, place) in (0..).zip(search(wanted, missing, held)) {
        let (Some(place), Some(chunk)) = (place, wanted.entry(at)) else { continue };
        bytes += u64::from(chunk.len);
        match runs.last_mut() {
            Some(last)
                if last.source == place.source as usize
                    && last.run.first + last.run.count == at
                    && last.first + last.run.count == place.at
                    && bytes <= MAX_SHARED_RUN =>
            {
                last.run.count += 1;
            }
            _ => {
                bytes = chunk.len.into();
                runs.push(SharedRun {
                    source: place.source as usize,
                    first: place.at,
                    run: Run { first: at, count: 1 },
                });
            }
        }
    }
    runs
}

/// What fetching a blob, or several, moves where others are held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Bytes of the blob.
    pub bytes: u64,
    /// Its chunks.
    pub chunks: u64,
    /// Bytes of the chunks that are not held. A chunk that occurs twice in the blob is fetched twice.
    pub fetched_bytes: u64,
    /// The chunks that are not held.
    pub fetched_chunks: u64,
    /// Bytes of the index, which is fetched too; 0 if the blob itself is held.
    pub index_bytes: u64,
}

impl Difference {
    /// Between `wanted` and the blobs `held`, all of them complete.
    #[must_use]
    pub fn of<'a>(wanted: &BlobIndex, held: impl IntoIterator<Item = &'a BlobIndex>) -> Self {
        let mut known = false;
        let chunks = (0..).zip(held).flat_map(|(source, index)| {
            known |= index.object_id() == wanted.object_id();
            numbered(index).map(move |(at, chunk)| (Place { source, at }, chunk))
        });
        let places = search(wanted, |_| true, chunks);
        let mut difference = Self {
            bytes: wanted.size(),
            chunks: wanted.count().into(),
            index_bytes: if known { 0 } else { wanted.encoded_len() },
            ..Self::default()
        };
        for (chunk, _) in wanted.chunks().zip(places).filter(|(_, place)| place.is_none()) {
            difference.fetched_bytes += u64::from(chunk.len);
            difference.fetched_chunks += 1;
        }
        difference
    }

    /// Bytes that are copied from what is held.
    #[must_use]
    pub fn shared_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.fetched_bytes)
    }

    /// All bytes that move: chunks and index.
    #[must_use]
    pub fn moved_bytes(&self) -> u64 {
        self.fetched_bytes.saturating_add(self.index_bytes)
    }
}

impl std::ops::AddAssign for Difference {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.chunks += other.chunks;
        self.fetched_bytes += other.fetched_bytes;
        self.fetched_chunks += other.fetched_chunks;
        self.index_bytes += other.index_bytes;
    }
}

/// Where a chunk lies: its number in one of the other blobs.
#[derive(Debug, Clone, Copy)]
struct Place {
    source: u32,
    at: u32,
}

/// For each chunk of `wanted`, the first place in `held` where it is; none for those that are not `missing`.
fn search(
    wanted: &BlobIndex,
    missing: impl Fn(&u32) -> bool,
    held: impl Iterator<Item = (Place, Chunk)>,
) -> Vec<Option<Place>> {
    let key = |at: u32| wanted.entry(at).as_ref().map(key);
    let mut sorted: Vec<u32> = (0..wanted.count()).filter(missing).collect();
    sorted.sort_unstable_by_key(|&at| key(at));
    let mut places = vec![None; wanted.count() as usize];
    for (place, chunk) in held {
        let searched = Some(self::key(&chunk));
        let start = sorted.partition_point(|&at| key(at) < searched);
        for &at in sorted.iter().skip(start).take_while(|&&at| key(at) == searched) {
            match places.get_mut(at as usize) {
                Some(unfound @ None) => *unfound = Some(place),
                // Equal chunks are found together: the first tells of all.
                Some(Some(_)) | None => break,
            }
        }
    }
    places
}

/// What makes two chunks equal.
fn key(chunk: &Chunk) -> (ChunkId, u32) {
    (chunk.id, chunk.len)
}

fn numbered(index: &BlobIndex) -> impl Iterator<Item = (u32, Chunk)> + '_ {
    (0..).zip(index.chunks())
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
