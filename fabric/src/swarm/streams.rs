//! Streams of our own protocols over libp2p connections: a small network behaviour.
//!
//! `open` asks for a stream on one particular connection; inbound streams come out as events. It exists instead of
//! `libp2p-stream` because that (0.5.0-alpha) drops inbound streams when its one-slot channel is full, picks a random
//! connection of several, dials by itself, and never forgets a closed connection's sender, which a peer that connects and
//! disconnects for ever would turn into all our memory.
//!
//! A [`Stream`] ends with its connection, whoever closes it. That is not so below: Yamux (0.14.1) wakes those who wait for bytes or
//! for room when a connection fails or the other end closes it, but not when this end does.
//!
//! Never owns: what is said over a stream, who may open how many, deadlines.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::channel::oneshot;
use futures::future::{FutureExt, Shared};
use futures::io::{AsyncRead, AsyncWrite};
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{
    ConnectionEvent, ConnectionHandler, ConnectionHandlerEvent, DialUpgradeError, FullyNegotiatedInbound,
    FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, StreamUpgradeError,
    SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{PeerId, StreamProtocol};

/// Opens that may wait in one connection; callers bound themselves well below.
const MAX_WAITING_OPENS: usize = 32;

/// Why a stream cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// The peer does not speak the protocol: another fabric, another version, or another program.
    #[error("the peer does not speak the protocol")]
    Unsupported,
    /// The connection ended, or negotiation did not.
    #[error("the connection failed")]
    Failed,
}

/// Answers an [`Open`]; a dropped sender means that the connection is gone.
pub(crate) type Opened = oneshot::Receiver<Result<Stream, OpenError>>;

/// A stream of one of our protocols.
#[derive(Debug)]
pub(crate) struct Stream {
    stream: libp2p::Stream,
    /// Resolves when the connection's handler is dropped, which is what closing it begins with.
    closed: Shared<oneshot::Receiver<Infallible>>,
}

impl Stream {
    fn inner(&mut self) -> Pin<&mut libp2p::Stream> {
        Pin::new(&mut self.stream)
    }

    /// Whoever would wait hears that the connection is closed.
    fn unless_closed<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_pending() && self.closed.poll_unpin(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        poll
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = self.inner().poll_read(cx, buffer);
        self.unless_closed(cx, read)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.inner().poll_write(cx, bytes);
        self.unless_closed(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.inner().poll_flush(cx);
        self.unless_closed(cx, flushed)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = self.inner().poll_close(cx);
        self.unless_closed(cx, closed)
    }
}

/// A stream that a peer opened.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) connection: ConnectionId,
    pub(crate) protocol: StreamProtocol,
    pub(crate) stream: Stream,
}

/// The behaviour.
pub(crate) struct Behaviour {
    accepted: Arc<[StreamProtocol]>,
    queue: VecDeque<ToSwarm<Inbound, Open>>,
}

impl Behaviour {
    pub(crate) fn new(accepted: impl Into<Arc<[StreamProtocol]>>) -> Self {
        Self { accepted: accepted.into(), queue: VecDeque::new() }
    }

    /// Opens a stream on a connection.
    pub(crate) fn open(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        protocol: StreamProtocol,
    ) -> Opened {
        let (reply, opened) = oneshot::channel();
        let handler = NotifyHandler::One(connection);
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler,
            event: Open { protocol, reply },
        });
        opened
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Inbound;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.accepted.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.accepted.clone()))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        connection: ConnectionId,
        (protocol, stream): THandlerOutEvent<Self>,
    ) {
        self.queue.push_back(ToSwarm::GenerateEvent(Inbound { connection, protocol, stream }));
    }

    // The swarm polls after each call of `open`: both happen in the task that owns it.
    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Asks a connection's handler for a stream.
#[derive(Debug)]
pub(crate) struct Open {
    protocol: StreamProtocol,
    reply: oneshot::Sender<Result<Stream, OpenError>>,
}

/// The part that lives with a connection.
pub(crate) struct Handler {
    accepted: Arc<[StreamProtocol]>,
    opens: VecDeque<Open>,
    inbound: VecDeque<(StreamProtocol, Stream)>,
    /// Dropped with the handler; nothing is ever sent.
    _open: oneshot::Sender<Infallible>,
    closed: Shared<oneshot::Receiver<Infallible>>,
}

impl Handler {
    fn new(accepted: Arc<[StreamProtocol]>) -> Self {
        let (open, closed) = oneshot::channel();
        let closed = closed.shared();
        Self { accepted, opens: VecDeque::new(), inbound: VecDeque::new(), _open: open, closed }
    }

    fn stream(&self, stream: libp2p::Stream) -> Stream {
        Stream { stream, closed: self.closed.clone() }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = (StreamProtocol, Stream);
    type InboundProtocol = OneOf;
    type OutboundProtocol = OneOf;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = oneshot::Sender<Result<Stream, OpenError>>;

    fn listen_protocol(&self) -> SubstreamProtocol<OneOf> {
        SubstreamProtocol::new(OneOf(self.accepted.to_vec()), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<OneOf, Self::OutboundOpenInfo, Self::ToBehaviour>> {
        if let Some(stream) = self.inbound.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(stream));
        }
        if let Some(Open { protocol, reply }) = self.opens.pop_front() {
            let protocol = SubstreamProtocol::new(OneOf(vec![protocol]), reply);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, open: Open) {
        if self.opens.len() < MAX_WAITING_OPENS {
            self.opens.push_back(open);
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, OneOf, OneOf, Self::InboundOpenInfo, Self::OutboundOpenInfo>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (protocol, stream),
                ..
            }) => {
                // Bounded by the swarm's limit on streams under negotiation, drained by the next poll.
                self.inbound.push_back((protocol, self.stream(stream)));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (_, stream),
                info,
            }) => {
                let _ = info.send(Ok(self.stream(stream)));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported,
                    StreamUpgradeError::Timeout
                    | StreamUpgradeError::Apply(_)
                    | StreamUpgradeError::Io(_) => OpenError::Failed,
                };
                let _ = info.send(Err(error));
            }
            _ => {}
        }
    }
}

/// Agrees on one of some protocols and hands over the bare stream.
pub(crate) struct OneOf(Vec<StreamProtocol>);

impl UpgradeInfo for OneOf {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<libp2p::Stream> for OneOf {
    type Output = (StreamProtocol, libp2p::Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: libp2p::Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

impl OutboundUpgrade<libp2p::Stream> for OneOf {
    type Output = (StreamProtocol, libp2p::Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: libp2p::Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt;
    use futures::io::AsyncReadExt;
    use libp2p::core::Transport;
    use libp2p::core::upgrade::Version;
    use libp2p::swarm::{self, Swarm, SwarmEvent};
    use libp2p::{noise, tcp, yamux};

    use super::*;
    use crate::swarm::NodeKey;

    const PROTOCOL: StreamProtocol = StreamProtocol::new("/test");

    fn swarm() -> Swarm<Behaviour> {
        let key = NodeKey::generate();
        let transport = tcp::tokio::Transport::new(tcp::Config::new())
            .upgrade(Version::V1Lazy)
            .authenticate(noise::Config::new(key.keypair()).unwrap())
            .multiplex(yamux::Config::default())
            .boxed();
        let id = key.keypair().public().to_peer_id();
        let config =
            swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(60));
        Swarm::new(transport, Behaviour::new([PROTOCOL]), id, config)
    }

    async fn until<T>(swarm: &mut Swarm<Behaviour>, find: impl Fn(SwarmEvent<Inbound>) -> Option<T>) -> T {
        loop {
            if let Some(found) = find(swarm.select_next_some().await) {
                return found;
            }
        }
    }

    #[tokio::test]
    async fn whoever_waits_for_bytes_hears_that_this_side_closes_the_connection() {
        let (mut one, mut other) = (swarm(), swarm());
        other.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let address = until(&mut other, |event| match event {
            SwarmEvent::NewListenAddr { address, .. } => Some(address),
            _ => None,
        });
        one.dial(address.await).unwrap();
        let connected = |event| match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                Some((peer_id, connection_id))
            }
            _ => None,
        };
        let inbound = |event| match event {
            SwarmEvent::Behaviour(inbound) => Some(inbound),
            _ => None,
        };
        tokio::spawn(async move {
            let _stream = until(&mut other, inbound).await;
            // The other end says nothing and does not close either.
            until(&mut other, |_| None::<()>).await;
        });
        let (peer, connection) = until(&mut one, connected).await;
        let opened = one.behaviour_mut().open(peer, connection, PROTOCOL);
        let mut stream = tokio::select! {
            opened = opened => opened.unwrap().unwrap(),
            stream = until(&mut one, |_| None) => stream,
        };
        let reading = tokio::spawn(async move { stream.read(&mut [0]).await });
        assert!(one.close_connection(connection));
        let closed = |event| matches!(event, SwarmEvent::ConnectionClosed { .. }).then_some(());
        until(&mut one, closed).await;
        let read = tokio::time::timeout(Duration::from_secs(10), reading).await;
        assert!(read.expect("a read does not outlive its connection").unwrap().is_err());
    }
}
