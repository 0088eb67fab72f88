//! What libp2p tells: connections, inbound streams, who is of another fabric, whom mDNS sees.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::core::ConnectedPoint;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent as Libp2pEvent};
use libp2p::{PeerId, gossipsub, identify, mdns};

use super::{Connection, Driver, SessionState};
use crate::id::NodeId;
use crate::swarm::address::{multiaddr, socket_addr};
use crate::swarm::behaviour::BehaviourEvent;
use crate::swarm::bulk;
use crate::swarm::dial::Source;
use crate::swarm::frame::Hello;
use crate::swarm::key::node_id;
use crate::swarm::objects;
use crate::swarm::protocol::{Identity, ProtocolRange};
use crate::swarm::session::{GREETING, Link, Origin, Session, SessionId};
use crate::swarm::streams::{Inbound, Stream};
use crate::swarm::{Incompatibility, SwarmEvent};

/// A connection to a foreign node stays so long, for the node to find out too.
const LINGER: Duration = Duration::from_secs(1);

impl Driver {
    pub(super) fn on_swarm_event(&mut self, event: Libp2pEvent<BehaviourEvent>, now: Instant) {
        match event {
            Libp2pEvent::Behaviour(BehaviourEvent::Streams(inbound)) => self.on_inbound(inbound, now),
            Libp2pEvent::Behaviour(BehaviourEvent::Gossip(gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            })) => self.on_gossip(propagation_source, &message_id, &message.data, now),
            Libp2pEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                connection_id,
                info,
                ..
            })) => self.on_identity(connection_id, &info.protocol_version, now),
            Libp2pEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                for (peer, address) in found {
                    self.on_discovered(peer, socket_addr(&address), now);
                }
            }
            Libp2pEvent::Behaviour(_) => {}
            Libp2pEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_connected(peer_id, connection_id, &endpoint, now);
            }
            Libp2pEvent::ConnectionClosed { connection_id, .. } => self.on_disconnected(connection_id, now),
            Libp2pEvent::OutgoingConnectionError { connection_id, error, .. } => {
                if let Some(at) = self.dials.remove(&connection_id) {
                    tracing::debug!(%at, %error, "dial failed");
                    match error {
                        DialError::LocalPeerId { .. } => self.dial.ourselves(at),
                        _ => self.dial.failed(at, now),
                    }
                }
            }
            Libp2pEvent::NewListenAddr { listener_id, address } => {
                self.listeners.push((listener_id, address));
            }
            Libp2pEvent::ExpiredListenAddr { listener_id, address } => {
                self.listeners.retain(|listener| *listener != (listener_id, address.clone()));
            }
            _ => {}
        }
    }

    pub(super) fn dial_at(&mut self, at: SocketAddr, now: Instant) {
        let options = DialOpts::unknown_peer_id().address(multiaddr(at)).allocate_new_port().build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                self.dials.insert(connection, at);
            }
            Err(error) => {
                tracing::debug!(%at, %error, "cannot dial");
                self.dial.failed(at, now);
            }
        }
    }

    fn on_connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint, now: Instant) {
        let dialled = self.dials.remove(&id);
        let remote = match endpoint {
            ConnectedPoint::Dialer { address, .. } => socket_addr(address),
            ConnectedPoint::Listener { send_back_addr, .. } => socket_addr(send_back_addr),
        };
        let node = node_id(&peer);
        let stays = !self.bans.holds(node, now) && self.admits(node);
        let Some(remote) = remote.filter(|_| stays) else {
            self.swarm.close_connection(id);
            if let Some(at) = dialled {
                self.dial.foreign(at, now);
            }
            return;
        };
        let greet_by = now + GREETING;
        self.connections.insert(id, Connection { peer, node, remote, dialled, session: None, greet_by });
        if endpoint.is_dialer() {
            let channel = self.names.channel.clone();
            let opened = self.swarm.behaviour_mut().streams.open(peer, id, channel);
            self.start_session(id, Origin::Dialled(opened), now);
        } else {
            self.dial.arriving(node);
        }
    }

    fn on_disconnected(&mut self, id: ConnectionId, now: Instant) {
        let Some(connection) = self.connections.remove(&id) else { return };
        if !self.connections.values().any(|other| other.node == connection.node) {
            self.dial.left(connection.node);
        }
        if let Some(at) = connection.dialled
            && self.peers.get(&connection.node).is_none_or(|peer| peer.connection != id)
        {
            self.dial.failed(at, now);
        }
    }

    fn on_inbound(&mut self, Inbound { connection, protocol, stream }: Inbound, now: Instant) {
        let Some(known) = self.connections.get(&connection) else { return };
        if protocol == self.names.channel {
            if known.session.is_none() && known.dialled.is_none() {
                self.start_session(connection, Origin::Accepted(stream), now);
            }
        } else if self.is_peer(connection) && self.serving_tasks.len() < objects::MAX_REQUESTS {
            if protocol == self.names.object {
                self.serve_object(known.node, stream);
            } else if protocol == self.names.bulk {
                self.serve_bulk(stream);
            }
        }
        // Any other stream is reset by dropping it: who has not greeted us gets nothing.
    }

    fn is_peer(&self, connection: ConnectionId) -> bool {
        let node = self.connections.get(&connection).map(|known| known.node);
        node.and_then(|node| self.peers.get(&node)).is_some_and(|peer| peer.connection == connection)
    }

    fn serve_object(&mut self, asker: NodeId, stream: Stream) {
        let (source, turns) = (self.shared.objects.clone(), self.serving.clone());
        let elsewhere = self.elsewhere.clone();
        self.serving_tasks.spawn(async move {
            if let Err(error) = objects::serve(stream, asker, source, &turns, &elsewhere).await {
                tracing::debug!(%error, "an object was not taken");
            }
        });
    }

    fn serve_bulk(&mut self, stream: Stream) {
        let Some(reader) = self.shared.bulk.get().cloned() else { return };
        let turns = self.serving_bulk.clone();
        self.serving_tasks.spawn(async move {
            if let Err(error) = bulk::serve(stream, reader, &turns).await {
                tracing::debug!(%error, "a run was not taken");
            }
        });
    }

    fn start_session(&mut self, connection: ConnectionId, origin: Origin, now: Instant) {
        let Some(known) = self.connections.get_mut(&connection) else { return };
        let hello = Hello {
            protocols: ProtocolRange::OURS,
            member: self.me.signed.clone(),
            digest: self.replica.digest(),
        };
        let hello = match hello.encode() {
            Ok(hello) => hello,
            Err(error) => return tracing::warn!(%error, "a greeting cannot be sent"),
        };
        self.next_session += 1;
        let id = SessionId(self.next_session);
        let node = known.node;
        known.session = Some(id);
        let link = Arc::new(Link::new(now));
        let said = self.me.statement;
        self.sessions.insert(id, SessionState { node, connection, said, link: link.clone() });
        let session = Session { id, node, tag: self.tag, link, hello, to_driver: self.to_driver.clone() };
        self.session_tasks.spawn(async move { (id, session.run(origin).await) });
    }

    fn on_identity(&mut self, id: ConnectionId, text: &str, now: Instant) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (node, address, dialled) = (connection.node, connection.remote, connection.dialled);
        let why = match text.parse::<Identity>() {
            Ok(identity) if identity.tag != self.tag => Some(Incompatibility::OtherFabric(identity.tag)),
            Ok(identity) if identity.protocols.common(ProtocolRange::OURS).is_none() => {
                Some(Incompatibility::OtherProtocol(identity.protocols))
            }
            Ok(_) => return,
            Err(_) => None,
        };
        connection.greet_by = now + LINGER;
        if let Some(at) = dialled {
            self.dial.foreign(at, now);
        }
        match why {
            Some(why) if self.met.hold(node, now) => {
                tracing::warn!(?node, %address, ?why, "met a node that this one cannot work with");
                self.emit(SwarmEvent::Incompatible { peer: node, address, why });
            }
            _ => tracing::debug!(?node, %address, text, "not a node of this fabric"),
        }
    }

    fn on_discovered(&mut self, peer: PeerId, address: Option<SocketAddr>, now: Instant) {
        let node = node_id(&peer);
        let Some(address) = address else { return };
        if self.peers.contains_key(&node) {
            return;
        }
        let known = self.members.live().any(|member| member.node == node);
        self.dial.learn(address, if known { Source::Heard(node) } else { Source::Stranger(node) }, now);
    }
}
