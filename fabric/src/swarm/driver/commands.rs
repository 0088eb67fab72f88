//! What the handle asks for.

use std::time::{Duration, Instant};

use super::Driver;
use crate::swarm::announce::{AnnounceError, Announcement};
use crate::swarm::dial::Source;
use crate::swarm::frame::Frame;
use crate::swarm::gossip::Gossip;
use crate::swarm::handle::{Command, Purpose};
use crate::swarm::member::{MemberError, MemberInfo};
use crate::swarm::protocol::ProtocolRange;
use crate::swarm::records::{NewRecord, Record, RecordError};

impl Driver {
    /// Handles a command. Whoever does not wait for the answer any more is not told.
    pub(super) fn on_command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Open { to, purpose, reply } => {
                if let Some((peer, connection)) = self.connection_of(to) {
                    let protocol = match purpose {
                        Purpose::Object => self.names.object.clone(),
                        Purpose::Bulk => self.names.bulk.clone(),
                    };
                    let opened = self.swarm.behaviour_mut().streams.open(peer, connection, protocol);
                    let _ = reply.send(opened);
                }
            }
            Command::UpdateMe { me, reply } => {
                let _ = reply.send(self.update_me(me, now));
            }
            Command::Announce { announcement, reply } => {
                let _ = reply.send(self.announce(announcement, now));
            }
            Command::PutRecords { records, reply } => {
                let results: Vec<_> =
                    records.into_iter().map(|record| self.put_record(record, now)).collect();
                let _ = reply.send(results.into_iter().collect());
            }
            Command::Topic { topic, reply } => {
                let _ = reply.send(self.replica.topic(topic, now));
            }
            Command::Dial(address) => self.dial.learn(address, Source::First, now),
            Command::Seek => self.dial.seek(now),
            Command::Offence { node, why } => self.offence(node, why, now),
            Command::Learnt(reply) => {
                self.on_gate(None, now);
                let _ = reply.send(());
            }
        }
    }

    fn connection_of(
        &self,
        node: crate::id::NodeId,
    ) -> Option<(libp2p::PeerId, libp2p::swarm::ConnectionId)> {
        let connection = self.peers.get(&node)?.connection;
        Some((self.connections.get(&connection)?.peer, connection))
    }

    fn update_me(&mut self, mut me: MemberInfo, now: Instant) -> Result<(), MemberError> {
        me.node = self.shared.node;
        me.protocols = ProtocolRange::OURS;
        if me.swarm_port == 0 {
            me.swarm_port = self.me.info.swarm_port;
        }
        if me == self.me.info {
            return Ok(());
        }
        self.restate(me, now)?;
        self.send_all(self.peers.keys(), &Frame::Members(vec![self.me.signed.clone()]));
        self.members.mark_changed();
        Ok(())
    }

    fn announce(&mut self, announcement: Announcement, now: Instant) -> Result<(), AnnounceError> {
        if self.heads.insert(announcement.clone())? {
            // Peers hear it over their channels: gossip is for those further away, and what it has in hand when two connections
            // to a node become one is lost, subscriptions too.
            self.send_all(self.peers.keys(), &Frame::Announce(vec![announcement.clone()]));
            self.publish(Gossip::Announce(announcement), now);
        }
        Ok(())
    }

    fn put_record(&mut self, record: NewRecord, now: Instant) -> Result<(), RecordError> {
        let NewRecord { topic, key, counter, value } = record;
        let author = self.shared.node;
        self.replica.put(Record { topic, key, counter, author, value, age: Duration::ZERO }, now)
    }
}
