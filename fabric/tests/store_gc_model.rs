//! Collecting garbage against a slow, obvious oracle: whatever happens before, what is left is what the oracle reaches.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod store_support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fabric::content::BlobIndex;
use fabric::id::{BlobId, Hash, ObjectId};
use fabric::store::{Blob, Item, Pin, REMOVED, Store, StoreError};
use proptest::collection::vec;
use proptest::prelude::*;
use store_support::{assert_claims_hold, blob, naming, open_fast, run_bytes};

/// Blobs there are; objects name any set of them.
const BLOBS: usize = 5;
const LEN: usize = 150_000;

#[derive(Debug, Clone, Copy)]
enum Op {
    /// Import a blob.
    Add(usize),
    /// Begin a blob and write its first chunk; somebody may go on holding it.
    Begin(usize, bool),
    /// Whoever holds blobs lets go of them.
    LetGo,
    /// Keep an object that names a set of blobs, or the index of a blob.
    Put(u8),
    PutIndex(usize),
    Forget(usize),
    Head(u8, u8),
    RemovedHead(u8),
    Unhead(u8),
    PinBlob(u8, usize),
    PinObject(u8, u8),
    PinIndex(u8, usize),
    Unpin(u8),
    Reopen,
    Collect,
}

fn op() -> impl Strategy<Value = Op> {
    let (one, set, name) = (0..BLOBS, 0u8..1 << BLOBS, 0u8..3);
    prop_oneof![
        4 => one.clone().prop_map(Op::Add),
        3 => (one.clone(), any::<bool>()).prop_map(|(blob, hold)| Op::Begin(blob, hold)),
        1 => Just(Op::LetGo),
        4 => set.clone().prop_map(Op::Put),
        1 => one.clone().prop_map(Op::PutIndex),
        1 => one.clone().prop_map(Op::Forget),
        3 => (name.clone(), set.clone()).prop_map(|(name, set)| Op::Head(name, set)),
        1 => set.clone().prop_map(Op::RemovedHead),
        2 => name.clone().prop_map(Op::Unhead),
        2 => (name.clone(), one.clone()).prop_map(|(name, blob)| Op::PinBlob(name, blob)),
        2 => (name.clone(), set).prop_map(|(name, set)| Op::PinObject(name, set)),
        1 => (name.clone(), one).prop_map(|(name, blob)| Op::PinIndex(name, blob)),
        2 => name.prop_map(Op::Unpin),
        2 => Just(Op::Reopen),
        5 => Just(Op::Collect),
    ]
}

/// What the blobs and objects are.
struct World {
    blobs: Vec<(Vec<u8>, BlobIndex)>,
}

impl World {
    fn object(&self, set: u8) -> Vec<u8> {
        let named = (0..BLOBS).filter(|blob| set >> blob & 1 == 1).map(|blob| self.blobs[blob].1.reference());
        naming("set", &named.collect::<Vec<_>>())
    }

    fn object_id(&self, set: u8) -> ObjectId {
        ObjectId(Hash::of(&self.object(set)))
    }

    fn blob(&self, blob: usize) -> BlobId {
        self.blobs[blob].1.blob()
    }

    fn index(&self, blob: usize) -> ObjectId {
        self.blobs[blob].1.object_id()
    }

    /// All that an item names.
    fn names(&self, item: Item) -> BTreeSet<Item> {
        let mut named = BTreeSet::new();
        for set in (0u8..1 << BLOBS).filter(|&set| item == Item::Object(self.object_id(set))) {
            for blob in (0..BLOBS).filter(|blob| set >> blob & 1 == 1) {
                named.extend([Item::Blob(self.blob(blob)), Item::Object(self.index(blob))]);
            }
        }
        for blob in 0..BLOBS {
            if item == Item::Object(self.index(blob)) {
                named.insert(Item::Blob(self.blob(blob)));
            }
            if item == Item::Blob(self.blob(blob)) {
                named.insert(Item::Object(self.index(blob)));
            }
        }
        named
    }
}

/// What should be there.
#[derive(Default)]
struct Oracle {
    items: BTreeSet<Item>,
    heads: BTreeMap<String, Item>,
    pins: BTreeMap<String, Item>,
    recent: BTreeSet<Item>,
}

impl Oracle {
    fn add(&mut self, items: &[Item], recent: Item) {
        self.items.extend(items);
        self.recent.insert(recent);
    }

    /// Everything that can be reached, however long it takes.
    fn reach(&self, world: &World, from: impl IntoIterator<Item = Item>) -> BTreeSet<Item> {
        let mut reached: BTreeSet<Item> = from.into_iter().collect();
        loop {
            let here = reached.iter().filter(|item| self.items.contains(item));
            let next: BTreeSet<Item> = here.flat_map(|&item| world.names(item)).collect();
            let before = reached.len();
            reached.extend(next);
            if reached.len() == before {
                return reached;
            }
        }
    }

    fn named(&mut self, world: &World, items: impl IntoIterator<Item = Item>) {
        for item in self.reach(world, items) {
            self.recent.remove(&item);
        }
    }

    /// What must be left; none if a root leads nowhere.
    fn collect(&self, world: &World, held: &[Arc<Blob>]) -> Option<BTreeSet<Item>> {
        let deep = self.heads.iter().filter(|(name, _)| !name.starts_with(REMOVED)).map(|(_, item)| *item);
        let roots: Vec<Item> = deep.chain(self.pins.values().copied()).collect();
        let absent = |item: &Item| matches!(item, Item::Object(_)) && !self.items.contains(item);
        if roots.iter().any(absent) {
            return None;
        }
        let held = held.iter().filter(|blob| !blob.is_complete() && !blob.is_forgotten());
        let held = held.map(|blob| Item::Blob(blob.id()));
        let mut kept = self.reach(world, roots.into_iter().chain(held).chain(self.recent.iter().copied()));
        kept.extend(self.heads.values());
        Some(self.items.intersection(&kept).copied().collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_left_is_what_the_oracle_reaches(ops in vec(op(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let world = World { blobs: (0..BLOBS as u64).map(|seed| blob(seed, LEN)).collect() };
        let mut oracle = Oracle::default();
        let mut held: Vec<Arc<Blob>> = Vec::new();
        let mut store = open_fast(dir.path());
        for op in ops {
            run(op, &world, &mut oracle, &mut held, &mut store, dir.path());
            let here: BTreeSet<Item> = items(&store);
            prop_assert_eq!(here, oracle.items.clone());
            for (bytes, index) in &world.blobs {
                if let Some(blob) = store.blob(&index.blob()) {
                    assert_claims_hold(&blob, bytes);
                }
            }
        }
    }
}

fn items(store: &Store) -> BTreeSet<Item> {
    let blobs = store.blobs().into_iter().map(|info| Item::Blob(info.reference.blob));
    blobs.chain(store.objects().unwrap().into_iter().map(Item::Object)).collect()
}

fn run(
    op: Op,
    world: &World,
    oracle: &mut Oracle,
    held: &mut Vec<Arc<Blob>>,
    store: &mut Store,
    dir: &std::path::Path,
) {
    match op {
        Op::Add(blob) => {
            store.add_bytes(&world.blobs[blob].0).unwrap();
            let item = Item::Blob(world.blob(blob));
            oracle.add(&[item, Item::Object(world.index(blob))], item);
        }
        Op::Begin(blob, hold) => {
            let (bytes, index) = &world.blobs[blob];
            let begun = store.begin(index.clone()).unwrap();
            begun.write_run(0, run_bytes(bytes, index, 0, 1)).unwrap();
            let item = Item::Blob(index.blob());
            oracle.add(&[item, Item::Object(index.object_id())], item);
            held.extend(hold.then_some(begun));
        }
        Op::LetGo => held.clear(),
        Op::Put(set) => {
            let item = Item::Object(store.put_object(&world.object(set)).unwrap());
            oracle.add(&[item], item);
        }
        Op::PutIndex(blob) => {
            let item = Item::Object(store.put_object(&world.blobs[blob].1.encode()).unwrap());
            oracle.add(&[item], item);
        }
        Op::Forget(blob) => {
            let item = Item::Blob(world.blob(blob));
            assert_eq!(store.forget(&world.blob(blob)).unwrap(), oracle.items.remove(&item));
            // Its index goes with it; one that was put by itself stays until then only.
            if !oracle.items.contains(&item) && store.object(&world.index(blob)).is_none() {
                oracle.items.remove(&Item::Object(world.index(blob)));
            }
            oracle.recent.remove(&item);
        }
        Op::Head(name, set) => {
            let (name, object) = (format!("head-{name}"), world.object_id(set));
            store.set_head(&name, &object).unwrap();
            let before = oracle.heads.insert(name, Item::Object(object));
            oracle.named(world, before.into_iter().chain([Item::Object(object)]));
        }
        Op::RemovedHead(set) => {
            let (name, object) = (format!("{REMOVED}x"), world.object_id(set));
            store.set_head(&name, &object).unwrap();
            oracle.heads.insert(name, Item::Object(object));
        }
        Op::Unhead(name) => {
            let name = format!("head-{name}");
            let before = oracle.heads.remove(&name);
            assert_eq!(store.remove_head(&name).unwrap(), before.is_some());
            oracle.named(world, before);
        }
        Op::PinBlob(name, blob) => pin(name, Item::Blob(world.blob(blob)), world, oracle, store),
        Op::PinObject(name, set) => pin(name, Item::Object(world.object_id(set)), world, oracle, store),
        Op::PinIndex(name, blob) => pin(name, Item::Object(world.index(blob)), world, oracle, store),
        Op::Unpin(name) => {
            let name = format!("pin-{name}");
            let before = oracle.pins.remove(&name);
            assert_eq!(store.unpin(&name).unwrap(), before.is_some());
            oracle.named(world, before);
        }
        Op::Reopen => {
            held.clear();
            let old = std::mem::replace(store, Store::open_reader(dir, store_support::fast()).unwrap());
            drop(old);
            *store = open_fast(dir);
            oracle.recent.clear();
        }
        Op::Collect => match (oracle.collect(world, held), store.garbage()) {
            (Some(left), Ok(plan)) => {
                let kept: BTreeSet<Item> = plan.kept.iter().map(|kept| kept.item).collect();
                assert_eq!((&kept, store.gc().unwrap()), (&left, plan));
                oracle.items = left;
                let items = &oracle.items;
                oracle.recent.retain(|item| items.contains(item));
            }
            (None, Err(StoreError::CannotCollect { .. })) => assert!(store.gc().is_err()),
            (left, plan) => unreachable!("{left:?} should be left, the store plans {plan:?}"),
        },
    }
}

fn pin(name: u8, item: Item, world: &World, oracle: &mut Oracle, store: &Store) {
    let name = format!("pin-{name}");
    let fits = oracle.items.contains(&item) && oracle.pins.get(&name).is_none_or(|other| *other == item);
    let pinned = store.pin(&Pin { name: name.clone(), item, reason: String::new() });
    assert_eq!(pinned.is_ok(), fits, "{pinned:?}");
    if fits {
        oracle.pins.insert(name, item);
        oracle.named(world, [item]);
    }
}
