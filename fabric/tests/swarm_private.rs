//! A private fabric: members find each other, strangers wait outside, who was withdrawn stays out.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod swarm_support;

use std::net::SocketAddr;

use bytes::Bytes;
use fabric::id::{NodeId, ObjectId};
use fabric::swarm::{AdmissionEvent, NodeKey, Private, Refusal, SwarmEvent};
use fabric::trust::{Membership, Operator, OperatorKey, RootKey, Signed};
use swarm_support::{Node, Spec};

fn operator() -> Operator {
    let root = RootKey::from_bytes(&[1; 32]);
    let key = OperatorKey::from_bytes(&[2; 32]);
    let grant = root.grant(key.public(), "ann").unwrap();
    Operator::new(key, grant).unwrap()
}

fn membership(name: &str, node: Option<NodeId>, generation: u64) -> Bytes {
    let membership = Membership { name: name.into(), node, generation };
    Signed::sign(&operator(), &membership).unwrap().bytes().clone()
}

/// A node of the private fabric that holds these memberships and knows these peers.
async fn node(key: &NodeKey, memberships: Vec<Bytes>, peers: &[SocketAddr]) -> Node {
    let private = Private { trust_root: operator().trust_root(), memberships, bulk_port: 7745 };
    Node::start(Spec { key: key.clone(), private: Some(private), ..Spec::knowing(peers.to_vec()) }).await
}

/// A member that knows only that it is one.
async fn member(name: &str, peers: &[SocketAddr]) -> Node {
    let key = NodeKey::generate();
    node(&key, vec![membership(name, Some(key.node_id()), 1)], peers).await
}

fn asked(event: &SwarmEvent, node: NodeId) -> bool {
    matches!(event, SwarmEvent::Admission(AdmissionEvent::Asked(waiting)) if waiting.node == node)
}

fn turned_away(event: &SwarmEvent, reason: Refusal) -> bool {
    matches!(event, SwarmEvent::Admission(AdmissionEvent::TurnedAway { why, .. }) if *why == reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_meet_learn_of_each_other_and_hold_each_others_tokens() {
    let one = member("one", &[]).await;
    let two = member("two", &[one.address()]).await;
    let three = member("three", &[two.address()]).await;
    let all = [one.id(), two.id(), three.id()];
    for node in [&one, &two, &three] {
        node.until_members(&all).await;
        for other in all.into_iter().filter(|other| *other != node.id()) {
            node.until_peer(other).await;
        }
        assert_eq!(node.handle.memberships(), one.handle.memberships());
    }
    assert_eq!(one.handle.memberships().len(), 3);
    let access = two.handle.bulk_access(one.id()).unwrap();
    assert_eq!((access.port, access.key.node_id()), (7745, Some(one.id())));
    assert_eq!(one.handle.holder_of(&access.token), Some(two.id()));
    assert_eq!(three.handle.holder_of(&access.token), None);
    // What members have, members get.
    let object = one.objects.put(b"a signed release");
    assert_eq!(three.handle.object(object, None).await.unwrap(), "a signed release");
    for node in [one, two, three] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_waits_gets_nothing_and_is_in_as_soon_as_it_is_admitted() {
    let one = member("one", &[]).await;
    let two = member("two", &[one.address()]).await;
    one.until_peer(two.id()).await;
    let object = one.objects.put(b"a signed release");
    let stranger = node(&NodeKey::generate(), vec![], &[one.address(), two.address()]).await;
    let id = stranger.id();
    one.until_event("the question", |event| asked(event, id)).await;
    two.until_event("the question", |event| asked(event, id)).await;
    stranger.until_event("the answer", |event| turned_away(event, Refusal::NotAdmitted)).await;
    assert_eq!(one.handle.waiting().iter().map(|waiting| waiting.node).collect::<Vec<_>>(), [id]);
    assert!(!stranger.handle.is_admitted() && stranger.handle.peers().is_empty());
    assert!(stranger.handle.object(object, None).await.is_err());
    assert_eq!((stranger.handle.members().len(), stranger.handle.memberships().len()), (1, 0));
    assert_eq!(one.handle.members().len(), 2);

    assert!(two.handle.admit(&membership("three", Some(id), 1)).await.unwrap());
    stranger.until_peer(one.id()).await;
    stranger.until_peer(two.id()).await;
    assert_eq!(stranger.handle.object(object, None).await.unwrap(), "a signed release");
    one.until_members(&[one.id(), two.id(), id]).await;
    assert!(stranger.handle.is_admitted() && one.handle.waiting().is_empty());
    for node in [one, two, stranger] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_withdrawn_is_dropped_by_all_and_stays_out() {
    let one = member("one", &[]).await;
    let two = member("two", &[one.address()]).await;
    let key = NodeKey::generate();
    let own = vec![membership("three", Some(key.node_id()), 1)];
    let three = node(&key, own.clone(), &[one.address(), two.address()]).await;
    for node in [&one, &two] {
        node.until_peer(three.id()).await;
    }
    let token = three.handle.bulk_access(one.id()).unwrap().token;
    assert_eq!(one.handle.holder_of(&token), Some(three.id()));
    one.handle.admit(&membership("three", None, 2)).await.unwrap();
    assert_eq!(one.handle.holder_of(&token), None);
    for node in [&one, &two] {
        node.until_gone(three.id()).await;
        node.until_members(&[one.id(), two.id()]).await;
    }
    three.until_event("the answer", |event| turned_away(event, Refusal::Withdrawn)).await;
    three.until_gone(two.id()).await;
    three.stop().await;
    // Started again with what it has, it finds the door shut; and a node that never heard of the withdrawal hears of it
    // from the first member it meets.
    let again = node(&key, own, &[one.address(), two.address()]).await;
    again.until_event("the answer", |event| turned_away(event, Refusal::Withdrawn)).await;
    let four = member("four", &[again.address(), one.address()]).await;
    four.until_peer(one.id()).await;
    four.until_gone(again.id()).await;
    four.until_members(&[one.id(), two.id(), four.id()]).await;
    assert!(again.handle.object(ObjectId(fabric::id::Hash::of(b"x")), None).await.is_err());
    for node in [one, two, again, four] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_takes_the_fabric_for_an_open_one_finds_nobody() {
    let one = member("one", &[]).await;
    let open = Node::start(Spec::knowing([one.address()])).await;
    let object = one.objects.put(b"a signed release");
    assert!(open.handle.object(object, None).await.is_err());
    // Another member gets in meanwhile, so the door was there.
    let two = member("two", &[one.address()]).await;
    two.until_peer(one.id()).await;
    assert!(open.handle.peers().is_empty() && open.handle.members().len() == 1);
    assert!(open.handle.admit(&membership("x", None, 1)).await.is_err());
    for node in [one, open, two] {
        node.stop().await;
    }
}
