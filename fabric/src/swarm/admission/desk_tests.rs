use proptest::prelude::*;

use super::super::roster::tests::{membership, operator};
use super::super::talk::{self, TalkError};
use super::*;
use crate::swarm::key::NodeKey;
use crate::trust::Operator;

struct Node {
    key: NodeKey,
    gate: Arc<Gate>,
}

impl Node {
    /// A node that knows these memberships.
    fn new(ann: &Operator, key: &NodeKey, memberships: Vec<Bytes>) -> Self {
        let newcomer = Newcomer { name: "newcomer".into(), mac: Some([2; 6]), swarm_port: 7744 };
        let private = Private { trust_root: ann.trust_root(), memberships, bulk_port: 7745 };
        Self { key: key.clone(), gate: Gate::new(key.node_id(), newcomer, private) }
    }

    fn id(&self) -> NodeId {
        self.key.node_id()
    }

    fn as_other(&self) -> Other {
        Other { node: self.id(), key: self.key.public(), at: Some(([10, 0, 0, 9], 40_000).into()) }
    }
}

/// `one` dials `two` over a pipe.
async fn talk(one: &Node, two: &Node) -> (Result<Tie, TalkError>, Result<Tie, TalkError>) {
    use tokio_util::compat::TokioAsyncReadCompatExt;
    let (dialler, listener) = tokio::io::duplex(100);
    let dial = async {
        let mut io = dialler.compat();
        talk::dial(&one.gate, two.as_other(), &mut io).await
    };
    let listen = async {
        let mut io = listener.compat();
        talk::listen(&two.gate, one.as_other(), &mut io).await
    };
    tokio::join!(dial, listen)
}

fn keys(count: usize) -> Vec<NodeKey> {
    (0..count).map(|_| NodeKey::generate()).collect()
}

/// An operator, two keys, and the memberships of both.
fn two_members() -> (Operator, Vec<NodeKey>, Vec<Bytes>) {
    let (ann, keys) = (operator(1), keys(2));
    let named = keys.iter().zip(["a", "b"]);
    let memberships = named.map(|(key, name)| membership(&ann, name, Some(key.node_id()), 1)).collect();
    (ann, keys, memberships)
}

#[tokio::test]
async fn members_give_each_other_tokens_that_end_with_the_last_connection() {
    let (ann, keys, memberships) = two_members();
    // Neither knows of the other before.
    let (one, two) = (
        Node::new(&ann, &keys[0], vec![memberships[0].clone()]),
        Node::new(&ann, &keys[1], vec![memberships[1].clone()]),
    );
    let (first, second) = talk(&one, &two).await;
    let (first, second) = (first.unwrap(), second.unwrap());
    let access = one.gate.access(two.id()).unwrap();
    assert_eq!((access.port, access.key), (7745, two.key.public()));
    assert_eq!(two.gate.holder(&access.token), Some(one.id()));
    assert_eq!(one.gate.holder(&access.token), None, "each has its own");
    assert_eq!(one.gate.memberships(), two.gate.memberships());
    assert_eq!(one.gate.take().news, [memberships[1].clone()]);

    // A second connection beside the first has the same token, and the token outlives the first.
    let (third, fourth) = talk(&two, &one).await;
    drop((first, second));
    assert_eq!(one.gate.access(two.id()).unwrap(), access);
    assert_eq!(two.gate.holder(&access.token), Some(one.id()));
    assert!(!one.gate.differs(two.id()));
    drop((third, fourth));
    assert_eq!((two.gate.holder(&access.token), one.gate.access(two.id())), (None, None));

    let (again, and_again) = talk(&one, &two).await;
    assert_ne!(one.gate.access(two.id()).unwrap().token, access.token, "a new connection, a new token");
    drop((again, and_again));
}

#[tokio::test]
async fn a_stranger_learns_only_that_it_must_wait_and_is_listed() {
    let (ann, keys) = (operator(1), keys(2));
    let member = Node::new(&ann, &keys[0], vec![membership(&ann, "a", Some(keys[0].node_id()), 1)]);
    let stranger = Node::new(&ann, &keys[1], vec![]);
    for (dialled, listened) in [talk(&stranger, &member).await, talk(&member, &stranger).await] {
        assert!(dialled.is_err() && listened.is_err());
    }
    assert_eq!(
        member.gate.waiting(Instant::now()),
        [Waiting {
            node: stranger.id(),
            name: "newcomer".into(),
            mac: Some([2; 6]),
            address: ([10, 0, 0, 9], 7744).into(),
        }]
    );
    assert!(stranger.gate.waiting(Instant::now()).is_empty(), "who has no say lists nobody");
    let turned_away = stranger.gate.take().reports;
    assert!(matches!(
        turned_away.as_slice(),
        [Report::TurnedAway { why: Refusal::NotAdmitted, member: true, .. }, ..]
    ));
    assert_eq!((member.gate.access(stranger.id()), stranger.gate.access(member.id())), (None, None));

    // Admitted, it is dialled and learns its own membership from whoever dials it.
    member.gate.learn(&membership(&ann, "b", Some(stranger.id()), 1)).unwrap();
    let reports = member.gate.take().reports;
    assert!(matches!(reports.last(), Some(Report::Admitted(waiting)) if waiting.node == stranger.id()));
    let (dialled, listened) = talk(&member, &stranger).await;
    assert!(dialled.is_ok() && listened.is_ok() && stranger.gate.admits(stranger.id()));
}

#[tokio::test]
async fn who_was_withdrawn_is_told_and_its_token_is_dead_at_once() {
    let (ann, keys, memberships) = two_members();
    let (one, two) =
        (Node::new(&ann, &keys[0], memberships.clone()), Node::new(&ann, &keys[1], memberships.clone()));
    let (_first, _second) = talk(&one, &two).await;
    let token = two.gate.access(one.id()).unwrap().token;
    assert_eq!(one.gate.holder(&token), Some(two.id()));
    one.gate.learn(&membership(&ann, "b", None, 2)).unwrap();
    assert_eq!(one.gate.holder(&token), None);
    // It goes on showing its old membership.
    let (dialled, listened) = talk(&two, &one).await;
    assert!(matches!(dialled, Err(TalkError::TurnedAway(Refusal::Withdrawn))), "{dialled:?}");
    assert!(matches!(listened, Err(TalkError::Stranger(Refusal::Withdrawn))));
    assert!(two.gate.admits(two.id()), "and nobody tells it more");
}

#[tokio::test]
async fn strangers_and_members_of_another_fabric_do_not_come_together() {
    let (ann, eve, keys) = (operator(1), operator(9), keys(2));
    let own = |operator: &Operator, key: &NodeKey| vec![membership(operator, "a", Some(key.node_id()), 1)];
    let one = Node::new(&ann, &keys[0], own(&ann, &keys[0]));
    let other = Node::new(&eve, &keys[1], own(&eve, &keys[1]));
    let (empty, also_empty) = (Node::new(&ann, &keys[0], vec![]), Node::new(&ann, &keys[1], vec![]));
    let forged = Node::new(&ann, &keys[0], own(&eve, &keys[0]));
    for (dialler, listener) in [(&one, &other), (&other, &one), (&empty, &also_empty), (&forged, &also_empty)]
    {
        let (dialled, listened) = talk(dialler, listener).await;
        assert!(dialled.is_err() && listened.is_err());
        assert!(listener.gate.access(dialler.id()).is_none());
    }
    assert!(forged.gate.memberships().is_empty());
}

#[tokio::test]
async fn hostile_messages_end_the_talk() {
    use tokio::io::AsyncWriteExt;
    use tokio_util::compat::TokioAsyncReadCompatExt;
    let (ann, keys) = (operator(1), keys(1));
    let member = Node::new(&ann, &keys[0], vec![membership(&ann, "a", Some(keys[0].node_id()), 1)]);
    for bytes in [&[0xff, 0xff, 1, 2][..], &[0, 3, 1, 1, 1], &[0, 0], &[0, 9, 0], &[]] {
        let (mut attacker, victim) = tokio::io::duplex(100);
        attacker.write_all(bytes).await.unwrap();
        attacker.shutdown().await.unwrap();
        let mut io = victim.compat();
        let ended = talk::listen(&member.gate, member.as_other(), &mut io).await;
        assert!(matches!(ended, Err(TalkError::Io(_) | TalkError::Malformed(_) | TalkError::TooLong { .. })));
    }
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Connect(usize, usize),
    Disconnect(usize),
    Admit(usize),
    Withdraw(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0..4usize, 0..4usize).prop_map(|(one, two)| Act::Connect(one, two)),
        (0..8usize).prop_map(Act::Disconnect),
        (0..4usize).prop_map(Act::Admit),
        (0..4usize).prop_map(Act::Withdraw),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens, a token opens a node's blobs exactly to whom that node admits and is connected.
    #[test]
    fn a_token_is_good_for_a_connected_member_and_nobody_else(acts in prop::collection::vec(act(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ann = operator(1);
        let nodes: Vec<Node> = keys(4).iter().map(|key| Node::new(&ann, key, vec![])).collect();
        // The first is the operator's own and knows every change; the others learn of them by talking.
        let mut generations = [0u64; 4];
        let mut connections: Vec<(usize, usize, Tie, Tie)> = Vec::new();
        let admit = |who: usize, node: Option<NodeId>, generations: &mut [u64; 4]| {
            generations[who] += 1;
            nodes[0].gate.learn(&membership(&ann, &format!("n{who}"), node, generations[who])).unwrap();
        };
        admit(0, Some(nodes[0].id()), &mut generations);
        for act in acts {
            match act {
                Act::Connect(one, two) if one != two => {
                    if let (Ok(first), Ok(second)) = runtime.block_on(talk(&nodes[one], &nodes[two])) {
                        prop_assert!(nodes[two].gate.admits(nodes[one].id()) && nodes[one].gate.admits(nodes[two].id()));
                        connections.push((one, two, first, second));
                    }
                }
                Act::Connect(..) => {}
                Act::Disconnect(at) if at < connections.len() => drop(connections.swap_remove(at)),
                Act::Disconnect(_) => {}
                Act::Admit(who) => admit(who, Some(nodes[who].id()), &mut generations),
                Act::Withdraw(who) => admit(who, None, &mut generations),
            }
            for (one, giver) in nodes.iter().enumerate() {
                for (two, taker) in nodes.iter().enumerate().filter(|(two, _)| *two != one) {
                    let connected = connections.iter().any(|(a, b, ..)| (*a, *b) == (one, two) || (*b, *a) == (one, two));
                    let access = taker.gate.access(giver.id());
                    prop_assert_eq!(access.is_some(), connected);
                    if let Some(access) = access {
                        let holder = giver.gate.admits(taker.id()).then(|| taker.id());
                        prop_assert_eq!(giver.gate.holder(&access.token), holder);
                    }
                }
                let made_up = BulkToken::from_bytes([u8::try_from(one).unwrap(); 32]);
                prop_assert_eq!(giver.gate.holder(&made_up), None);
            }
        }
    }

    #[test]
    fn no_message_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let ann = operator(1);
        let key = NodeKey::from_bytes(&[5; 32]).unwrap();
        let node = Node::new(&ann, &key, vec![]);
        let _ = node.gate.learn(&bytes);
        if let Ok(verdict) = crate::codec::decode::<Verdict>("verdict", &bytes) {
            let _ = node.gate.close(node.as_other(), verdict, Instant::now());
        }
        if let Ok(show) = crate::codec::decode::<Show>("show", &bytes) {
            let _ = node.gate.answer(node.as_other(), show, Instant::now());
        }
    }
}
