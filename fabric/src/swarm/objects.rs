//! Small objects by hash: signed releases, indexes.
//!
//! One short stream per request: the asker sends the 32 bytes of the hash, the holder answers with one byte of status
//! and, if it has the object, its length (32 bit, big endian) and its bytes. The asker checks the hash. Everything has a
//! deadline; who answers slowly or falsely is left for another peer, who is busy is asked again a moment later.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::elsewhere::{Elsewhere, Entry, Giving, LARGE, MAX_NAMED};
use crate::id::{Hash, NodeId, ObjectId};

/// Largest object: the index of a blob of 100,000 chunks and more.
pub const MAX_OBJECT: usize = 8 * 1024 * 1024;
/// Objects served at once; each may take [`MAX_OBJECT`] bytes of memory.
pub(crate) const MAX_SERVING: usize = 8;
/// Requests read or waiting at once; further ones are refused.
pub(crate) const MAX_REQUESTS: usize = 64;
/// How long a request waits for its turn; the asker waits longer.
const TURN: Duration = Duration::from_secs(3);
/// Pauses before peers that are busy or fail are asked again. The first is short: when two nodes dial each other at once, what is
/// asked over the connection that they give up fails, and the other is there.
pub(crate) const PAUSES: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(300), Duration::from_millis(600)];
/// Objects fetched at once, for the same reason.
pub(crate) const MAX_FETCHING: usize = 8;
/// Time for the next byte of a request or an answer.
const STALL: Duration = Duration::from_secs(5);
/// Time for a whole object: 8 MiB at 1 MiB/s and some.
const WHOLE: Duration = Duration::from_secs(20);
/// Time to open a stream for a request.
pub(crate) const OPEN: Duration = STALL;
/// Read at once.
const PIECE: usize = 64 * 1024;

const HELD: u8 = 0;
const NOT_HELD: u8 = 1;
const BUSY: u8 = 2;
const ELSEWHERE: u8 = 3;

/// Where a node's own objects are. Called on a thread that may block.
pub trait ObjectSource: Send + Sync + 'static {
    /// The object, if it is held; at most [`MAX_OBJECT`] bytes.
    fn object(&self, id: &ObjectId) -> Option<Bytes>;
}

/// Why an object could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// There is nobody to ask.
    #[error("object {0} is not held here and there is no peer to ask")]
    NoPeers(ObjectId),
    /// Nobody asked gave it.
    #[error("none of the {asked} peers asked gave object {id}")]
    NotFound {
        /// The object.
        id: ObjectId,
        /// How many peers were asked.
        asked: usize,
    },
    /// The swarm has shut down.
    #[error("the swarm has shut down")]
    Closed,
}

/// Why one peer did not give it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("the peer does not hold it")]
    NotHeld,
    #[error("the peer is busy")]
    Busy,
    #[error("the peer is busy and names others")]
    Elsewhere(Vec<NodeId>),
    #[error("the peer is too slow")]
    Slow,
    #[error("the stream broke")]
    Io(#[from] io::Error),
    #[error("the peer gave other bytes than asked for")]
    WrongHash,
    #[error("the peer does not keep to the protocol")]
    Protocol,
}

impl FetchError {
    /// Whether the same peer may give it a moment later.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Busy | Self::Elsewhere(_) | Self::Slow | Self::Io(_))
    }

    /// Whether the peer lied.
    pub(crate) fn is_offence(&self) -> bool {
        matches!(self, Self::WrongHash | Self::Protocol)
    }
}

/// In which order `me` asks: the one that is said to have it, then an order that differs from node to node and from object to
/// object.
pub(crate) fn ask_order(
    me: NodeId,
    id: &ObjectId,
    first: Option<NodeId>,
    mut peers: Vec<NodeId>,
) -> VecDeque<NodeId> {
    peers.sort_by_cached_key(|node| {
        let order = Hash::of(&[id.0.as_bytes().as_slice(), me.0.as_bytes(), node.0.as_bytes()].concat());
        (Some(*node) != first, order)
    });
    peers.into()
}

/// Asks over a fresh stream.
pub(crate) async fn fetch(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    id: &ObjectId,
) -> Result<Bytes, FetchError> {
    timeout(WHOLE, ask(stream, id)).await.unwrap_or(Err(FetchError::Slow))
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, id: &ObjectId) -> Result<Bytes, FetchError> {
    stream.write_all(id.0.as_bytes()).await?;
    stream.flush().await?;
    let mut status = [0];
    read_exact(&mut stream, &mut status).await?;
    match status {
        [HELD] => {}
        [NOT_HELD] => return Err(FetchError::NotHeld),
        [BUSY] => return Err(FetchError::Busy),
        [ELSEWHERE] => return Err(named(&mut stream).await?),
        _ => return Err(FetchError::Protocol),
    }
    let mut length = [0; 4];
    read_exact(&mut stream, &mut length).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_OBJECT {
        return Err(FetchError::Protocol);
    }
    let mut object = Vec::new();
    while object.len() < length {
        let start = object.len();
        object.resize(length.min(start + PIECE), 0);
        read_exact(&mut stream, object.get_mut(start..).unwrap_or_default()).await?;
    }
    if Hash::of(&object) == id.0 { Ok(object.into()) } else { Err(FetchError::WrongHash) }
}

async fn named(stream: &mut (impl AsyncRead + Unpin)) -> Result<FetchError, FetchError> {
    let mut count = [0];
    read_exact(stream, &mut count).await?;
    let count = usize::from(count[0]);
    if count > MAX_NAMED {
        return Err(FetchError::Protocol);
    }
    let mut nodes = Vec::with_capacity(count);
    for _ in 0..count {
        let mut node = [0; 32];
        read_exact(stream, &mut node).await?;
        nodes.push(NodeId(Hash::from_bytes(node)));
    }
    Ok(FetchError::Elsewhere(nodes))
}

async fn read_exact(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> Result<(), FetchError> {
    Ok(timeout(STALL, stream.read_exact(buffer)).await.map_err(|_| FetchError::Slow)??)
}

/// Answers one request of `asker`, when one of `turns` is free.
pub(crate) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    asker: NodeId,
    source: Arc<dyn ObjectSource>,
    turns: &Semaphore,
    elsewhere: &Arc<Elsewhere>,
) -> Result<(), FetchError> {
    let mut id = [0; 32];
    read_exact(&mut stream, &mut id).await?;
    let id = ObjectId(Hash::from_bytes(id));
    let turn = timeout(TURN, turn(id, asker, &source, turns, elsewhere)).await.unwrap_or(Turn::Busy);
    let answer = async {
        match turn {
            Turn::Busy => stream.write_all(&[BUSY]).await?,
            Turn::NotHeld => stream.write_all(&[NOT_HELD]).await?,
            Turn::Elsewhere(nodes) => {
                let count = u8::try_from(nodes.len()).unwrap_or(u8::MAX);
                let ids = nodes.iter().flat_map(|node| *node.0.as_bytes());
                let answer: Vec<u8> = [ELSEWHERE, count].into_iter().chain(ids).collect();
                stream.write_all(&answer).await?;
            }
            Turn::Held { object, giving, _turn } => {
                let length = u32::try_from(object.len()).unwrap_or(u32::MAX);
                stream.write_all(&[HELD]).await?;
                stream.write_all(&length.to_be_bytes()).await?;
                stream.write_all(&object).await?;
                stream.close().await?;
                if let Some(giving) = giving {
                    giving.done();
                }
                return Ok(());
            }
        }
        stream.close().await
    };
    Ok(timeout(WHOLE, answer).await.map_err(|_| FetchError::Slow)??)
}

enum Turn<'a> {
    Busy,
    NotHeld,
    Elsewhere(Vec<NodeId>),
    Held { object: Bytes, giving: Option<Giving>, _turn: SemaphorePermit<'a> },
}

async fn turn<'a>(
    id: ObjectId,
    asker: NodeId,
    source: &Arc<dyn ObjectSource>,
    turns: &'a Semaphore,
    elsewhere: &Arc<Elsewhere>,
) -> Turn<'a> {
    loop {
        let changed = elsewhere.changed();
        let Ok(turn) = turns.acquire().await else { return Turn::Busy };
        let source = Arc::clone(source);
        let object = tokio::task::spawn_blocking(move || source.object(&id)).await.ok().flatten();
        let Some(object) = object.filter(|object| object.len() <= MAX_OBJECT) else { return Turn::NotHeld };
        if object.len() < LARGE {
            return Turn::Held { object, giving: None, _turn: turn };
        }
        match elsewhere.enter(id, asker, Instant::now()) {
            Entry::Give(giving) => return Turn::Held { object, giving: Some(giving), _turn: turn },
            Entry::Ask(nodes) => return Turn::Elsewhere(nodes),
            Entry::Wait => {}
        }
        drop((turn, object));
        changed.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::compat::TokioAsyncReadCompatExt;

    struct One(ObjectId, Bytes);

    impl ObjectSource for One {
        fn object(&self, id: &ObjectId) -> Option<Bytes> {
            (*id == self.0).then(|| self.1.clone())
        }
    }

    async fn exchange(held: One, busy: bool, ask_for: ObjectId) -> Result<Bytes, FetchError> {
        let (asker, holder) = tokio::io::duplex(1000);
        let turns = Semaphore::new(usize::from(!busy));
        let asked_by = NodeId(Hash::of(b"asker"));
        let elsewhere = Arc::new(Elsewhere::default());
        let serve = serve(holder.compat(), asked_by, Arc::new(held), &turns, &elsewhere);
        tokio::join!(fetch(asker.compat(), &ask_for), serve).0
    }

    #[tokio::test]
    async fn an_object_is_given_refused_or_found_false() {
        let object = Bytes::from(vec![7; 200_000]);
        let id = ObjectId(Hash::of(&object));
        let other = ObjectId(Hash::of(b"other"));
        assert_eq!(exchange(One(id, object.clone()), false, id).await.unwrap(), object);
        assert!(matches!(exchange(One(id, object.clone()), false, other).await, Err(FetchError::NotHeld)));
        assert!(matches!(exchange(One(id, object.clone()), true, id).await, Err(FetchError::Busy)));
        assert!(matches!(exchange(One(other, object), false, other).await, Err(FetchError::WrongHash)));
    }

    #[test]
    fn the_one_said_to_have_it_is_asked_first() {
        let peers: Vec<NodeId> = (0..9u8).map(|n| NodeId(Hash::of(&[n]))).collect();
        let id = ObjectId(Hash::of(b"o"));
        let order = ask_order(peers[0], &id, Some(peers[5]), peers.clone());
        assert_eq!((order[0], order.len()), (peers[5], 9));
        assert_ne!(
            order,
            ask_order(peers[1], &id, Some(peers[5]), peers.clone()),
            "each in an order of its own"
        );
    }

    #[tokio::test]
    async fn who_asks_a_holder_with_much_to_do_hears_of_another() {
        let object = Bytes::from(vec![7; 200_000]);
        let id = ObjectId(Hash::of(&object));
        let held: Arc<dyn ObjectSource> = Arc::new(One(id, object.clone()));
        let (turns, elsewhere) = (Semaphore::new(8), Arc::new(Elsewhere::default()));
        let node = |n: u8| NodeId(Hash::of(&[n]));
        let ask = async |n: u8| {
            let (asker, holder) = tokio::io::duplex(1000);
            let serve = serve(holder.compat(), node(n), held.clone(), &turns, &elsewhere);
            tokio::join!(fetch(asker.compat(), &id), serve).0
        };
        let Entry::Give(_one) = elsewhere.enter(id, node(1), Instant::now()) else { panic!() };
        let Entry::Give(other) = elsewhere.enter(id, node(2), Instant::now()) else { panic!() };
        // It waits while nobody can be named, and is given the place that becomes free.
        let (waiting, ()) = tokio::join!(ask(3), async { other.done() });
        assert_eq!(waiting.unwrap(), object);
        let Entry::Give(_other) = elsewhere.enter(id, node(4), Instant::now()) else { panic!() };
        let named = ask(5).await;
        assert!(
            matches!(&named, Err(FetchError::Elsewhere(nodes)) if *nodes == [node(3), node(2)]),
            "{named:?}"
        );
    }
}
