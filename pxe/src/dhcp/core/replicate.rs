//! What other nodes know: member view, lease records in both directions, replies seen on the link, own address.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::client::{ClientKey, ETHERNET};
use super::super::config::{MachineId, Mode, Network, Served, Who};
use super::super::event::{BootEvent, Stage};
use super::super::lease::{Holder, Lease, LeaseRecord, LeaseState, MAX_REMAINING};
use super::super::packet::{BOOT_REPLY, MessageType, Packet, code};
use super::super::rank::{Leaders, MemberId};
use super::super::table::Merge;
use super::super::time::Time;
use super::standby::Server;
use super::{Core, MAX_BATCH, MAX_MEMBERS, MEMBER_GRACE, Output};

impl Core {
    /// Sets the live members. This node always counts. The addresses of nodes that are gone stay theirs for
    /// [`MEMBER_GRACE`].
    pub fn set_members(&mut self, now: Time, members: impl IntoIterator<Item = MemberId>) {
        self.advance(now);
        let members: BTreeSet<_> = members.into_iter().take(MAX_MEMBERS).chain([self.me]).collect();
        let members = members.into_iter().collect();
        if self.members == members {
            return;
        }
        self.members = members;
        self.choose_leaders();
        let affected: Vec<_> = self
            .table
            .iter()
            .filter(|lease| lease.state == LeaseState::Member)
            .filter(|lease| lease.expires.is_none() != self.members.contains(&lease.version.author))
            .copied()
            .collect();
        for lease in affected {
            let alive = self.members.contains(&lease.version.author);
            let expires = if alive { None } else { Some(self.now + MEMBER_GRACE) };
            self.table.put(Lease { expires, ..lease });
        }
    }

    pub(super) fn choose_leaders(&mut self) {
        self.leaders = self.settings.subnets.iter().map(|served| self.leaders_of(served)).collect();
    }

    fn leaders_of(&self, served: &Served) -> (Network, Leaders) {
        (served.subnet.network, Leaders::new(served.pool.buckets(), &self.members))
    }

    /// Takes in lease records of other nodes, in any order and any number of times.
    pub fn merge(&mut self, now: Time, records: &[LeaseRecord]) {
        self.advance(now);
        for record in records {
            match record.received(self.now) {
                Ok(lease) if self.is_ours_to_know(&lease) => self.merge_one(lease),
                _ => self.counters.refused_records += 1,
            }
        }
    }

    /// Addresses outside of all subnets are refused: this bounds what a peer can make us remember.
    fn is_ours_to_know(&self, lease: &Lease) -> bool {
        self.settings.subnet_of(lease.address).is_some()
    }

    fn merge_one(&mut self, mut lease: Lease) {
        self.counter = self.counter.max(lease.version.counter);
        if lease.state == LeaseState::Member {
            let alive = self.members.contains(&lease.version.author);
            lease.expires = if alive { None } else { Some(self.now + MEMBER_GRACE) };
        }
        match self.table.merge(lease, self.now) {
            Merge::Known => return,
            Merge::Refused => {
                self.counters.refused_records += 1;
                return;
            }
            Merge::Applied { new_claim } => {
                if new_claim {
                    self.report_conflict(lease.address);
                }
            }
        }
        if let Holder::Client(key) = lease.holder {
            self.hints.settle(&key);
            if matches!(lease.state, LeaseState::Offered | LeaseState::Bound) {
                // Another node has answered; the record says it where the reply itself cannot be seen.
                self.standby.remove(&key);
            }
            if key == self.settings.config.own && lease.version.author != self.me {
                self.claim_own_address();
            }
        }
    }

    /// Announces this node's own address, above whatever is said of its hardware address: its machine's boot stages had
    /// leases under it, and anybody can send a DISCOVER with it.
    pub(super) fn claim_own_address(&mut self) {
        let (key, address) = (self.settings.config.own, self.settings.config.server);
        let holder = Holder::Client(key);
        let version = self.next_version();
        let known =
            self.table.get(&holder).filter(|lease| lease.address == address && lease.is_live(self.now));
        let since = known.map_or(version.counter, |lease| lease.since);
        self.store(Lease { holder, address, state: LeaseState::Member, version, since, expires: None });
    }

    /// Up to [`MAX_BATCH`] records of everything known, behind `after`: what a node that joins is told, page by page.
    #[must_use]
    pub fn records(&self, now: Time, after: Option<Holder>) -> Vec<LeaseRecord> {
        self.table.page(after, MAX_BATCH).filter_map(|lease| lease.record(now)).collect()
    }

    /// Stores a lease of this node's making and marks it for the others.
    pub(super) fn store(&mut self, lease: Lease) {
        match self.table.merge(lease, self.now) {
            Merge::Applied { new_claim: true } => self.report_conflict(lease.address),
            Merge::Applied { new_claim: false } | Merge::Known => {}
            Merge::Refused => self.counters.refused_records += 1,
        }
        self.changed.insert(lease.holder);
        if let Holder::Client(key) = lease.holder {
            self.hints.settle(&key);
        }
    }

    /// Puts a batch back that could not be passed on: its leases are told again, as they are then.
    pub fn replicate_again(&mut self, batch: &[LeaseRecord]) {
        self.changed.extend(batch.iter().map(|record| record.holder));
    }

    pub(super) fn next_batch(&mut self) -> Vec<LeaseRecord> {
        let mut batch = Vec::new();
        while batch.len() < MAX_BATCH
            && let Some(holder) = self.changed.pop_first()
        {
            batch.extend(self.table.get(&holder).and_then(|lease| lease.record(self.now)));
        }
        batch
    }

    /// Reports every live claim to an address but the strongest: those holders are refused at their next REQUEST.
    fn report_conflict(&mut self, address: Ipv4Addr) {
        let mut live: Vec<_> =
            self.table.at(address).filter(|lease| lease.is_live(self.now)).copied().collect();
        live.sort_unstable_by_key(Lease::claim);
        let Some((keeper, losers)) = live.split_first() else { return };
        for lease in losers {
            self.counters.conflicts += 1;
            let own = lease.holder == Holder::Client(self.settings.config.own);
            let stage = if own { Stage::OwnAddressLost } else { Stage::Conflict };
            let reason = Some(format!("{} has the stronger claim", keeper.holder));
            let event = BootEvent { address: Some(address), reason, ..BootEvent::new(stage, lease.holder) };
            self.outputs.push_back(Output::Event(event));
        }
    }

    /// What a reply on the link tells: its client is answered, and holds an address.
    pub(super) fn learn_reply(&mut self, packet: &Packet) {
        let server = packet.address_option(code::SERVER_ID);
        if packet.op != BOOT_REPLY || server == Some(self.settings.config.server) {
            return;
        }
        let Some(key) = ClientKey::new(packet.hardware_type, packet.chaddr())
            .or_else(|| ClientKey::from_client_id(packet.hardware_type, packet.option(code::CLIENT_ID)?))
        else {
            return;
        };
        if let Some(server) = server
            && self.take_probe_answer(packet, server)
        {
            return;
        }
        let named = Some(packet.yiaddr).filter(|address| !address.is_unspecified());
        // A proxy stands by for proxies, a full server for full servers and their refusals.
        let boots = !packet.file.is_empty() || packet.option(code::BOOT_FILE).is_some();
        let same_kind = match self.acting() {
            Mode::Full | Mode::Auto => named.is_some() || packet.message_type == MessageType::Nak,
            Mode::Proxy => named.is_none() && boots,
            Mode::Off => false,
        };
        if same_kind {
            self.standby.cancel(&key, packet.xid);
            let machine = packet.option(code::UUID).and_then(MachineId::from_option);
            let who = Who { key, id: packet.option(code::CLIENT_ID), machine };
            let told = named.filter(|&address| self.settings.allows(&who, address));
            let by = if server.is_some_and(|server| self.is_node(server)) {
                Server::Node
            } else {
                Server::Unknown
            };
            self.hints.add(self.now, key, packet.xid, by, told, told_lifetime(packet));
        }
        if let Some(server) = server.filter(|_| named.is_some()) {
            self.suspect(server, None);
        }
    }

    /// The live members in order, this node included.
    #[must_use]
    pub fn members(&self) -> &[MemberId] {
        &self.members
    }

    /// The key of an Ethernet client.
    pub(super) fn ethernet(mac: [u8; 6]) -> Option<ClientKey> {
        ClientKey::new(ETHERNET, &mac)
    }
}

/// How long the client may use what this reply gives it.
fn told_lifetime(packet: &Packet) -> Duration {
    let seconds = packet.u32_option(code::LEASE_TIME).filter(|_| packet.message_type == MessageType::Ack);
    Duration::from_secs(seconds.unwrap_or_default().into()).min(MAX_REMAINING)
}
