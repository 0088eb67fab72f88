//! The index of a blob: which chunks, how long, in which order.
//!
//! The encoding is canonical, because it is known by its hash: one index has exactly one encoding. Little-endian:
//!
//! | bytes | |
//! |---|---|
//! | 8 | magic `BFINDEX1`: kind and version |
//! | 32 | [`BlobId`] |
//! | 8 | size of the blob |
//! | 4 | number of chunks |
//! | 36 each | [`ChunkId`] (32), length (4) |

use std::fmt;
use std::ops::Range;

use super::{BlobRef, MAX_CHUNK};
use crate::exchange::message::Run;
use crate::id::{BlobId, ChunkId, Hash, ObjectId};

const MAGIC: &[u8; 8] = b"BFINDEX1";
const MAGIC_KIND: &[u8; 7] = b"BFINDEX";
const HEADER: usize = 8 + 32 + 8 + 4;
const ENTRY: usize = 32 + 4;

/// The largest blob (bytes): offsets stay far from any overflow, and no root filesystem comes near.
pub const MAX_BLOB: u64 = 64 << 30;

/// The most chunks a blob may have, which makes an index of at most 72 MiB: [`MAX_BLOB`] at the mean size of FastCDC's chunks,
/// or a root filesystem of some 25 GiB.
pub const MAX_CHUNKS: u32 = 2 << 20;

/// The longest encoded index (bytes).
pub const MAX_INDEX: usize = HEADER + MAX_CHUNKS as usize * ENTRY;

/// One line of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkEntry {
    /// The hash of the chunk's bytes.
    pub id: ChunkId,
    /// Length in bytes, `1..=MAX_CHUNK`.
    pub len: u32,
}

/// One chunk and where it lies in its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The hash of the chunk's bytes.
    pub id: ChunkId,
    /// Where it begins in the blob (bytes).
    pub offset: u64,
    /// Length in bytes.
    pub len: u32,
}

impl Chunk {
    /// The chunk's bytes within the blob.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.len)
    }
}

/// Why bytes or entries are not an index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Not the encoding of an index at all.
    #[error("this is not the index of a blob")]
    NotAnIndex,
    /// An index of a version that this program does not read.
    #[error("the index has version `{}`, this program reads version `1`: use the same program version on all nodes", char::from(*version))]
    Version {
        /// The version, one ASCII character.
        version: u8,
    },
    /// The encoding is cut off, or bytes follow it.
    #[error("the index is {actual} bytes long, its header promises {promised}")]
    Length {
        /// What the header promises.
        promised: u64,
        /// What there is.
        actual: usize,
    },
    /// A blob larger than this program handles.
    #[error("the blob has {size} bytes, at most {MAX_BLOB} are allowed: split it")]
    TooLarge {
        /// The size in bytes.
        size: u64,
    },
    /// A blob of more chunks than this program handles.
    #[error("the blob has {count} chunks, at most {MAX_CHUNKS} are allowed: split it")]
    TooManyChunks {
        /// The number of chunks.
        count: u64,
    },
    /// A chunk of an impossible length.
    #[error("chunk {chunk} has {len} bytes, 1 to {MAX_CHUNK} are allowed")]
    ChunkLength {
        /// The number of the chunk.
        chunk: u32,
        /// Its length in bytes.
        len: u32,
    },
    /// A valid index, but not the one that was asked for.
    #[error(
        "this is another index than the blob {wanted} needs, for blob {found}: ask another peer, or sign the release anew"
    )]
    Other {
        /// The blob whose index was wanted.
        wanted: BlobId,
        /// The blob that the index describes.
        found: BlobId,
    },
    /// The chunks do not add up to the size.
    #[error("the chunks add up to {sum} bytes, the blob has {size}")]
    Sum {
        /// The sum of the lengths.
        sum: u64,
        /// The size that the index gives.
        size: u64,
    },
}

/// Which chunks make up a blob. Valid and immutable: lengths are in bounds and add up to the size.
///
/// It is trusted for its [`object_id`](Self::object_id); that the chunks together hash to the [`BlobId`] is not
/// checked here (the store's `verify` does).
#[derive(Clone, PartialEq, Eq)]
pub struct BlobIndex {
    blob: BlobId,
    ids: Vec<ChunkId>,
    /// Where each chunk ends; the last is the size.
    ends: Vec<u64>,
    object: ObjectId,
}

impl BlobIndex {
    /// The index of the blob `blob` that consists of `entries`.
    ///
    /// # Errors
    /// [`IndexError`] if a length or the number of entries is out of bounds.
    pub fn new(blob: BlobId, entries: &[ChunkEntry]) -> Result<Self, IndexError> {
        let mut index = Self::collect(blob, entries.len(), entries.iter().copied())?;
        index.object = ObjectId(Hash::of(&index.encode()));
        Ok(index)
    }

    fn collect(
        blob: BlobId,
        count: usize,
        entries: impl Iterator<Item = ChunkEntry>,
    ) -> Result<Self, IndexError> {
        if count > MAX_CHUNKS as usize {
            return Err(IndexError::TooManyChunks { count: count as u64 });
        }
        let (mut ids, mut ends) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut end = 0;
        for (chunk, entry) in (0..).zip(entries) {
            if entry.len == 0 || entry.len as usize > MAX_CHUNK {
                return Err(IndexError::ChunkLength { chunk, len: entry.len });
            }
            end += u64::from(entry.len);
            ids.push(entry.id);
            ends.push(end);
        }
        if end > MAX_BLOB {
            return Err(IndexError::TooLarge { size: end });
        }
        Ok(Self { blob, ids, ends, object: ObjectId(Hash::from_bytes([0; 32])) })
    }

    /// Decodes an index; allocates no more than a small multiple of `bytes`.
    ///
    /// # Errors
    /// [`IndexError`] for anything but the one encoding of a valid index.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(IndexError::NotAnIndex)?;
        if magic != MAGIC {
            let version = magic.strip_prefix(MAGIC_KIND).and_then(<[u8]>::first);
            return Err(version.map_or(IndexError::NotAnIndex, |&version| IndexError::Version { version }));
        }
        let (blob, rest) = rest.split_first_chunk::<32>().ok_or(IndexError::NotAnIndex)?;
        let (size, rest) = rest.split_first_chunk::<8>().ok_or(IndexError::NotAnIndex)?;
        let (count, entries) = rest.split_first_chunk::<4>().ok_or(IndexError::NotAnIndex)?;
        let (size, count) = (u64::from_le_bytes(*size), u32::from_le_bytes(*count) as usize);
        if entries.len() != count * ENTRY {
            let promised = HEADER as u64 + count as u64 * ENTRY as u64;
            return Err(IndexError::Length { promised, actual: bytes.len() });
        }
        let entries = entries.chunks_exact(ENTRY).filter_map(|entry| {
            let (id, rest) = entry.split_first_chunk::<32>()?;
            let len = u32::from_le_bytes(*rest.first_chunk()?);
            Some(ChunkEntry { id: ChunkId(Hash::from_bytes(*id)), len })
        });
        let mut index = Self::collect(BlobId(Hash::from_bytes(*blob)), count, entries)?;
        if index.size() != size {
            return Err(IndexError::Sum { sum: index.size(), size });
        }
        index.object = ObjectId(Hash::of(bytes));
        Ok(index)
    }

    /// The one encoding of this index.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.encoded_len()).unwrap_or(0));
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(self.blob.0.as_bytes());
        bytes.extend_from_slice(&self.size().to_le_bytes());
        bytes.extend_from_slice(&self.count().to_le_bytes());
        for chunk in self.chunks() {
            bytes.extend_from_slice(chunk.id.0.as_bytes());
            bytes.extend_from_slice(&chunk.len.to_le_bytes());
        }
        bytes
    }

    /// Length of the encoding in bytes.
    #[must_use]
    pub fn encoded_len(&self) -> u64 {
        (HEADER + self.ids.len() * ENTRY) as u64
    }

    /// The blob that this index describes.
    #[must_use]
    pub fn blob(&self) -> BlobId {
        self.blob
    }

    /// Length of the blob in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// How many chunks there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.ids.len()).unwrap_or(u32::MAX)
    }

    /// The hash of the encoding: the name under which an index is trusted and fetched.
    #[must_use]
    pub fn object_id(&self) -> ObjectId {
        self.object
    }

    /// What a release says of this blob.
    #[must_use]
    pub fn reference(&self) -> BlobRef {
        BlobRef { blob: self.blob, size: self.size(), index: self.object }
    }

    /// Chunk number `chunk`; `None` beyond the end.
    #[must_use]
    pub fn entry(&self, chunk: u32) -> Option<Chunk> {
        let at = chunk as usize;
        let (id, end) = (*self.ids.get(at)?, *self.ends.get(at)?);
        let offset = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        Some(Chunk { id, offset, len: u32::try_from(end - offset).unwrap_or(u32::MAX) })
    }

    /// All chunks in order.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk> + '_ {
        (0..self.count()).filter_map(|chunk| self.entry(chunk))
    }

    /// The bytes that the chunks of `run` fill; `None` if the run is empty or does not lie within the blob.
    #[must_use]
    pub fn byte_range(&self, run: Run) -> Option<Range<u64>> {
        let last = run.first.checked_add(run.count.checked_sub(1)?)?;
        Some(self.entry(run.first)?.offset..*self.ends.get(last as usize)?)
    }

    /// The shortest run of chunks that covers the bytes `range`, which is cut off at the end of the blob; an empty run
    /// for an empty range.
    #[must_use]
    pub fn covering(&self, range: Range<u64>) -> Run {
        let end = range.end.min(self.size());
        if range.start >= end {
            return Run { first: 0, count: 0 };
        }
        let first = self.ends.partition_point(|&chunk_end| chunk_end <= range.start);
        let last = self.ends.partition_point(|&chunk_end| chunk_end < end);
        let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Run { first: number(first), count: number(last - first + 1) }
    }
}

impl fmt::Debug for BlobIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobIndex({:?}, {} bytes, {} chunks)", self.blob.0, self.size(), self.count())
    }
}

#[cfg(test)]
#[path = "index_tests.rs"]
mod tests;
