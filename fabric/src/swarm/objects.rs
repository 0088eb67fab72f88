//! Small objects by hash: signed releases, indexes.
//!
//! One short stream per request: the asker sends the 32 bytes of the hash, the holder answers with one byte of status
//! and, if it has the object, its length (32 bit, big endian) and its bytes. The asker checks the hash. Everything has a
//! deadline; who answers slowly or falsely is left for another peer, who is busy is asked again a moment later.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::id::{Hash, NodeId, ObjectId};

/// Largest object: the index of a blob of 100,000 chunks and more.
pub const MAX_OBJECT: usize = 8 * 1024 * 1024;
/// Objects served at once; each may take [`MAX_OBJECT`] bytes of memory.
pub(crate) const MAX_SERVING: usize = 8;
/// Requests read or waiting at once; further ones are refused.
pub(crate) const MAX_REQUESTS: usize = 64;
/// How long a request waits for its turn; the asker waits longer.
const TURN: Duration = Duration::from_secs(3);
/// How often peers that are busy or fail are asked.
pub(crate) const ROUNDS: usize = 4;
/// Pause between rounds.
pub(crate) const BETWEEN_ROUNDS: Duration = Duration::from_millis(300);
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
        matches!(self, Self::Busy | Self::Slow | Self::Io(_))
    }

    /// Whether the peer lied.
    pub(crate) fn is_offence(&self) -> bool {
        matches!(self, Self::WrongHash | Self::Protocol)
    }
}

/// In which order to ask: the one that is said to have it, then an order that differs from object to object.
pub(crate) fn ask_order(id: &ObjectId, first: Option<NodeId>, mut peers: Vec<NodeId>) -> Vec<NodeId> {
    peers.sort_by_cached_key(|node| {
        (Some(*node) != first, Hash::of(&[id.0.as_bytes().as_slice(), node.0.as_bytes()].concat()))
    });
    peers
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

async fn read_exact(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> Result<(), FetchError> {
    Ok(timeout(STALL, stream.read_exact(buffer)).await.map_err(|_| FetchError::Slow)??)
}

/// Answers one request, when one of `turns` is free.
pub(crate) async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    source: Arc<dyn ObjectSource>,
    turns: &Semaphore,
) -> Result<(), FetchError> {
    let mut id = [0; 32];
    read_exact(&mut stream, &mut id).await?;
    let turn = timeout(TURN, turns.acquire()).await;
    let answer = async {
        let Ok(Ok(_turn)) = turn else { return stream.write_all(&[BUSY]).await };
        let id = ObjectId(Hash::from_bytes(id));
        let object = tokio::task::spawn_blocking(move || source.object(&id)).await.ok().flatten();
        match object.map(|object| (u32::try_from(object.len()).unwrap_or(u32::MAX), object)) {
            Some((length, object)) if object.len() <= MAX_OBJECT => {
                stream.write_all(&[HELD]).await?;
                stream.write_all(&length.to_be_bytes()).await?;
                stream.write_all(&object).await?;
            }
            _ => stream.write_all(&[NOT_HELD]).await?,
        }
        stream.close().await
    };
    Ok(timeout(WHOLE, answer).await.map_err(|_| FetchError::Slow)??)
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
        let serve = serve(holder.compat(), Arc::new(held), &turns);
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
        let order = ask_order(&id, Some(peers[5]), peers.clone());
        assert_eq!((order[0], order.len()), (peers[5], 9));
    }
}
