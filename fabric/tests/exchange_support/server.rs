//! An HTTP server for ranges of blobs that can be told to misbehave.

use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fabric::id::BlobId;
use fabric::store::Store;
use fabric::tls::TlsServer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::PATIENCE;

/// What the server does with a request for bytes that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers it.
    Honest,
    /// Answers with one bit wrong.
    Damaged,
    /// Announces the right length, sends fewer bytes and closes.
    TooFew,
    /// Answers with one byte more than asked for.
    TooMany,
    /// Accepts and never answers.
    Silent,
    /// Sends the head and then nothing.
    Stuck,
    /// Sends a byte a second.
    Trickle,
    /// Ignores the range.
    Whole,
    /// Always busy.
    Busy,
    /// Holds nothing.
    NotHeld,
    /// Answers the first request on each connection, then closes it without a word.
    OneShot,
    /// Not HTTP at all.
    Garbage,
}

impl Behaviour {
    pub const ALL: [Self; 12] = [
        Self::Honest,
        Self::Damaged,
        Self::TooFew,
        Self::TooMany,
        Self::Silent,
        Self::Stuck,
        Self::Trickle,
        Self::Whole,
        Self::Busy,
        Self::NotHeld,
        Self::OneShot,
        Self::Garbage,
    ];

    /// How long to wait for it: `short` for one that says nothing. Another may be slow because the machine is busy.
    pub fn patience(self, short: Duration) -> Duration {
        if matches!(self, Self::Silent | Self::Stuck | Self::Trickle) { short } else { PATIENCE }
    }
}

/// A server, stopped when dropped.
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    /// Connections accepted so far.
    pub connections: Arc<AtomicU32>,
}

impl Server {
    pub async fn start(store: Store, behaviour: Behaviour) -> Self {
        Self::on(Self::listen().await, store, behaviour)
    }

    async fn listen() -> TcpListener {
        TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap()
    }

    /// Serves over TLS whoever shows `token`.
    pub async fn start_private(store: Store, behaviour: Behaviour, tls: TlsServer, token: &str) -> Self {
        Self::start_with(Self::listen().await, store, behaviour, Some((tls, token.to_owned())))
    }

    /// Answers who connects to `listener` from now on.
    pub fn on(listener: TcpListener, store: Store, behaviour: Behaviour) -> Self {
        Self::start_with(listener, store, behaviour, None)
    }

    fn start_with(
        listener: TcpListener,
        store: Store,
        behaviour: Behaviour,
        private: Option<(TlsServer, String)>,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let (stop, connections) = (CancellationToken::new(), Arc::new(AtomicU32::new(0)));
        let (stopped, count) = (stop.clone(), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Some(Ok((stream, _))) = stopped.run_until_cancelled(listener.accept()).await {
                count.fetch_add(1, Ordering::Relaxed);
                let (store, stopped, private) = (store.clone(), stopped.clone(), private.clone());
                let serve = async move {
                    match private {
                        None => serve(stream, store, behaviour, None).await,
                        Some((tls, token)) => {
                            serve(tls.accept(stream).await?, store, behaviour, Some(&token)).await
                        }
                    }
                };
                tokio::spawn(async move { stopped.run_until_cancelled(serve).await });
            }
        });
        Self { address, stop, connections }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    store: Store,
    behaviour: Behaviour,
    token: Option<&str>,
) -> std::io::Result<()> {
    let mut input = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8(input.drain(..end).collect()).unwrap();
        if token.is_some_and(|token| !head.contains(&format!("\r\nAuthorization: Bearer {token}\r\n"))) {
            stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await?;
            stream.flush().await?;
            continue;
        }
        let (blob, first, last) = parse(&head);
        let held =
            store.blob(&blob).filter(|held| held.holds(first..last + 1) && behaviour != Behaviour::NotHeld);
        let Some(held) = held else {
            stream.write_all(b"HTTP/1.1 409 Not Held\r\nContent-Length: 8\r\n\r\nnot here").await?;
            stream.flush().await?;
            continue;
        };
        let length = last + 1 - first;
        let mut body = vec![0; usize::try_from(length).unwrap()];
        held.file().read_exact_at(&mut body, first)?;
        let range = format!("Content-Range: bytes {first}-{last}/{}\r\n", held.index().size());
        let head = format!("HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\n{range}\r\n");
        match behaviour {
            Behaviour::Honest | Behaviour::OneShot => {}
            Behaviour::Damaged => body[length as usize / 2] ^= 4,
            Behaviour::TooFew => body.truncate(body.len() / 2),
            Behaviour::TooMany => body.push(7),
            Behaviour::Silent => std::future::pending().await,
            Behaviour::Stuck => {
                stream.write_all(head.as_bytes()).await?;
                stream.flush().await?;
                std::future::pending::<()>().await;
            }
            Behaviour::Trickle => {
                stream.write_all(head.as_bytes()).await?;
                for byte in body {
                    stream.write_all(&[byte]).await?;
                    stream.flush().await?;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                return Ok(());
            }
            Behaviour::Whole => {
                let size = held.index().size();
                stream
                    .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes())
                    .await?;
                return stream.flush().await;
            }
            Behaviour::Busy => {
                stream
                    .write_all(b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy")
                    .await?;
                stream.flush().await?;
                continue;
            }
            Behaviour::Garbage => {
                stream.write_all(b"220 mail.example ESMTP\r\n\r\n").await?;
                return stream.flush().await;
            }
            Behaviour::NotHeld => unreachable!("answered above"),
        }
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
        stream.flush().await?;
        if matches!(behaviour, Behaviour::TooFew | Behaviour::OneShot) {
            return Ok(());
        }
    }
}

fn parse(head: &str) -> (BlobId, u64, u64) {
    let blob = head.strip_prefix("GET /blob/").unwrap().split(' ').next().unwrap().parse().unwrap();
    let range = head.lines().find_map(|line| line.strip_prefix("Range: bytes=")).unwrap();
    let (first, last) = range.split_once('-').unwrap();
    (blob, first.parse().unwrap(), last.parse().unwrap())
}
