//! Nodes that keep shares of a blob, over stores and HTTP: they come down to two copies, and give the blob to a newcomer that
//! nobody who has it whole is there for.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod exchange_support;

use std::time::Duration;

use exchange_support::{Node, PATIENCE, Switch, arrives, connect, noise};
use fabric::exchange::{Priority, ShareReport};
use fabric::id::BlobId;

const COPIES: u8 = 2;
/// A pause between two looks: shorter than a node's, longer than messages take.
const LOOK: Duration = Duration::from_millis(200);

async fn review(nodes: &[&Node], blob: &BlobId) -> Vec<ShareReport> {
    let mut reports = Vec::new();
    for node in nodes {
        reports.push(node.handle.review_share(blob, u64::MAX).await.unwrap().unwrap());
    }
    reports
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_nodes_keep_two_copies_and_give_a_fifth_the_whole() {
    let switch = Switch::default();
    let origin = switch.node("origin").await;
    let nodes =
        [switch.node("a").await, switch.node("b").await, switch.node("c").await, switch.node("d").await];
    let bytes = noise(5, 16 << 20);
    let blob = origin.seed(&bytes).await;
    let [a, b, c, d] = &nodes;
    let sharers = [a, b, c, d];
    connect(&[&origin, a, b, c, d]).await;
    for node in sharers {
        let fetch = node.fetch(&origin, &blob, Priority::Root).await;
        arrives(&fetch, &bytes).await;
    }
    for node in sharers {
        assert!(node.handle.share(&blob, node.key, COPIES).await.unwrap());
    }
    switch.unplug(&origin, &sharers).await;

    let total = bytes.len() as u64;
    let held = || sharers.map(|node| node.store.blob(&blob).unwrap().held_bytes());
    let down = async {
        loop {
            let reports = review(&sharers, &blob).await;
            if held().iter().sum::<u64>() == u64::from(COPIES) * total {
                return reports;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let reports = tokio::time::timeout(PATIENCE, down).await.unwrap_or_else(|_| panic!("{:?}", held()));
    assert!(reports.iter().all(|report| report.sharers == 4 && report.lacking == 0), "{reports:?}");
    let haves = sharers.map(|node| node.store.blob(&blob).unwrap().have());
    for chunk in 0..haves[0].len() {
        assert_eq!(haves.iter().filter(|have| have.has(chunk)).count(), 2, "chunk {chunk}");
    }
    assert!(held().iter().all(|held| (total / 3..total * 2 / 3).contains(held)), "{:?}", held());

    let fifth = switch.node("e").await;
    connect(&[&fifth, a, b, c, d]).await;
    let fetch = fifth.fetch(a, &blob, Priority::Root).await;
    arrives(&fetch, &bytes).await;
    assert!(fifth.handle.report().await.unwrap().bans.is_empty());
}
