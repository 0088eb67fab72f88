//! The node's control socket: how the command line and a successor process talk to it.
//!
//! A client sends one line with a JSON [`Request`] and gets lines back: one for each event
//! for [`Request::Events`], for [`Request::TakeOver`] one [`Legacy`] followed by a byte that carries the listening
//! sockets (`SCM_RIGHTS`, unix(7)), and one for all others. The socket is for root alone (mode 0600).
//!
//! Tasks: one accepts, one serves each client; all end with the node. Nothing is lost when they are aborted.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    Backlog, ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// Longest request line: the text about machines, of which JSON makes up to twice as much.
const MAX_REQUEST: u64 = 2 * fabric::trust::MAX_MACHINES as u64 + 4096;
/// Longest answer line: leases of a full /16 fit.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// Sockets a hand-over may carry.
const MAX_SOCKETS: usize = 16;
/// Requests that may wait for the node: an operator's commands and one successor.
const WAITING: usize = 8;
/// How long a command waits for a node's answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub(crate) enum Request {
    /// The node's state.
    Status,
    /// Its events from now on.
    Events,
    /// A change of its store.
    Store(crate::maintain::Asked),
    /// Who takes part in its private fabric, and who asks to.
    Members,
    /// A signed membership, to be taken in and passed on.
    Admit {
        /// The statement.
        membership: Vec<u8>,
    },
    /// The fabric's settings and what they say of machines.
    Machines,
    /// Newer settings, to be obeyed and passed on.
    Configure {
        /// The signed settings.
        settings: Vec<u8>,
        /// What they say of machines.
        machines: String,
    },
    /// What this machine would boot now, held and named.
    NextBoot(super::next_boot::Asked),
    /// Its sockets, identity and soft state; it stops serving new clients and ends when the running transfers have.
    TakeOver,
    /// The same for a while: when the running transfers have ended, its process becomes `program` and takes over again.
    Relieve {
        /// The program, as the node sees it.
        program: PathBuf,
    },
}

/// What a node leaves to its successor, the sockets apart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Legacy {
    /// The node's configuration.
    pub config: super::config::NodeConfig,
    /// Its secret key, so that it stays the same node.
    pub key: Vec<u8>,
    /// The leases it knows, in the encoding in which they are replicated.
    pub leases: Vec<u8>,
    /// What the sockets are, in the order in which they follow.
    pub sockets: Vec<SocketRole>,
}

/// What a handed-over socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SocketRole {
    /// The listening control socket.
    Control,
    /// The listening socket of the HTTP service.
    Http,
    /// The listening socket of the bulk service for members of a private fabric.
    Bulk,
    /// The bound socket of the TFTP service.
    Tftp,
    /// The bound socket of the DHCP service.
    Dhcp,
    /// The bound socket of the PXE boot service, port 4011.
    DhcpBoot,
}

/// A client's request together with the connection that waits for the answer.
pub(crate) struct Asked {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub stream: UnixStream,
}

/// Binds the control socket at `path`, replacing one that nobody serves any more.
pub(crate) fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    if StdUnixStream::connect(path).is_ok() {
        bail!(
            "another node of this machine uses {}: stop it, or give this one its own directory with --state",
            path.display()
        );
    }
    let _ = std::fs::remove_file(path);
    bind_fresh(path)
}

/// Binds the control socket at `path` although a predecessor may still serve it: new clients come here from now on.
pub(crate) fn bind_fresh(path: &Path) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    // Bound under another name and moved into place: it never lets everybody in.
    let fresh = path.with_extension("new");
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).with_context(|| format!("cannot make {}", fresh.display()))?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot set the mode of {}", fresh.display()))?;
    std::fs::rename(&fresh, path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(listener)
}

/// Goes on listening on a predecessor's control socket, whose queue holds the clients that came since it stopped.
pub(crate) fn adopt(socket: OwnedFd) -> anyhow::Result<UnixListener> {
    // From the second time on it tells clients which process they talk to (unix(7), SO_PEERCRED).
    nix::sys::socket::listen(&socket, Backlog::MAXCONN)
        .map_err(std::io::Error::from)
        .and_then(|()| UnixListener::from_std(socket.into()))
        .context("cannot use the control socket of the node before")
}

/// Serves the socket: requests come out of the channel. A client that talks nonsense or nothing is let go.
pub(crate) fn listen(listener: UnixListener) -> mpsc::Receiver<Asked> {
    let (sender, requests) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sender.closed() => return,
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { return };
                    let sender = sender.clone();
                    tokio::spawn(async move {
                        if let Some(asked) = read_request(stream).await {
                            // A node that has ended answers nobody.
                            let _ = sender.send(asked).await;
                        }
                    });
                }
            }
        }
    });
    requests
}

async fn read_request(stream: UnixStream) -> Option<Asked> {
    let mut line = String::new();
    let mut reader = BufReader::new(stream.take(MAX_REQUEST));
    let read = tokio::time::timeout(ANSWER_DEADLINE, reader.read_line(&mut line)).await;
    let stream = reader.into_inner().into_inner();
    match (read, serde_json::from_str(&line)) {
        (Ok(Ok(_)), Ok(request)) => Some(Asked { request, stream }),
        _ => None,
    }
}

/// Answers with one line.
pub(crate) async fn answer(stream: &mut UnixStream, value: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// Sends `legacy` and its sockets to a successor; `sockets` are in the order of `legacy.sockets`.
pub(crate) async fn bequeath(
    mut stream: UnixStream,
    legacy: &Legacy,
    sockets: &[OwnedFd],
) -> anyhow::Result<()> {
    ensure!(
        sockets.len() == legacy.sockets.len() && sockets.len() <= MAX_SOCKETS,
        "sockets and roles differ in number"
    );
    answer(&mut stream, legacy).await.context("the successor went away")?;
    let fds: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    stream.writable().await?;
    stream
        .async_io(tokio::io::Interest::WRITABLE, || {
            let byte = [IoSlice::new(b"F")];
            let rights = [ControlMessage::ScmRights(&fds)];
            sendmsg::<()>(stream.as_raw_fd(), &byte, &rights, MsgFlags::empty(), None).map_err(Into::into)
        })
        .await
        .context("cannot pass the sockets to the successor")?;
    Ok(())
}

/// Asks the node behind `path` for its legacy with `request`, which is [`Request::TakeOver`] or [`Request::Relieve`]. Afterwards that
/// node drains by itself.
pub(crate) async fn inherit(
    path: &Path,
    request: &Request,
) -> anyhow::Result<(Legacy, Vec<(SocketRole, OwnedFd)>)> {
    let reader = ask(path, request).await?;
    let mut reader = reader.take(MAX_ANSWER);
    let mut line = Vec::new();
    // Byte by byte at its end: what follows the line carries the sockets and must not be buffered away.
    loop {
        match reader.read_u8().await {
            Ok(b'\n') => break,
            Ok(byte) => line.push(byte),
            Err(error) => return Err(error).context("the running node did not answer"),
        }
    }
    let legacy: Legacy =
        serde_json::from_slice(&line).context("the running node's answer is of another version")?;
    let stream = reader.into_inner();
    let sockets = stream
        .async_io(tokio::io::Interest::READABLE, || receive_sockets(stream.as_raw_fd()).map_err(Into::into))
        .await
        .context("the running node did not pass its sockets")?;
    ensure!(
        sockets.len() == legacy.sockets.len(),
        "the running node passed {} sockets, not {}",
        sockets.len(),
        legacy.sockets.len()
    );
    Ok((legacy.clone(), legacy.sockets.into_iter().zip(sockets).collect()))
}

fn receive_sockets(from: RawFd) -> nix::Result<Vec<OwnedFd>> {
    let mut byte = [0u8; 1];
    let mut into = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([RawFd; MAX_SOCKETS]);
    let message = recvmsg::<()>(from, &mut into, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut sockets = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: the kernel has just made these descriptors for this process; nobody else owns them.
            #[expect(unsafe_code, reason = "descriptors arrive as bare numbers")]
            sockets.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(sockets)
}

/// Sends `request` to the node behind `path`.
pub(crate) async fn ask(path: &Path, request: &Request) -> anyhow::Result<UnixStream> {
    let mut stream = UnixStream::connect(path).await.with_context(|| {
        format!(
            "no node answers at {}: start one with `bootfabric up`, or name its directory with --state",
            path.display()
        )
    })?;
    answer(&mut stream, request).await.context("the node went away")?;
    Ok(stream)
}

/// The one line with which the node behind `path` answers `request`.
pub(crate) async fn ask_line(path: &Path, request: &Request) -> anyhow::Result<String> {
    ask_line_within(path, request, ANSWER_DEADLINE).await
}

/// As [`ask_line`], for what takes the node as long as `deadline`.
pub(crate) async fn ask_line_within(
    path: &Path,
    request: &Request,
    deadline: Duration,
) -> anyhow::Result<String> {
    let stream = ask(path, request).await?;
    let mut line = String::new();
    let mut reader = BufReader::new(stream.take(MAX_ANSWER));
    tokio::time::timeout(deadline, reader.read_line(&mut line))
        .await
        .context("the node did not answer in time")?
        .context("the node's answer broke off")?;
    ensure!(!line.is_empty(), "the node closed the connection without an answer");
    Ok(line)
}

/// The process that serves the control socket at `path`.
pub(crate) fn served_by(path: &Path) -> anyhow::Result<i32> {
    let stream = StdUnixStream::connect(path)
        .with_context(|| format!("no node answers at {}: is it the right --state?", path.display()))?;
    let peer = getsockopt(&stream, PeerCredentials).context("cannot tell which process the node is")?;
    Ok(peer.pid())
}

/// Where the control socket of the node with state directory `state` is.
pub(crate) fn socket_path(state: &Path) -> PathBuf {
    state.join("control.sock")
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::node::config::NodeConfig;

    #[tokio::test]
    async fn sockets_and_state_pass_to_a_successor() {
        let dir = tempfile::tempdir().unwrap();
        let path = socket_path(dir.path());
        let mut requests = listen(bind(&path).unwrap());
        let heir = tokio::spawn({
            let path = path.clone();
            async move { inherit(&path, &Request::TakeOver).await.unwrap() }
        });
        let asked = requests.recv().await.unwrap();
        assert_eq!(asked.request, Request::TakeOver);
        let service = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = service.local_addr().unwrap();
        let legacy = Legacy {
            config: NodeConfig::example(),
            key: vec![7; 68],
            leases: vec![1; 100_000],
            sockets: vec![SocketRole::Http],
        };
        bequeath(asked.stream, &legacy, &[service.into()]).await.unwrap();
        let (inherited, mut sockets) = heir.await.unwrap();
        assert_eq!((inherited.key, inherited.leases.len()), (vec![7; 68], 100_000));
        let (role, socket) = sockets.remove(0);
        assert_eq!(role, SocketRole::Http);
        assert_eq!(std::net::TcpListener::from(socket).local_addr().unwrap(), address);
    }

    #[tokio::test]
    async fn who_asks_while_a_node_changes_hands_is_answered_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = socket_path(dir.path());
        let before = bind(&path).unwrap();
        let left = before.as_fd().try_clone_to_owned().unwrap();
        drop(before);
        let asking = tokio::spawn(async move { ask_line(&path, &Request::Status).await });
        let mut requests = listen(adopt(left).unwrap());
        let mut asked = requests.recv().await.unwrap();
        answer(&mut asked.stream, &"answered").await.unwrap();
        assert_eq!(asking.await.unwrap().unwrap(), "\"answered\"\n");
    }

    #[tokio::test]
    async fn nonsense_is_no_request_and_a_second_node_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = socket_path(dir.path());
        let mut requests = listen(bind(&path).unwrap());
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"{}\n").await.unwrap();
        assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0, "nonsense is let go");
        assert!(requests.try_recv().is_err());
        assert!(bind(&path).unwrap_err().to_string().contains("--state"));
        let abandoned = dir.path().join("abandoned.sock");
        drop(UnixListener::bind(&abandoned).unwrap());
        assert!(bind(&abandoned).is_ok(), "a socket that nobody serves is replaced");
        let _ = std::fs::remove_file(&path);
        assert!(ask_line(&path, &Request::Status).await.unwrap_err().to_string().contains("bootfabric up"));
    }
}
