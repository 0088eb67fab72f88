//! The DHCP server as a pure state machine.
//!
//! Contract: after each input call [`Core::poll_output`] until it returns [`Output::Deadline`], and call
//! [`Core::handle_timeout`] at that time at the latest. Any bytes may come in; none make it panic.
//!
//! Owns the leases, the answers that wait for their turn, and the logical counter. Never reads a clock, never opens a
//! socket, never draws a random number.

mod act;
mod choose;
mod configure;
mod decide;
mod replicate;
mod site;
mod solicit;
mod standby;
mod sweep;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::class::Client;
use super::client::ClientKey;
use super::config::{ClientMatch, Config, ConfigError, Mode, Network, Served, Settings};
use super::event::{BootEvent, Counters};
use super::lease::{Holder, Lease, LeaseRecord};
use super::packet::{BOOT_REQUEST, MessageType, Packet, PacketError, code};
use super::rank::{Leaders, MemberId};
use super::table::Table;
use super::time::Time;

use site::Site;
use solicit::Booting;
use standby::{Hints, Server, Standby};
use sweep::Sweep;

pub use configure::KnownClient;
pub use site::LISTEN_TIME;

/// Records in one [`Output::Replicate`]: with at most 100 bytes each a batch fits a 32 KiB message.
pub const MAX_BATCH: usize = 256;
/// How long a foreign address is avoided before it is tried again, unless somebody reports it anew.
pub const TAKEN_HOLD: Duration = Duration::from_secs(600);
/// How long a departed node's address stays its own: it may only have lost a link or be restarting.
pub const MEMBER_GRACE: Duration = Duration::from_secs(120);
/// Live members taken into account. One link holds no more nodes than this.
pub const MAX_MEMBERS: usize = 4096;

/// How a packet came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The sender.
    pub source: SocketAddrV4,
    /// Whether it was sent to this node's own address rather than broadcast.
    pub unicast: bool,
    /// The port it came to: 67 or 4011.
    pub port: u16,
}

impl Arrival {
    /// A broadcast to port 67 by a client without address, as most are.
    #[must_use]
    pub const fn broadcast() -> Self {
        Self { source: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68), unicast: false, port: 67 }
    }
}

/// What the core wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a packet.
    Send {
        /// Its bytes.
        packet: Vec<u8>,
        /// Where to; 255.255.255.255 means broadcast on the link.
        to: SocketAddrV4,
        /// The port it leaves from: 67 or 4011.
        from_port: u16,
    },
    /// Ask the link who uses this address (ARP); [`Core::address_taken`] takes the answer, if there is one.
    Ask(Ipv4Addr),
    /// Tell all other nodes about these leases, at once.
    Replicate(Vec<LeaseRecord>),
    /// Tell the operator.
    Event(BootEvent),
    /// Nothing more to do until then; `None` until the next input.
    Deadline(Option<Time>),
}

/// The server. See the module's text for the contract.
#[derive(Debug)]
pub struct Core {
    me: MemberId,
    settings: Settings,
    table: Table,
    /// The highest logical counter seen or used.
    counter: u64,
    /// Live members, this node included, in order.
    members: Vec<MemberId>,
    /// Who leads which bucket, by the network of the subnet.
    leaders: BTreeMap<Network, Leaders>,
    standby: Standby,
    hints: Hints,
    /// How clients that are known by more than their hardware address were recognised.
    recognised: BTreeMap<ClientKey, ClientMatch>,
    booting: Booting,
    site: Site,
    sweep: Sweep,
    changed: BTreeSet<Holder>,
    outputs: VecDeque<Output>,
    counters: Counters,
    /// The latest `now` seen: what [`Core::poll_output`] computes remaining times from.
    now: Time,
}

/// A packet on its way to a decision.
#[derive(Debug, Clone)]
struct Request {
    packet: Packet,
    client: Client,
    arrival: Arrival,
}

impl Request {
    fn key(&self) -> ClientKey {
        self.client.key
    }

    fn holder(&self) -> Holder {
        Holder::Client(self.client.key)
    }

    /// Sent to this node alone: no other node can answer, so rank does not matter. A relay sends one copy to each server.
    fn is_ours_alone(&self) -> bool {
        self.arrival.unicast && self.packet.giaddr.is_unspecified()
    }
}

impl Core {
    /// A server on `config`'s link, as member `me`. Announces the configured server address as this node's own.
    ///
    /// # Errors
    /// [`ConfigError`] if the configuration contradicts itself.
    pub fn new(config: Config, me: MemberId) -> Result<Self, ConfigError> {
        let settings = Settings::new(config)?;
        let table = Table::new(settings.subnets.iter().map(|served| served.pool.clone()));
        let site = Site::new(settings.config.mode, settings.is_on_its_subnet());
        let sweep = Sweep::new(settings.config.sweep && site.acting() == Mode::Full);
        let mut core = Self {
            me,
            settings,
            table,
            counter: 0,
            members: Vec::new(),
            leaders: BTreeMap::new(),
            standby: Standby::default(),
            hints: Hints::default(),
            recognised: BTreeMap::new(),
            booting: Booting::default(),
            site,
            sweep,
            changed: BTreeSet::new(),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            now: Time::ZERO,
        };
        core.set_members(Time::ZERO, []);
        core.claim_own_address();
        core.probe_if_due();
        Ok(core)
    }

    /// Takes in a packet that a client or relay sent to port 67 or 4011.
    pub fn handle_packet(&mut self, now: Time, bytes: &[u8], arrival: Arrival) {
        self.advance(now);
        if self.acting() == Mode::Off {
            return;
        }
        let Ok(packet) = Packet::parse(bytes) else {
            self.counters.malformed += 1;
            return;
        };
        if self.take_probe(&packet) {
            return;
        }
        let Some(mut request) = Self::read(packet, arrival) else {
            self.counters.malformed += 1;
            return;
        };
        self.recognise(&mut request.client);
        if self.is_left_to_others(&request) {
            self.counters.strangers += 1;
            return;
        }
        self.note_boot(&request);
        match request.packet.message_type {
            MessageType::Discover => self.counters.discovers += 1,
            MessageType::Request => {
                self.counters.requests += 1;
                self.note_chosen_server(&request);
            }
            MessageType::Decline => return self.decline(&request),
            MessageType::Release => return self.release(&request),
            MessageType::Inform => self.counters.informs += 1,
            // Lease queries and types of the future: nothing that boots asks them.
            _ => return,
        }
        self.answer_in_turn(request);
    }

    fn read(packet: Packet, arrival: Arrival) -> Option<Request> {
        let client = Client::classify(&packet).filter(|_| packet.op == BOOT_REQUEST)?;
        Some(Request { packet, client, arrival })
    }

    /// Answers at once or stands by, by rank.
    fn answer_in_turn(&mut self, request: Request) {
        if let Some(until) = self.site.listening(self.now) {
            return self.hold(until, request);
        }
        if let Some(plan) = self.decide_alone(&request) {
            self.act(&request, &plan, false);
            return;
        }
        let rank = self.rank(&request);
        let answered = self.answered_just_now(&request);
        if rank == 0 {
            // Too busy to be first, this node finds that another one stood in for it. A server that is no node is no reason to
            // be silent.
            if answered == Some(Server::Node) && request.packet.message_type == MessageType::Discover {
                return;
            }
            let plan = self.decide(&request);
            self.act(&request, &plan, false);
        } else if answered.is_none() && self.standby.add(self.now + self.standby_delay(rank), request) {
            self.counters.dropped_standbys += 1;
        }
    }

    fn answered_just_now(&self, request: &Request) -> Option<Server> {
        self.hints.answered_just_now(self.now, request, self.settings.config.step)
    }

    /// Until it is known whether this link has a server of its own, only what names this node is answered.
    fn hold(&mut self, until: Time, request: Request) {
        if request.packet.address_option(code::SERVER_ID) == Some(self.settings.config.server) {
            let plan = self.decide_alone(&request).unwrap_or(decide::Plan::Silent);
            return self.act(&request, &plan, false);
        }
        if self.answered_just_now(&request) == Some(Server::Node) {
            return;
        }
        let due = until + self.standby_delay(self.rank(&request));
        if self.standby.add(due, request) {
            self.counters.dropped_standbys += 1;
        }
    }

    /// A client chooses an offer, and everybody on the link hears whose.
    fn note_chosen_server(&mut self, request: &Request) {
        if let Some(server) = request.packet.address_option(code::SERVER_ID)
            && request.packet.giaddr.is_unspecified()
            && !request.arrival.unicast
        {
            self.suspect(server, Some(request.key()));
        }
    }

    /// Rank r waits r steps. Beyond a handful of dead nodes it does not matter who comes next: the cap keeps the last
    /// rank within a client's first retry.
    fn standby_delay(&self, rank: usize) -> Duration {
        const LAST_STEP: u32 = 12;
        self.settings.config.step * u32::try_from(rank).unwrap_or(LAST_STEP).min(LAST_STEP)
    }

    fn rank(&self, request: &Request) -> usize {
        self.rank_for(&request.key(), request.packet.giaddr)
    }

    fn rank_for(&self, key: &ClientKey, giaddr: Ipv4Addr) -> usize {
        let Some(served) = self.settings.subnet_for(giaddr) else { return 0 };
        let buckets = served.pool.buckets();
        if self.leaders(served).of(buckets.of(key)) == Some(self.me) {
            return 0;
        }
        buckets.rank_of(self.me, &self.members, key)
    }

    fn leaders(&self, served: &Served) -> &Leaders {
        static NONE: Leaders = Leaders::none();
        self.leaders.get(&served.subnet.network).unwrap_or(&NONE)
    }

    /// Takes in a reply that another server sent over the link: stands down, and learns which address it named.
    ///
    /// # Errors
    /// [`PacketError`] if the bytes are no DHCP packet; nothing happens then.
    pub fn observe_reply(&mut self, now: Time, bytes: &[u8]) -> Result<(), PacketError> {
        self.advance(now);
        let packet = Packet::parse(bytes)?;
        self.learn_reply(&packet);
        Ok(())
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        self.advance(now);
        self.probe_if_due();
        self.sweep_if_due();
        while let Some(request) = self.standby.pop_due(self.now) {
            let plan = self.decide_alone(&request).unwrap_or_else(|| self.decide(&request));
            self.act(&request, &plan, true);
        }
        self.table.purge(self.now);
        self.hints.purge(self.now);
    }

    /// The next thing to do; [`Output::Deadline`] when there is nothing more.
    pub fn poll_output(&mut self) -> Output {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        let batch = self.next_batch();
        if !batch.is_empty() {
            return Output::Replicate(batch);
        }
        Output::Deadline(self.deadline())
    }

    /// When [`Core::handle_timeout`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let all =
            [self.standby.next_due(), self.table.next_purge(), self.site.next_due(), self.sweep.next_due()];
        all.into_iter().flatten().min()
    }

    /// The address that this node answers from.
    #[must_use]
    pub fn server(&self) -> Ipv4Addr {
        self.settings.config.server
    }

    /// How often things happened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// All leases that are live or not long over.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.table.iter()
    }

    /// The member that answers this client on the link first.
    #[must_use]
    pub fn responder(&self, key: &ClientKey) -> MemberId {
        let link = self.settings.subnets.first();
        link.and_then(|served| self.leaders(served).of(served.pool.buckets().of(key))).unwrap_or(self.me)
    }

    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    fn emit(&mut self, event: BootEvent) {
        self.outputs.push_back(Output::Event(event));
    }

    /// Boot stages get short leases.
    fn lifetime(&self, client: &Client) -> Duration {
        let own = self.settings.reservation(&client.who()).and_then(|known| known.told.times);
        let times = own.unwrap_or(self.settings.config.times);
        if client.class.boots() { times.boot } else { times.plain }
    }
}

#[cfg(test)]
mod tests;
