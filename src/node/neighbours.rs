//! Carries what the swarm says to whoever it concerns: exchange, DHCP, view, events.
//!
//! Tasks: one reads the swarm's events, which must never wait long: everything it hands them to has a bounded queue and a
//! reader that never waits for this task. One carries the exchange's messages to the swarm. One for each announcement of
//! settings that are news, of which there are few. One keeps memberships in the store. They end with the swarm and the exchange.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use fabric::exchange::{ChunkSource, HttpSource, Outgoing, PeerHint};
use fabric::id::NodeId;
use fabric::swarm::{AnnouncedKind, BulkSource, Incompatibility, MemberInfo, SwarmEvent};
use fabric::tls;
use tokio::sync::mpsc;

use super::boot;
use super::join::Join;
use super::members;
use super::view::Member;
use crate::event::Event;

/// Starts carrying.
pub(crate) fn spawn(events: mpsc::Receiver<SwarmEvent>, mut messages: mpsc::Receiver<Outgoing>, node: &Join) {
    tokio::spawn(carry(events, node.clone()));
    tokio::spawn(tell_bad_chunks(node.clone()));
    let swarm = node.swarm.clone();
    tokio::spawn(async move {
        while let Some(Outgoing { to, message }) = messages.recv().await {
            // A peer that is gone or dropped is told anew when it comes back.
            let _ = swarm.send(to, message);
        }
    });
}

async fn carry(mut events: mpsc::Receiver<SwarmEvent>, node: Join) {
    let mut connected = BTreeSet::new();
    let keeper = members::spawn_keeper(&node);
    while let Some(event) = events.recv().await {
        match event {
            SwarmEvent::PeerUp(peer, member, remote) => {
                let address = http_address(&member, remote);
                node.events.emit(Event::PeerUp { node: peer.to_string(), address: address.ip().to_string() });
                node.exchange.peer_up(peer, source(&node, peer, address), PeerHint::default()).await;
                node.view.set_refused(None);
                connected.insert(peer);
                node.view.set_peers(connected.len());
            }
            SwarmEvent::PeerDown(peer) => {
                node.events.emit(Event::PeerDown { node: peer.to_string() });
                node.exchange.peer_down(peer).await;
                connected.remove(&peer);
                node.view.set_peers(connected.len());
            }
            SwarmEvent::Exchange(peer, message) => node.exchange.incoming(peer, message).await,
            SwarmEvent::Records(records) => {
                if let Some(dhcp) = node.view.dhcp() {
                    // A service that has ended merges nothing any more.
                    let _ = dhcp.merge(boot::leases(&records)).await;
                }
            }
            SwarmEvent::Members(members) => set_members(&node, &members).await,
            SwarmEvent::Announced { announcement, .. } => match announcement.kind {
                AnnouncedKind::Release => node.view.set_announced_release(announcement.object),
                AnnouncedKind::Settings => {
                    let known = node.view.settings().map_or(0, |settings| settings.generation);
                    if announcement.generation > known {
                        let node = node.clone();
                        tokio::spawn(async move {
                            if let Err(error) = node.settings(announcement.object).await {
                                tracing::warn!("announced settings are not usable: {error:#}");
                            }
                        });
                    }
                }
            },
            SwarmEvent::Admission(event) => members::on_event(&node, &keeper, event),
            SwarmEvent::Incompatible { peer, address, why } => {
                let reason = match why {
                    Incompatibility::OtherFabric(_) => "it belongs to another fabric on the same switch",
                    Incompatibility::OtherProtocol(_) => {
                        "its program version speaks another protocol: upgrade the older one"
                    }
                };
                node.events.emit(Event::Incompatible {
                    peer: format!("{peer} at {address}"),
                    reason: reason.into(),
                });
            }
        }
    }
}

/// How a peer's runs are fetched: over its HTTP service, or, in a private fabric, over TLS with the token it gave. Where
/// that cannot be they travel over the swarm's own connection, which no stranger has either.
fn source(node: &Join, peer: NodeId, address: SocketAddr) -> Arc<dyn ChunkSource> {
    if !node.view.config().private {
        return Arc::new(HttpSource::new(address));
    }
    let source = node.swarm.bulk_access(peer).map(|access| tls::source(address.ip(), &access));
    match source {
        Some(Ok(source)) => Arc::new(source),
        none => {
            tracing::warn!(?none, ?peer, "no TLS to a peer: its runs travel over the swarm");
            Arc::new(BulkSource::new(node.swarm.clone(), peer))
        }
    }
}

/// Where a peer serves blobs: the address it says, or, while it has none, the one it came from.
pub(crate) fn http_address(member: &MemberInfo, remote: SocketAddr) -> SocketAddr {
    member.http_address().unwrap_or_else(|| SocketAddr::new(remote.ip(), member.http_port))
}

async fn set_members(node: &Join, members: &[MemberInfo]) {
    let me = node.swarm.node();
    let connected: Vec<_> = node.swarm.peers().into_iter().map(|peer| peer.member.node).collect();
    let others = members.iter().filter(|member| member.node != me);
    let others = others.map(|info| Member { info: info.clone(), connected: connected.contains(&info.node) });
    node.view.set_members(others.collect());
    if let Some(dhcp) = node.view.dhcp() {
        // A service that has ended ranks nobody any more.
        let _ = dhcp.set_members(boot::responders(&node.view.members())).await;
    }
}

async fn tell_bad_chunks(node: Join) {
    use fabric::exchange::ExchangeEvent;
    use tokio::sync::broadcast::error::RecvError;
    let mut events = node.exchange.events();
    loop {
        match events.recv().await {
            Ok(ExchangeEvent::BadChunk { blob, peer, chunk }) => {
                let address = node.view.members().into_iter().find(|member| member.info.node == peer);
                node.events.emit(Event::BadChunk {
                    node: peer.to_string(),
                    address: address.map(|member| member.info.address.to_string()).unwrap_or_default(),
                    blob: blob.to_string(),
                    chunk,
                });
            }
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
