//! Making the index of a blob in one pass over its bytes.
//!
//! Small blobs are hashed where they are. Larger ones run through three threads, joined before the call returns: the
//! caller's reads and cuts, one hashes chunks, one hashes the blob as a whole. Blocks wait in channels of
//! [`QUEUE`] entries, so memory stays below ten blocks whatever the blob's size.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::cut::{MAX_CHUNK, cut};
use super::index::{BlobIndex, ChunkEntry, IndexError, MAX_BLOB};
use crate::id::{BlobId, ChunkId, Hash};

/// Bytes read at a time: many chunks, so that threads seldom wait for one another.
const BLOCK: usize = 1 << 20;
const _: () = assert!(BLOCK >= 2 * MAX_CHUNK, "a block must hold a chunk and what its cut depends on");

/// Blocks that wait for each hashing thread: enough to smooth out the disk.
const QUEUE: usize = 3;

/// Cut bytes of a blob, on their way to the hashing threads.
struct Block {
    bytes: Vec<u8>,
    lengths: Vec<u32>,
}

/// The index of `bytes`.
///
/// # Errors
/// [`IndexError`] if the blob is larger than this program handles.
pub fn index_bytes(bytes: &[u8]) -> Result<BlobIndex, IndexError> {
    let mut lengths = Vec::new();
    cut(bytes, true, &mut lengths);
    let mut entries = Vec::with_capacity(lengths.len());
    hash_chunks(bytes, &lengths, &mut entries);
    BlobIndex::new(BlobId(Hash::of(bytes)), &entries)
}

/// The index of all that `reader` gives. `progress` is called with the number of bytes read so far.
///
/// # Errors
/// Errors of `reader`; [`io::ErrorKind::InvalidData`] with an [`IndexError`] inside for a blob that is too large.
pub fn index_reader(reader: impl Read, progress: &dyn Fn(u64)) -> io::Result<BlobIndex> {
    index_copy(reader, |_| Ok(()), progress)
}

/// Like [`index_reader`], and hands all bytes in order to `copy`: one read serves both.
pub(crate) fn index_copy(
    mut reader: impl Read,
    mut copy: impl FnMut(&[u8]) -> io::Result<()>,
    progress: &dyn Fn(u64),
) -> io::Result<BlobIndex> {
    let mut first = Vec::with_capacity(BLOCK);
    if fill(&mut reader, &mut first)? {
        copy(&first)?;
        progress(first.len() as u64);
        return index_bytes(&first).map_err(invalid);
    }
    std::thread::scope(|threads| {
        let (to_chunks, chunk_blocks) = sync_channel(QUEUE);
        let (to_blob, blob_blocks) = sync_channel(QUEUE);
        let chunks = threads.spawn(move || chunk_hasher(&chunk_blocks));
        let blob = threads.spawn(move || blob_hasher(&blob_blocks));
        read_blocks(reader, first, &mut copy, progress, &[to_chunks, to_blob])?;
        let entries = chunks.join().map_err(|_| io::Error::other("the thread that hashes chunks died"))?;
        let blob = blob.join().map_err(|_| io::Error::other("the thread that hashes the blob died"))?;
        BlobIndex::new(blob, &entries).map_err(invalid)
    })
}

fn invalid(error: IndexError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Reads, copies and cuts until the end; the channels close when it returns.
fn read_blocks(
    mut reader: impl Read,
    mut bytes: Vec<u8>,
    copy: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    progress: &dyn Fn(u64),
    hashers: &[SyncSender<Arc<Block>>],
) -> io::Result<()> {
    let mut spare: Vec<Arc<Block>> = Vec::new();
    let (mut total, mut copied, mut end) = (0, 0, false);
    loop {
        let fresh = bytes.get(copied..).unwrap_or_default();
        copy(fresh)?;
        total += fresh.len() as u64;
        progress(total);
        if total > MAX_BLOB {
            return Err(invalid(IndexError::TooLarge { size: total }));
        }
        let mut lengths = Vec::new();
        let done = cut(&bytes, end, &mut lengths);
        let mut next = reuse(&mut spare);
        next.extend_from_slice(bytes.get(done..).unwrap_or_default());
        copied = next.len();
        bytes.truncate(done);
        let block = Arc::new(Block { bytes, lengths });
        for hasher in hashers {
            // Refused only if the hasher died: joining it says so.
            let _ = hasher.send(block.clone());
        }
        spare.push(block);
        if end {
            return Ok(());
        }
        bytes = next;
        end = fill(&mut reader, &mut bytes)?;
    }
}

/// The memory of a block that both hashers are done with, or new memory. The hashers hold no more than their queues and
/// one each, so `spare` stays as short.
fn reuse(spare: &mut Vec<Arc<Block>>) -> Vec<u8> {
    let done = spare.iter().position(|block| Arc::strong_count(block) == 1);
    let block = done.and_then(|at| Arc::into_inner(spare.swap_remove(at)));
    block.map_or_else(
        || Vec::with_capacity(BLOCK),
        |mut block| {
            block.bytes.clear();
            block.bytes
        },
    )
}

/// Reads until `bytes` is a block long; true at the end of the input.
fn fill(reader: &mut impl Read, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let missing = BLOCK.saturating_sub(bytes.len());
    let read = reader.by_ref().take(missing as u64).read_to_end(bytes)?;
    Ok(read < missing)
}

fn chunk_hasher(blocks: &Receiver<Arc<Block>>) -> Vec<ChunkEntry> {
    let mut entries = Vec::new();
    for block in blocks {
        hash_chunks(&block.bytes, &block.lengths, &mut entries);
    }
    entries
}

fn blob_hasher(blocks: &Receiver<Arc<Block>>) -> BlobId {
    let mut hasher = blake3::Hasher::new();
    for block in blocks {
        hasher.update(&block.bytes);
    }
    BlobId(hasher.finalize().into())
}

fn hash_chunks(mut bytes: &[u8], lengths: &[u32], entries: &mut Vec<ChunkEntry>) {
    for &len in lengths {
        let (chunk, rest) = bytes.split_at_checked(len as usize).unwrap_or((bytes, &[]));
        entries.push(ChunkEntry { id: ChunkId(Hash::of(chunk)), len });
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Gives a few bytes at a time, as pipes do.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let len = to.len().min(70_001);
            self.0.read(&mut to[..len])
        }
    }

    #[test]
    fn threads_give_the_index_of_the_bytes() {
        for len in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK, 7 * BLOCK + 12_345] {
            let bytes = noise(len);
            let (seen, mut copied) = (Cell::new(0), Vec::new());
            let copy = |part: &[u8]| {
                copied.extend_from_slice(part);
                Ok(())
            };
            let index = index_copy(Trickle(&bytes), copy, &|read| seen.set(read)).unwrap();
            assert_eq!(index, index_bytes(&bytes).unwrap(), "{len} bytes");
            assert_eq!((seen.get(), copied == bytes), (len as u64, true), "{len} bytes");
        }
    }

    #[test]
    fn an_error_in_the_middle_ends_it() {
        struct Broken(usize);
        impl Read for Broken {
            fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(to.len()).ok_or(io::ErrorKind::ConnectionReset)?;
                Ok(to.len())
            }
        }
        let error = index_reader(Broken(4 * BLOCK), &|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let full = index_copy(&*noise(4 * BLOCK), |_| Err(io::ErrorKind::StorageFull.into()), &|_| ());
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
