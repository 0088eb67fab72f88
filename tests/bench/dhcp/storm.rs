//! Many clients that power on one after the other, each with its own timer: what a storm costs each of them.
//!
//! A client is what firmware is: it asks, takes the first offer, and begins again after a second without an answer, be it to its
//! DISCOVER or to its REQUEST.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use netlab::Host;
use netlab::pcap::{DhcpKind, DhcpMessage};

/// A client's first retry; iPXE, OVMF and udhcpc wait longer.
const RETRY: Duration = Duration::from_secs(1);
/// How long the last clients have.
const PATIENCE: Duration = Duration::from_secs(20);
const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;

/// One client.
struct Client {
    began: Instant,
    /// Messages sent: what a timer was set for.
    sent: u32,
    /// How often it began again.
    again: u32,
    done: Option<(Ipv4Addr, Duration)>,
}

/// What the storm cost.
pub(crate) struct Storm {
    clients: usize,
    served: usize,
    /// Clients by how often they began again.
    again: BTreeMap<u32, usize>,
    longest: Duration,
    given_twice: usize,
}

/// Clients of one host, without a network stack of their own.
struct Crowd {
    socket: UdpSocket,
    clients: Vec<Client>,
    timers: VecDeque<(Instant, usize, u32)>,
}

/// Powers `count` clients on, `rate` per second. Before the one numbered `at` answers its offer, `fault` hears whose it was.
pub(crate) fn storm(host: &Host, count: usize, rate: u32, at: usize, fault: impl FnOnce(Ipv4Addr)) -> Storm {
    let mut crowd = Crowd::new(host);
    let mut fault = Some(fault);
    let began = Instant::now();
    let due = |n: usize| began + Duration::from_secs(1) / rate * u32::try_from(n).unwrap();
    let end = due(count) + PATIENCE;
    while crowd.clients.iter().filter(|client| client.done.is_some()).count() < count && Instant::now() < end
    {
        while crowd.clients.len() < count && due(crowd.clients.len()) <= Instant::now() {
            let fresh = Client { began: Instant::now(), sent: 0, again: 0, done: None };
            crowd.clients.push(fresh);
            crowd.send(crowd.clients.len() - 1, DISCOVER, &[]);
        }
        crowd.begin_again();
        let Some(message) = crowd.receive() else { continue };
        let n = message.xid as usize;
        let Some(client) = crowd.clients.get_mut(n).filter(|client| client.done.is_none()) else { continue };
        let Some(server) = message.server_id() else { continue };
        match message.kind {
            DhcpKind::Offer => {
                if n >= at
                    && let Some(fault) = fault.take()
                {
                    fault(server);
                }
                let take = [&[54, 4], &server.octets()[..], &[50, 4], &message.yiaddr.octets()].concat();
                crowd.send(n, REQUEST, &take);
            }
            DhcpKind::Ack => client.done = Some((message.yiaddr, client.began.elapsed())),
            _ => {}
        }
    }
    crowd.tell()
}

impl Crowd {
    fn new(host: &Host) -> Self {
        let socket = host.run_in(|| UdpSocket::bind("0.0.0.0:68")).unwrap().unwrap();
        // There is no route to everybody.
        let device = std::ffi::OsString::from(host.interface());
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::BindToDevice, &device).unwrap();
        // A client that is measured drops nothing itself.
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(8 << 20)).unwrap();
        socket.set_broadcast(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        Self { socket, clients: Vec::new(), timers: VecDeque::new() }
    }

    fn send(&mut self, n: usize, kind: u8, options: &[u8]) {
        let number = u32::try_from(n).unwrap().to_be_bytes();
        let mut bytes = vec![0; 240];
        bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&number);
        bytes[10] = 0x80;
        bytes[28..34].copy_from_slice(&[2, 0xbf, number[0], number[1], number[2], number[3]]);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        bytes.extend_from_slice(&[53, 1, kind]);
        bytes.extend_from_slice(options);
        bytes.push(255);
        self.socket.send_to(&bytes, "255.255.255.255:67").unwrap();
        let client = &mut self.clients[n];
        client.sent += 1;
        self.timers.push_back((Instant::now() + RETRY, n, client.sent));
    }

    /// Clients whose last message was not answered in time ask anew.
    fn begin_again(&mut self) {
        while let Some(&(at, n, sent)) = self.timers.front()
            && at <= Instant::now()
        {
            self.timers.pop_front();
            let client = &mut self.clients[n];
            if client.done.is_none() && client.sent == sent {
                client.again += 1;
                self.send(n, DISCOVER, &[]);
            }
        }
    }

    fn receive(&self) -> Option<DhcpMessage> {
        let mut buffer = [0; 1500];
        let (length, _) = self.socket.recv_from(&mut buffer).ok()?;
        DhcpMessage::parse(&buffer[..length]).filter(|message| message.op == 2)
    }

    fn tell(&self) -> Storm {
        let done: Vec<_> = self.clients.iter().filter_map(|client| client.done).collect();
        let mut again = BTreeMap::new();
        self.clients.iter().for_each(|client| *again.entry(client.again).or_default() += 1);
        let addresses: BTreeSet<_> = done.iter().map(|(address, _)| address).collect();
        Storm {
            clients: self.clients.len(),
            served: done.len(),
            again,
            longest: done.iter().map(|(_, took)| *took).max().unwrap_or_default(),
            given_twice: done.len() - addresses.len(),
        }
    }
}

impl fmt::Display for Storm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clients, served, longest, given_twice, .. } = self;
        write!(f, "{served} of {clients} clients served, the slowest after {longest:.3?}; ")?;
        for (times, count) in self.again.iter().filter(|(times, _)| **times > 0) {
            write!(f, "{count} sent {times} again; ")?;
        }
        let most = self.again.keys().last().copied().unwrap_or_default();
        write!(f, "most retransmissions of one client {most}; {given_twice} addresses given to two")
    }
}
