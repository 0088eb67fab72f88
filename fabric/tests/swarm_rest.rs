//! What fifty nodes at rest cost. Measures for a minute, so it is run by hand, in a network namespace of its own:
//! `unshare -n sh -c 'ip link set lo up; cargo test -p fabric --test swarm_rest -- --ignored --nocapture'`.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod swarm_support;

use std::time::Duration;

use fabric::swarm::SwarmEvent;
use swarm_support::{Node, nodes_around_one};

const NODES: usize = 50;
const WINDOW: Duration = Duration::from_secs(120);

/// Bytes sent over the loopback interface, with all headers.
fn bytes_sent() -> u64 {
    let table = std::fs::read_to_string("/proc/net/dev").unwrap();
    let lo = table.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap();
    lo.split_whitespace().nth(8).unwrap().parse().unwrap()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test]
#[ignore = "measures for two minutes"]
async fn fifty_nodes_at_rest() {
    let before = resident_kib();
    let nodes = nodes_around_one(NODES).await;
    let ids: Vec<_> = nodes.iter().map(Node::id).collect();
    for node in &nodes {
        node.until_members(&ids).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let start = bytes_sent();
    tokio::time::sleep(WINDOW).await;
    let sent = bytes_sent() - start;
    let mut latencies = Vec::new();
    for counter in 1..=50u64 {
        let begin = std::time::Instant::now();
        nodes[1].handle.put_record(9, vec![1], counter, vec![]).await.unwrap();
        let is_new = |event: &SwarmEvent| matches!(event, SwarmEvent::Records(new) if new.iter().any(|r| r.counter == counter));
        for peer in nodes[1].handle.peers() {
            let peer = nodes.iter().find(|node| node.id() == peer.member.node).unwrap();
            peer.until_event("the record", is_new).await;
        }
        latencies.push(begin.elapsed());
    }
    latencies.sort_unstable();
    println!("a record reaches all neighbours: median {:?}, worst {:?}", latencies[25], latencies[49]);
    let degree: usize = nodes.iter().map(|node| node.handle.peers().len()).sum();
    let nodes_f = NODES as u64;
    println!(
        "degree {} on average; {} B/s per node, both directions; {} KiB resident per node",
        degree as u64 / nodes_f,
        2 * sent / nodes_f / WINDOW.as_secs(),
        (resident_kib() - before) / nodes_f,
    );
}
