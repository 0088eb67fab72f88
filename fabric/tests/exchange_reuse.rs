//! What other blobs of the store have of a blob is copied: peers give the rest, and not a byte more.

mod exchange_support;

use std::os::unix::fs::PermissionsExt;

use exchange_support::{Node, PATIENCE, Switch, arrives, connect, noise};
use fabric::content::{BlobIndex, ChunkEntry, Difference, index_bytes};
use fabric::exchange::{ExchangeEvent, FetchError, Priority};
use fabric::id::{BlobId, Hash};
use tokio::sync::broadcast::error::TryRecvError;

const MIB: usize = 1024 * 1024;

/// Two versions: bytes changed in place, inserted, removed, appended.
fn versions(len: usize) -> (Vec<u8>, Vec<u8>) {
    let old = noise(1, len);
    let mut new = old.clone();
    new[len / 2..len / 2 + 5000].copy_from_slice(&noise(2, 5000));
    new.splice(len / 3..len / 3, noise(3, 300_000));
    new.drain(len / 7..len / 7 + 70_000);
    new.extend(noise(4, 123_456));
    (old, new)
}

/// Bytes that peers gave, and bytes that were copied, by the events so far.
fn moved(node: &mut Node) -> (u64, u64) {
    let (mut fetched, mut reused) = (0, 0);
    loop {
        match node.events.try_recv() {
            Ok(ExchangeEvent::RunDone { bytes, .. }) => fetched += bytes,
            Ok(ExchangeEvent::Reused { bytes, .. }) => reused += bytes,
            Ok(_) => {}
            Err(end) => {
                assert_eq!(end, TryRecvError::Empty);
                return (fetched, reused);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_moves_only_what_changed() {
    let switch = Switch::default();
    let (seeder, mut node) = (switch.node("seeder").await, switch.node("node").await);
    let (old, new) = versions(24 * MIB);
    let blob = seeder.seed(&new).await;
    node.seed(&old).await;
    connect(&[&seeder, &node]).await;
    let difference = Difference::of(&index_bytes(&new).unwrap(), [&index_bytes(&old).unwrap()]);
    assert!((400_000..1_000_000).contains(&difference.fetched_bytes), "{difference:?}");

    let fetch = node.fetch(&seeder, &blob, Priority::Root).await;
    arrives(&fetch, &new).await;
    assert_eq!(moved(&mut node), (difference.fetched_bytes, difference.shared_bytes()));
    assert_eq!(node.bytes_from(&seeder).await, difference.fetched_bytes);
    let progress = fetch.progress().borrow().clone();
    assert_eq!((progress.reused, progress.bytes), (difference.shared_bytes(), new.len() as u64));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_of_a_partial_blob_count() {
    let switch = Switch::default();
    let (seeder, mut node) = (switch.node("seeder").await, switch.node("node").await);
    let (old, new) = versions(8 * MIB);
    let blob = seeder.seed(&new).await;
    let index = index_bytes(&old).unwrap();
    let partial = node.store.begin(index.clone()).unwrap();
    let (held, rest): (Vec<_>, Vec<_>) = (0..).zip(index.chunks()).partition(|(number, _)| number % 3 > 0);
    for (number, chunk) in held {
        partial.write_run(number, &old[chunk.offset as usize..chunk.range().end as usize]).unwrap();
    }
    assert!(!rest.is_empty() && !partial.is_complete());
    // What is held of the old version, as if it were a blob of its own.
    let entries: Vec<_> = (0..)
        .zip(index.chunks())
        .filter(|(number, _)| partial.have().has(*number))
        .map(|(_, chunk)| ChunkEntry { id: chunk.id, len: chunk.len })
        .collect();
    let held = BlobIndex::new(BlobId(Hash::of(b"held")), &entries).unwrap();
    let difference = Difference::of(&index_bytes(&new).unwrap(), [&held]);

    connect(&[&seeder, &node]).await;
    arrives(&node.fetch(&seeder, &blob, Priority::Root).await, &new).await;
    assert_eq!(moved(&mut node), (difference.fetched_bytes, difference.shared_bytes()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_made_of_what_is_held_needs_no_peer() {
    let switch = Switch::default();
    let node = switch.node("alone").await;
    let bytes = noise(5, 4 * MIB);
    node.seed(&bytes).await;
    let (mut entries, mut reversed) = (Vec::new(), Vec::new());
    let chunks: Vec<_> = index_bytes(&bytes).unwrap().chunks().collect();
    for chunk in chunks.iter().rev() {
        entries.push(ChunkEntry { id: chunk.id, len: chunk.len });
        reversed.extend_from_slice(&bytes[chunk.offset as usize..chunk.range().end as usize]);
    }
    let index = BlobIndex::new(BlobId(Hash::of(&reversed)), &entries).unwrap();
    arrives(&node.handle.fetch(index, Priority::Root).await.unwrap(), &reversed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_in_the_store_is_not_copied() {
    let switch = Switch::default();
    let (seeder, mut node) = (switch.node("seeder").await, switch.node("node").await);
    let (old, new) = versions(8 * MIB);
    let blob = seeder.seed(&new).await;
    let held = node.seed(&old).await;
    let path = node.store.blob(&held).unwrap().path().to_owned();
    let mut damaged = old.clone();
    for at in [0, 3 * MIB, 3 * MIB + 1, 6 * MIB] {
        damaged[at] ^= 1;
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    // In place, as a device would damage it; and cut off, as a filesystem might.
    damaged.truncate(old.len() - 200_000);
    std::fs::write(&path, &damaged).unwrap();

    connect(&[&seeder, &node]).await;
    arrives(&node.fetch(&seeder, &blob, Priority::Root).await, &new).await;
    let difference = Difference::of(&index_bytes(&new).unwrap(), [&index_bytes(&old).unwrap()]);
    let (fetched, reused) = moved(&mut node);
    assert_eq!(fetched + reused, new.len() as u64);
    assert!(fetched > difference.fetched_bytes && reused > new.len() as u64 / 2, "{fetched} and {reused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copying_can_be_stopped_and_goes_on_where_it_was() {
    let switch = Switch::default();
    let (seeder, node) = (switch.node("seeder").await, switch.node("node").await);
    let (old, new) = versions(48 * MIB);
    let blob = seeder.seed(&new).await;
    node.seed(&old).await;
    // Nobody to ask: the fetch cannot end by itself.
    let fetch = node.fetch(&seeder, &blob, Priority::Root).await;
    let mut progress = fetch.progress();
    let begun = progress.wait_for(|progress| progress.reused > 0);
    tokio::time::timeout(PATIENCE, begun).await.unwrap().unwrap();
    let again = node.handle.fetch(index_bytes(&new).unwrap(), Priority::Boot).await.unwrap();
    let replaced = tokio::time::timeout(PATIENCE, fetch.wait()).await.unwrap();
    assert!(matches!(replaced, Err(FetchError::Stopped)), "{replaced:?}");
    again.stop().await;

    connect(&[&seeder, &node]).await;
    arrives(&node.fetch(&seeder, &blob, Priority::Root).await, &new).await;
    let difference = Difference::of(&index_bytes(&new).unwrap(), [&index_bytes(&old).unwrap()]);
    assert_eq!(node.bytes_from(&seeder).await, difference.fetched_bytes);
}
