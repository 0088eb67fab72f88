//! A core on a table: packets in, what it did out.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::{Arrival, Core, Output};
use crate::dhcp::client::ClientKey;
use crate::dhcp::config::{Config, Network, Subnet};
use crate::dhcp::event::{BootEvent, Stage};
use crate::dhcp::fixtures::Build;
use crate::dhcp::lease::LeaseRecord;
use crate::dhcp::packet::{Packet, code};
use crate::dhcp::rank::MemberId;
use crate::dhcp::time::Time;

pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(super) const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

pub(super) fn member(n: u8) -> MemberId {
    MemberId::new([n; 32])
}

/// Node `n`: member `n` at 10.0.0.`n`, pool 10.0.0.100 to 10.0.0.199.
pub(super) fn config(n: u8) -> Config {
    let network = Network::new(SERVER, 24).unwrap();
    let ranges = vec![(Ipv4Addr::new(10, 0, 0, 100), Ipv4Addr::new(10, 0, 0, 199))];
    let subnet = Subnet { ranges, ..Subnet::whole(network) };
    let server = Ipv4Addr::new(10, 0, 0, n);
    Config { sweep: false, ..Config::new(server, ClientKey::ethernet([2, 0, 0, 0, 0, n]), subnet) }
}

pub(super) struct Bench {
    pub(super) core: Core,
    pub(super) now: Time,
}

/// What a core did after one input.
#[derive(Default)]
pub(super) struct Done {
    pub(super) sent: Vec<(Packet, std::net::SocketAddrV4, Vec<u8>)>,
    pub(super) records: Vec<LeaseRecord>,
    pub(super) events: Vec<BootEvent>,
    pub(super) asked: Vec<Ipv4Addr>,
    pub(super) deadline: Option<Time>,
}

impl Done {
    pub(super) fn reply(&self) -> &Packet {
        assert_eq!(self.sent.len(), 1, "one reply");
        &self.sent[0].0
    }

    pub(super) fn to(&self) -> std::net::SocketAddrV4 {
        assert_eq!(self.sent.len(), 1, "one reply");
        self.sent[0].1
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.sent[0].2
    }

    pub(super) fn is_silent(&self) -> bool {
        self.sent.is_empty()
    }

    pub(super) fn stages(&self) -> Vec<Stage> {
        self.events.iter().map(|event| event.stage).collect()
    }
}

pub(super) fn drain(core: &mut Core) -> Done {
    let mut done = Done::default();
    loop {
        match core.poll_output() {
            Output::Send { packet, to, .. } => done.sent.push((Packet::parse(&packet).unwrap(), to, packet)),
            Output::Replicate(records) => done.records.extend(records),
            Output::Event(event) => done.events.push(event),
            Output::Ask(address) => done.asked.push(address),
            Output::Deadline(deadline) => {
                done.deadline = deadline;
                return done;
            }
        }
    }
}

impl Bench {
    pub(super) fn new(config: Config) -> Self {
        let mut core = Core::new(config, member(1)).unwrap();
        drain(&mut core);
        Self { core, now: Time::ZERO }
    }

    pub(super) fn full() -> Self {
        Self::new(config(1))
    }

    pub(super) fn wait(&mut self, time: Duration) -> Done {
        self.now = self.now + time;
        self.core.handle_timeout(self.now);
        drain(&mut self.core)
    }

    pub(super) fn arrive(&mut self, build: Build, arrival: Arrival) -> Done {
        self.core.handle_packet(self.now, &build.end(), arrival);
        drain(&mut self.core)
    }

    pub(super) fn broadcast(&mut self, build: Build) -> Done {
        self.arrive(build, Arrival::broadcast())
    }

    pub(super) fn unicast(&mut self, build: Build, source: Ipv4Addr) -> Done {
        let source = std::net::SocketAddrV4::new(source, 68);
        self.arrive(build, Arrival { source, unicast: true, port: 67 })
    }

    pub(super) fn merge(&mut self, records: &[LeaseRecord]) -> Done {
        self.core.merge(self.now, records);
        drain(&mut self.core)
    }

    /// The whole exchange of a client made by `client`, which is given the message type; the address it got.
    pub(super) fn lease(&mut self, client: impl Fn(u8) -> Build) -> Ipv4Addr {
        let offer = self.broadcast(client(crate::dhcp::fixtures::DISCOVER)).reply().yiaddr;
        let ack = self.broadcast(select(client(crate::dhcp::fixtures::REQUEST), offer));
        assert_eq!(ack.reply().message_type, crate::dhcp::packet::MessageType::Ack);
        assert_eq!(ack.reply().yiaddr, offer);
        offer
    }
}

/// A REQUEST that takes an offer of [`SERVER`].
pub(super) fn select(request: Build, address: Ipv4Addr) -> Build {
    request.address(code::SERVER_ID, SERVER).address(code::REQUESTED_ADDRESS, address)
}
