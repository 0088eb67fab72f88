//! A filesystem that fills: a clear error with numbers, nothing verified lost, and on it goes when there is room again.
//!
//! Runs on a small tmpfs in a mount namespace of a child process.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod store_support;

use std::fs;
use std::io::Write;

use fabric::store::{Store, StoreError, StoreOptions, WriteError};
use nix::mount::{MsFlags, mount};
use store_support::{assert_claims_hold, blob, child, child_dir, finish, noise, open, own_mounts, run_bytes};

const MIB: usize = 1 << 20;

#[test]
fn a_full_filesystem_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let output = finish(child(own_mounts(), "child_fills_a_tmpfs", dir.path()));
    assert!(output.contains("tmpfs was full"), "the child did nothing: {output}");
}

#[test]
#[ignore = "run as a child of a_full_filesystem_loses_nothing, which gives it a mount namespace"]
fn child_fills_a_tmpfs() {
    let Some(dir) = child_dir() else { return };
    mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some("size=4m")).unwrap();
    let (big_bytes, big) = blob(50, 6 * MIB);
    // Who wants a little of a blob need not have room for all of it.
    let store = Store::open(&dir, StoreOptions { whole: false, ..StoreOptions::default() }).unwrap();
    store.begin(big.clone()).unwrap().write_run(0, run_bytes(&big_bytes, &big, 0, 1)).unwrap();
    store.forget(&big.blob()).unwrap();
    drop(store);
    let store = open(&dir);

    // What cannot fit is refused before anything is fetched or copied.
    let refused =
        [store.begin(big.clone()).unwrap_err(), store.add_file(&source(&big_bytes), &|_| ()).unwrap_err()];
    for error in refused {
        assert!(
            matches!(error, StoreError::Full { needed, available, .. } if needed == big.size() && available < 4 << 20),
            "{error}"
        );
    }
    assert!(store.blob(&big.blob()).is_none());

    // What would have fitted meets a filesystem that somebody else fills.
    let (bytes, index) = blob(51, 3 * MIB);
    let partial = store.begin(index.clone()).unwrap();
    partial.write_run(0, run_bytes(&bytes, &index, 0, 10)).unwrap();
    let filler = dir.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write(&[1; 4096]).is_ok() {}
    let error = partial.write_run(10, run_bytes(&bytes, &index, 10, 20)).unwrap_err();
    assert!(
        matches!(&error, WriteError::Store(error) if error.is_full()) && !error.blames_sender(),
        "{error}"
    );
    assert!(error.to_string().contains("is full"), "{error}");
    let object = noise(52, 5000);
    assert!(store.put_object(&object).unwrap_err().is_full());
    assert!(store.add_bytes(&noise(53, 100_000)).unwrap_err().is_full());
    assert!(store.space().unwrap().available < 4096);
    assert!(partial.have().count() >= 10);
    assert_claims_hold(&partial, &bytes);
    println!("tmpfs was full");

    // Still full for the next process, which loses nothing either.
    let held = partial.have().count();
    drop((store, partial));
    drop(file);
    fs::remove_file(&filler).unwrap();
    let store = open(&dir);
    let partial = store.begin(index).unwrap();
    assert_eq!(partial.have().count(), held);
    partial.write_run(0, &bytes).unwrap();
    assert!(partial.is_complete());
    assert_claims_hold(&partial, &bytes);
}

/// A file outside the tmpfs.
fn source(bytes: &[u8]) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("bootfabric-store-full-{}", std::process::id()));
    fs::write(&path, bytes).unwrap();
    path
}
