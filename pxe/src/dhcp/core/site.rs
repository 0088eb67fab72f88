//! Who else answers DHCP on this link: a site's own server, to which mode auto yields, or another fabric.
//!
//! A node asks with a DISCOVER of its own ([`probe`](super::super::probe)), which no node of a fabric answers with an
//! address: who does is a site's server. It asks at its start, holding what clients ask meanwhile; every few minutes; and at once
//! when an unknown server is named on the link. A server that does not answer strangers gives itself away by the clients that
//! go on choosing it. Once a proxy, always a proxy: when the site's server fails for an hour, its clients must not be moved
//! to another network.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::super::client::ClientKey;
use super::super::config::Mode;
use super::super::event::{BootEvent, Stage};
use super::super::lease::{Holder, LeaseState};
use super::super::packet::{MessageType, Packet};
use super::super::probe;
use super::super::time::Time;
use super::{Core, Output, Request};

/// How long the clients' packets are held at the start. A server on the link offers within milliseconds, unless it pings the
/// address before; such a one is yielded to when its OFFER comes.
pub const LISTEN_TIME: Duration = Duration::from_millis(500);
/// The second probe of the start, should the first be lost.
const SECOND_PROBE: Duration = Duration::from_millis(200);
/// Time between two probes of a node that gives addresses.
const PROBE_EVERY: Duration = Duration::from_secs(300);
/// Time between two probes that suspicion asks for.
const PROBE_AGAIN: Duration = Duration::from_secs(2);
/// Probes whose answers are still waited for: those of a quarter of a minute at least.
const MAX_PROBES: usize = 8;
/// A server that answers no probe is believed in when so many clients have chosen it …
const CONVINCING_CLIENTS: usize = 3;
/// … over so long: a node of this fabric that has just joined is known as one by then.
const CONVINCING_TIME: Duration = Duration::from_secs(30);
/// A server outside of the fabric is reported again after this long.
const REPORT_AGAIN: Duration = Duration::from_secs(300);
/// Servers remembered; a link has one, or a few by mistake.
const MAX_SERVERS: usize = 16;

/// What is known of a server that is no node of this fabric.
#[derive(Debug, Clone)]
struct Other {
    first: Time,
    reported: Time,
    clients: BTreeSet<ClientKey>,
    /// It has said that it belongs to another fabric.
    fabric: bool,
}

/// What this node makes of the link.
#[derive(Debug)]
pub(super) struct Site {
    acting: Mode,
    /// Until then packets of clients are held.
    listening: Option<Time>,
    /// When the latest probe was sent.
    probed: Option<Time>,
    /// The transactions of the latest probes, the last one at the end: a server that is slow, because it pings an address before it
    /// offers it or has too much to do, answers one when others have been sent.
    probes: VecDeque<u32>,
    next_probe: Option<Time>,
    others: BTreeMap<Ipv4Addr, Other>,
}

impl Site {
    pub(super) fn new(mode: Mode, on_its_subnet: bool) -> Self {
        let (acting, listens) = match mode {
            Mode::Auto if on_its_subnet => (Mode::Full, true),
            Mode::Auto => (Mode::Proxy, false),
            other => (other, false),
        };
        Self {
            acting,
            listening: listens.then_some(Time::ZERO + LISTEN_TIME),
            probed: None,
            probes: VecDeque::new(),
            next_probe: listens.then_some(Time::ZERO),
            others: BTreeMap::new(),
        }
    }

    /// Full, proxy or off: what mode auto amounts to at the moment.
    pub(super) fn acting(&self) -> Mode {
        self.acting
    }

    /// Until when packets of clients are held.
    pub(super) fn listening(&self, now: Time) -> Option<Time> {
        self.listening.filter(|&until| now < until)
    }

    pub(super) fn next_due(&self) -> Option<Time> {
        self.next_probe
    }

    /// Whether clients of others may be on this link.
    pub(super) fn is_shared(&self) -> bool {
        !self.others.is_empty()
    }
}

impl Core {
    /// How this node takes part at the moment: mode auto is full until it has yielded to a site's server.
    #[must_use]
    pub fn acting(&self) -> Mode {
        self.site.acting()
    }

    /// Sends the probe that is due.
    pub(super) fn probe_if_due(&mut self) {
        if self.site.next_probe.is_none_or(|at| at > self.now) {
            return;
        }
        let first = self.site.probed.is_none();
        self.send_probe();
        let again = if first { SECOND_PROBE } else { PROBE_EVERY };
        self.site.next_probe = (self.settings.config.mode == Mode::Auto).then_some(self.now + again);
    }

    fn send_probe(&mut self) {
        let Some(mac) = self.settings.config.own.mac() else { return };
        self.counter = self.counter.saturating_add(1);
        let xid = probe::transaction(self.me, self.counter);
        self.site.probed = Some(self.now);
        if self.site.probes.len() >= MAX_PROBES {
            self.site.probes.pop_front();
        }
        self.site.probes.push_back(xid);
        let packet = probe::discover(mac, xid, self.settings.config.fabric, self.settings.config.server);
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
        self.outputs.push_back(Output::Send { packet, to, from_port: 67 });
    }

    /// Takes in a probe; whether the packet is one. Nodes of its fabric are silent, another fabric's first rank says who it is,
    /// so that both sides know.
    pub(super) fn take_probe(&mut self, packet: &Packet) -> bool {
        let Some((fabric, server)) = probe::said(packet) else { return false };
        let config = &self.settings.config;
        if fabric == config.fabric
            || self.acting() == Mode::Off
            || packet.message_type != MessageType::Discover
        {
            return true;
        }
        let first = ClientKey::new(packet.hardware_type, packet.chaddr())
            .is_some_and(|key| self.rank_for(&key, Ipv4Addr::UNSPECIFIED) == 0);
        if first {
            let packet = probe::answer(packet, config.server, config.fabric);
            let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 68);
            self.outputs.push_back(Output::Send { packet, to, from_port: 67 });
        }
        self.note_fabric(server);
        true
    }

    /// Takes in a reply to this node's own probe; whether it is one.
    pub(super) fn take_probe_answer(&mut self, packet: &Packet, server: Ipv4Addr) -> bool {
        let own = self.settings.config.own.mac();
        if !self.site.probes.contains(&packet.xid) || own.is_none_or(|mac| packet.chaddr() != mac) {
            return false;
        }
        if probe::said(packet).is_some() {
            self.note_fabric(server);
        } else if packet.message_type == MessageType::Offer && !packet.yiaddr.is_unspecified() {
            self.report(
                server,
                Stage::OtherServer,
                "it is no node of this fabric: a DHCP server of this network",
            );
            self.yield_to(server);
        }
        true
    }

    /// Whether another node of this fabric has this address.
    pub(super) fn is_node(&self, server: Ipv4Addr) -> bool {
        self.table.at(server).any(|lease| lease.state == LeaseState::Member)
    }

    /// A client deals with a server that may be none of this fabric.
    pub(super) fn suspect(&mut self, server: Ipv4Addr, client: Option<ClientKey>) {
        if self.is_node(server) || server == self.settings.config.server {
            return;
        }
        let why = "it is no node of this fabric, and two servers on one link contradict each other: stop it, or let this fabric's nodes be \
                   proxies";
        self.report(server, Stage::OtherServer, why);
        if self.settings.config.mode != Mode::Auto || self.acting() != Mode::Full {
            return;
        }
        let now = self.now;
        let Some(other) = self.site.others.get_mut(&server).filter(|other| !other.fabric) else { return };
        if other.clients.len() < CONVINCING_CLIENTS {
            other.clients.extend(client);
        }
        let convinced =
            other.clients.len() >= CONVINCING_CLIENTS && now.since(other.first) >= CONVINCING_TIME;
        if convinced {
            self.yield_to(server);
        } else if self.site.probed.is_none_or(|at| now.since(at) >= PROBE_AGAIN) {
            self.send_probe();
        }
    }

    fn note_fabric(&mut self, server: Ipv4Addr) {
        let why = "it belongs to another fabric on this link: let the nodes of one of the two answer no DHCP, or part the links";
        self.report(server, Stage::OtherFabric, why);
        if let Some(other) = self.site.others.get_mut(&server) {
            other.fabric = true;
        }
    }

    /// From now on this node tells boot files alone. What clients hold of it they keep until it is over; nobody prolongs it.
    fn yield_to(&mut self, server: Ipv4Addr) {
        if self.settings.config.mode != Mode::Auto || self.acting() != Mode::Full {
            return;
        }
        self.site.acting = Mode::Proxy;
        self.site.listening = None;
        self.site.next_probe = None;
        let reason = Some("addresses are this server's affair, this node tells boot files alone".to_owned());
        let event = BootEvent::new(Stage::Yielded, Holder::Foreign(server));
        self.emit(BootEvent { address: Some(server), reason, ..event });
    }

    /// Remembers a server outside of the fabric, and tells of it now and then.
    fn report(&mut self, server: Ipv4Addr, stage: Stage, why: &str) {
        let now = self.now;
        if let Some(other) = self.site.others.get_mut(&server) {
            let known = stage != Stage::OtherFabric || other.fabric;
            if other.fabric && stage == Stage::OtherServer
                || known && now.since(other.reported) < REPORT_AGAIN
            {
                return;
            }
            other.reported = now;
        } else {
            if self.site.others.len() >= MAX_SERVERS {
                let oldest = self.site.others.iter().min_by_key(|(_, other)| other.reported);
                if let Some(oldest) = oldest.map(|(&server, _)| server) {
                    self.site.others.remove(&oldest);
                }
            }
            let other = Other { first: now, reported: now, clients: BTreeSet::new(), fabric: false };
            self.site.others.insert(server, other);
        }
        let event = BootEvent::new(stage, Holder::Foreign(server));
        self.emit(BootEvent { address: Some(server), reason: Some(why.to_owned()), ..event });
    }

    /// A client of which nothing is known here, where strangers are another fabric's.
    pub(super) fn is_left_to_others(&self, request: &Request) -> bool {
        !self.settings.config.strangers && !self.knows(request)
    }

    /// Whether somebody else answers DHCP on this link.
    pub(super) fn is_link_shared(&self) -> bool {
        self.site.is_shared()
    }

    /// Whether this client is somebody else's as likely as ours.
    pub(super) fn may_be_of_others(&self, request: &Request) -> bool {
        self.site.is_shared() && !self.knows(request)
    }

    fn knows(&self, request: &Request) -> bool {
        self.settings.reservation(&request.client.who()).is_some()
            || self.table.get(&request.holder()).is_some()
    }
}
