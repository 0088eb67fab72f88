//! Carries out a plan: lease changes, the reply and where it goes, events and counts.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::super::event::{BootEvent, Stage};
use super::super::lease::{Holder, Lease, LeaseState, Version};
use super::super::packet::{MessageType, Packet, code};
use super::super::reply::{self, Answer};
use super::decide::Plan;
use super::{Core, Output, Request, TAKEN_HOLD};

/// Ports of DHCP clients and servers (RFC 2131 §4.1).
const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;
/// No lease is shorter than this, whatever a client asks for: it would do nothing but renew.
const MIN_LIFETIME: Duration = Duration::from_secs(60);
/// At most one in so many addresses of a subnet may be blocked by declined and foreign addresses: a hostile client must not
/// decline a pool away.
const MAX_TAKEN_SHARE: u32 = 4;

impl Core {
    pub(super) fn act(&mut self, request: &Request, plan: &Plan, as_standby: bool) {
        let answers = !matches!(plan, Plan::Silent | Plan::Declined | Plan::Unanswered(_));
        if answers {
            self.standby.remove(&request.key());
            self.counters.standby_answers += u64::from(as_standby);
            let asked = match request.packet.message_type {
                MessageType::Discover => Stage::Discover,
                MessageType::Inform => Stage::Inform,
                _ => Stage::Request,
            };
            self.emit(self.event(request, asked));
        }
        match *plan {
            Plan::Silent => {}
            Plan::Declined => self.free_own_offer(request),
            Plan::Unanswered(why) => self.leave_unanswered(request, why),
            Plan::Offer(choice) => {
                if let Some(offer) = choice.reclaims {
                    self.counters.reclaimed_offers += 1;
                    self.end(offer);
                }
                self.offer(request, choice.address);
            }
            Plan::Ack(address) => self.ack(request, address),
            Plan::InformAck => self.inform_ack(request),
            Plan::Nak(why) => self.nak(request, why),
            Plan::ProxyOffer => self.proxy(request, MessageType::Offer, Stage::ProxyOffer),
            Plan::ProxyAck => self.proxy(request, MessageType::Ack, Stage::ProxyAck),
        }
    }

    fn leave_unanswered(&mut self, request: &Request, why: &str) {
        self.counters.unanswered += 1;
        let event = self.event(request, Stage::Unanswered);
        self.emit(BootEvent { reason: Some(why.to_owned()), ..event });
    }

    /// Offers, and holds the address meanwhile. A live lease of the same address that lasts longer than the offer
    /// stays as it is: a DISCOVER proves nothing, anybody can send one with this hardware address.
    fn offer(&mut self, request: &Request, address: Ipv4Addr) {
        let hold = self.settings.config.times.offer;
        let until = self.now + hold;
        let lasts = self.table.get(&request.holder()).is_some_and(|lease| {
            let longer = lease.expires.is_none_or(|expires| expires >= until);
            lease.address == address && lease.is_live(self.now) && longer
        });
        if !lasts {
            self.doubt(address, &request.holder());
            self.write(request.holder(), address, LeaseState::Offered, hold);
        }
        self.counters.offers += 1;
        self.send_lease(request, MessageType::Offer, address, Stage::Offer);
    }

    fn ack(&mut self, request: &Request, address: Ipv4Addr) {
        let lifetime = self.granted(request);
        self.write(request.holder(), address, LeaseState::Bound, lifetime);
        self.counters.acks += 1;
        self.send_lease(request, MessageType::Ack, address, Stage::Ack);
    }

    /// The lease time: what the client asks for, within what its class gets.
    fn granted(&self, request: &Request) -> Duration {
        let most = self.lifetime(&request.client);
        let asked = request.packet.u32_option(code::LEASE_TIME).map(|secs| Duration::from_secs(secs.into()));
        asked.map_or(most, |asked| asked.max(MIN_LIFETIME).min(most))
    }

    fn send_lease(&mut self, request: &Request, kind: MessageType, address: Ipv4Addr, stage: Stage) {
        let Some(served) = self.settings.subnet_of(address) else { return };
        let lifetime = self.granted(request);
        let shared = self.is_link_shared();
        let answer = Answer::Lease { kind, address, lifetime, subnet: &served.subnet, shared };
        let packet = reply::write(&self.settings, &request.packet, &request.client, answer);
        self.send(packet, destination(request), SERVER_PORT);
        let boot_file = reply::boot_file(&self.settings, &request.client);
        let event = self.event(request, stage);
        self.emit(BootEvent { address: Some(address), boot_file, ..event });
    }

    fn inform_ack(&mut self, request: &Request) {
        let Some(served) = self.settings.subnet_of(request.packet.ciaddr) else { return };
        let answer = Answer::Inform { subnet: &served.subnet };
        let packet = reply::write(&self.settings, &request.packet, &request.client, answer);
        self.counters.acks += 1;
        self.send(packet, SocketAddrV4::new(request.packet.ciaddr, CLIENT_PORT), SERVER_PORT);
    }

    fn nak(&mut self, request: &Request, why: &'static str) {
        let packet = reply::write(&self.settings, &request.packet, &request.client, Answer::Nak { why });
        self.counters.naks += 1;
        let to = relay(&request.packet).unwrap_or(SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT));
        self.send(packet, to, SERVER_PORT);
        let event = self.event(request, Stage::Nak);
        let address = request.packet.address_option(code::REQUESTED_ADDRESS).unwrap_or(request.packet.ciaddr);
        self.emit(BootEvent { address: Some(address), reason: Some(why.to_owned()), ..event });
    }

    fn proxy(&mut self, request: &Request, kind: MessageType, stage: Stage) {
        let packet = reply::write(&self.settings, &request.packet, &request.client, Answer::Proxy { kind });
        if kind == MessageType::Offer {
            self.counters.offers += 1;
        } else {
            self.counters.acks += 1;
        }
        self.send(packet, destination(request), request.arrival.port);
        let boot_file = reply::boot_file(&self.settings, &request.client);
        let event = self.event(request, stage);
        self.emit(BootEvent { boot_file, ..event });
    }

    fn send(&mut self, packet: Vec<u8>, to: SocketAddrV4, from_port: u16) {
        self.outputs.push_back(Output::Send { packet, to, from_port });
    }

    /// The client takes another server's offer: an address that this node holds for it is free, unless it is the
    /// same one.
    fn free_own_offer(&mut self, request: &Request) {
        let taken = request.packet.address_option(code::REQUESTED_ADDRESS);
        let offer = self.table.get(&request.holder()).copied().filter(|lease| {
            let own = lease.state == LeaseState::Offered && lease.version.author == self.me;
            own && Some(lease.address) != taken
        });
        if let Some(offer) = offer {
            self.end(offer);
        }
    }

    /// RFC 2131 §4.3.3: the address is in use by somebody unknown. The server that gave it takes care of it.
    pub(super) fn decline(&mut self, request: &Request) {
        self.counters.declines += 1;
        let address = request.packet.address_option(code::REQUESTED_ADDRESS);
        let ours = request.packet.address_option(code::SERVER_ID) == Some(self.settings.config.server);
        let lease = self.table.get(&request.holder()).copied();
        let Some(lease) = lease.filter(|lease| ours && Some(lease.address) == address) else { return };
        if lease.is_live(self.now) {
            self.end(lease);
            self.take(lease.address);
            let event = self.event(request, Stage::Decline);
            self.emit(BootEvent { address: Some(lease.address), ..event });
        }
    }

    /// RFC 2131 §4.3.4. Only the node that the client names acts.
    pub(super) fn release(&mut self, request: &Request) {
        self.counters.releases += 1;
        let ours = request.packet.address_option(code::SERVER_ID) == Some(self.settings.config.server);
        let lease = self.table.get(&request.holder()).copied();
        let Some(lease) = lease.filter(|lease| ours && lease.address == request.packet.ciaddr) else {
            return;
        };
        if lease.is_live(self.now) && lease.state != LeaseState::Member {
            self.end(lease);
            let event = self.event(request, Stage::Release);
            self.emit(BootEvent { address: Some(lease.address), ..event });
        }
    }

    /// Marks an address of a subnet as used by somebody unknown.
    pub(super) fn take(&mut self, address: Ipv4Addr) {
        let Some(served) = self.settings.subnet_of(address) else { return };
        let network = served.subnet.network;
        let most = served.pool.size().div_ceil(MAX_TAKEN_SHARE);
        let taken = self.table.foreign().filter(|lease| network.contains(lease.address));
        let (count, first) = taken.fold((0_u32, None::<&Lease>), |(count, first), lease| {
            let earlier = first.filter(|first| first.expires <= lease.expires).unwrap_or(lease);
            (count + 1, Some(earlier))
        });
        if let Some(first) = first.copied().filter(|_| count >= most) {
            self.table.remove(&first.holder);
        }
        self.write(Holder::Foreign(address), address, LeaseState::Declined, TAKEN_HOLD);
    }

    /// Ends a lease. The end is remembered until the lease would have run out, here and elsewhere.
    pub(super) fn end(&mut self, lease: Lease) {
        let version = self.next_version();
        self.store(Lease { state: LeaseState::Released, version, ..lease });
    }

    /// Writes a lease of this node's making.
    pub(super) fn write(&mut self, holder: Holder, address: Ipv4Addr, state: LeaseState, lifetime: Duration) {
        let version = self.next_version();
        let known = self.table.get(&holder);
        let goes_on = known.filter(|lease| lease.address == address && lease.is_live(self.now));
        let since = goes_on.map_or(version.counter, |lease| lease.since);
        let expires = Some(self.now + lifetime);
        self.store(Lease { holder, address, state, version, since, expires });
    }

    pub(super) fn next_version(&mut self) -> Version {
        self.counter = self.counter.saturating_add(1);
        Version { counter: self.counter, author: self.me }
    }

    pub(super) fn event(&self, request: &Request, stage: Stage) -> BootEvent {
        BootEvent { class: Some(request.client.class), ..BootEvent::new(stage, request.holder()) }
    }
}

/// Where an answer goes (RFC 2131 §4.1): to the relay; to the address that a client renews by unicast; to the sender on
/// port 4011; else to everybody on the link, so that the standbys see it. Firmware accepts that whatever its flag says.
fn destination(request: &Request) -> SocketAddrV4 {
    let packet = &request.packet;
    if let Some(relay) = relay(packet) {
        return relay;
    }
    let everybody = SocketAddrV4::new(Ipv4Addr::BROADCAST, CLIENT_PORT);
    if request.arrival.port != SERVER_PORT {
        let source = request.arrival.source;
        return match (source.ip().is_unspecified(), packet.ciaddr.is_unspecified()) {
            (false, _) => source,
            (true, false) => SocketAddrV4::new(packet.ciaddr, source.port()),
            (true, true) => everybody,
        };
    }
    if request.arrival.unicast && !packet.ciaddr.is_unspecified() {
        return SocketAddrV4::new(packet.ciaddr, CLIENT_PORT);
    }
    everybody
}

/// The relay, on the server port, even if the client wants broadcasts.
fn relay(packet: &Packet) -> Option<SocketAddrV4> {
    (!packet.giaddr.is_unspecified()).then(|| SocketAddrV4::new(packet.giaddr, SERVER_PORT))
}
