//! Heads, and the lock that keeps two processes apart.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod store_support;

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use fabric::id::{Hash, ObjectId};
use fabric::store::{LockMode, Store, StoreError, StoreOptions, WriteError};
use store_support::{assert_claims_hold, blob, child, child_dir, open, run_bytes};

/// Far longer than any hand-over takes: only a hang reaches it.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn heads_are_set_replaced_listed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = [b"1", b"2"].map(|bytes| ObjectId(Hash::of(bytes)));
    {
        let store = open(dir.path());
        assert_eq!(store.head("release-debian").unwrap(), None);
        store.set_head("release-debian", &one).unwrap();
        store.set_head("settings", &one).unwrap();
        store.set_head("settings", &two).unwrap();
    }
    let store = open(dir.path());
    assert_eq!(store.heads().unwrap(), [("release-debian".into(), one), ("settings".into(), two)]);
    assert!(store.remove_head("settings").unwrap() && !store.remove_head("settings").unwrap());
    assert_eq!(store.head("settings").unwrap(), None);
    for bad in ["", ".", "..", "../x", "a/b", "A", &"a".repeat(129)] {
        assert!(matches!(store.set_head(bad, &one), Err(StoreError::Name { .. })), "{bad}");
    }
}

#[test]
fn a_second_opener_is_told_who_has_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let error = Store::open(dir.path(), StoreOptions::default()).unwrap_err();
    let holder = format!("process {}", std::process::id());
    assert!(error.to_string().contains(&holder), "{error}");
    let soon = StoreOptions { lock: LockMode::Wait(Duration::from_millis(30)), ..Default::default() };
    assert!(matches!(Store::open(dir.path(), soon), Err(StoreError::Locked { .. })));
    // A clone or a blob keeps it.
    let blob = first.add_bytes(b"bytes").unwrap().blob;
    let blob = first.blob(&blob).unwrap();
    drop(first);
    assert!(Store::open(dir.path(), StoreOptions::default()).is_err());
    drop(blob);
    open(dir.path());
}

#[test]
fn the_next_process_takes_over_when_the_first_ends() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = child(&[], "child_holds_the_store", dir.path());
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("holding")));
    let error = Store::open(dir.path(), StoreOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Locked { holder: Some(pid), .. } if pid == first.id()), "{error}");
    std::thread::scope(|threads| {
        let wait = StoreOptions { lock: LockMode::Wait(LONG), ..Default::default() };
        let next = threads.spawn(move || Store::open(dir.path(), wait).map(|store| store.heads().unwrap()));
        first.kill().unwrap();
        assert_eq!(next.join().unwrap().unwrap(), [("held".into(), ObjectId(Hash::of(b"held")))]);
    });
    first.wait().unwrap();
}

#[test]
#[ignore = "run as a child of the_next_process_takes_over_when_the_first_ends"]
fn child_holds_the_store() {
    let Some(dir) = child_dir() else { return };
    let store = open(&dir);
    store.set_head("held", &ObjectId(Hash::of(b"held"))).unwrap();
    println!("holding");
    std::io::stdout().flush().unwrap();
    std::thread::park_timeout(LONG);
}

#[test]
fn after_handing_over_a_store_only_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(1, 1 << 20);
    let old = open(dir.path());
    let complete = old.add_bytes(b"complete").unwrap();
    let partial = old.begin(index.clone()).unwrap();
    partial.write_run(0, run_bytes(&bytes, &index, 0, 3)).unwrap();
    old.release_lock();

    let new = open(dir.path());
    let taken = new.blob(&index.blob()).unwrap();
    assert_eq!(taken.have().count(), 3);
    let refused = [
        old.put_object(b"late").unwrap_err(),
        old.set_head("late", &index.object_id()).unwrap_err(),
        old.add_bytes(b"late").unwrap_err(),
        old.forget(&complete.blob).unwrap_err(),
        old.begin(blob(2, 100).1).unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, StoreError::HandedOver { .. }), "{error}");
    }
    let error = partial.write_run(3, run_bytes(&bytes, &index, 3, 1)).unwrap_err();
    assert!(matches!(error, WriteError::Store(StoreError::HandedOver { .. })), "{error}");
    assert!(old.blob(&complete.blob).unwrap().holds(0..8) && partial.holds(0..1000));
    assert_eq!(old.head("late").unwrap(), None);

    taken.write_run(0, &bytes).unwrap();
    assert_claims_hold(&taken, &bytes);
    // The old one neither harms what the new one holds, nor its lock.
    drop((old, partial));
    assert!(Store::open(dir.path(), StoreOptions::default()).is_err());
    assert!(new.verify(&|_| ()).unwrap().is_clean());
}
