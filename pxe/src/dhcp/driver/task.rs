//! The task that runs the core: waits, feeds it, and carries out what it wants.

use std::future::pending;
use std::io;

use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::super::arp;
use super::super::client::ClientKey;
use super::super::core::{Core, Output};
use super::super::event::BootEvent;
use super::super::interface::Interface;
use super::super::lease::LeaseRecord;
use super::super::packet::MAX_PACKET;
use super::super::packet_socket::{PacketSocket, udp_payload};
use super::super::time::Time;
use super::Command;
use super::sockets::{Endpoint, Endpoints};
use crate::ra::{self, Solicitation};

/// Packets read per wake from one socket, so that a flood on one cannot starve the others or the timer.
const READS_PER_WAKE: usize = 32;

pub(super) struct Task {
    core: Core,
    interface: Interface,
    endpoints: Endpoints,
    commands: mpsc::Receiver<Command>,
    records: mpsc::Sender<Vec<LeaseRecord>>,
    events: broadcast::Sender<BootEvent>,
    start: Instant,
    deadline: Option<Time>,
    /// The replication channel was full: changes wait in the core for room.
    backlog: bool,
    buffer: Vec<u8>,
}

/// What the task woke up for.
enum Wake {
    Server(io::Result<()>),
    Boot(io::Result<()>),
    Replies(io::Result<()>),
    Solicitations(io::Result<()>),
    Arp(io::Result<()>),
    Command(Option<Command>),
    Timer,
    Room,
    Stop,
}

impl Task {
    pub(super) fn new(
        core: Core,
        interface: Interface,
        endpoints: Endpoints,
        commands: mpsc::Receiver<Command>,
        records: mpsc::Sender<Vec<LeaseRecord>>,
        events: broadcast::Sender<BootEvent>,
    ) -> Self {
        let (start, deadline, backlog) = (Instant::now(), None, false);
        let buffer = vec![0; MAX_PACKET + 1];
        Self { core, interface, endpoints, commands, records, events, start, deadline, backlog, buffer }
    }

    /// A task that is late finds questions, answers of others and its own deadlines all at once: the answers go first, so that
    /// what others have answered is left at that.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        self.carry_out();
        loop {
            match self.wait(&cancel).await {
                Wake::Stop | Wake::Command(None) => return,
                Wake::Command(Some(command)) => self.command(command),
                Wake::Server(ready) => {
                    self.read_replies(Ok(()));
                    self.read_server(ready, false);
                }
                Wake::Boot(ready) => self.read_server(ready, true),
                Wake::Replies(ready) => self.read_replies(ready),
                Wake::Solicitations(ready) => self.read_solicitations(ready),
                Wake::Arp(ready) => self.read_arp(ready),
                Wake::Timer => {
                    self.read_replies(Ok(()));
                    self.core.handle_timeout(self.now());
                }
                Wake::Room => self.backlog = false,
            }
            self.carry_out();
        }
    }

    /// Cancel safe: nothing is consumed but one command, which is returned.
    async fn wait(&mut self, cancel: &CancellationToken) -> Wake {
        let deadline = self.deadline.map(|deadline| self.start + deadline.since_start());
        tokio::select! {
            () = cancel.cancelled() => Wake::Stop,
            ready = udp_readable(self.endpoints.server.as_ref()) => Wake::Server(ready),
            ready = udp_readable(self.endpoints.boot.as_ref()) => Wake::Boot(ready),
            ready = packet_readable(self.endpoints.replies.as_ref()) => Wake::Replies(ready),
            ready = packet_readable(self.endpoints.solicitations.as_ref()) => Wake::Solicitations(ready),
            ready = packet_readable(self.endpoints.arp.as_ref()) => Wake::Arp(ready),
            command = self.commands.recv() => Wake::Command(command),
            () = at(deadline) => Wake::Timer,
            _ = self.records.reserve(), if self.backlog => Wake::Room,
        }
    }

    fn now(&self) -> Time {
        Time::from_start(self.start.elapsed())
    }

    fn command(&mut self, command: Command) {
        let now = self.now();
        // An asker that no longer waits is no error.
        match command {
            Command::SetMembers(members) => self.core.set_members(now, members),
            Command::Merge(records) => self.core.merge(now, &records),
            Command::AddressTaken(address, by) => self.core.address_taken(now, address, by),
            Command::Leases(answer) => {
                let _ = answer.send(self.core.leases().filter_map(|lease| lease.record(now)).collect());
            }
            Command::Records(after, answer) => {
                let _ = answer.send(self.core.records(now, after));
            }
            Command::Counters(answer) => {
                let _ = answer.send(self.core.counters());
            }
            Command::Configure(config, answer) => {
                let _ = answer.send(self.core.configure(now, *config));
            }
            Command::ClientAt(address, answer) => {
                let _ = answer.send(self.core.client_at(now, address));
            }
            Command::Responder(client, answer) => {
                let _ = answer.send(self.core.responder(&client));
            }
        }
    }

    fn read_server(&mut self, ready: io::Result<()>, boot: bool) {
        let endpoint = if boot { &self.endpoints.boot } else { &self.endpoints.server };
        let (Some(endpoint), Ok(())) = (endpoint, ready) else { return };
        for _ in 0..READS_PER_WAKE {
            match endpoint.try_receive(&mut self.buffer) {
                Ok((length, arrival)) => {
                    let now = Time::from_start(self.start.elapsed());
                    self.core.handle_packet(now, self.buffer.get(..length).unwrap_or_default(), arrival);
                }
                Err(error) => return note(&error),
            }
        }
    }

    fn read_replies(&mut self, ready: io::Result<()>) {
        let (Some(socket), Ok(())) = (&self.endpoints.replies, ready) else { return };
        for _ in 0..READS_PER_WAKE {
            match socket.try_receive(&mut self.buffer) {
                Ok(frame) => {
                    let now = Time::from_start(self.start.elapsed());
                    let packet = self.buffer.get(..frame.length).and_then(udp_payload).unwrap_or_default();
                    if let Err(error) = self.core.observe_reply(now, packet) {
                        tracing::trace!(%error, "a reply on the link cannot be read");
                    }
                }
                Err(error) => return note(&error),
            }
        }
    }

    fn read_solicitations(&mut self, ready: io::Result<()>) {
        let (Some(socket), Ok(())) = (&self.endpoints.solicitations, ready) else { return };
        for _ in 0..READS_PER_WAKE {
            let frame = match socket.try_receive(&mut self.buffer) {
                Ok(frame) => frame,
                Err(error) => return note(&error),
            };
            let Some(solicitation) = self.buffer.get(..frame.length).and_then(Solicitation::parse) else {
                continue;
            };
            let now = Time::from_start(self.start.elapsed());
            if self.core.answers_solicitation(now, frame.source) {
                let answer = ra::advertise(self.interface.mac, frame.source, solicitation);
                if let Err(error) = socket.send(answer.to, &answer.packet) {
                    tracing::debug!(%error, "a router advertisement cannot be sent");
                }
            }
        }
    }

    fn read_arp(&mut self, ready: io::Result<()>) {
        let (Some(socket), Ok(())) = (&self.endpoints.arp, ready) else { return };
        for _ in 0..READS_PER_WAKE {
            let frame = match socket.try_receive(&mut self.buffer) {
                Ok(frame) => frame,
                Err(error) => return note(&error),
            };
            let packet = self.buffer.get(..frame.length).unwrap_or_default();
            if let Some((address, by)) = arp::user(packet, self.interface.mac) {
                let now = Time::from_start(self.start.elapsed());
                self.core.address_taken(now, address, Some(ClientKey::ethernet(by)));
            }
        }
    }

    fn ask(&self, address: std::net::Ipv4Addr) {
        let Some(socket) = &self.endpoints.arp else { return };
        if let Err(error) = arp::ask(socket, self.interface.mac, address) {
            tracing::debug!(%error, %address, "an address cannot be asked for");
        }
    }

    /// Does everything the core wants until it only waits.
    fn carry_out(&mut self) {
        loop {
            match self.core.poll_output() {
                Output::Send { packet, to, from_port } => self.send(&packet, to, from_port),
                Output::Ask(address) => self.ask(address),
                Output::Event(event) => {
                    tracing::debug!(?event, "dhcp");
                    // Nobody may be listening.
                    let _ = self.events.send(event);
                }
                Output::Replicate(batch) => {
                    if let Err(mpsc::error::TrySendError::Full(batch)) = self.records.try_send(batch) {
                        self.core.replicate_again(&batch);
                        self.backlog = true;
                        break;
                    }
                }
                Output::Deadline(_) => break,
            }
        }
        self.deadline = self.core.deadline();
    }

    fn send(&self, packet: &[u8], to: std::net::SocketAddrV4, from_port: u16) {
        let endpoint = if from_port == 67 { &self.endpoints.server } else { &self.endpoints.boot };
        let Some(endpoint) = endpoint else { return };
        if let Err(error) = endpoint.send(packet, to, self.core.server()) {
            tracing::warn!(%error, %to, interface = %self.interface.name, "a DHCP reply cannot be sent");
        }
    }
}

async fn udp_readable(endpoint: Option<&Endpoint>) -> io::Result<()> {
    match endpoint {
        Some(endpoint) => endpoint.readable().await,
        None => pending().await,
    }
}

async fn packet_readable(socket: Option<&PacketSocket>) -> io::Result<()> {
    match socket {
        Some(socket) => socket.readable().await,
        None => pending().await,
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// Errors of reading are states of the link, such as an interface that went down: they pass or the socket stays silent.
fn note(error: &io::Error) {
    if error.kind() != io::ErrorKind::WouldBlock {
        tracing::debug!(%error, "reading a DHCP socket failed");
    }
}
