//! Damage to the store's files, by the device or by hand: found, named, repaired by fetching what is bad and no more.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod store_support;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use fabric::id::{Hash, ObjectId};
use fabric::store::StoreError;
use store_support::{assert_claims_hold, blob, open, run_bytes};

const MIB: usize = 1 << 20;

/// Changes one byte of a file, whatever its mode.
fn spoil(path: &Path, offset: u64) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], offset).unwrap();
}

#[test]
fn verify_turns_a_damaged_blob_into_a_partial_one_that_can_be_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(1, 2 * MIB);
    let store = open(dir.path());
    store.add_bytes(&bytes).unwrap();
    let blob = store.blob(&index.blob()).unwrap();
    assert!(store.verify(&|_| ()).unwrap().is_clean());
    spoil(blob.path(), index.entry(7).unwrap().offset);
    let report = store.verify(&|_| ()).unwrap();
    assert_eq!((report.damaged[0].bad, report.damaged[0].held), (1, index.count()));
    let words = report.damaged[0].to_string();
    assert!(words.contains(&index.blob().to_string()) && words.contains("fetch the blob again"), "{words}");
    assert!(!blob.is_complete() && !blob.have().has(7) && blob.have().count() == index.count() - 1);
    assert_claims_hold(&blob, &bytes);
    // It is partial for the next process too.
    drop((blob, store));
    let store = open(dir.path());
    let blob = store.begin(index.clone()).unwrap();
    assert_eq!(blob.have().count(), index.count() - 1);
    blob.write_run(7, run_bytes(&bytes, &index, 7, 1)).unwrap();
    assert_claims_hold(&blob, &bytes);
    assert!(blob.is_complete() && store.verify(&|_| ()).unwrap().is_clean());
}

#[test]
fn journaled_chunks_whose_bytes_were_lost_are_not_held() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(2, 2 * MIB);
    let path = {
        let blob = open(dir.path()).begin(index.clone()).unwrap();
        blob.write_run(0, run_bytes(&bytes, &index, 0, 20)).unwrap();
        blob.path().to_path_buf()
    };
    // As after power loss: the journal reached the device, some bytes did not.
    let file = fs::File::options().write(true).open(&path).unwrap();
    let lost = index.entry(5).unwrap();
    file.write_all_at(&vec![0; lost.len as usize], lost.offset).unwrap();
    let blob = open(dir.path()).blob(&index.blob()).unwrap();
    assert!(!blob.have().has(5) && blob.have().count() == 19);
    assert_claims_hold(&blob, &bytes);
}

#[test]
fn a_journal_of_garbage_admits_nothing_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(3, MIB);
    let path = {
        let blob = open(dir.path()).begin(index.clone()).unwrap();
        blob.write_run(3, run_bytes(&bytes, &index, 3, 2)).unwrap();
        blob.path().with_extension("have")
    };
    for garbage in [&[0xff; 4001][..], &[0; 800], &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], b"", b"abc"] {
        fs::write(&path, garbage).unwrap();
        let blob = open(dir.path()).blob(&index.blob()).unwrap();
        assert!(blob.have().count() <= 2);
        assert_claims_hold(&blob, &bytes);
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(open(dir.path()).blob(&index.blob()).unwrap().have().count(), 0);
}

#[test]
fn a_truncated_complete_blob_keeps_its_good_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(4, MIB);
    let path = {
        let store = open(dir.path());
        store.add_bytes(&bytes).unwrap();
        store.blob(&index.blob()).unwrap().path().to_path_buf()
    };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let cut = index.entry(4).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(cut.offset + 1).unwrap();
    let blob = open(dir.path()).blob(&index.blob()).unwrap();
    assert_eq!((blob.have().count(), blob.is_complete()), (4, false));
    assert_claims_hold(&blob, &bytes);
}

#[test]
fn a_lost_index_costs_no_chunk() {
    for lose in ["objects", "indexes"] {
        let dir = tempfile::tempdir().unwrap();
        let (bytes, index) = blob(5, MIB);
        open(dir.path()).add_bytes(&bytes).unwrap();
        let lost = fs::read_dir(dir.path().join(lose)).unwrap().next().unwrap().unwrap();
        fs::write(lost.path(), b"damaged").unwrap();
        let store = open(dir.path());
        assert!(store.blob(&index.blob()).is_none());
        let blob = store.begin(index).unwrap();
        assert!(blob.is_complete(), "{lose}");
        assert_claims_hold(&blob, &bytes);
    }
}

#[test]
fn damaged_objects_are_removed_and_may_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = store.put_object(b"a signed release").unwrap();
    assert_eq!(store.object(&id).unwrap(), &b"a signed release"[..]);
    let path = dir.path().join("objects").join(id.to_string());
    spoil(&path, 3);
    assert_eq!((store.object(&id), path.exists()), (None, false));
    store.put_object(b"a signed release").unwrap();
    spoil(&path, 0);
    assert_eq!(store.verify(&|_| ()).unwrap().damaged_objects, [id]);
    assert_eq!(store.object(&ObjectId(Hash::of(b"other"))), None);
}

#[test]
fn the_index_of_a_blob_survives_damage_to_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(6, MIB);
    let store = open(dir.path());
    store.add_bytes(&bytes).unwrap();
    spoil(&dir.path().join("objects").join(index.object_id().to_string()), 60);
    let report = store.verify(&|_| ()).unwrap();
    assert_eq!(report.damaged_objects, [index.object_id()]);
    assert_eq!(store.object(&index.object_id()).unwrap(), index.encode());
}

#[test]
fn damaged_heads_and_foreign_formats_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let id = ObjectId(Hash::of(b"release"));
    store.set_head("release", &id).unwrap();
    for garbage in [&b"garbage"[..], b"\xff\xfe", b""] {
        fs::write(dir.path().join("heads/release"), garbage).unwrap();
        let error = store.head("release").unwrap_err();
        assert!(
            matches!(&error, StoreError::Damaged { path, .. } if path.ends_with("heads/release")),
            "{error}"
        );
    }
    drop(store);
    fs::write(dir.path().join("format"), "bootfabric store 9\n").unwrap();
    let error = fabric::store::Store::open(dir.path(), Default::default()).unwrap_err();
    assert!(error.to_string().contains("`bootfabric store 9`"), "{error}");
}
