//! Readers beside the writer: they take no lock, change nothing, and never see what is not so.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod store_support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fabric::id::{Hash, ObjectId};
use fabric::store::{Blob, Item, Pin, Store, StoreError, WriteError};
use store_support::{blob, child, child_dir, fast, open_fast, run_bytes};

const MIB: usize = 1 << 20;
/// Blobs that the writer of the race changes, and their length.
const BLOBS: u64 = 3;
const LEN: usize = 400_000;
/// How often each state of a blob must be seen before the race ends.
const OFTEN: u32 = 12;
/// Far longer than it takes: only a hang reaches it.
const LONG: Duration = Duration::from_secs(120);

fn reader(dir: &Path) -> Store {
    Store::open_reader(dir, fast()).unwrap()
}

/// Every chunk that the reader believes to be held is right.
fn assert_believes_truth(blob: &Blob, truth: &[u8]) {
    let have = blob.have();
    for (_, chunk) in (0..).zip(blob.index().chunks()).filter(|(number, _)| have.has(*number)) {
        let mut bytes = vec![0; chunk.len as usize];
        blob.file().read_exact_at(&mut bytes, chunk.offset).unwrap();
        assert!(bytes == truth[chunk.offset as usize..][..bytes.len()], "{blob:?} {chunk:?}");
    }
}

/// Everything in a directory that a change would change.
fn state(dir: &Path) -> BTreeMap<PathBuf, (u64, u64, i64, i64, u32)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            found.extend(state(&entry.path()));
        }
        let what = (
            metadata.ino(),
            metadata.len(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.permissions().mode(),
        );
        found.insert(entry.path(), what);
    }
    found
}

#[test]
fn a_reader_sees_everything_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(1, MIB);
    let writer = open_fast(dir.path());
    let complete = writer.add_bytes(b"complete").unwrap();
    let partial = writer.begin(index.clone()).unwrap();
    partial.write_run(2, run_bytes(&bytes, &index, 2, 3)).unwrap();
    writer.set_head("head", &complete.index).unwrap();
    let pin = Pin { name: "pin".into(), item: Item::Blob(complete.blob), reason: "why".into() };
    writer.pin(&pin).unwrap();
    writer.set_limit(Some(MIB as u64 * 9)).unwrap();
    let before = state(dir.path());

    let reader = reader(dir.path());
    assert!(reader.is_reader() && !writer.is_reader());
    assert_eq!(reader.blobs(), writer.blobs());
    assert_eq!(reader.heads().unwrap(), writer.heads().unwrap());
    assert_eq!((reader.pins().unwrap(), reader.limit()), (vec![pin.clone()], writer.limit()));
    assert_eq!(reader.object(&complete.index), writer.object(&complete.index));
    let seen = reader.blob(&index.blob()).unwrap();
    assert!(seen.have() == partial.have() && !seen.is_complete() && !seen.holds(0..1));
    assert_believes_truth(&seen, &bytes);
    assert!(reader.verify(&|_| ()).unwrap().is_clean());
    assert!(reader.garbage().is_ok());

    let file = dir.path().join("format");
    let object = ObjectId(Hash::of(b"object"));
    let refused = [
        reader.put_object(b"object").unwrap_err(),
        reader.set_head("late", &object).unwrap_err(),
        reader.remove_head("head").unwrap_err(),
        reader.pin(&Pin { name: "late".into(), ..pin }).unwrap_err(),
        reader.unpin("pin").unwrap_err(),
        reader.set_limit(None).unwrap_err(),
        reader.begin(index.clone()).unwrap_err(),
        reader.begin(blob(2, 10).1).unwrap_err(),
        reader.add_bytes(b"late").unwrap_err(),
        reader.add_file(&file, &|_| ()).unwrap_err(),
        reader.adopt_file(&file, &|_| ()).unwrap_err(),
        reader.lend_file(&file, &|_| ()).unwrap_err(),
        reader.release_file(&complete.blob, &dir.path().join("out")).unwrap_err(),
        reader.scratch().unwrap_err(),
        reader.forget(&complete.blob).unwrap_err(),
        reader.gc().unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
    }
    let error = seen.write_run(5, run_bytes(&bytes, &index, 5, 1)).unwrap_err();
    assert!(matches!(error, WriteError::Store(StoreError::ReadOnly { .. })), "{error}");
    assert_eq!(state(dir.path()), before);

    // The writer goes on; the reader's files stay.
    partial.write_run(0, &bytes).unwrap();
    writer.forget(&index.blob()).unwrap();
    assert_believes_truth(&seen, &bytes);
    assert!(self::reader(dir.path()).blob(&index.blob()).is_none());
}

#[test]
fn a_reader_reports_damage_and_leaves_it() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(1, MIB);
    let object = {
        let store = open_fast(dir.path());
        store.add_bytes(&bytes).unwrap();
        store.put_object(b"an object").unwrap()
    };
    let path = dir.path().join("blobs").join(index.blob().to_string());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"spoilt", index.entry(3).unwrap().offset).unwrap();
    fs::write(dir.path().join("objects").join(object.to_string()), b"spoilt").unwrap();
    let before = state(dir.path());
    let reader = reader(dir.path());
    let report = reader.verify(&|_| ()).unwrap();
    assert_eq!((report.damaged[0].bad, &report.damaged_objects[..]), (1, &[object][..]));
    let seen = reader.blob(&index.blob()).unwrap();
    assert!(!seen.is_complete() && !seen.have().has(3) && seen.have().count() + 1 == index.count());
    assert_eq!(state(dir.path()), before);
    // Cut off, it counts as far as it is right.
    file.set_len(index.entry(6).unwrap().offset).unwrap();
    assert_eq!(
        self::reader(dir.path()).blob(&index.blob()).unwrap().have().iter().collect::<Vec<_>>(),
        [0, 1, 2, 4, 5]
    );
}

#[test]
fn without_a_store_there_is_nothing_to_read_and_nothing_is_made() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_path_buf(), dir.path().join("none")] {
        let error = Store::open_reader(&path, fast()).unwrap_err();
        assert!(matches!(error, StoreError::NoStore { .. }), "{error}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    fs::write(dir.path().join("format"), "bootfabric store 9\n").unwrap();
    assert!(matches!(Store::open_reader(dir.path(), fast()), Err(StoreError::Format { .. })));
}

#[test]
fn readers_never_see_a_blob_in_between() {
    let dir = tempfile::tempdir().unwrap();
    drop(open_fast(dir.path()));
    let truths: Vec<_> = (0..BLOBS).map(|seed| blob(seed, LEN)).collect();
    let mut writer = child(&[], "child_changes_blobs_until_told_to_stop", dir.path());
    let deadline = Instant::now() + LONG;
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| {
                let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
                while seen.len() < 3 || seen.values().any(|&times| times < OFTEN) {
                    assert!(Instant::now() < deadline, "only seen {seen:?}");
                    let store = reader(dir.path());
                    for (bytes, index) in &truths {
                        let blob = store.blob(&index.blob());
                        let state = match &blob {
                            Some(blob) if blob.is_complete() => "complete",
                            Some(_) => "partial",
                            None => "absent",
                        };
                        *seen.entry(state).or_default() += 1;
                        if let Some(blob) = blob {
                            assert_believes_truth(&blob, bytes);
                        }
                    }
                }
            });
        }
    });
    // Its standard input ends.
    drop(writer.stdin.take());
    assert!(writer.wait().unwrap().success());
}

#[test]
#[ignore = "run as a child of readers_never_see_a_blob_in_between"]
fn child_changes_blobs_until_told_to_stop() {
    let Some(dir) = child_dir() else { return };
    let store = open_fast(&dir);
    let truths: Vec<_> = (0..BLOBS).map(|seed| blob(seed, LEN)).collect();
    let (stop, stopped) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // Until the parent closes it.
        let _ = std::io::stdin().read(&mut [0]);
        let _ = stop.send(());
    });
    let mut round = 0;
    while stopped.try_recv().is_err() {
        let (bytes, index) = &truths[round % truths.len()];
        round += 1;
        // From nothing over partial, with other chunks in each round, to complete, and away in two ways.
        let begun = store.begin(index.clone()).unwrap();
        for step in 0..index.count() {
            let chunk = (step * 7 + round as u32) % index.count();
            begun.write_run(chunk, run_bytes(bytes, index, chunk, 1)).unwrap();
            if round % 5 == 0 && step == index.count() / 2 {
                break;
            }
        }
        drop(begun);
        if round % 2 == 0 {
            store.forget(&index.blob()).unwrap();
        } else if round % 3 == 0 {
            // What was just added is not garbage before something has named it.
            store
                .pin(&Pin { name: "p".into(), item: Item::Blob(index.blob()), reason: String::new() })
                .unwrap();
            store.unpin("p").unwrap();
            store.gc().unwrap();
        }
    }
}
