//! Blobs whose content lies in files of their owner: lent to be served in place, or released out of the store.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod store_support;

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fabric::store::{Blob, Store, StoreError};
use nix::mount::{MsFlags, mount};
use store_support::{blob, child, child_dir, finish, noise, open, own_mounts, run_bytes};

const MIB: usize = 1 << 20;

fn assert_serves(blob: &Blob, bytes: &[u8]) {
    assert!(blob.is_complete() && blob.is_lent() && blob.holds(0..bytes.len() as u64));
    let mut read = vec![0; bytes.len()];
    blob.file().read_exact_at(&mut read, 0).unwrap();
    assert!(read == bytes);
}

/// All files of a store but those that every store has.
fn files(store: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(store).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else if entry.file_name() != "lock" && entry.file_name() != "format" {
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn a_lent_file_is_served_where_it_is_and_never_touched() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(1, 3 * MIB);
    let (file, home) = (dir.path().join("movie"), dir.path().join("store"));
    fs::write(&file, &bytes).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let inode = fs::metadata(&file).unwrap().ino();
    let untouched = || {
        let metadata = fs::metadata(&file).unwrap();
        (metadata.ino(), metadata.mode() & 0o777) == (inode, 0o640) && fs::read(&file).unwrap() == bytes
    };

    let store = open(&home);
    assert_eq!(store.lend_file(&file, &|_| ()).unwrap(), index.reference());
    assert_eq!(store.lend_file(&file, &|_| ()).unwrap(), index.reference());
    let lent = store.blob(&index.blob()).unwrap();
    assert_serves(&lent, &bytes);
    assert_eq!((lent.path(), store.blobs()[0].lent), (&*file, true));
    // Others can have its index from here, although nothing of it is on disk.
    assert_eq!(store.object(&index.object_id()).unwrap(), index.encode());
    assert_eq!(files(&home), [] as [PathBuf; 0]);
    assert!(store.verify(&|_| ()).unwrap().is_clean() && untouched());
    assert!(store.begin(index.clone()).unwrap().is_complete());
    assert!(store.forget(&index.blob()).unwrap() && untouched());
    assert!(store.object(&index.object_id()).is_none());

    // The next process has nothing of it.
    store.lend_file(&file, &|_| ()).unwrap();
    drop((store, lent));
    let store = open(&home);
    assert!(store.blobs().is_empty() && untouched());
    // Imported, it is the store's own.
    store.lend_file(&file, &|_| ()).unwrap();
    store.add_file(&file, &|_| ()).unwrap();
    let own = store.blob(&index.blob()).unwrap();
    assert!(!own.is_lent() && own.path().starts_with(&home) && untouched());
}

#[test]
fn a_lent_file_that_changes_is_found_and_served_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(2, MIB);
    let file = dir.path().join("file");
    fs::write(&file, &bytes).unwrap();
    let store = open(&dir.path().join("store"));
    store.lend_file(&file, &|_| ()).unwrap();
    let lent = store.blob(&index.blob()).unwrap();
    let changed = fs::File::options().write(true).open(&file).unwrap();
    changed.write_all_at(b"other", index.entry(3).unwrap().offset).unwrap();
    let report = store.verify(&|_| ()).unwrap();
    assert_eq!((report.damaged[0].bad, report.damaged[0].lent), (1, true));
    assert!(report.damaged[0].to_string().contains("serve it anew"), "{}", report.damaged[0]);
    assert!(!lent.is_complete() && !lent.have().has(3) && lent.have().has(2));
    assert!(lent.write_run(3, run_bytes(&bytes, &index, 3, 1)).is_err(), "it is not the store's to write");
    assert!(store.blob(&index.blob()).is_none());
    // It can be fetched into the store.
    store.begin(index.clone()).unwrap().write_run(0, &bytes).unwrap();
    assert!(store.blob(&index.blob()).unwrap().is_complete());
    assert_eq!(fs::read(&file).unwrap().len(), bytes.len());
}

#[test]
fn lending_completes_what_is_being_fetched_and_refuses_what_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(3, MIB);
    let file = dir.path().join("file");
    fs::write(&file, &bytes).unwrap();
    let store = open(&dir.path().join("store"));
    let fetched = store.begin(index.clone()).unwrap();
    assert_eq!(store.lend_file(&file, &|_| ()).unwrap(), index.reference());
    assert!(fetched.is_complete() && !fetched.is_lent());
    let error = store.lend_file(dir.path(), &|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::NotAFile { .. }), "{error}");
    assert!(store.lend_file(&dir.path().join("none"), &|_| ()).is_err());
}

/// Fetches a blob, releases it to `to` and looks at both.
fn release(store: &Store, seed: u64, to: &Path) -> u64 {
    let (bytes, index) = blob(seed, 2 * MIB);
    let fetched = store.begin(index.clone()).unwrap();
    fetched.write_run(0, run_bytes(&bytes, &index, 0, 3)).unwrap();
    let error = store.release_file(&index.blob(), to).unwrap_err();
    assert!(matches!(error, StoreError::Incomplete { .. }), "{error}");
    fetched.write_run(3, run_bytes(&bytes, &index, 3, index.count() - 3)).unwrap();
    store.release_file(&index.blob(), to).unwrap();
    assert_eq!(fs::read(to).unwrap(), bytes);
    // As a file that anybody makes, under the umask of this process.
    let plain = to.with_extension("plain");
    fs::write(&plain, b"").unwrap();
    assert_eq!(fs::metadata(to).unwrap().mode() & 0o777, fs::metadata(&plain).unwrap().mode() & 0o644);
    fs::remove_file(plain).unwrap();
    assert_eq!(fs::read_dir(to.parent().unwrap()).unwrap().count(), 1, "something was left beside it");
    assert_serves(&store.blob(&index.blob()).unwrap(), &bytes);
    assert_serves(&fetched, &bytes);
    assert_eq!(fetched.path(), to);
    assert_eq!(store.object(&index.object_id()).unwrap(), index.encode());
    assert_eq!(files(store.path()), [] as [PathBuf; 0]);
    fetched.file().metadata().unwrap().ino()
}

#[test]
fn a_released_file_is_moved_and_still_served() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let to = dir.path().join("out/file");
    fs::create_dir(to.parent().unwrap()).unwrap();
    fs::write(&to, b"what was there before").unwrap();
    let inode = release(&store, 4, &to);
    assert_eq!(fs::metadata(&to).unwrap().ino(), inode, "it was copied");
    // Released again, it is copied: the first is no longer the store's.
    let again = dir.path().join("again");
    store.release_file(&blob(4, 2 * MIB).1.blob(), &again).unwrap();
    assert!(to.exists() && fs::metadata(&again).unwrap().ino() != inode);
    drop(store);
    assert!(open(&dir.path().join("store")).blobs().is_empty());
}

#[test]
fn a_file_that_cannot_be_released_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("store"));
    let id = store.add_bytes(&noise(5, MIB)).unwrap().blob;
    fs::create_dir_all(dir.path().join("full/of")).unwrap();
    for to in ["none/file", "full"] {
        assert!(store.release_file(&id, &dir.path().join(to)).is_err(), "{to}");
        let kept = store.blob(&id).unwrap();
        assert!(kept.is_complete() && !kept.is_lent() && kept.path().exists());
        assert_eq!(fs::metadata(kept.path()).unwrap().mode() & 0o777, 0o444);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    drop(store);
    assert!(open(&dir.path().join("store")).blob(&id).unwrap().is_complete());
}

#[test]
fn a_file_is_released_to_another_filesystem() {
    let dir = tempfile::tempdir().unwrap();
    let output = finish(child(own_mounts(), "child_releases_to_a_tmpfs", dir.path()));
    assert!(output.contains("released"), "the child did nothing: {output}");
}

#[test]
#[ignore = "run as a child of a_file_is_released_to_another_filesystem, which gives it a mount namespace"]
fn child_releases_to_a_tmpfs() {
    let Some(dir) = child_dir() else { return };
    let (home, out) = (dir.join("store"), dir.join("out"));
    fs::create_dir(&out).unwrap();
    mount(Some("tmpfs"), &out, Some("tmpfs"), MsFlags::empty(), Some("size=8m")).unwrap();
    release(&open(&home), 6, &out.join("file"));
    println!("released");
}
