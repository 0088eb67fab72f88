//! The clients: firmware and loaders that ask for an address, and renew what they have got.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Event, LINK, World, address_of};
use crate::dhcp::fixtures::{self, Build, DISCOVER, REQUEST};
use crate::dhcp::packet::{MessageType, Packet, code};
use crate::dhcp::time::Time;

/// Firmware waits a while between OFFER and REQUEST.
const THINK: Duration = Duration::from_millis(20);
/// A client's first retry; iPXE, OVMF and udhcpc wait longer.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Off,
    Selecting,
    Requesting { server: Ipv4Addr, address: Ipv4Addr },
    Bound { server: Ipv4Addr, address: Ipv4Addr, until: Time },
}

pub(crate) struct Client {
    pub(super) mac: [u8; 6],
    state: State,
    pub(super) xid: u32,
    pub(crate) rounds: u32,
}

impl Client {
    /// The nth, switched off.
    pub(super) fn new(n: usize) -> Self {
        let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
        Self { mac: [2, 0, 0, 1, high, low], state: State::Off, xid: 0, rounds: 0 }
    }

    pub(crate) fn address(&self) -> Option<Ipv4Addr> {
        match self.state {
            State::Bound { address, .. } => Some(address),
            _ => None,
        }
    }

    pub(crate) fn offered(&self) -> Option<Ipv4Addr> {
        match self.state {
            State::Requesting { address, .. } | State::Bound { address, .. } => Some(address),
            _ => None,
        }
    }
}

impl World {
    pub(super) fn power_on(&mut self, client: usize) {
        let Some(one) = self.clients.get_mut(client) else { return };
        one.rounds = 0;
        self.discover(client);
    }

    fn client_sends(&mut self, client: usize, build: Build, only: Option<Ipv4Addr>) {
        let bytes = build.xid(self.clients[client].xid).end();
        for node in self.reachable(self.side(client)) {
            if only.is_none_or(|server| server == address_of(node)) {
                self.send(LINK, Event::Packet { node, bytes: bytes.clone(), unicast: only.is_some() });
            }
        }
    }

    fn timer(&mut self, client: usize, after: Duration) {
        let xid = self.clients[client].xid;
        self.schedule(after, Event::Timer { client, xid });
    }

    fn discover(&mut self, client: usize) {
        let jitter = Duration::from_millis(self.roll(30));
        let xid = u32::try_from(self.roll(1 << 32)).unwrap();
        let one = &mut self.clients[client];
        (one.xid, one.state, one.rounds) = (xid, State::Selecting, one.rounds + 1);
        let mac = one.mac;
        self.discovers += 1;
        self.client_sends(client, fixtures::bios_ipxe(DISCOVER, mac), None);
        self.timer(client, RETRY + jitter);
    }

    pub(super) fn client_timer(&mut self, client: usize) {
        let now = self.now;
        let Client { mac, state, .. } = self.clients[client];
        let extend = |address| fixtures::bios_ipxe(REQUEST, mac).ciaddr(address);
        match state {
            State::Off => {}
            State::Selecting => self.discover(client),
            State::Requesting { .. } => self.discover(client),
            State::Bound { until, .. } if until <= now => self.discover(client),
            // Renew at its server while it has time left, then at any.
            State::Bound { server, address, until } if until.since(now) > 60 * RETRY => {
                self.client_sends(client, extend(address), Some(server));
                self.timer(client, 20 * RETRY);
            }
            State::Bound { address, until, .. } => {
                self.client_sends(client, extend(address), None);
                self.timer(client, (10 * RETRY).min(until.since(now)));
            }
        }
    }

    pub(super) fn client_reply(&mut self, client: usize, bytes: &[u8]) {
        let packet = Packet::parse(bytes).unwrap();
        if packet.xid != self.clients[client].xid {
            return;
        }
        let server = packet.address_option(code::SERVER_ID).unwrap();
        let (mac, address) = (self.clients[client].mac, packet.yiaddr);
        match (packet.message_type, self.clients[client].state) {
            (MessageType::Offer, State::Selecting) => {
                self.clients[client].state = State::Requesting { server, address };
                let request = fixtures::bios_ipxe(REQUEST, mac)
                    .address(code::SERVER_ID, server)
                    .address(code::REQUESTED_ADDRESS, address);
                let bytes = request.xid(packet.xid).end();
                for node in self.reachable(self.side(client)) {
                    let event = Event::Packet { node, bytes: bytes.clone(), unicast: false };
                    self.send(THINK, event);
                }
            }
            (MessageType::Ack, State::Requesting { address: asked, .. }) if asked == address => {
                self.check_new(client, address);
                self.bind(client, &packet, server);
            }
            (MessageType::Ack, State::Bound { address: old, .. }) if old == address => {
                self.bind(client, &packet, server);
            }
            (MessageType::Nak, State::Requesting { .. } | State::Bound { .. }) => self.discover(client),
            _ => {}
        }
    }

    fn bind(&mut self, client: usize, packet: &Packet, server: Ipv4Addr) {
        let lease = Duration::from_secs(packet.u32_option(code::LEASE_TIME).unwrap().into());
        let (address, until) = (packet.yiaddr, self.now + lease);
        self.clients[client].state = State::Bound { server, address, until };
        self.timer(client, lease / 2);
    }

    /// Nobody on the same side may believe to have an address that is given anew.
    fn check_new(&mut self, client: usize, address: Ipv4Addr) {
        let holder = (0..self.clients.len()).find(|&other| {
            let one = &self.clients[other];
            other != client
                && self.side(other) == self.side(client)
                && matches!(one.state, State::Bound { address: held, until, .. } if held == address && until > self.now)
        });
        if let Some(holder) = holder {
            self.violations.push(format!("{:?}: {address} of client {holder} given to {client}", self.now));
        }
    }
}
