//! What HTTP is spoken over: a TCP connection, or what a [`Wrapper`] made of one.
//!
//! Plain connections go by the cheapest ways Linux has (`sendfile(2)`, vectored writes, `TCP_CORK`); a wrapped one is
//! written to from a buffer. Every function is one step: whoever calls it has the deadline.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use async_trait::async_trait;
use bytes::BytesMut;
use nix::sys::sendfile::sendfile64;
use nix::sys::socket::{MsgFlags, send};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

/// Bytes of a file that are read at once for a wrapped connection: four TLS records, what rustls takes in one write.
const PIECE: usize = 64 * 1024;

/// Content that takes more than one call to send.
const LONG_ANSWER: u64 = 2 * 1024 * 1024;

/// A connection that is not plain TCP.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// What comes between TCP and HTTP, such as TLS.
#[async_trait]
pub trait Wrapper: Send + Sync + 'static {
    /// Shakes hands with a client. The service drops a connection on which this takes longer than a request head may.
    ///
    /// # Errors
    /// If the client speaks something else, or goes away.
    async fn wrap(&self, stream: TcpStream) -> io::Result<Box<dyn ByteStream>>;
}

/// One connection.
pub(super) enum Wire {
    Plain {
        stream: TcpStream,
        /// Part of a segment may wait for what follows it (`TCP_CORK`).
        corked: bool,
        /// Bytes that may wait unsent (`TCP_NOTSENT_LOWAT`).
        unsent: u32,
    },
    Wrapped {
        stream: Box<dyn ByteStream>,
        piece: Vec<u8>,
    },
}

impl Wire {
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self::Plain { stream, corked: false, unsent: u32::MAX }
    }

    pub(super) fn wrapped(stream: Box<dyn ByteStream>) -> Self {
        Self::Wrapped { stream, piece: Vec::new() }
    }

    /// Lets at most about `bytes` wait in the socket's buffer for their time to leave, where the connection can be told.
    pub(super) fn unsent(&mut self, bytes: u32) {
        if let Self::Plain { stream, unsent, .. } = self
            && *unsent != bytes
        {
            let socket = SockRef::from(&*stream);
            if *unsent == u32::MAX {
                // BBR takes a burst that an idle link's queue swallows for the speed of the link: with 31 neighbours at
                // 25 Mbit/s 13 % of what leaves a node is sent twice, with CUBIC 4 %.
                let _ = socket.set_tcp_congestion(b"cubic");
            }
            // Where a kernel refuses either the answer leaves all the same, only less well.
            let _ = socket.set_tcp_notsent_lowat(bytes);
            *unsent = bytes;
        }
    }

    /// Reads what has come, at most what `buffer` has room for. Cancel safe.
    pub(super) async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain { stream, .. } => stream.read_buf(buffer).await,
            Self::Wrapped { stream, .. } => stream.read_buf(buffer).await,
        }
    }

    /// Writes some of `bytes`.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain { stream, .. } => {
                stream.async_io(Interest::WRITABLE, || stream.try_write(bytes)).await
            }
            Self::Wrapped { stream, .. } => stream.write(bytes).await,
        }
    }

    /// Writes some of `first` and what follows it.
    pub(super) async fn write_two(&mut self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain { stream, .. } => {
                let slices = [IoSlice::new(first), IoSlice::new(second)];
                stream.async_io(Interest::WRITABLE, || stream.try_write_vectored(&slices)).await
            }
            Self::Wrapped { stream, .. } if first.is_empty() => stream.write(second).await,
            Self::Wrapped { stream, .. } => stream.write(first).await,
        }
    }

    /// Writes some of `head`, which leaves together with the `length` bytes of content that must follow at once.
    pub(super) async fn write_before_content(&mut self, head: &[u8], length: u64) -> io::Result<usize> {
        match self {
            Self::Plain { stream, corked, .. } => {
                // In a long answer only full segments leave until the flush: a push after each `sendfile` has both ends
                // at work on the same connection and costs twice as much. A short one is pushed once anyway.
                if length > LONG_ANSWER && !*corked {
                    SockRef::from(&*stream).set_tcp_cork(true)?;
                    *corked = true;
                }
                let more = MsgFlags::from_bits_retain(nix::libc::MSG_MORE);
                let flags = more | MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                let write = || Ok(send(stream.as_raw_fd(), head, flags)?);
                stream.async_io(Interest::WRITABLE, write).await
            }
            Self::Wrapped { stream, .. } => stream.write(head).await,
        }
    }

    /// Sends up to `step` bytes of `file` from `offset` on; 0 at its end.
    pub(super) async fn send_file(&mut self, file: &File, offset: u64, step: usize) -> io::Result<usize> {
        match self {
            Self::Plain { stream, .. } => {
                let too_far = |_| io::Error::from(io::ErrorKind::InvalidInput);
                let mut at = i64::try_from(offset).map_err(too_far)?;
                let write = || Ok(sendfile64(&*stream, file, Some(&mut at), step)?);
                stream.async_io(Interest::WRITABLE, write).await
            }
            Self::Wrapped { stream, piece } => {
                piece.resize(step.min(PIECE), 0);
                // Out of the page cache, as `sendfile` does: it may wait for a disk as that does.
                let read = file.read_at(piece, offset)?;
                let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(0) };
                match stream.write(bytes).await? {
                    0 => Err(io::ErrorKind::WriteZero.into()),
                    wrote => Ok(wrote),
                }
            }
        }
    }

    /// Lets nothing wait in a buffer. Call it at the end of an answer.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain { stream, corked, .. } if *corked => {
                *corked = false;
                SockRef::from(&*stream).set_tcp_cork(false)
            }
            Self::Plain { .. } => Ok(()),
            Self::Wrapped { stream, .. } => stream.flush().await,
        }
    }

    /// Says that nothing more comes.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Plain { stream, .. } => stream.shutdown().await,
            Self::Wrapped { stream, .. } => stream.shutdown().await,
        }
    }
}
