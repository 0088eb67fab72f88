//! Blobs in a store: importing, writing runs, completing, forgetting, reopening.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod store_support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};

use fabric::content::{BlobIndex, ChunkEntry};
use fabric::id::{ChunkId, Hash};
use fabric::store::{StoreError, WriteError};
use store_support::{assert_claims_hold, blob, noise, open, run_bytes};

const MIB: usize = 1 << 20;

#[test]
fn an_imported_file_is_a_complete_read_only_blob() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(1, 3 * MIB);
    let source = dir.path().join("source");
    fs::write(&source, &bytes).unwrap();
    let store = open(&dir.path().join("store"));
    assert_eq!(store.add_file(&source, &|_| ()).unwrap(), index.reference());
    // Again, in every way there is: it stays one blob.
    assert_eq!(store.add_bytes(&bytes).unwrap(), index.reference());
    assert_eq!(store.adopt_file(&source, &|_| ()).unwrap(), index.reference());
    assert!(!source.exists(), "adopted means moved");
    let blob = store.blob(&index.blob()).unwrap();
    assert!(blob.is_complete() && blob.holds(0..index.size()) && !blob.holds(0..index.size() + 1));
    assert_eq!(fs::read(blob.path()).unwrap(), bytes);
    assert_eq!(fs::metadata(blob.path()).unwrap().mode() & 0o777, 0o444);
    assert_eq!(store.object(&index.object_id()).unwrap(), index.encode());
    assert_eq!(store.blobs().len(), 1);
    assert_eq!(fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0);
}

#[test]
fn an_adopted_file_is_not_copied() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let file = store.scratch().unwrap().join("root.squashfs");
    fs::write(&file, noise(2, MIB)).unwrap();
    let inode = fs::metadata(&file).unwrap().ino();
    let adopted = store.adopt_file(&file, &|_| ()).unwrap();
    assert_eq!(fs::metadata(store.blob(&adopted.blob).unwrap().path()).unwrap().ino(), inode);
}

#[test]
fn runs_in_any_order_complete_a_blob() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(3, 2 * MIB);
    let store = open(dir.path());
    let blob = store.begin(index.clone()).unwrap();
    let (file, held) = (blob.file(), blob.subscribe());
    assert_eq!(fs::metadata(blob.path()).unwrap().len(), index.size());
    for first in (0..index.count()).rev() {
        assert!(!blob.is_complete());
        let run = blob.write_run(first, run_bytes(&bytes, &index, first, 1)).unwrap();
        assert_eq!((run.first, run.count), (first, 1));
        let chunk = index.entry(first).unwrap().range();
        assert!(blob.holds(chunk.clone()) && (first == 0 || !blob.holds(chunk.start - 1..chunk.end)));
        assert_eq!(*held.borrow(), index.count() - first);
    }
    assert_claims_hold(&blob, &bytes);
    // Whoever had the file open reads on.
    let mut read = vec![0; bytes.len()];
    file.read_exact_at(&mut read, 0).unwrap();
    assert!(read == bytes);
    // A late copy changes nothing, whatever is in it: held chunks are not even looked at.
    blob.write_run(0, &vec![0; index.entry(0).unwrap().len as usize]).unwrap();
    assert_claims_hold(&blob, &bytes);
}

#[test]
fn bad_chunks_are_refused_and_good_ones_around_them_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(4, 2 * MIB);
    let blob = open(dir.path()).begin(index.clone()).unwrap();
    let mut run = run_bytes(&bytes, &index, 2, 5).to_vec();
    let third = index.entry(4).unwrap().offset - index.entry(2).unwrap().offset;
    run[third as usize] ^= 1;
    let error = blob.write_run(2, &run).unwrap_err();
    assert!(
        matches!(error, WriteError::BadChunk { chunk: 4, bad: 1, .. }) && error.blames_sender(),
        "{error}"
    );
    assert_eq!((0..index.count()).filter(|&chunk| blob.have().has(chunk)).collect::<Vec<_>>(), [2, 3, 5, 6]);
    // Too short, too long, beyond the end, nothing: the sender's fault too.
    let run = run_bytes(&bytes, &index, 7, 2);
    let error = blob.write_run(7, &run[..run.len() - 1]).unwrap_err();
    assert!(matches!(error, WriteError::Length { first: 7, .. }), "{error}");
    assert!(blob.have().has(7) && !blob.have().has(8));
    let last = index.count() - 1;
    let long = [run_bytes(&bytes, &index, last, 1), b"more"].concat();
    for (first, bytes) in [(last, &long[..]), (index.count(), b"x"), (u32::MAX, b"x"), (0, b"")] {
        let error = blob.write_run(first, bytes).unwrap_err();
        assert!(matches!(error, WriteError::Length { .. }), "{error}");
    }
    assert_claims_hold(&blob, &bytes);
}

#[test]
fn a_partial_blob_goes_on_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(5, 2 * MIB);
    for first in 0..index.count() {
        let store = open(dir.path());
        let blob = store.begin(index.clone()).unwrap();
        assert_eq!(blob.have().count(), first);
        blob.write_run(first, run_bytes(&bytes, &index, first, 1)).unwrap();
        assert_claims_hold(&blob, &bytes);
    }
    let store = open(dir.path());
    assert!(store.blob(&index.blob()).unwrap().is_complete());
    assert_eq!(fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
}

#[test]
fn many_threads_write_and_read_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(6, 8 * MIB);
    let blob = open(dir.path()).begin(index.clone()).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let readers = [0, 1].map(|_| {
            threads.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let have = blob.have();
                    for chunk in (0..have.len()).filter(|&chunk| have.has(chunk)) {
                        let range = index.entry(chunk).unwrap().range();
                        let mut read = vec![0; (range.end - range.start) as usize];
                        blob.file().read_exact_at(&mut read, range.start).unwrap();
                        assert!(read == bytes[range.start as usize..range.end as usize], "chunk {chunk}");
                    }
                }
            })
        });
        // Overlapping runs, each chunk by several threads.
        let writers = [1, 2, 3, 5].map(|step: u32| {
            let (blob, bytes, index) = (&blob, &bytes, &index);
            threads.spawn(move || {
                for first in 0..index.count() {
                    let first = first * step % index.count();
                    let count = step.min(index.count() - first);
                    blob.write_run(first, run_bytes(bytes, index, first, count)).unwrap();
                }
            })
        });
        let writers = writers.map(std::thread::ScopedJoinHandle::join);
        done.store(true, Ordering::Relaxed);
        assert!(writers.iter().all(Result::is_ok));
        assert!(readers.map(std::thread::ScopedJoinHandle::join).iter().all(Result::is_ok));
    });
    assert!(blob.is_complete());
    assert_claims_hold(&blob, &bytes);
}

#[test]
fn importing_completes_what_was_being_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(7, 2 * MIB);
    let store = open(dir.path());
    let blob = store.begin(index.clone()).unwrap();
    blob.write_run(3, run_bytes(&bytes, &index, 3, 2)).unwrap();
    assert_eq!(store.add_bytes(&bytes).unwrap(), index.reference());
    assert!(blob.is_complete(), "the fetch that holds the blob sees it complete");
    assert_claims_hold(&blob, &bytes);
}

#[test]
fn a_forgotten_blob_is_gone_but_for_its_readers() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(8, MIB);
    let store = open(dir.path());
    let blob = store.begin(index.clone()).unwrap();
    blob.write_run(0, run_bytes(&bytes, &index, 0, 2)).unwrap();
    assert!(store.forget(&index.blob()).unwrap() && !store.forget(&index.blob()).unwrap());
    let error = blob.write_run(2, run_bytes(&bytes, &index, 2, 1)).unwrap_err();
    assert!(matches!(error, WriteError::Store(StoreError::Forgotten { .. })), "{error}");
    let mut read = vec![0; index.entry(0).unwrap().len as usize];
    blob.file().read_exact_at(&mut read, 0).unwrap();
    assert!(read == run_bytes(&bytes, &index, 0, 1));
    assert!(store.blob(&index.blob()).is_none() && store.object(&index.object_id()).is_none());
    assert_eq!(store.begin(index).unwrap().have().count(), 0);
}

#[test]
fn the_empty_blob_is_complete_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (_, index) = blob(0, 0);
    let store = open(dir.path());
    assert!(store.begin(index.clone()).unwrap().is_complete());
    assert_eq!(store.add_bytes(b"").unwrap(), index.reference());
}

/// The index of `bytes` cut at other places.
fn cut_otherwise(bytes: &[u8]) -> BlobIndex {
    let entries: Vec<_> = bytes
        .chunks(10_000)
        .map(|chunk| ChunkEntry { id: ChunkId(Hash::of(chunk)), len: chunk.len() as u32 })
        .collect();
    BlobIndex::new(fabric::id::BlobId(Hash::of(bytes)), &entries).unwrap()
}

#[test]
fn a_blob_goes_on_under_another_index() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(9, MIB);
    let other = cut_otherwise(&bytes);
    let store = open(dir.path());
    let partial = store.begin(index.clone()).unwrap();
    partial.write_run(0, run_bytes(&bytes, &index, 0, 5)).unwrap();
    let held = partial.held_bytes();
    let again = store.begin(other.clone()).unwrap();
    assert_eq!(again.held_bytes(), held / 10_000 * 10_000);
    assert!(matches!(partial.write_run(5, run_bytes(&bytes, &index, 5, 1)), Err(WriteError::Store(_))));
    again.write_run(0, &bytes).unwrap();
    assert_claims_hold(&again, &bytes);
    // Complete, and back again.
    assert!(store.begin(index.clone()).unwrap().is_complete());
    drop((store, partial, again));
    assert_eq!(open(dir.path()).blob(&index.blob()).unwrap().index().object_id(), index.object_id());
}

#[test]
fn an_index_that_lies_about_a_complete_blob_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(10, MIB);
    let store = open(dir.path());
    store.add_bytes(&bytes).unwrap();
    let lie = {
        let entries: Vec<_> =
            cut_otherwise(&noise(11, MIB)).chunks().map(|c| ChunkEntry { id: c.id, len: c.len }).collect();
        BlobIndex::new(index.blob(), &entries).unwrap()
    };
    let error = store.begin(lie.clone()).unwrap_err();
    assert!(matches!(error, StoreError::IndexConflict { .. }), "{error}");
    assert_claims_hold(&store.blob(&index.blob()).unwrap(), &bytes);
    // Met first, the lie is found by the full check.
    store.forget(&index.blob()).unwrap();
    store.begin(lie).unwrap().write_run(0, &noise(11, MIB)).unwrap();
    let report = store.verify(&|_| ()).unwrap();
    assert_eq!((report.damaged.len(), report.damaged[0].bad), (1, 0), "{report:?}");
}
