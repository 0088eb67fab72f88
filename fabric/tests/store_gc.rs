//! Pins and garbage: what is kept, what goes, and what is told about it.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod store_support;

use std::fs;
use std::os::unix::fs::FileExt;

use fabric::id::{BlobId, Hash, ObjectId};
use fabric::store::{Item, Pin, REMOVED, Root, Store, StoreError};
use store_support::{assert_claims_hold, blob, fast, naming, noise, open_fast, run_bytes};

const MIB: usize = 1 << 20;

fn pin(name: &str, item: Item) -> Pin {
    Pin { name: name.into(), item, reason: String::new() }
}

/// Adds blobs of these seeds and an object that names them.
fn image(store: &Store, label: &str, seeds: &[u64]) -> ObjectId {
    let blobs: Vec<_> = seeds.iter().map(|&seed| store.add_bytes(&noise(seed, 100_000)).unwrap()).collect();
    store.put_object(&naming(label, &blobs)).unwrap()
}

fn id(seed: u64) -> BlobId {
    blob(seed, 100_000).1.blob()
}

fn blobs(store: &Store) -> Vec<BlobId> {
    store.blobs().iter().map(|info| info.reference.blob).collect()
}

fn sorted<const N: usize>(seeds: [u64; N]) -> Vec<BlobId> {
    let mut ids = seeds.map(id).to_vec();
    ids.sort_unstable();
    ids
}

#[test]
fn what_heads_and_pins_lead_to_is_kept_and_the_reasons_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_fast(dir.path());
    let (one, two, old) =
        (image(&store, "one", &[1, 2]), image(&store, "two", &[2, 3]), image(&store, "old", &[4]));
    image(&store, "nobody's", &[5]);
    store.add_bytes(&noise(6, 100_000)).unwrap();
    store.set_head("release.one", &one).unwrap();
    store.pin(&Pin { reason: "for the audit".into(), ..pin("audit", Item::Object(two)) }).unwrap();
    store.pin(&pin("six", Item::Blob(id(6)))).unwrap();
    store.set_head(&format!("{REMOVED}old"), &old).unwrap();
    drop(store);

    let store = open_fast(dir.path());
    let plan = store.garbage().unwrap();
    assert_eq!(blobs(&store).len(), 6, "a plan changes nothing");
    assert_eq!(store.gc().unwrap(), plan);
    assert_eq!(blobs(&store), sorted([1, 2, 3, 6]));
    let why = |item| &plan.kept.iter().find(|kept| kept.item == item).unwrap().why;
    let (head, audit) = (Root::Head("release.one".into()), Root::Pin("audit".into()));
    assert_eq!(why(Item::Blob(id(1))), std::slice::from_ref(&head));
    assert_eq!(why(Item::Blob(id(2))), &[head, audit.clone()]);
    assert_eq!(why(Item::Object(blob(3, 100_000).1.object_id())), &[audit]);
    assert!(store.object(&old).is_some(), "the trace of a removed image stays");
    assert!(plan.freed_blobs().eq(sorted([4, 5])), "{:?}", plan.freed);
    // Two blobs, their indexes, the object that named one of them.
    assert_eq!(plan.freed.len(), 5);
    assert!(plan.freed_bytes > 200_000 && plan.kept_bytes > 400_000);
    assert!(store.verify(&|_| ()).unwrap().is_clean());
    // Again there is nothing to do.
    assert_eq!((store.gc().unwrap().freed, store.garbage().unwrap().kept_bytes), (vec![], plan.kept_bytes));

    assert!(store.unpin("audit").unwrap() && !store.unpin("audit").unwrap());
    assert!(store.remove_head("release.one").unwrap());
    store.gc().unwrap();
    assert_eq!(blobs(&store), sorted([6]));
    assert_eq!(store.pins().unwrap(), [pin("six", Item::Blob(id(6)))]);
}

#[test]
fn what_this_process_adds_waits_for_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open_fast(dir.path());
    let one = image(&store, "one", &[1]);
    let (bytes, index) = blob(2, MIB);
    store.put_object(&index.encode()).unwrap();
    let fetched = store.begin(index.clone()).unwrap();
    fetched.write_run(0, run_bytes(&bytes, &index, 0, 3)).unwrap();
    assert_eq!(store.gc().unwrap().freed, []);
    // Named once, it is kept by that name alone.
    store.set_head("one", &one).unwrap();
    store.set_head("one", &image(&store, "two", &[3])).unwrap();
    let report = store.gc().unwrap();
    assert!(report.freed_blobs().eq([id(1)]), "{report:?}");
    let two = store.put_object(&naming("fetched", &[index.reference()])).unwrap();
    store.pin(&pin("fetched", Item::Object(two))).unwrap();
    store.unpin("fetched").unwrap();
    // Nothing leads to it, but somebody is writing.
    let report = store.gc().unwrap();
    let why = &report.kept.iter().find(|kept| kept.item == Item::Blob(index.blob())).unwrap().why;
    assert_eq!(why, &[Root::Fetched]);
    assert!(store.object(&index.object_id()).is_some() && store.object(&two).is_none());
    fetched.write_run(3, run_bytes(&bytes, &index, 3, 1)).unwrap();
    assert_claims_hold(&fetched, &bytes);
    drop(fetched);
    assert!(store.gc().unwrap().freed_blobs().eq([index.blob()]));
    assert_eq!(fs::read_dir(dir.path().join("partial")).unwrap().count(), 0);
}

#[test]
fn a_collected_blob_stays_readable_for_those_who_have_it() {
    let dir = tempfile::tempdir().unwrap();
    open_fast(dir.path()).add_bytes(&noise(1, MIB)).unwrap();
    let store = open_fast(dir.path());
    let (bytes, index) = blob(1, MIB);
    let serving = store.blob(&index.blob()).unwrap();
    assert!(store.gc().unwrap().freed_blobs().eq([index.blob()]));
    assert!(serving.is_forgotten() && store.blob(&index.blob()).is_none() && !serving.path().exists());
    let mut read = vec![0; bytes.len()];
    serving.file().read_exact_at(&mut read, 0).unwrap();
    assert!(read == bytes);
}

#[test]
fn files_without_an_index_go_unless_something_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let image = {
        let store = open_fast(dir.path());
        let image = image(&store, "image", &[1, 2]);
        store.set_head("image", &image).unwrap();
        store.add_bytes(&noise(3, 100_000)).unwrap();
        image
    };
    for seed in [1, 3] {
        fs::remove_file(dir.path().join("indexes").join(id(seed).to_string())).unwrap();
    }
    fs::write(dir.path().join("partial").join(format!("{}.have", id(4))), b"left over").unwrap();
    let store = open_fast(dir.path());
    let freed: Vec<_> = store.gc().unwrap().freed_blobs().collect();
    assert_eq!(freed, sorted([3, 4]));
    assert!(dir.path().join("blobs").join(id(1).to_string()).exists(), "the image names it");
    assert!(store.begin(blob(1, 100_000).1).unwrap().is_complete());
    assert_eq!(store.head("image").unwrap(), Some(image));
}

#[test]
fn nothing_goes_while_a_root_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let strange = {
        let store = open_fast(dir.path());
        image(&store, "nobody's", &[1]);
        store.put_object(b"an object of a later version").unwrap()
    };
    let store = open_fast(dir.path());
    let absent = ObjectId(Hash::of(b"absent"));
    for (object, why) in [(absent, "is not in the store"), (strange, "cannot be told")] {
        store.set_head("release", &object).unwrap();
        for error in [store.gc().unwrap_err(), store.garbage().unwrap_err()] {
            assert!(matches!(error, StoreError::CannotCollect { .. }), "{error}");
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(
                error.to_string().contains("head `release`") && source.contains(why),
                "{error}: {source}"
            );
        }
        let error = store.pin(&pin("p", Item::Object(object))).unwrap_err();
        assert!(matches!(error, StoreError::NotHere { .. } | StoreError::Unreadable { .. }), "{error}");
    }
    assert_eq!(blobs(&store), sorted([1]));
    store.remove_head("release").unwrap();
    store.gc().unwrap();
    assert_eq!((blobs(&store), store.objects().unwrap()), (vec![], vec![]));
}

#[test]
fn pins_are_checked_listed_and_survive() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two] = [1, 2].map(|seed| Item::Blob(id(seed)));
    let kept = Pin { reason: "Käthe’s exam, until May".into(), ..pin("exam", one) };
    {
        let store = open_fast(dir.path());
        store.add_bytes(&noise(1, 100_000)).unwrap();
        store.pin(&pin("exam", one)).unwrap();
        store.pin(&kept).unwrap();
        assert!(
            matches!(store.pin(&pin("exam", two)), Err(StoreError::PinExists { item, .. }) if item == one)
        );
        assert!(matches!(store.pin(&pin("two", two)), Err(StoreError::NotHere { .. })));
        assert!(matches!(store.pin(&pin("../two", one)), Err(StoreError::Name { what: "pin", .. })));
        for reason in ["two\nlines".to_owned(), "long".repeat(51)] {
            let error = store.pin(&Pin { reason, ..pin("two", one) }).unwrap_err();
            assert!(matches!(error, StoreError::Reason { .. }), "{error}");
        }
        // An index is an object that names its blob.
        let index = store.add_bytes(&noise(3, 100_000)).unwrap().index;
        store.pin(&pin("index", Item::Object(index))).unwrap();
    }
    let store = Store::open(dir.path(), fast()).unwrap();
    assert_eq!(store.pins().unwrap()[0], kept);
    assert_eq!(store.gc().unwrap().freed, []);
    fs::write(dir.path().join("pins/exam"), "blob of clay\n").unwrap();
    let error = store.gc().unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { path, .. } if path.ends_with("pins/exam")), "{error}");
    assert!(store.unpin("exam").unwrap());
    assert!(store.gc().unwrap().freed_blobs().eq([id(1)]));
    // A store of before there were pins.
    drop(store);
    fs::remove_dir_all(dir.path().join("pins")).unwrap();
    assert_eq!(Store::open_reader(dir.path(), fast()).unwrap().pins().unwrap(), []);
}
