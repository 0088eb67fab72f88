//! A crowd in which one of twenty peers sends wrong bytes: real sockets, every byte checked.

mod exchange_support;

use exchange_support::server::Behaviour;
use exchange_support::{Node, Switch, arrives, connect, noise};
use fabric::exchange::{ExchangeEvent, Priority};
use fabric::id::NodeId;
use tokio::sync::broadcast::error::TryRecvError;

/// Nodes besides the liar, the origin among them.
const HONEST: usize = 19;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_liar_in_twenty_costs_each_neighbour_one_chunk_at_most() {
    let switch = Switch::default();
    let bytes = noise(60, 4 << 20);
    let mut honest = Vec::new();
    for number in 0..HONEST {
        honest.push(switch.node(&format!("honest {number}")).await);
    }
    let liar = switch.node_that("liar", Behaviour::Damaged).await;
    let blob = honest[0].seed(&bytes).await;
    // It says that it holds everything from the start: everybody asks it.
    liar.seed(&bytes).await;
    let everybody: Vec<&Node> = honest.iter().chain([&liar]).collect();
    connect(&everybody).await;
    let mut fetches = Vec::new();
    for node in &honest[1..] {
        fetches.push(node.fetch(&honest[0], &blob, Priority::Root).await);
    }
    for fetch in &fetches {
        arrives(fetch, &bytes).await;
    }
    let mut caught = 0;
    for node in &mut honest {
        let offences = bad_chunks(node);
        assert!(offences.iter().all(|peer| *peer == liar.key), "an honest peer was blamed: {offences:?}");
        assert!(offences.len() <= 1, "{} chunks were wasted on one liar", offences.len());
        let report = node.handle.report().await.unwrap();
        assert_eq!(report.bans.keys().collect::<Vec<_>>(), offences.iter().collect::<Vec<_>>());
        assert!(
            report.bans.values().all(|ban| ban.proof.is_some()),
            "a ban without proof: {:?}",
            report.bans
        );
        caught += offences.len();
    }
    assert!(caught > 0, "nobody asked the liar: the test shows nothing");
}

/// Who sent `node` wrong chunks, as often as it did.
fn bad_chunks(node: &mut Node) -> Vec<NodeId> {
    let mut senders = Vec::new();
    loop {
        let event = node.events.try_recv();
        assert!(!matches!(event, Err(TryRecvError::Lagged(_))), "events were missed: the blob is too large");
        match event {
            Ok(ExchangeEvent::BadChunk { peer, .. }) => senders.push(peer),
            Ok(_) => {}
            Err(_) => return senders,
        }
    }
}
