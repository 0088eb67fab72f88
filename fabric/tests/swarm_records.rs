//! Replicated records reach every node, whenever it joins.

#![expect(clippy::panic, reason = "a step that fails is a test that fails")]

mod swarm_support;

use fabric::swarm::{Record, RecordError};
use swarm_support::{DEADLINE, Node, Spec, nodes_around_one};

fn values(records: &[Record]) -> Vec<(Vec<u8>, u64, Vec<u8>)> {
    let mut values: Vec<_> = records.iter().map(|r| (r.key.clone(), r.counter, r.value.clone())).collect();
    values.sort_unstable();
    values
}

async fn until_records(node: &Node, topic: u8, expected: &[(Vec<u8>, u64, Vec<u8>)]) {
    let wait = async {
        while values(&node.handle.records(topic).await) != expected {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(DEADLINE, wait).await.is_err() {
        panic!("{:?} has {:?}", node.id(), values(&node.handle.records(topic).await));
    }
}

#[tokio::test]
async fn records_of_all_reach_all_and_a_newcomer() {
    let nodes = nodes_around_one(5).await;
    let ids: Vec<_> = nodes.iter().map(Node::id).collect();
    for node in &nodes {
        node.until_members(&ids).await;
    }
    let mut expected = Vec::new();
    for (n, node) in (0u8..).zip(&nodes) {
        for key in 0..50 {
            node.handle.put_record(1, vec![n, key], 1, vec![key]).await.unwrap();
            expected.push((vec![n, key], 1, vec![key]));
        }
    }
    for node in &nodes {
        until_records(node, 1, &expected).await;
    }
    nodes[3].handle.put_record(1, vec![0, 0], 2, b"newer".to_vec()).await.unwrap();
    expected[0] = (vec![0, 0], 2, b"newer".to_vec());
    for node in &nodes {
        until_records(node, 1, &expected).await;
    }
    let older = nodes[0].handle.put_record(1, vec![0, 0], 1, vec![]).await;
    assert_eq!(older, Err(RecordError::Older));
    let newcomer = Node::start(Spec::knowing([nodes[4].address()])).await;
    until_records(&newcomer, 1, &expected).await;
}

#[tokio::test]
async fn two_islands_with_records_become_one() {
    let (left, right) = (nodes_around_one(3).await, nodes_around_one(3).await);
    let mut expected = Vec::new();
    for (n, node) in (0u8..).zip(left.iter().chain(&right)) {
        node.handle.put_record(2, vec![n], 1, vec![n]).await.unwrap();
        node.handle.put_record(2, vec![99], n.into(), vec![n]).await.unwrap();
        expected.push((vec![n], 1, vec![n]));
    }
    expected.push((vec![99], 5, vec![5]));
    left[2].handle.dial(right[2].address()).await;
    for node in left.iter().chain(&right) {
        until_records(node, 2, &expected).await;
    }
}
