//! What the DHCP core takes per exchange: as the node that answers, and as one that only watches.
//!
//! Run with `cargo bench -p pxe --bench dhcp_core`. 5,000 clients take turns in a pool of 16,384 addresses. No sockets:
//! what the kernel takes for four packets comes on top.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark stops where it cannot go on")]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use pxe::dhcp::core::{Arrival, Core, Output};
use pxe::dhcp::time::Time;
use pxe::dhcp::{ClientKey, Config, LeaseRecord, MemberId, Network, Subnet};

const EXCHANGES: u32 = 100_000;
const CLIENTS: u32 = 5000;

fn node(n: u8) -> Core {
    let address = Ipv4Addr::new(10, 64, 0, n);
    let network = Network::new(address, 16).unwrap();
    let ranges = vec![(Ipv4Addr::new(10, 64, 16, 0), Ipv4Addr::new(10, 64, 79, 255))];
    let subnet = Subnet { ranges, ..Subnet::whole(network) };
    let config = Config::new(address, ClientKey::ethernet([2, 0, 0, 0, 0, n]), subnet);
    Core::new(config, MemberId::new([n; 32])).unwrap()
}

/// A packet as perfdhcp sends it, through itself as the relay.
fn packet(kind: u8, client: u32, xid: u32, more: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..4].copy_from_slice(&[1, 1, 6, 1]);
    bytes[4..8].copy_from_slice(&xid.to_be_bytes());
    bytes[24..28].copy_from_slice(&[10, 64, 1, 1]);
    bytes[28..30].copy_from_slice(&[2, 9]);
    bytes[30..34].copy_from_slice(&client.to_be_bytes());
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend_from_slice(&[53, 1, kind]);
    bytes.extend_from_slice(more);
    bytes.extend_from_slice(&[55, 7, 1, 28, 2, 3, 15, 6, 12, 61, 7, 1, 2, 9]);
    bytes.extend_from_slice(&client.to_be_bytes());
    bytes.push(255);
    bytes
}

struct Done {
    reply: Option<Vec<u8>>,
    records: Vec<LeaseRecord>,
}

fn drain(core: &mut Core) -> Done {
    let mut done = Done { reply: None, records: Vec::new() };
    loop {
        match core.poll_output() {
            Output::Send { packet, .. } => done.reply = Some(packet),
            Output::Replicate(records) => done.records.extend(records),
            Output::Event(_) | Output::Ask(_) => {}
            Output::Deadline(_) => return done,
        }
    }
}

fn main() {
    let (mut one, mut other) = (node(1), node(2));
    other.set_members(Time::ZERO, [MemberId::new([1; 32])]);
    drain(&mut one);
    drain(&mut other);
    let (mut answering, mut watching) = (Duration::ZERO, Duration::ZERO);
    for n in 0..EXCHANGES {
        let now = Time::from_millis(u64::from(n) / 10);
        let mut address = Vec::new();
        for kind in [1, 3] {
            let bytes = packet(kind, n % CLIENTS, n, &address);
            let begun = Instant::now();
            one.handle_packet(now, &bytes, Arrival::broadcast());
            let done = drain(&mut one);
            answering += begun.elapsed();
            let reply = done.reply.unwrap();
            address = [&[54, 4, 10, 64, 0, 1, 50, 4], &reply[16..20]].concat();
            let begun = Instant::now();
            other.handle_packet(now, &bytes, Arrival::broadcast());
            other.merge(now, &done.records);
            drain(&mut other);
            watching += begun.elapsed();
        }
    }
    let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(EXCHANGES);
    println!("µs per exchange: answering {:.2}, watching {:.2}", each(answering), each(watching));
}
