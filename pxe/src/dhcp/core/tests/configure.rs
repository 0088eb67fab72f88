//! Settings that change under a running server.

use std::net::Ipv4Addr;

use super::super::super::client::ClientKey;
use super::super::super::config::{ClientMatch, Config, MachineId, Network, Reservation, Subnet, Told};
use super::super::super::fixtures::{self, Build, DISCOVER, REQUEST};
use super::super::super::packet::{MessageType, code};
use super::super::super::time::Time;
use super::super::KnownClient;
use super::bench::{Bench, MAC, config};

const OTHER: [u8; 6] = [2, 0, 0, 0, 4, 4];

fn reserved(mac: [u8; 6], address: Ipv4Addr) -> Config {
    Config { reservations: vec![Reservation::of_address(ClientKey::ethernet(mac), address)], ..config(1) }
}

#[test]
fn what_is_reserved_for_another_now_is_refused_to_who_has_it() {
    let mut bench = Bench::full();
    let address = bench.lease(|kind| fixtures::plain(kind, MAC));
    bench.core.configure(bench.now, reserved(OTHER, address)).unwrap();
    let renewal = fixtures::plain(REQUEST, MAC).ciaddr(address);
    assert_eq!(bench.broadcast(renewal).reply().message_type, MessageType::Nak);
    assert_ne!(bench.lease(|kind| fixtures::plain(kind, MAC)), address);
    assert_eq!(bench.lease(|kind| fixtures::plain(kind, OTHER)), address);
}

#[test]
fn a_contradiction_changes_nothing() {
    let mut bench = Bench::full();
    let address = bench.lease(|kind| fixtures::plain(kind, MAC));
    assert!(bench.core.configure(bench.now, reserved(OTHER, Ipv4Addr::new(192, 0, 2, 1))).is_err());
    assert_eq!(bench.lease(|kind| fixtures::plain(kind, MAC)), address);
}

#[test]
fn other_pools_and_subnets_count_from_now_on() {
    let mut bench = Bench::full();
    let old = bench.lease(|kind| fixtures::plain(kind, MAC));
    let far = Subnet {
        relays: vec![Ipv4Addr::new(192, 0, 2, 1)],
        ..Subnet::whole(Network::new(Ipv4Addr::new(10, 5, 0, 0), 24).unwrap())
    };
    let relayed = || fixtures::plain(DISCOVER, OTHER).giaddr(Ipv4Addr::new(192, 0, 2, 1));
    assert!(bench.broadcast(relayed()).sent.is_empty());
    let mut changed = config(1);
    changed.subnets[0].ranges = vec![(Ipv4Addr::new(10, 0, 0, 200), Ipv4Addr::new(10, 0, 0, 201))];
    changed.subnets.push(far);
    bench.core.configure(bench.now, changed).unwrap();
    assert_eq!(bench.broadcast(relayed()).reply().yiaddr.octets()[..3], [10, 5, 0]);
    // Whoever holds an address keeps it; whoever comes gets one of the new pool.
    let renewal = fixtures::plain(REQUEST, MAC).ciaddr(old);
    assert_eq!(bench.broadcast(renewal).reply().yiaddr, old);
    let new = bench.lease(|kind| fixtures::plain(kind, [2, 0, 0, 0, 4, 5]));
    assert!(new.octets()[3] >= 200, "{new}");
}

#[test]
fn a_machine_that_is_known_by_its_uuid_stays_known_when_its_system_says_none() {
    let id: MachineId = "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap();
    let address = Ipv4Addr::new(10, 0, 0, 77);
    let by_uuid = Reservation {
        client: ClientMatch::Machine(id),
        address: Some(address),
        name: Some("n1".into()),
        told: Told::default(),
    };
    let mut bench = Bench::new(Config { reservations: vec![by_uuid], ..config(1) });
    let option = [&[0][..], &id.swapped().0].concat();
    let firmware =
        |kind| Build::new(kind, MAC).option(code::ARCHITECTURE, &[0, 7]).option(code::UUID, &option);
    assert_eq!(bench.lease(firmware), address);
    let done = bench.broadcast(fixtures::plain(DISCOVER, MAC));
    let offer = done.reply();
    assert_eq!((offer.yiaddr, offer.option(code::HOST_NAME)), (address, Some(&b"n1"[..])));
    let known = KnownClient { key: ClientKey::ethernet(MAC), name: Some("n1".into()) };
    assert_eq!(bench.core.client_at(bench.now, address), Some(known));
    assert_eq!(bench.core.client_at(Time::ZERO, Ipv4Addr::new(10, 0, 0, 78)), None);
    assert_ne!(bench.lease(|kind| fixtures::plain(kind, OTHER)), address);
}
