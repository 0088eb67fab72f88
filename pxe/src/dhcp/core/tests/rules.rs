//! RFC 2131 §4.3, case by case.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::bench::{Bench, MAC, SERVER, config, select};
use crate::dhcp::client::ClientKey;
use crate::dhcp::config::{Reservation, Subnet};
use crate::dhcp::event::Stage;
use crate::dhcp::fixtures::{self, Build, DECLINE, DISCOVER, INFORM, RELEASE, REQUEST};
use crate::dhcp::lease::{Holder, LeaseState};
use crate::dhcp::packet::{MessageType, code};
use crate::dhcp::{Network, lease::Lease};

const OTHER: [u8; 6] = [0x52, 0x54, 0, 9, 9, 9];
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 7);
const STATIC: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 30);

fn client(kind: u8) -> Build {
    fixtures::plain(kind, MAC)
}

fn lease_of(bench: &Bench, mac: [u8; 6]) -> Option<Lease> {
    let holder = Holder::Client(ClientKey::ethernet(mac));
    bench.core.leases().find(|lease| lease.holder == holder).copied()
}

#[test]
fn discover_offer_request_ack() {
    let mut bench = Bench::full();
    let offer = bench.broadcast(client(DISCOVER));
    assert_eq!(offer.reply().message_type, MessageType::Offer);
    assert_eq!(offer.to(), SocketAddrV4::new(Ipv4Addr::BROADCAST, 68));
    assert_eq!(offer.stages(), [Stage::Discover, Stage::Offer]);
    assert_eq!(offer.records.len(), 1, "an offer is replicated at once");
    let address = offer.reply().yiaddr;
    let ack = bench.broadcast(select(client(REQUEST), address));
    assert_eq!(ack.reply().message_type, MessageType::Ack);
    assert_eq!(ack.stages(), [Stage::Request, Stage::Ack]);
    assert_eq!((ack.records[0].address, ack.records[0].state), (address, LeaseState::Bound));
}

#[test]
fn the_same_client_gets_the_same_address_in_every_boot_stage() {
    let mut bench = Bench::full();
    let first = bench.lease(|kind| fixtures::bios_pxe(kind, MAC));
    assert_eq!(bench.lease(|kind| fixtures::bios_ipxe(kind, MAC)), first);
    assert_eq!(bench.lease(client), first);
    bench.wait(Duration::from_secs(3 * 3600));
    assert_eq!(bench.lease(client), first, "also after its lease is over");
}

#[test]
fn an_offer_nobody_takes_is_free_again() {
    let mut bench = Bench::full();
    let address = bench.broadcast(client(DISCOVER)).reply().yiaddr;
    let take = |bench: &mut Bench| {
        let wish = fixtures::plain(DISCOVER, OTHER).address(code::REQUESTED_ADDRESS, address);
        bench.broadcast(wish).reply().yiaddr
    };
    assert_ne!(take(&mut bench), address);
    bench.wait(Duration::from_secs(13));
    assert_eq!(bench.broadcast(fixtures::plain(RELEASE, OTHER)).sent.len(), 0);
    bench.wait(Duration::from_secs(13));
    assert_eq!(lease_of(&bench, MAC), None);
}

#[test]
fn a_request_naming_another_server_is_not_ours_and_frees_our_offer() {
    let mut bench = Bench::full();
    let address = bench.broadcast(client(DISCOVER)).reply().yiaddr;
    let other = client(REQUEST)
        .address(code::SERVER_ID, Ipv4Addr::new(10, 0, 0, 2))
        .address(code::REQUESTED_ADDRESS, Ipv4Addr::new(10, 0, 0, 150));
    let done = bench.broadcast(other);
    assert!(done.is_silent());
    assert_eq!(done.stages(), [Stage::OtherServer], "no node of that address is known");
    assert_eq!((done.records[0].address, done.records[0].state), (address, LeaseState::Released));
}

#[test]
fn selecting_an_address_of_somebody_else_or_somewhere_else_is_refused() {
    let mut bench = Bench::full();
    let held = bench.lease(|kind| fixtures::plain(kind, OTHER));
    for address in [held, ELSEWHERE, STATIC, SERVER] {
        let done = bench.broadcast(select(client(REQUEST), address));
        assert_eq!(done.reply().message_type, MessageType::Nak, "{address}");
        assert_eq!(done.to(), SocketAddrV4::new(Ipv4Addr::BROADCAST, 68));
        assert!(done.reply().yiaddr.is_unspecified());
        assert_eq!(done.stages(), [Stage::Request, Stage::Nak]);
    }
}

#[test]
fn an_offer_of_a_predecessor_is_honoured() {
    let mut bench = Bench::full();
    let address = Ipv4Addr::new(10, 0, 0, 177);
    let done = bench.broadcast(select(client(REQUEST), address));
    assert_eq!(done.reply().message_type, MessageType::Ack);
}

#[test]
fn init_reboot() {
    let mut bench = Bench::full();
    let wants = |address| client(REQUEST).address(code::REQUESTED_ADDRESS, address);
    let free = Ipv4Addr::new(10, 0, 0, 150);
    assert!(bench.broadcast(wants(free)).is_silent(), "nothing is known of the client");
    assert!(bench.broadcast(wants(STATIC)).is_silent(), "nor of an address outside of the pool");
    assert_eq!(bench.broadcast(wants(ELSEWHERE)).reply().message_type, MessageType::Nak);
    let address = bench.lease(client);
    assert_eq!(bench.broadcast(wants(address)).reply().message_type, MessageType::Ack);
    let wrong = Ipv4Addr::new(10, 0, 0, if address.octets()[3] == 150 { 151 } else { 150 });
    assert_eq!(bench.broadcast(wants(wrong)).reply().message_type, MessageType::Nak);
}

#[test]
fn renewing_is_answered_by_unicast_to_the_client() {
    let mut bench = Bench::full();
    let address = bench.lease(client);
    let done = bench.unicast(client(REQUEST).ciaddr(address), address);
    assert_eq!(done.reply().message_type, MessageType::Ack);
    assert_eq!((done.reply().yiaddr, done.reply().ciaddr), (address, address));
    assert_eq!(done.to(), SocketAddrV4::new(address, 68));
}

#[test]
fn extending_keeps_a_client_at_work_wherever_that_is_possible() {
    let mut bench = Bench::full();
    let held = bench.lease(|kind| fixtures::plain(kind, OTHER));
    let extend = |bench: &mut Bench, address| bench.broadcast(client(REQUEST).ciaddr(address));
    let unknown = Ipv4Addr::new(10, 0, 0, 160);
    assert_eq!(extend(&mut bench, unknown).reply().message_type, MessageType::Ack, "this node just started");
    assert_eq!(extend(&mut bench, held).reply().message_type, MessageType::Nak);
    assert_eq!(extend(&mut bench, ELSEWHERE).reply().message_type, MessageType::Nak);
    assert!(extend(&mut bench, STATIC).is_silent());
}

#[test]
fn a_declined_address_is_avoided_for_a_while() {
    let mut bench = Bench::full();
    let address = bench.lease(client);
    let decline = client(DECLINE).address(code::SERVER_ID, SERVER).address(code::REQUESTED_ADDRESS, address);
    let done = bench.broadcast(decline.clone());
    assert!(done.is_silent());
    assert_eq!(done.stages(), [Stage::Decline]);
    assert!(done.records.iter().any(|record| record.holder == Holder::Foreign(address)));
    assert_ne!(bench.lease(client), address);
    assert!(bench.broadcast(decline).events.is_empty(), "only the holder can decline");
    bench.wait(super::super::TAKEN_HOLD);
    let wish = fixtures::plain(DISCOVER, OTHER).address(code::REQUESTED_ADDRESS, address);
    assert_eq!(bench.broadcast(wish).reply().yiaddr, address);
}

#[test]
fn declining_cannot_use_up_the_pool() {
    let mut bench = Bench::full();
    for n in 0..200 {
        let hostile = |kind| fixtures::plain(kind, [2, 0, 0, 0, 1, n]);
        let address = bench.lease(hostile);
        let decline =
            hostile(DECLINE).address(code::SERVER_ID, SERVER).address(code::REQUESTED_ADDRESS, address);
        bench.broadcast(decline);
    }
    let foreign = bench.core.leases().filter(|lease| matches!(lease.holder, Holder::Foreign(_))).count();
    assert_eq!(foreign, 25, "a quarter of 100 addresses");
}

#[test]
fn a_released_address_is_free_and_its_end_is_remembered() {
    let mut bench = Bench::full();
    let address = bench.lease(client);
    let done = bench.unicast(client(RELEASE).ciaddr(address).address(code::SERVER_ID, SERVER), address);
    assert!(done.is_silent());
    assert_eq!(done.stages(), [Stage::Release]);
    assert_eq!(done.records[0].state, LeaseState::Released);
    assert!(done.records[0].remaining_ms > 3_500_000, "as long as the lease it ends");
    let wish = fixtures::plain(DISCOVER, OTHER).address(code::REQUESTED_ADDRESS, address);
    assert_eq!(bench.broadcast(wish).reply().yiaddr, address);
}

#[test]
fn inform_is_answered_without_a_lease() {
    let mut bench = Bench::full();
    let done = bench.broadcast(client(INFORM).ciaddr(STATIC));
    let reply = done.reply();
    assert_eq!(
        (reply.message_type, reply.yiaddr, reply.ciaddr),
        (MessageType::Ack, Ipv4Addr::UNSPECIFIED, STATIC)
    );
    assert_eq!(reply.option(code::LEASE_TIME), None);
    assert_eq!(done.to(), SocketAddrV4::new(STATIC, 68));
    assert!(bench.broadcast(client(INFORM).ciaddr(ELSEWHERE)).is_silent());
}

#[test]
fn reservations_are_kept_for_their_client() {
    let address = Ipv4Addr::new(10, 0, 0, 33);
    let mut config = config(1);
    let name = Some("rack-1".to_owned());
    config
        .reservations
        .push(Reservation { name, ..Reservation::of_address(ClientKey::ethernet(MAC), address) });
    let mut bench = Bench::new(config);
    let done = bench.broadcast(client(DISCOVER));
    assert_eq!(done.reply().yiaddr, address);
    assert_eq!(done.reply().option(code::HOST_NAME), Some(&b"rack-1"[..]));
    let thief = fixtures::plain(REQUEST, OTHER);
    assert_eq!(bench.broadcast(select(thief, address)).reply().message_type, MessageType::Nak);
}

#[test]
fn relayed_clients_get_addresses_of_their_subnet_and_answers_through_the_relay() {
    let relay = Ipv4Addr::new(10, 5, 0, 1);
    let mut config = config(1);
    config.subnets.push(Subnet::whole(Network::new(relay, 24).unwrap()));
    let mut bench = Bench::new(config);
    let circuit = [1, 4, b'p', b'o', b'r', b't'];
    let done =
        bench.unicast(client(DISCOVER).broadcast().giaddr(relay).option(code::RELAY_AGENT, &circuit), relay);
    let reply = done.reply();
    assert_eq!(reply.yiaddr.octets()[..3], [10, 5, 0]);
    assert_eq!(reply.giaddr, relay);
    assert!(reply.wants_broadcast(), "the flag is returned");
    assert_eq!(done.to(), SocketAddrV4::new(relay, 67), "never broadcast");
    let bytes = done.bytes();
    let end = bytes.iter().rposition(|&byte| byte == 255).unwrap();
    assert_eq!(bytes[end - 8..end], [&[82, 6][..], &circuit].concat(), "option 82 unchanged and last");
    let unknown = bench.unicast(client(DISCOVER).giaddr(ELSEWHERE), ELSEWHERE);
    assert!(unknown.is_silent());
    assert_eq!(unknown.stages(), [Stage::Unanswered]);
    let nak = bench.unicast(client(REQUEST).giaddr(relay).address(code::REQUESTED_ADDRESS, STATIC), relay);
    assert!(nak.reply().wants_broadcast(), "a NAK must reach a client with a wrong address");
}

#[test]
fn a_full_pool_takes_back_the_oldest_offer_but_no_lease() {
    let mut config = config(1);
    config.subnets[0].ranges = vec![(Ipv4Addr::new(10, 0, 0, 100), Ipv4Addr::new(10, 0, 0, 103))];
    let mut bench = Bench::new(config);
    bench.lease(client);
    for n in 0..100 {
        bench.wait(Duration::from_millis(10));
        assert!(!bench.broadcast(fixtures::plain(DISCOVER, [2, 0, 0, 0, 1, n])).is_silent());
    }
    assert_eq!(bench.core.counters().reclaimed_offers, 97);
    let late = |kind| fixtures::plain(kind, OTHER);
    bench.lease(late);
    for n in 0..2 {
        bench.lease(|kind| fixtures::plain(kind, [2, 0, 0, 0, 2, n]));
    }
    let none = bench.broadcast(fixtures::plain(DISCOVER, [2, 0, 0, 0, 3, 0]));
    assert!(none.is_silent());
    assert_eq!(none.stages(), [Stage::Unanswered]);
    let mut held: Vec<_> =
        bench.core.leases().filter(|l| l.state == LeaseState::Bound).map(|l| l.address).collect();
    held.dedup();
    assert_eq!(held.len(), 4);
}

#[test]
fn addresses_used_not_long_ago_come_last() {
    let mut config = config(1);
    config.subnets[0].ranges = vec![(Ipv4Addr::new(10, 0, 0, 100), Ipv4Addr::new(10, 0, 0, 103))];
    let mut bench = Bench::new(config);
    let boots = |n| move |kind| fixtures::bios_ipxe(kind, [2, 0, 0, 0, 1, n]);
    let slow_loader = bench.lease(boots(0));
    bench.wait(Duration::from_secs(300));
    for n in 1..4 {
        assert_ne!(bench.lease(boots(n)), slow_loader, "its lease is over, but it may still be loading");
    }
    assert_eq!(bench.lease(boots(4)), slow_loader);
}

#[test]
fn a_discover_does_not_shorten_a_lease() {
    let mut bench = Bench::full();
    bench.lease(client);
    let before = lease_of(&bench, MAC).unwrap();
    let done = bench.broadcast(client(DISCOVER));
    assert_eq!(done.reply().yiaddr, before.address);
    assert!(done.records.is_empty());
    assert_eq!(lease_of(&bench, MAC), Some(before));
}
