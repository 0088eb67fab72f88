//! What a packet deserves: from a request and what this node knows to a plan, without changing anything.
//!
//! The rules are those of RFC 2131 §4.3, read for a fabric that owns its pool: an address of the pool that nobody
//! else holds may be confirmed to the client that uses it, and an address of another network is refused.

use std::net::Ipv4Addr;

use super::super::config::Mode;
use super::super::lease::LeaseState;
use super::super::packet::{MessageType, Packet, code};
use super::super::reply;
use super::choose::Choice;
use super::{Core, Request};

/// What to do about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing: it is another server's, or the standard says so.
    Silent,
    /// Nothing, but the client wanted something of us: the operator should know why.
    Unanswered(&'static str),
    /// Offer an address.
    Offer(Choice),
    /// Offer a boot file alone.
    ProxyOffer,
    /// Confirm an address.
    Ack(Ipv4Addr),
    /// Tell a boot file alone, on port 4011.
    ProxyAck,
    /// Answer an INFORM.
    InformAck,
    /// Refuse an address.
    Nak(&'static str),
    /// The client took another server's offer: ours is free again.
    Declined,
}

/// Which kind of REQUEST this is (RFC 2131 §4.3.2, table 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    /// Takes an offer of this server.
    Selecting { server: Ipv4Addr, address: Ipv4Addr },
    /// Has rebooted and remembers an address.
    InitReboot(Ipv4Addr),
    /// Uses an address and wants to go on: at its server, or later at any.
    Extending(Ipv4Addr),
}

fn asking(packet: &Packet) -> Option<Asking> {
    let requested = packet.address_option(code::REQUESTED_ADDRESS);
    let in_use = Some(packet.ciaddr).filter(|address| !address.is_unspecified());
    match packet.address_option(code::SERVER_ID) {
        Some(server) => Some(Asking::Selecting { server, address: requested.or(in_use)? }),
        None => in_use.map(Asking::Extending).or(requested.map(Asking::InitReboot)),
    }
}

impl Core {
    /// The plan for requests where no rank order applies: those that name their server, or came to this node alone.
    pub(super) fn decide_alone(&self, request: &Request) -> Option<Plan> {
        let ours_alone = request.is_ours_alone();
        match request.packet.message_type {
            _ if request.arrival.port != 67 => Some(self.decide_4011(request)),
            MessageType::Request => match asking(&request.packet) {
                _ if self.acting() == Mode::Proxy => Some(self.decide_proxy_request(request)),
                None => Some(Plan::Silent),
                Some(Asking::Selecting { .. }) => Some(self.decide(request)),
                Some(_) => ours_alone.then(|| self.decide(request)),
            },
            // The answer goes to the client's own address, where no standby sees it: only the first rank gives one.
            MessageType::Inform => {
                let mine = ours_alone || self.rank(request) == 0;
                Some(if mine { self.decide(request) } else { Plan::Silent })
            }
            _ => ours_alone.then(|| self.decide(request)),
        }
    }

    /// The plan for a request whose turn it is.
    pub(super) fn decide(&self, request: &Request) -> Plan {
        match (self.acting(), request.packet.message_type) {
            (Mode::Full, MessageType::Discover) => self.decide_discover(request),
            (Mode::Full, MessageType::Request) => self.decide_request(request),
            (Mode::Full, MessageType::Inform) => self.decide_inform(request),
            (Mode::Proxy, MessageType::Discover) => self.decide_proxy(request),
            _ => Plan::Silent,
        }
    }

    fn decide_discover(&self, request: &Request) -> Plan {
        let Some(served) = self.settings.subnet_for(request.packet.giaddr) else {
            return Plan::Unanswered("no subnet is configured for its relay");
        };
        match self.choose(request, served) {
            Some(choice) => Plan::Offer(choice),
            None => Plan::Unanswered("every address of the pool is held"),
        }
    }

    fn decide_request(&self, request: &Request) -> Plan {
        match asking(&request.packet) {
            None => Plan::Silent,
            Some(Asking::Selecting { server, .. }) if server != self.settings.config.server => Plan::Declined,
            Some(Asking::Selecting { address, .. }) => self.decide_selecting(request, address),
            Some(Asking::InitReboot(address)) => self.decide_init_reboot(request, address),
            Some(Asking::Extending(address)) => self.decide_extending(request, address),
        }
    }

    /// The client takes this node's offer. What counts is that the address can be its own: the offer's record may be
    /// lost, or two nodes may have offered it different addresses.
    fn decide_selecting(&self, request: &Request, address: Ipv4Addr) -> Plan {
        if !self.is_on_its_network(request, address) {
            Plan::Nak("the address belongs to another network")
        } else if self.may_have(request, address) {
            Plan::Ack(address)
        } else {
            Plan::Nak("the address is not available")
        }
    }

    /// RFC 2131 §4.3.2: refuse a wrong network or a wrong address, be silent about clients nothing is known of.
    fn decide_init_reboot(&self, request: &Request, address: Ipv4Addr) -> Plan {
        if !self.is_on_its_network(request, address) {
            return self.refuse_other_network(request);
        }
        let known = self.table.get(&request.holder()).filter(|lease| lease.state != LeaseState::Released);
        match known {
            Some(lease) if lease.address != address => Plan::Nak("another address was given to this client"),
            Some(_) if self.may_have(request, address) => Plan::Ack(address),
            _ if self.is_held_by_another(request, address) => {
                Plan::Nak("the address is held by another client")
            }
            _ => Plan::Silent,
        }
    }

    /// A client in the middle of its work keeps its address whenever that is possible: this node may know less than
    /// the client, having just started.
    fn decide_extending(&self, request: &Request, address: Ipv4Addr) -> Plan {
        if !self.is_on_its_network(request, address) {
            self.refuse_other_network(request)
        } else if self.may_have(request, address) {
            Plan::Ack(address)
        } else if self.is_held_by_another(request, address) {
            Plan::Nak("the address is held by another client")
        } else {
            // An address outside of the pool: another administrator's business.
            Plan::Silent
        }
    }

    /// An address of another network is wrong here, unless another fabric or server shares the link and may have given it.
    fn refuse_other_network(&self, request: &Request) -> Plan {
        if self.may_be_of_others(request) {
            Plan::Silent
        } else {
            Plan::Nak("the address belongs to another network")
        }
    }

    fn is_on_its_network(&self, request: &Request, address: Ipv4Addr) -> bool {
        // A unicast renewal comes past the relay: any served subnet will do then.
        let served = if request.is_ours_alone() {
            self.settings.subnet_of(address)
        } else {
            self.settings.subnet_for(request.packet.giaddr)
        };
        served.is_some_and(|served| served.subnet.network.contains(address))
    }

    fn decide_inform(&self, request: &Request) -> Plan {
        let known = self.settings.subnet_of(request.packet.ciaddr).is_some();
        if known { Plan::InformAck } else { Plan::Silent }
    }

    /// A proxy speaks to boot clients only, and only if it has something to say.
    fn decide_proxy(&self, request: &Request) -> Plan {
        if self.has_boot_offer(request) { Plan::ProxyOffer } else { Plan::Silent }
    }

    /// A boot client that asks this node by name, or alone, on port 67 instead of 4011, as some firmware does, gets the same
    /// answer (else PXE-E55). All other REQUESTs are the site's.
    fn decide_proxy_request(&self, request: &Request) -> Plan {
        let named = request.packet.address_option(code::SERVER_ID);
        let ours = named.map_or(request.is_ours_alone(), |server| server == self.settings.config.server);
        if ours && self.has_boot_offer(request) { Plan::ProxyAck } else { Plan::Silent }
    }

    /// Port 4011 (PXE 2.1 §2.2.4): a boot client that holds a lease asks for its boot file. The answer must hold
    /// one, or EDK2 drops it.
    fn decide_4011(&self, request: &Request) -> Plan {
        let asks = matches!(request.packet.message_type, MessageType::Request | MessageType::Inform);
        if asks && self.acting() != Mode::Off && self.has_boot_offer(request) {
            Plan::ProxyAck
        } else {
            Plan::Silent
        }
    }

    fn has_boot_offer(&self, request: &Request) -> bool {
        use super::super::class::ClientClass::RaspberryPi;
        request.client.class == RaspberryPi || reply::boot_file(&self.settings, &request.client).is_some()
    }
}
