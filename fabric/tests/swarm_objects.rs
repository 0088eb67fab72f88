//! Small objects are fetched by hash from whoever has them, and checked.

mod swarm_support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use fabric::id::{Hash, ObjectId};
use fabric::swarm::{MAX_OBJECT, ObjectError, SwarmEvent};
use swarm_support::{Node, Spec, nodes_around_one};

#[tokio::test]
async fn an_object_comes_from_the_one_peer_that_has_it() {
    let nodes = nodes_around_one(4).await;
    for node in &nodes[..3] {
        nodes[3].until_peer(node.id()).await;
    }
    let small = nodes[1].objects.put(b"release");
    let large = nodes[2].objects.put(&vec![7; MAX_OBJECT]);
    assert_eq!(nodes[3].handle.object(small, Some(nodes[1].id())).await.unwrap(), b"release".as_slice());
    assert_eq!(nodes[3].handle.object(small, None).await.unwrap(), b"release".as_slice());
    assert_eq!(nodes[3].handle.object(large, None).await.unwrap().len(), MAX_OBJECT);
    let own = nodes[3].objects.put(b"own");
    assert_eq!(nodes[3].handle.object(own, None).await.unwrap(), b"own".as_slice());
    let missing = ObjectId(Hash::of(b"missing"));
    assert_eq!(
        nodes[3].handle.object(missing, None).await,
        Err(ObjectError::NotFound { id: missing, asked: 3 })
    );
}

#[tokio::test]
async fn a_liar_is_found_out_dropped_and_left_for_an_honest_peer() {
    let nodes = nodes_around_one(3).await;
    for node in &nodes[..2] {
        nodes[2].until_peer(node.id()).await;
    }
    let id = nodes[0].objects.put(b"true");
    nodes[1].objects.lie(id, b"false");
    assert_eq!(nodes[2].handle.object(id, Some(nodes[1].id())).await.unwrap(), b"true".as_slice());
    nodes[2].until_gone(nodes[1].id()).await;
    // It comes back at once and is not let in.
    nodes[1].until_event("being dropped", |event| *event == SwarmEvent::PeerDown(nodes[2].id())).await;
    nodes[1].handle.dial(nodes[2].address()).await;
    let other = nodes[0].objects.put(b"other");
    assert_eq!(nodes[2].handle.object(other, None).await.unwrap(), b"other".as_slice());
    assert_eq!(nodes[2].handle.peers().len(), 1);
}

#[tokio::test]
async fn a_node_alone_says_that_there_is_nobody_to_ask() {
    let node = Node::start(Spec::default()).await;
    let id = ObjectId(Hash::of(b"any"));
    assert_eq!(node.handle.object(id, None).await, Err(ObjectError::NoPeers(id)));
}

#[tokio::test]
async fn many_fetches_at_once_are_all_answered() {
    let nodes = nodes_around_one(2).await;
    nodes[1].until_peer(nodes[0].id()).await;
    let ids: Vec<ObjectId> = (0..100u8).map(|n| nodes[0].objects.put(&vec![n; 100_000])).collect();
    let fetches = ids.iter().map(|id| {
        let handle = nodes[1].handle.clone();
        let id = *id;
        tokio::spawn(async move { handle.object(id, None).await })
    });
    for fetch in fetches.collect::<Vec<_>>() {
        assert_eq!(fetch.await.unwrap().unwrap().len(), 100_000);
    }
}

#[tokio::test]
async fn an_object_asked_for_over_a_connection_that_is_given_up_comes_over_the_next() {
    let listen = (Ipv4Addr::UNSPECIFIED, 0).into();
    let holder = Node::start(Spec { listen, ..Spec::default() }).await;
    let at = |host| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host)), holder.address().port());
    // Which end closes first is chance, and only one of the two orders lost a request.
    for _ in 0..8 {
        let asker = Node::start(Spec::knowing([at(1)])).await;
        asker.until_peer(holder.id()).await;
        let id = holder.objects.put(b"wanted");
        let mut asked = holder.objects.asked();
        asked.mark_unchanged();
        let held = holder.objects.hold().await;
        let wanted = tokio::spawn({
            let asker = asker.handle.clone();
            async move { asker.object(id, None).await }
        });
        asked.changed().await.unwrap();
        // The same node by another address: the newer connection stays.
        asker.handle.dial(at(2)).await;
        asker
            .until_event("the first connection's end", |event| *event == SwarmEvent::PeerDown(holder.id()))
            .await;
        asker.until_peer(holder.id()).await;
        drop(held);
        let since = Instant::now();
        assert_eq!(wanted.await.unwrap().unwrap(), b"wanted".as_slice());
        assert!(since.elapsed() < Duration::from_secs(3), "it took {:?}", since.elapsed());
        asker.stop().await;
    }
}
