//! The talk at the gate as the last step of setting a connection up: it ends in Yamux, or in no connection.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, UpgradeInfo};
use libp2p::{StreamProtocol, yamux};

use super::desk::{Gate, Other, Tie};
use super::talk::{self, TalkError};
use crate::swarm::key::NodePublicKey;

/// Sets one connection up.
#[derive(Clone)]
pub(crate) struct Admission {
    pub(crate) gate: Arc<Gate>,
    pub(crate) protocol: StreamProtocol,
    pub(crate) streams: yamux::Config,
    /// `None` for a peer whose key is not of the kind that nodes have.
    pub(crate) other: Option<Other>,
}

impl Admission {
    fn other(&self) -> Result<Other, TalkError> {
        self.other.ok_or(TalkError::Stranger(super::Refusal::NotAdmitted))
    }
}

/// The other end, by what Noise proved.
pub(crate) fn other(peer: &libp2p::PeerId, at: Option<SocketAddr>) -> Option<Other> {
    let key = NodePublicKey::of_peer(peer)?;
    Some(Other { node: key.node_id()?, key, at })
}

impl UpgradeInfo for Admission {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Once<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        std::iter::once(self.protocol.clone())
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> InboundConnectionUpgrade<C> for Admission {
    type Output = TiedMuxer<yamux::Muxer<C>>;
    type Error = TalkError;
    type Future = BoxFuture<'static, Result<Self::Output, TalkError>>;

    fn upgrade_inbound(self, mut io: C, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            let tie = talk::listen(&self.gate, self.other()?, &mut io).await?;
            let muxer = self.streams.upgrade_inbound(io, "").await?;
            Ok(TiedMuxer { muxer, _tie: tie })
        })
    }
}

impl<C: AsyncRead + AsyncWrite + Send + Unpin + 'static> OutboundConnectionUpgrade<C> for Admission {
    type Output = TiedMuxer<yamux::Muxer<C>>;
    type Error = TalkError;
    type Future = BoxFuture<'static, Result<Self::Output, TalkError>>;

    fn upgrade_outbound(self, mut io: C, _: StreamProtocol) -> Self::Future {
        Box::pin(async move {
            let tie = talk::dial(&self.gate, self.other()?, &mut io).await?;
            let muxer = self.streams.upgrade_outbound(io, "").await?;
            Ok(TiedMuxer { muxer, _tie: tie })
        })
    }
}

/// A connection's streams, and the tie that ends with them.
pub(crate) struct TiedMuxer<M> {
    muxer: M,
    _tie: Tie,
}

impl<M: StreamMuxer + Unpin> StreamMuxer for TiedMuxer<M> {
    type Substream = M::Substream;
    type Error = M::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        Pin::new(&mut self.muxer).poll_inbound(cx)
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, Self::Error>> {
        Pin::new(&mut self.muxer).poll_outbound(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Pin::new(&mut self.muxer).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        Pin::new(&mut self.muxer).poll(cx)
    }
}
