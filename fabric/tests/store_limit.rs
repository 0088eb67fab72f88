//! The size limit: what would exceed it sweeps garbage first, then fails with figures.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod store_support;

use std::fs;

use fabric::exchange::{Exchange, ExchangeConfig, FetchError, Priority};
use fabric::id::{Hash, ObjectId};
use fabric::store::{Item, Pin, Store, StoreError, StoreOptions};
use store_support::{assert_claims_hold, blob, fast, noise, open_fast, run_bytes};

const MIB: usize = 1 << 20;
const LIMIT: u64 = 5 * MIB as u64 / 2;

fn figures(error: &StoreError) -> (u64, u64, u64) {
    let StoreError::Limit { limit, used, needed, .. } = error else { unreachable!("{error}") };
    assert!(error.to_string().contains("raise the limit") && error.is_full(), "{error}");
    (*limit, *used, *needed)
}

#[test]
fn what_exceeds_the_limit_is_refused_before_it_is_fetched_or_copied() {
    let dir = tempfile::tempdir().unwrap();
    let (home, file) = (dir.path().join("store"), dir.path().join("file"));
    let store = open_fast(&home);
    store.set_limit(Some(LIMIT)).unwrap();
    store.add_bytes(&noise(1, MIB)).unwrap();
    let used = store.used().unwrap();
    assert!(used > MIB as u64 && used < LIMIT);
    let (bytes, index) = blob(2, 2 * MIB);
    fs::write(&file, &bytes).unwrap();
    let index_bytes = index.encode().len() as u64;
    let needed = index.size() + index_bytes;
    assert_eq!(figures(&store.begin(index.clone()).unwrap_err()), (LIMIT, used, needed));
    assert_eq!(figures(&store.add_bytes(&bytes).unwrap_err()), (LIMIT, used, needed));
    assert_eq!(figures(&store.adopt_file(&file, &|_| ()).unwrap_err()), (LIMIT, used, needed));
    let read = std::cell::Cell::new(0);
    assert_eq!(
        figures(&store.add_file(&file, &|bytes| read.set(bytes)).unwrap_err()),
        (LIMIT, used, index.size())
    );
    assert_eq!(read.get(), 0);
    assert_eq!(fs::read(&file).unwrap(), bytes, "the file that was not adopted is where it was");
    assert_eq!((store.blobs().len(), fs::read_dir(home.join("tmp")).unwrap().count()), (1, 0));
    // Lending costs nothing.
    store.lend_file(&file, &|_| ()).unwrap();
    assert_eq!(store.used().unwrap(), used);
    store.forget(&index.blob()).unwrap();

    // A partial blob counts as a whole, so that it never ends halfway.
    let (bytes, index) = blob(3, MIB);
    let partial = store.begin(index.clone()).unwrap();
    assert!(store.used().unwrap() >= used + index.size());
    assert!(store.begin(blob(4, MIB).1).is_err());
    store.set_limit(Some(1)).unwrap();
    partial.write_run(0, &bytes).unwrap();
    assert!(partial.is_complete() && store.begin(index).is_ok());
    assert_eq!(store.add_bytes(&bytes).unwrap(), partial.reference(), "what is here needs no room");
    assert_claims_hold(&partial, &bytes);
}

#[test]
fn garbage_makes_room_and_what_is_named_does_not() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open_fast(dir.path());
        let kept = store.add_bytes(&noise(1, MIB)).unwrap();
        store.pin(&Pin { name: "kept".into(), item: Item::Blob(kept.blob), reason: String::new() }).unwrap();
        store.add_bytes(&noise(2, MIB)).unwrap();
        let (bytes, index) = blob(3, MIB);
        store.begin(index.clone()).unwrap().write_run(0, run_bytes(&bytes, &index, 0, 1)).unwrap();
        store.set_limit(Some(LIMIT)).unwrap();
    }
    let store = open_fast(dir.path());
    assert_eq!(store.limit(), Some(LIMIT));
    // Sweeping would not help: nothing is swept for it.
    let (limit, used, _) = figures(&store.begin(blob(4, 2 * MIB).1).unwrap_err());
    assert!(limit == LIMIT && used < 2 * MIB as u64, "garbage is not in use: {used}");
    assert_eq!(store.blobs().len(), 3);
    store.begin(blob(5, MIB).1).unwrap();
    let mut left: Vec<_> = store.blobs().iter().map(|info| info.reference.blob).collect();
    left.sort_unstable();
    let mut expected = [1, 5].map(|seed| blob(seed, MIB).1.blob());
    expected.sort_unstable();
    assert_eq!(left, expected);
    // While something cannot be read there is no garbage, and that is said.
    store.set_head("lost", &ObjectId(Hash::of(b"lost"))).unwrap();
    let error = store.begin(blob(6, MIB).1).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(figures(&error).0 == LIMIT && source.contains("head `lost`"), "{source}");
    // Without a limit nothing is in the way.
    store.set_limit(None).unwrap();
    assert_eq!(store.limit(), None);
    store.begin(blob(6, MIB).1).unwrap();
}

#[test]
fn a_file_whose_index_is_lost_is_not_swept_when_its_index_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (_, index) = blob(1, MIB);
    open_fast(dir.path()).add_bytes(&noise(1, MIB)).unwrap();
    fs::remove_file(dir.path().join("indexes").join(index.blob().to_string())).unwrap();
    let store = open_fast(dir.path());
    store.set_limit(Some(index.size() + 50_000)).unwrap();
    assert!(store.begin(index).unwrap().is_complete());
}

#[test]
fn the_smaller_of_two_limits_holds_and_a_damaged_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let with = |limit| Store::open(dir.path(), StoreOptions { limit, ..fast() });
    with(None).unwrap().set_limit(Some(100)).unwrap();
    assert_eq!(with(Some(10)).unwrap().limit(), Some(10));
    assert_eq!(with(Some(1000)).unwrap().limit(), Some(100));
    for garbage in ["", "lots", "-1", "99999999999999999999999"] {
        fs::write(dir.path().join("limit"), garbage).unwrap();
        let error = with(None).unwrap_err();
        assert!(matches!(&error, StoreError::Damaged { path, .. } if path.ends_with("limit")), "{error}");
    }
}

#[tokio::test]
async fn a_fetch_sweeps_what_is_served_for_nobody_and_says_when_there_is_no_room() {
    let dir = tempfile::tempdir().unwrap();
    open_fast(dir.path()).add_bytes(&noise(1, 2 * MIB)).unwrap();
    let store = open_fast(dir.path());
    store.set_limit(Some(LIMIT)).unwrap();
    let (exchange, _messages) = Exchange::start(store.clone(), ExchangeConfig { seed: 1 });
    assert!(exchange.seed(&blob(1, 2 * MIB).1.blob()).await.unwrap());
    let (_, index) = blob(2, MIB);
    let fetch = exchange.fetch(index.clone(), Priority::Root).await.unwrap();
    // What was swept is no longer served: its file is let go of.
    let known = exchange.report().await.unwrap().blobs;
    assert_eq!(known.iter().map(|blob| blob.blob).collect::<Vec<_>>(), [index.blob()]);
    let error = exchange.fetch(blob(3, 2 * MIB).1, Priority::Root).await.unwrap_err();
    let FetchError::Store(error) = error else { panic!("{error}") };
    assert_eq!(figures(&error).0, LIMIT);
    assert!(!fetch.blob().is_forgotten(), "what is being fetched is kept");
}
