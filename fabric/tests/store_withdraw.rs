//! Chunks that a blob gives back: what goes, what stays, and who reads meanwhile.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod store_support;

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use fabric::exchange::Run;
use fabric::store::{Blob, Store, StoreError};
use store_support::{assert_claims_hold, blob, fast, noise, open_fast, run_bytes};

const MIB: usize = 1 << 20;

/// A directory in memory, as a booted machine's store is.
fn directory() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn room(blob: &Blob) -> u64 {
    blob.file().metadata().unwrap().blocks() * 512
}

/// Every other sixteen chunks.
fn half(blob: &Blob) -> Vec<Run> {
    let count = blob.index().count();
    (0..count).step_by(32).map(|first| Run { first, count: 16.min(count - first) }).collect()
}

#[test]
fn what_is_withdrawn_is_not_held_and_its_room_is_free_once_nobody_reads_it() {
    let (dir, bytes) = (directory(), noise(1, 8 * MIB));
    let store = open_fast(dir.path());
    let blob = store.blob(&store.add_bytes(&bytes).unwrap().blob).unwrap();
    let full = room(&blob);
    assert!(full >= bytes.len() as u64);
    let first = blob.index().entry(0).unwrap().range();
    let reader = blob.held_file(first.clone()).unwrap();
    let runs = half(&blob);
    blob.withdraw(&runs).unwrap();
    assert!(!blob.is_complete() && blob.held_file(first.clone()).is_none());
    assert_eq!(blob.have().count(), blob.index().count() - runs.iter().map(|run| run.count).sum::<u32>());
    assert!(!blob.trim().unwrap(), "somebody reads");
    let mut read = vec![0; first.end as usize];
    reader.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(read, bytes[..first.end as usize]);
    drop(reader);
    assert!(blob.trim().unwrap());
    let (held, left) = (blob.held_bytes(), room(&blob));
    // A page at each end of a run belongs to both.
    assert!(left >= held && left <= held + runs.len() as u64 * 2 * 4096, "{left} bytes for {held} of {full}");
    assert_claims_hold(&blob, &bytes);

    // What is fetched again completes it.
    for run in runs {
        blob.write_run(run.first, run_bytes(&bytes, blob.index(), run.first, run.count)).unwrap();
    }
    assert!(blob.is_complete());
    assert_claims_hold(&blob, &bytes);
    assert!(store.verify(&|_| ()).unwrap().is_clean());
}

/// The process ends between the two steps: the next one holds what it should and frees the rest.
#[test]
fn the_next_process_finds_what_is_held_and_trims_the_rest() {
    let (dir, bytes) = (directory(), noise(2, 4 * MIB));
    let (id, held) = {
        let store = open_fast(dir.path());
        let blob = store.blob(&store.add_bytes(&bytes).unwrap().blob).unwrap();
        blob.withdraw(&half(&blob)).unwrap();
        (blob.id(), blob.have())
    };
    let store = open_fast(dir.path());
    let blob = store.blob(&id).unwrap();
    assert_eq!(blob.have(), held);
    assert!(room(&blob) >= bytes.len() as u64, "not given back yet");
    assert!(blob.trim().unwrap());
    assert!(room(&blob) < blob.held_bytes() * 5 / 4);
    assert_claims_hold(&blob, &bytes);
    let reader = Store::open_reader(dir.path(), fast()).unwrap();
    assert_eq!(reader.blob(&id).unwrap().have(), held);
    assert!(matches!(reader.blob(&id).unwrap().withdraw(&half(&blob)), Err(StoreError::ReadOnly { .. })));
}

#[test]
fn a_lent_file_is_left_alone() {
    let (dir, bytes) = (directory(), noise(3, MIB));
    let path = dir.path().join("file");
    std::fs::write(&path, &bytes).unwrap();
    let store = open_fast(&dir.path().join("store"));
    let blob = store.blob(&store.lend_file(&path, &|_| ()).unwrap().blob).unwrap();
    blob.withdraw(&half(&blob)).unwrap();
    assert!(blob.trim().unwrap() && blob.is_complete());
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

/// Writers bring chunks while others are withdrawn and trimmed: what is claimed is there.
#[test]
fn nothing_that_is_held_is_trimmed_by_mistake() {
    let dir = directory();
    let (bytes, index) = blob(4, 4 * MIB);
    let store = open_fast(dir.path());
    let blob = store.begin(index).unwrap();
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for offset in 0..2 {
            let (blob, bytes, end) = (&blob, &bytes, &end);
            scope.spawn(move || {
                let count = blob.index().count();
                for round in 0.. {
                    let first = (offset * 7 + round * 8) % count;
                    let run = Run { first, count: 8.min(count - first) };
                    blob.write_run(run.first, run_bytes(bytes, blob.index(), run.first, run.count)).unwrap();
                    if end.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        for round in 0..60 {
            let first = round * 37 % blob.index().count();
            blob.withdraw(&[Run { first, count: 24.min(blob.index().count() - first) }]).unwrap();
            blob.trim().unwrap();
        }
        end.store(true, Ordering::Relaxed);
    });
    assert!(store.verify(&|_| ()).unwrap().is_clean());
    assert_claims_hold(&blob, &bytes);
}
