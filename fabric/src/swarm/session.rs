//! One peer's channel: a task that reads and writes frames over one stream.
//!
//! The node that dialled opens one stream and both use it; each writes its [`Hello`] first and then frames. One task per
//! session runs a reader and a writer side by side, so neither waits for the other:
//!
//! - the writer empties the [`Outbox`] of its [`Link`], many frames per write; a peer that takes nothing for
//!   [`WRITE_STALL`] is given up;
//! - the reader hands frames to the driver over one bounded channel and waits when it is full, which slows the peer
//!   through TCP; pings it answers itself. It reads at most [`FRAMES_PER_SECOND`] in the long run.
//!
//! Aborting the task loses what waits in the outbox and nothing else. It never decides who is a peer: the driver does.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::frame::{Frame, FrameError, Goodbye, Hello, LENGTH_LEN, MAX_FRAME, MAX_HELLO};
use super::member::{MemberError, MemberInfo, Statement};
use super::outbox::{Outbox, Outgoing, TooSlow};
use super::pace::Pace;
use super::protocol::{FabricTag, ProtocolRange};
use super::streams::{OpenError, Opened, Stream};
use crate::exchange::message::Message;
use crate::id::NodeId;

/// Negotiating the stream and the exchange of greetings, on a machine busy with booting.
pub(crate) const GREETING: Duration = Duration::from_secs(10);
/// A peer that takes no byte for so long is given up.
const WRITE_STALL: Duration = Duration::from_secs(20);
/// Frames joined into one write: a few Noise messages.
const COALESCE: usize = 64 * 1024;
/// What a peer may send in the long run: thirty blobs' deltas at 20 Hz are 600.
const FRAMES_PER_SECOND: u32 = 2000;
/// What it may send at once: the answer to a pull and the state of many blobs.
const FRAME_BURST: u32 = 4000;
/// Reading ahead, per peer.
const READ_BUFFER: usize = 8 * 1024;

/// Names a session; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionId(pub(crate) u64);

/// What others hold of a session: its outbox and its signs of life.
#[derive(Debug)]
pub(crate) struct Link {
    outbox: Mutex<Outbox>,
    wake: Notify,
    finishing: AtomicBool,
    started: Instant,
    /// Since `started`. Fine enough that an answer never seems older than its question.
    heard_nanos: AtomicU64,
    /// The reader waits for us, not for the peer.
    blocked: AtomicBool,
    cancel: CancellationToken,
}

impl Link {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            outbox: Mutex::default(),
            wake: Notify::new(),
            finishing: AtomicBool::new(false),
            started: now,
            heard_nanos: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            cancel: CancellationToken::new(),
        }
    }

    pub(crate) fn send_frame(&self, frame: Bytes) -> Result<(), TooSlow> {
        self.push(|outbox| outbox.push_frame(frame))
    }

    pub(crate) fn send_exchange(&self, message: Message) -> Result<(), TooSlow> {
        self.push(|outbox| outbox.push_exchange(message))
    }

    /// Sends what waits, then ends.
    pub(crate) fn finish(&self) {
        self.finishing.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Ends at once.
    pub(crate) fn cancel(&self) {
        self.cancel.cancel();
    }

    /// When the peer was last heard; now if it is us who do not listen.
    pub(crate) fn heard(&self, now: Instant) -> Instant {
        if self.blocked.load(Ordering::Relaxed) {
            return now;
        }
        self.started + Duration::from_nanos(self.heard_nanos.load(Ordering::Relaxed))
    }

    fn push(&self, push: impl FnOnce(&mut Outbox) -> Result<(), TooSlow>) -> Result<(), TooSlow> {
        let result = push(&mut self.outbox.lock().unwrap_or_else(PoisonError::into_inner));
        match result {
            Ok(()) => self.wake.notify_one(),
            Err(TooSlow) => self.cancel.cancel(),
        }
        result
    }

    fn note_heard(&self) {
        let nanos = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.heard_nanos.store(nanos, Ordering::Relaxed);
    }

    /// What waits, up to about [`COALESCE`] bytes.
    fn take(&self) -> Result<Vec<u8>, FrameError> {
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = Vec::new();
        while batch.len() < COALESCE {
            match outbox.pop() {
                Some(Outgoing::Frame(frame)) => batch.extend_from_slice(&frame),
                Some(Outgoing::Exchange(message)) => {
                    batch.extend_from_slice(&Frame::Exchange(message).encode()?);
                }
                None => break,
            }
        }
        Ok(batch)
    }
}

/// What a session tells the driver.
#[derive(Debug)]
pub(crate) enum FromSession {
    /// The peer said who it is: verified, and it is the one at the other end.
    Greeted(Box<Greeting>),
    /// A frame of a greeted peer.
    Frame(Frame),
}

impl FromSession {
    /// Whether the driver only hands it on.
    pub(crate) fn passes_through(&self) -> bool {
        matches!(self, Self::Frame(Frame::Exchange(_) | Frame::Pong))
    }
}

/// A verified [`Hello`].
#[derive(Debug)]
pub(crate) struct Greeting {
    pub(crate) hello: Hello,
    pub(crate) info: MemberInfo,
    pub(crate) statement: Statement,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error("the peer said goodbye ({0:?})")]
    Goodbye(Goodbye),
    #[error("the peer closed the channel")]
    Closed,
    #[error("this node closed the channel")]
    Cancelled,
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("no greeting in time")]
    NoGreeting,
    #[error("no version of the protocol in common: the peer speaks {0}")]
    Version(ProtocolRange),
    #[error("the peer takes no data")]
    Stalled,
    #[error("the channel broke")]
    Io(#[from] io::Error),
    #[error("the peer does not keep to the protocol")]
    Frame(#[from] FrameError),
    #[error("the peer is not who it says it is")]
    Member(#[from] MemberError),
}

impl Ended {
    /// Whether the peer is alive as far as one can tell.
    pub(crate) fn peer_lives(&self) -> bool {
        matches!(self, Self::Goodbye(Goodbye::Full) | Self::Cancelled)
    }

    /// Whether the peer breaks the rules rather than failing.
    pub(crate) fn is_offence(&self) -> bool {
        matches!(self, Self::Frame(_) | Self::Member(_))
    }
}

/// A session about to start.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) node: NodeId,
    pub(crate) tag: FabricTag,
    pub(crate) link: Arc<Link>,
    pub(crate) hello: Bytes,
    pub(crate) to_driver: mpsc::Sender<(SessionId, FromSession)>,
}

/// Where its stream comes from.
pub(crate) enum Origin {
    /// The peer opened it.
    Accepted(Stream),
    /// We asked for it.
    Dialled(Opened),
}

impl Session {
    /// Runs until one side ends it.
    pub(crate) async fn run(self, origin: Origin) -> Ended {
        let link = self.link.clone();
        tokio::select! {
            () = link.cancel.cancelled() => Ended::Cancelled,
            result = self.talk(origin) => result.map_or_else(|ended| ended, |()| Ended::Closed),
        }
    }

    async fn talk(self, origin: Origin) -> Result<(), Ended> {
        let stream = match origin {
            Origin::Accepted(stream) => stream,
            Origin::Dialled(opened) => timeout(GREETING, opened)
                .await
                .map_err(|_| Ended::NoGreeting)?
                .map_err(|_| OpenError::Failed)??,
        };
        let (reader, mut writer) = stream.split();
        let hello = self.hello.clone();
        let link = self.link.clone();
        let write = async {
            write(&mut writer, &hello).await?;
            while let Some(batch) = next_batch(&link).await? {
                write(&mut writer, &batch).await?;
            }
            writer.close().await?;
            Ok(())
        };
        tokio::select! {
            ended = write => ended,
            ended = self.read(BufReader::with_capacity(READ_BUFFER, reader)) => ended,
        }
    }

    async fn read(self, mut reader: impl AsyncRead + Unpin) -> Result<(), Ended> {
        let first = timeout(GREETING, read_frame(&mut reader, MAX_HELLO)).await;
        let Some(first) = first.map_err(|_| Ended::NoGreeting)?? else { return Ok(()) };
        let greeting = self.greeting(&first)?;
        self.tell(FromSession::Greeted(Box::new(greeting))).await?;
        let pong = Frame::Pong.encode()?;
        let mut pace = Pace::new(FRAMES_PER_SECOND, FRAME_BURST);
        while let Some(frame) = read_frame(&mut reader, MAX_FRAME).await? {
            self.link.note_heard();
            let wait = pace.take(Instant::now());
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            match Frame::decode(&frame)? {
                None => {
                    tracing::debug!(node = ?self.node, kind = frame.first(), "frame of an unknown kind skipped");
                }
                Some(Frame::Goodbye(why)) => return Err(Ended::Goodbye(why)),
                Some(frame) => {
                    if matches!(frame, Frame::Ping { .. }) && self.link.send_frame(pong.clone()).is_err() {
                        return Err(Ended::Stalled);
                    }
                    self.tell(FromSession::Frame(frame)).await?;
                }
            }
        }
        Ok(())
    }

    fn greeting(&self, frame: &[u8]) -> Result<Greeting, Ended> {
        let hello = Hello::decode(frame)?.ok_or(Ended::NoGreeting)?;
        if hello.protocols.common(ProtocolRange::OURS).is_none() {
            return Err(Ended::Version(hello.protocols));
        }
        let (statement, info) = hello.member.verify(self.tag)?;
        if info.node != self.node {
            return Err(MemberError::OtherNode.into());
        }
        self.link.note_heard();
        Ok(Greeting { hello, info, statement })
    }

    async fn tell(&self, what: FromSession) -> Result<(), Ended> {
        match self.to_driver.try_send((self.id, what)) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(message)) => {
                self.link.blocked.store(true, Ordering::Relaxed);
                let sent = self.to_driver.send(message).await;
                self.link.note_heard();
                self.link.blocked.store(false, Ordering::Relaxed);
                sent.map_err(|_| Ended::Cancelled)
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Ended::Cancelled),
        }
    }
}

/// Waits for something to send; `None` when all is sent and the session is to finish.
async fn next_batch(link: &Link) -> Result<Option<Vec<u8>>, FrameError> {
    loop {
        let batch = link.take()?;
        if !batch.is_empty() {
            return Ok(Some(batch));
        }
        if link.finishing.load(Ordering::Acquire) {
            return Ok(None);
        }
        link.wake.notified().await;
    }
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Ended> {
    let write = async {
        writer.write_all(bytes).await?;
        writer.flush().await
    };
    Ok(timeout(WRITE_STALL, write).await.map_err(|_| Ended::Stalled)??)
}

/// Reads one frame without its length; `None` at the end of the stream. Allocates no more than has arrived.
async fn read_frame(reader: &mut (impl AsyncRead + Unpin), max: usize) -> Result<Option<Vec<u8>>, Ended> {
    let mut length = [0; LENGTH_LEN];
    match reader.read_exact(&mut length).await {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let len = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if len > max {
        return Err(FrameError::Length { len, max }.into());
    }
    let mut frame = Vec::new();
    let limit = u64::try_from(len).unwrap_or(u64::MAX);
    if reader.take(limit).read_to_end(&mut frame).await? < len {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_never_seems_older_than_its_question() {
        let link = Link::new(Instant::now());
        for _ in 0..10_000 {
            let asked = Instant::now();
            link.note_heard();
            assert!(link.heard(asked) >= asked);
        }
    }

    #[tokio::test]
    async fn frames_are_read_whole_and_bounded() {
        let mut bytes: &[u8] = &[0, 0, 0, 2, 7, 8, 0, 0, 0, 9, 1];
        assert_eq!(read_frame(&mut bytes, 10).await.unwrap(), Some(vec![7, 8]));
        assert!(matches!(read_frame(&mut bytes, 10).await, Err(Ended::Io(_))));
        let mut bytes: &[u8] = &[0, 0, 0, 11];
        assert!(matches!(
            read_frame(&mut bytes, 10).await,
            Err(Ended::Frame(FrameError::Length { len: 11, .. }))
        ));
        assert!(matches!(read_frame(&mut &[][..], 10).await, Ok(None)));
    }
}
