//! Carries what the swarm says to whoever it concerns: exchange, DHCP, view, events.
//!
//! Tasks: one reads the swarm's events, which must never wait long: everything it hands them to has a bounded queue and a
//! reader that never waits for this task. One carries the exchange's messages to the swarm. One for each peer that
//! announced settings that are news, of which there are few. One keeps memberships in the store. They end with the swarm and the exchange.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use fabric::exchange::{ExchangeEvent, Outgoing, Route};
use fabric::id::NodeId;
use fabric::swarm::{AnnouncedKind, Incompatibility, MemberInfo, SwarmEvent};
use tokio::sync::mpsc;

use super::boot;
use super::bulk;
use super::join::Join;
use super::machines::Asking;
use super::members;
use super::view::Member;
use crate::event::Event;

/// Starts carrying.
pub(crate) fn spawn(events: mpsc::Receiver<SwarmEvent>, mut messages: mpsc::Receiver<Outgoing>, node: &Join) {
    tokio::spawn(carry(events, node.clone()));
    tokio::spawn(tell_of_peers(node.clone()));
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
    let mut asking = Asking::default();
    let keeper = members::spawn_keeper(&node);
    while let Some(event) = events.recv().await {
        match event {
            SwarmEvent::PeerUp(peer, member, remote) => {
                let address = http_address(&member, remote);
                let hint = member.hint_from(&node.view.config().rack);
                node.events.emit(Event::PeerUp { node: peer.to_string(), address: address.ip().to_string() });
                let source = bulk::source_of(peer, address, &node.swarm, &node.exchange);
                node.exchange.peer_up(peer, source, hint).await;
                node.view.set_refused(None);
                connected.insert(peer);
                node.view.set_peers(connected.len());
            }
            SwarmEvent::PeerDown(peer) => {
                node.events.emit(Event::PeerDown { node: peer.to_string() });
                node.exchange.peer_down(peer).await;
                connected.remove(&peer);
                asking.gone(peer);
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
            SwarmEvent::Announced { from, announcement } => match announcement.kind {
                AnnouncedKind::Release => node.view.set_announced_release(&announcement),
                AnnouncedKind::Settings => asking.announced(&node, from, announcement),
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

/// Tells of peers what an operator should know.
async fn tell_of_peers(node: Join) {
    use tokio::sync::broadcast::error::RecvError;
    let mut events = node.exchange.events();
    let address = |peer: NodeId| {
        let member = node.view.members().into_iter().find(|member| member.info.node == peer);
        member.map(|member| member.info.address.to_string()).unwrap_or_default()
    };
    loop {
        match events.recv().await {
            Ok(ExchangeEvent::Unheld { blob, chunks }) => {
                tracing::info!(%blob, chunks, "no neighbour holds what is missing: more are looked for");
                node.swarm.more_peers().await;
            }
            Ok(event) => {
                if let Some(told) = of_peer(event, address) {
                    node.events.emit(told);
                }
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// What an event of the exchange says of a peer, if it is for programs and people; logged on the way. `address` knows where
/// a peer is.
pub(crate) fn of_peer(event: ExchangeEvent, address: impl Fn(NodeId) -> String) -> Option<Event> {
    match event {
        ExchangeEvent::BadChunk { blob, peer, chunk, expected, got } => Some(Event::BadChunk {
            node: peer.to_string(),
            address: address(peer),
            blob: blob.to_string(),
            chunk,
            expected: expected.to_string(),
            got: got.to_string(),
        }),
        ExchangeEvent::PeerBanned { peer, why } => {
            let address = address(peer);
            tracing::warn!(%peer, address, why, "a peer is not asked any more");
            Some(Event::PeerBanned { node: peer.to_string(), address, why })
        }
        ExchangeEvent::RouteChanged { peer, route, why } => {
            let address = address(peer);
            match route {
                Route::Http => tracing::info!(%peer, address, "a peer is reached over HTTP again"),
                Route::Swarm => tracing::warn!(
                    %peer,
                    address,
                    why,
                    "a peer is reached over the swarm only, at several times the cost: is its HTTP port blocked?"
                ),
            }
            Some(Event::PeerRoute { node: peer.to_string(), address, route, why })
        }
        ExchangeEvent::RequestFailed { peer, why, .. } => {
            Some(Event::RequestFailed { node: peer.to_string(), why })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use fabric::id::{BlobId, Hash};

    use super::*;

    #[test]
    fn a_failed_request_is_told() {
        let (blob, peer) = (BlobId(Hash::of(b"blob")), NodeId(Hash::of(b"node")));
        let failed = ExchangeEvent::RequestFailed { blob, peer, why: "it is busy".into() };
        let told = of_peer(failed, |_| String::new());
        assert_eq!(told, Some(Event::RequestFailed { node: peer.to_string(), why: "it is busy".into() }));
    }
}
