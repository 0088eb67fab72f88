//! Whole nodes over loopback: several peers at once, deaths, damage, resumption, priorities.

mod exchange_support;

use exchange_support::server::Behaviour;
use exchange_support::{Switch, arrives, connect, noise};
use fabric::exchange::{ExchangeEvent, Priority};
use fabric::id::Hash;

const MIB: usize = 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_equal_seeders_each_give_a_fair_share() {
    let switch = Switch::default();
    let (b, c, d) = (switch.node("b").await, switch.node("c").await, switch.node("d").await);
    let bytes = noise(1, 24 * MIB);
    let blob = b.seed(&bytes).await;
    c.seed(&bytes).await;
    connect(&[&b, &c, &d]).await;
    let fetch = d.fetch(&b, &blob, Priority::Root).await;
    arrives(&fetch, &bytes).await;
    for seeder in [&b, &c] {
        let share = d.bytes_from(seeder).await as f64 / bytes.len() as f64;
        assert!(share >= 0.3, "one of two equal seeders gave {share:.2}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seeder_dies_in_the_middle() {
    let switch = Switch::default();
    let (b, c, mut d) = (switch.node("b").await, switch.node("c").await, switch.node("d").await);
    let bytes = noise(2, 24 * MIB);
    let blob = b.seed(&bytes).await;
    c.seed(&bytes).await;
    connect(&[&b, &c, &d]).await;
    let fetch = d.fetch(&c, &blob, Priority::Root).await;
    let dead = b.key;
    d.event(|event| matches!(event, ExchangeEvent::RunDone { peer, .. } if *peer == dead)).await;
    // Its server goes first, so that requests fail before anybody says that the node is gone.
    b.server.stop();
    d.event(|event| matches!(event, ExchangeEvent::RequestFailed { peer, .. } if *peer == dead)).await;
    switch.unplug(&b, &[&c, &d]).await;
    arrives(&fetch, &bytes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chunks_are_served_as_soon_as_they_are_held() {
    let switch = Switch::default();
    let (origin, a, mut b) = (switch.node("origin").await, switch.node("a").await, switch.node("b").await);
    let bytes = noise(3, 16 * MIB);
    let blob = origin.seed(&bytes).await;
    // B knows only A, and A has nothing yet: everything B gets passes through A.
    connect(&[&origin, &a]).await;
    connect(&[&a, &b]).await;
    let waiting = b.fetch(&origin, &blob, Priority::Root).await;
    let relaying = a.fetch(&origin, &blob, Priority::Root).await;
    b.event(|event| matches!(event, ExchangeEvent::RunDone { .. })).await;
    arrives(&waiting, &bytes).await;
    arrives(&relaying, &bytes).await;
    assert_eq!(b.bytes_from(&a).await, bytes.len() as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_gets_the_blob_and_the_seeder_sends_about_one_copy() {
    let switch = Switch::default();
    let bytes = noise(4, 16 * MIB);
    let mut nodes = Vec::new();
    for name in ["origin", "a", "b", "c", "d", "e"] {
        nodes.push(switch.node(name).await);
    }
    let blob = nodes[0].seed(&bytes).await;
    connect(&nodes.iter().collect::<Vec<_>>()).await;
    let mut fetches = Vec::new();
    for node in &nodes[1..] {
        fetches.push(node.fetch(&nodes[0], &blob, Priority::Root).await);
    }
    nodes[0].event(|event| matches!(event, ExchangeEvent::FirstCopyOut { .. })).await;
    for fetch in &fetches {
        arrives(fetch, &bytes).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_sends_damaged_chunks_is_found_out() {
    let switch = Switch::default();
    let (liar, honest) = (switch.node_that("liar", Behaviour::Damaged).await, switch.node("honest").await);
    let mut node = switch.node("node").await;
    let bytes = noise(5, 8 * MIB);
    let blob = honest.seed(&bytes).await;
    liar.seed(&bytes).await;
    connect(&[&liar, &node]).await;
    let fetch = node.fetch(&honest, &blob, Priority::Root).await;
    let banned = node.event(|event| matches!(event, ExchangeEvent::PeerBanned { .. })).await;
    assert!(matches!(banned, ExchangeEvent::PeerBanned { peer, .. } if peer == liar.key), "{banned:?}");
    connect(&[&honest, &node]).await;
    // Coming back does not help it.
    node.handle.peer_down(liar.key).await;
    connect(&[&liar, &node]).await;
    arrives(&fetch, &bytes).await;
    assert_eq!(node.bytes_from(&liar).await, 0);
    let report = node.handle.report().await.unwrap();
    let ban = report.bans.get(&liar.key).expect("the ban outlives the connection");
    let proof = ban.proof.expect("a chunk proves it");
    let chunk = honest.store.blob(&blob).unwrap().index().entry(proof.chunk).unwrap();
    let at = usize::try_from(chunk.offset).unwrap();
    let true_bytes = &bytes[at..at + chunk.len as usize];
    assert_eq!((proof.blob, proof.expected), (blob, Hash::of(true_bytes)));
    assert_ne!(proof.got, proof.expected);
}

/// All are asked for parts of the same few chunks at once, into buffers that are used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_liars_and_an_honest_peer_only_the_liars_are_banned() {
    for seed in 0..6 {
        let switch = Switch::default();
        let mut liars = Vec::new();
        for number in 0..3 {
            liars.push(switch.node_that(&format!("liar {seed} {number}"), Behaviour::Damaged).await);
        }
        let honest = switch.node(&format!("honest {seed}")).await;
        let node = switch.node(&format!("node {seed}")).await;
        // Few chunks: everybody is asked for all of them.
        let bytes = noise(50 + seed, 300_000);
        let blob = honest.seed(&bytes).await;
        for liar in &liars {
            liar.seed(&bytes).await;
            connect(&[liar, &node]).await;
        }
        connect(&[&honest, &node]).await;
        let fetch = node.fetch(&honest, &blob, Priority::Root).await;
        arrives(&fetch, &bytes).await;
        let bans = node.handle.report().await.unwrap().bans;
        assert!(!bans.contains_key(&honest.key), "seed {seed}: {bans:?}");
        assert!(bans.values().all(|ban| ban.proof.is_some()), "seed {seed}: {bans:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_misbehave_leaves_the_fetch_to_the_honest_peer() {
    let cases = Behaviour::ALL.map(|behaviour| async move {
        let switch = Switch::default();
        let (odd, honest) = (switch.node_that("odd", behaviour).await, switch.node("honest").await);
        let node = switch.node("node").await;
        let bytes = noise(6, 3 * MIB);
        let blob = honest.seed(&bytes).await;
        odd.seed(&bytes).await;
        connect(&[&odd, &honest, &node]).await;
        let fetch = node.fetch(&honest, &blob, Priority::Root).await;
        arrives(&fetch, &bytes).await;
    });
    futures::future::join_all(cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_resumes_from_what_the_store_holds() {
    let switch = Switch::default();
    let (origin, node) = (switch.node("origin").await, switch.node("node").await);
    let bytes = noise(7, 4 * MIB);
    let blob = origin.seed(&bytes).await;
    let index = origin.store.blob(&blob).unwrap().index().as_ref().clone();
    let half = index.count() / 2;
    let end = usize::try_from(index.entry(half).unwrap().offset).unwrap();
    node.store.begin(index).unwrap().write_run(0, &bytes[..end]).unwrap();
    connect(&[&origin, &node]).await;
    let fetch = node.fetch(&origin, &blob, Priority::Root).await;
    arrives(&fetch, &bytes).await;
    assert_eq!(node.bytes_from(&origin).await, (bytes.len() - end) as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boot_blobs_come_before_the_root() {
    let switch = Switch::default();
    let (origin, mut node) = (switch.node("origin").await, switch.node("node").await);
    let (root, kernel) = (noise(8, 16 * MIB), noise(9, 2 * MIB));
    let (root_blob, kernel_blob) = (origin.seed(&root).await, origin.seed(&kernel).await);
    let root_fetch = node.fetch(&origin, &root_blob, Priority::Root).await;
    let kernel_fetch = node.fetch(&origin, &kernel_blob, Priority::Boot).await;
    connect(&[&origin, &node]).await;
    let first = node.event(|event| matches!(event, ExchangeEvent::BlobComplete { .. })).await;
    assert_eq!(first, ExchangeEvent::BlobComplete { blob: kernel_blob });
    arrives(&kernel_fetch, &kernel).await;
    arrives(&root_fetch, &root).await;
}
