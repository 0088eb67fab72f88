//! Peers that break the rules: a bare libp2p node that says whatever a test wants over the channel.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use libp2p::Multiaddr;
use libp2p::swarm::SwarmEvent as Libp2pEvent;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::address::multiaddr;
use super::behaviour::{self, Behaviour};
use super::frame::{Frame, Hello, MAX_FRAME, MAX_HELLO};
use super::key::NodeKey;
use super::member::{MemberInfo, SignedMember, Statement};
use super::objects;
use super::protocol::{FabricTag, Names, ProtocolRange};
use super::records::replicate::Words;
use super::records::{Record, WireRecord};
use super::streams::{Opened, Stream};
use super::{ObjectSource, Swarm, SwarmConfig, SwarmEvent, SwarmHandle};
use crate::codec;
use crate::id::{Hash, NodeId, ObjectId};

const DEADLINE: Duration = Duration::from_secs(30);

struct Nothing;

impl ObjectSource for Nothing {
    fn object(&self, _: &ObjectId) -> Option<Bytes> {
        None
    }
}

struct Victim {
    handle: SwarmHandle,
    events: mpsc::Receiver<SwarmEvent>,
    shutdown: CancellationToken,
}

fn tag() -> FabricTag {
    FabricTag::of(b"test")
}

async fn victim() -> Victim {
    let shutdown = CancellationToken::new();
    let (handle, events) = Swarm::start(SwarmConfig {
        key: NodeKey::generate(),
        fabric: tag(),
        listen: vec![(Ipv4Addr::LOCALHOST, 0).into()],
        first_peers: vec![],
        mdns: false,
        me: MemberInfo::new("victim", Ipv4Addr::LOCALHOST),
        objects: Arc::new(Nothing),
        shutdown: shutdown.clone(),
    })
    .await
    .unwrap();
    Victim { handle, events, shutdown }
}

impl Victim {
    async fn until(&mut self, what: &str, is: impl Fn(&SwarmEvent) -> bool) -> SwarmEvent {
        let wait = async {
            while let Some(event) = self.events.recv().await {
                if is(&event) {
                    return event;
                }
            }
            panic!("the swarm ended");
        };
        tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }

    /// An honest node still gets in, and everything still stops.
    async fn end_well(mut self) {
        let mut attacker = Attacker::connect(&self).await;
        attacker.greet().await;
        let node = attacker.key.node_id();
        self.until("an honest peer", |event| matches!(event, SwarmEvent::PeerUp(peer, ..) if *peer == node))
            .await;
        self.shutdown.cancel();
        tokio::time::timeout(DEADLINE, self.handle.stopped()).await.unwrap();
    }
}

struct Attacker {
    key: NodeKey,
    stream: Stream,
    objects: mpsc::Sender<oneshot::Sender<Opened>>,
    closed: CancellationToken,
}

impl Attacker {
    async fn connect(victim: &Victim) -> Self {
        let key = NodeKey::generate();
        let names = Names::new(tag()).unwrap();
        let mut swarm: libp2p::Swarm<Behaviour> = behaviour::build(&key, &names, None).unwrap();
        let address: Multiaddr = multiaddr(victim.handle.listening()[0]);
        swarm.dial(address).unwrap();
        let (peer, connection) = loop {
            if let Libp2pEvent::ConnectionEstablished { peer_id, connection_id, .. } =
                swarm.select_next_some().await
            {
                break (peer_id, connection_id);
            }
        };
        let opened = swarm.behaviour_mut().streams.open(peer, connection, names.channel);
        let closed = CancellationToken::new();
        let notice = closed.clone();
        let (objects, mut opens) = mpsc::channel::<oneshot::Sender<Opened>>(1);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    event = swarm.select_next_some() => {
                        if let Libp2pEvent::ConnectionClosed { .. } = event {
                            notice.cancel();
                        }
                    }
                    Some(open) = opens.recv() => {
                        let streams = &mut swarm.behaviour_mut().streams;
                        let _ = open.send(streams.open(peer, connection, names.object.clone()));
                    }
                }
            }
        });
        Self { key, stream: opened.await.unwrap().unwrap(), objects, closed }
    }

    /// Opens a stream on which objects are asked for.
    async fn ask_for_object(&self) -> Stream {
        let (open, opened) = oneshot::channel();
        self.objects.send(open).await.unwrap();
        opened.await.unwrap().await.unwrap().unwrap()
    }

    fn hello(&self) -> Hello {
        let info =
            MemberInfo { node: self.key.node_id(), ..MemberInfo::new("attacker", Ipv4Addr::UNSPECIFIED) };
        let member = SignedMember::sign(&self.key, tag(), &info, Statement(0)).unwrap();
        Hello { protocols: ProtocolRange::OURS, member, digest: 0 }
    }

    async fn greet(&mut self) {
        let hello = self.hello().encode().unwrap();
        self.say(&hello).await;
    }

    async fn say(&mut self, bytes: &[u8]) {
        // The victim may have hung up half way: that is its right.
        let _: io::Result<()> = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        }
        .await;
    }

    /// Reads frames until one is what is looked for.
    async fn hear<T>(&mut self, find: impl Fn(&[u8]) -> Option<T>) -> T {
        let hear = async {
            loop {
                let mut length = [0; 4];
                self.stream.read_exact(&mut length).await.unwrap();
                let mut frame = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
                self.stream.read_exact(&mut frame).await.unwrap();
                if let Some(found) = find(&frame) {
                    return found;
                }
            }
        };
        tokio::time::timeout(DEADLINE, hear).await.expect("the victim says something else")
    }

    /// Waits until the victim closes the connection.
    async fn is_dropped(&mut self) {
        tokio::time::timeout(DEADLINE, self.closed.cancelled())
            .await
            .expect("the victim keeps the connection");
    }
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len() + 1).unwrap();
    [len.to_be_bytes().as_slice(), &[kind], body].concat()
}

#[tokio::test]
async fn what_is_no_greeting_ends_the_connection() {
    let victim = victim().await;
    let long = u32::try_from(MAX_HELLO + 1).unwrap().to_be_bytes();
    let huge = u32::MAX.to_be_bytes();
    for bytes in
        [long.as_slice(), &huge, &[0, 0, 0, 0], &framed(1, &[0xff; 40]), &framed(1, &[]), &framed(9, &[1, 2])]
    {
        let mut attacker = Attacker::connect(&victim).await;
        attacker.say(bytes).await;
        attacker.is_dropped().await;
    }
    victim.end_well().await;
}

#[tokio::test]
async fn a_greeting_in_anothers_name_ends_the_connection() {
    let victim = victim().await;
    let mut attacker = Attacker::connect(&victim).await;
    let other = NodeKey::generate();
    let info = MemberInfo { node: other.node_id(), ..MemberInfo::new("other", Ipv4Addr::LOCALHOST) };
    let member = SignedMember::sign(&other, tag(), &info, Statement(0)).unwrap();
    let hello = Hello { member, ..attacker.hello() };
    attacker.say(&hello.encode().unwrap()).await;
    attacker.is_dropped().await;
    victim.end_well().await;
}

#[tokio::test]
async fn a_version_that_nobody_here_speaks_ends_the_connection() {
    let victim = victim().await;
    let mut attacker = Attacker::connect(&victim).await;
    let hello = Hello { protocols: ProtocolRange { oldest: 7, newest: 9 }, ..attacker.hello() };
    attacker.say(&hello.encode().unwrap()).await;
    attacker.is_dropped().await;
    victim.end_well().await;
}

#[tokio::test]
async fn hostile_frames_of_a_greeted_peer_end_the_connection() {
    let mut victim = victim().await;
    let too_long = u32::try_from(MAX_FRAME + 1).unwrap().to_be_bytes().to_vec();
    let false_member = {
        let (key, other) = (NodeKey::generate(), NodeKey::generate());
        let info = MemberInfo { node: other.node_id(), ..MemberInfo::new("x", Ipv4Addr::LOCALHOST) };
        Frame::Members(vec![SignedMember::sign(&key, tag(), &info, Statement(u64::MAX)).unwrap()])
    };
    let many: Vec<NodeId> = (0..600u32).map(|n| NodeId(Hash::of(&n.to_be_bytes()))).collect();
    for bytes in [
        too_long,
        framed(14, &[0xff; 100]),
        framed(3, &[1]),
        framed(11, &[1, 2, 3]),
        framed(7, &codec::encode("nodes", &many).unwrap()),
        false_member.encode().unwrap().to_vec(),
    ] {
        let mut attacker = Attacker::connect(&victim).await;
        attacker.greet().await;
        let node = attacker.key.node_id();
        victim
            .until("the peer", |event| matches!(event, SwarmEvent::PeerUp(peer, ..) if *peer == node))
            .await;
        attacker.say(&bytes).await;
        victim.until("its end", |event| *event == SwarmEvent::PeerDown(node)).await;
        attacker.is_dropped().await;
    }
    victim.end_well().await;
}

#[tokio::test]
async fn unknown_kinds_and_oversized_records_are_passed_over() {
    let mut victim = victim().await;
    let mut attacker = Attacker::connect(&victim).await;
    attacker.greet().await;
    let author = NodeId(Hash::of(b"a"));
    let record = |key: usize, value: usize| Record {
        topic: 1,
        key: vec![1; key],
        counter: u64::MAX,
        author,
        value: vec![2; value],
        age: Duration::ZERO,
    };
    attacker.say(&framed(200, b"of a later version")).await;
    let wire: Vec<WireRecord> = [record(65, 0), record(1, 257)].iter().map(WireRecord::from).collect();
    attacker.say(&framed(9, &codec::encode("records", &wire).unwrap())).await;
    let good = Frame::Records(Words::Records { records: vec![record(1, 1)], pulled: false });
    attacker.say(&good.encode().unwrap()).await;
    let told = victim.until("records", |event| matches!(event, SwarmEvent::Records(_))).await;
    assert_eq!(told, SwarmEvent::Records(vec![record(1, 1)]));
    assert_eq!(victim.handle.records(1).await.len(), 1);
    victim.end_well().await;
}

#[tokio::test]
async fn who_greets_late_hears_what_changed_since_it_was_greeted() {
    let victim = victim().await;
    let mut attacker = Attacker::connect(&victim).await;
    let told = attacker.hear(|body| Hello::decode(body).unwrap()).await;
    assert!(!told.member.claim().unwrap().1.boots);
    let me = MemberInfo { boots: true, ..MemberInfo::new("victim", Ipv4Addr::LOCALHOST) };
    victim.handle.update_me(me).await.unwrap();
    attacker.greet().await;
    let boots = attacker
        .hear(|frame| match Frame::decode(frame).unwrap() {
            Some(Frame::Members(members)) => {
                members.iter().map(|member| member.claim().unwrap().1).find(|info| info.name == "victim")
            }
            _ => None,
        })
        .await;
    assert!(boots.boots);
    victim.end_well().await;
}

#[tokio::test]
async fn who_has_not_greeted_gets_no_object_and_is_dropped_in_the_end() {
    let victim = victim().await;
    let mut attacker = Attacker::connect(&victim).await;
    let mut request = attacker.ask_for_object().await;
    let mut answer = Vec::new();
    let asked: io::Result<usize> = async {
        request.write_all(&[1; 32]).await?;
        request.read_to_end(&mut answer).await
    }
    .await;
    assert!(!matches!(asked, Ok(1..)), "{answer:?}");
    attacker.is_dropped().await;
    victim.end_well().await;
}

#[tokio::test]
async fn half_a_request_holds_up_nobody_else() {
    let mut victim = victim().await;
    let mut attacker = Attacker::connect(&victim).await;
    attacker.greet().await;
    let node = attacker.key.node_id();
    victim.until("the peer", |event| matches!(event, SwarmEvent::PeerUp(peer, ..) if *peer == node)).await;
    let mut silent = Vec::new();
    for _ in 0..2 * objects::MAX_SERVING {
        let mut request = attacker.ask_for_object().await;
        request.write_all(&[1, 2, 3]).await.unwrap();
        request.flush().await.unwrap();
        silent.push(request);
    }
    let request = attacker.ask_for_object().await;
    let answer = objects::fetch(request, &ObjectId(Hash::of(b"x"))).await;
    assert!(matches!(answer, Err(objects::FetchError::NotHeld)), "{answer:?}");
    victim.end_well().await;
}
