//! BLAKE3 of something large, by all processors.
//!
//! BLAKE3 is a tree: pieces whose length is a power of two are hashed apart, each by whoever comes next, and put together in the end
//! (BLAKE3 specification, section 2.1). Reads each byte once and never keeps more than a piece for each processor.

use std::fs::File;
use std::io;
use std::num::NonZero;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len};
use blake3::hazmat::{merge_subtrees_non_root, merge_subtrees_root};
use blake3::{Hash, Hasher};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// Bytes of a piece: enough for the hash's fast path, little enough to hear of progress.
const PIECE: u64 = 1 << 20;

/// Threads at most: beyond this they wait for memory.
const MAX_THREADS: usize = 16;

/// The hash of the first `length` bytes of `file`, whose pages are let go of. `watch` is called again and again meanwhile, with the
/// bytes done.
///
/// # Errors
/// Those of reading; `UnexpectedEof` if there are fewer bytes.
pub(super) fn hash(file: &File, length: u64, mut watch: impl FnMut(u64)) -> io::Result<Hash> {
    let pieces = length.div_ceil(PIECE).max(1);
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        let mut buffer = Vec::new();
        let mut hashed = Vec::new();
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= pieces {
                return Ok(hashed);
            }
            let at = piece * PIECE;
            let bytes = PIECE.min(length - at);
            buffer.resize(usize::try_from(bytes).unwrap_or(0), 0);
            file.read_exact_at(&mut buffer, at)?;
            let mut hasher = Hasher::new();
            if pieces == 1 {
                // The tree is this piece alone.
                return Ok(vec![(piece, *hasher.update(&buffer).finalize().as_bytes())]);
            }
            hashed.push((piece, hasher.set_input_offset(at).update(&buffer).finalize_non_root()));
            // The pages of a loop device are a second copy of the store's: memory that the machine may not have twice.
            let (at, bytes) = (i64::try_from(at).unwrap_or(0), i64::try_from(bytes).unwrap_or(0));
            let _ = posix_fadvise(file.as_fd(), at, bytes, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
            done.fetch_add(bytes.unsigned_abs(), Ordering::Relaxed);
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MAX_THREADS);
    let results: Vec<io::Result<Vec<(u64, ChainingValue)>>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            watch(done.load(Ordering::Relaxed));
        }
        let gone = |_| Err(io::Error::other("a thread that hashes broke"));
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(gone)).collect()
    });
    let mut hashed = Vec::new();
    for result in results {
        hashed.extend(result?);
    }
    hashed.sort_unstable_by_key(|(piece, _)| *piece);
    let values: Vec<ChainingValue> = hashed.into_iter().map(|(_, value)| value).collect();
    Ok(match halves(&values, length) {
        None => Hash::from_bytes(values.first().copied().unwrap_or_default()),
        Some((left, right)) => {
            merge_subtrees_root(&merge(left.0, left.1), &merge(right.0, right.1), Mode::Hash)
        }
    })
}

/// Pieces, and how many bytes they are.
type Part<'a> = (&'a [ChainingValue], u64);

/// The two subtrees of a tree of more than one piece.
fn halves(values: &[ChainingValue], length: u64) -> Option<(Part<'_>, Part<'_>)> {
    if values.len() < 2 {
        return None;
    }
    let left = left_subtree_len(length);
    let (first, second) = values.split_at_checked(usize::try_from(left / PIECE).ok()?)?;
    Some(((first, left), (second, length - left)))
}

/// The chaining value of a subtree.
fn merge(values: &[ChainingValue], length: u64) -> ChainingValue {
    match halves(values, length) {
        None => values.first().copied().unwrap_or_default(),
        Some((left, right)) => {
            merge_subtrees_non_root(&merge(left.0, left.1), &merge(right.0, right.1), Mode::Hash)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn it_is_the_hash_of_the_whole() {
        let mut content = vec![0; 9 * (1 << 20) + 5];
        Hasher::new().update(b"content").finalize_xof().fill(&mut content);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let piece = usize::try_from(PIECE).unwrap();
        let around = (1..=9).flat_map(|pieces| [pieces * piece - 1, pieces * piece, pieces * piece + 1]);
        for length in [0, 1, 1024, 1025].into_iter().chain(around).chain([content.len()]) {
            let hashed = hash(&file, length as u64, |_| thread::yield_now()).unwrap();
            assert_eq!(hashed, blake3::hash(&content[..length]), "{length} bytes");
        }
    }

    #[test]
    fn what_ends_early_is_said() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 << 20).unwrap();
        let error = hash(&file, (3 << 20) + 1, |_| thread::yield_now()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
