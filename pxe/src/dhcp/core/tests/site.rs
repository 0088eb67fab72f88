//! A site's own server, another fabric, and addresses in foreign use.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::super::{LISTEN_TIME, TAKEN_HOLD};
use super::bench::{Bench, Done, MAC, SERVER, config, drain, member, select};
use crate::dhcp::client::ClientKey;
use crate::dhcp::config::{Config, Mode, Reservation};
use crate::dhcp::event::Stage;
use crate::dhcp::fixtures::{self, Build, DISCOVER, OFFER, REQUEST};
use crate::dhcp::lease::{Holder, LeaseRecord, LeaseState};
use crate::dhcp::packet::{MessageType, Packet, code};
use crate::dhcp::probe;

const SITE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const SECOND: Duration = Duration::from_secs(1);

/// A node that has just started in mode auto, and its probe.
fn auto() -> (Bench, Packet) {
    let config = Config { mode: Mode::Auto, fabric: [1; 8], ..config(1) };
    let mut core = super::super::Core::new(config, member(1)).unwrap();
    let probe = drain(&mut core).sent.remove(0).0;
    assert_eq!((probe.op, probe::said(&probe)), (1, Some(([1; 8], SERVER))));
    (Bench { core, now: crate::dhcp::time::Time::ZERO }, probe)
}

/// What a site's server offers to whoever sent `packet`.
fn offer_to(packet: &Packet, address: Ipv4Addr) -> Vec<u8> {
    let mac: [u8; 6] = packet.chaddr().try_into().unwrap();
    let build = Build::new(OFFER, mac).field(0, &[2]).field(16, &address.octets());
    build.xid(packet.xid).address(code::SERVER_ID, SITE).end()
}

fn see(bench: &mut Bench, bytes: &[u8]) -> Done {
    bench.core.observe_reply(bench.now, bytes).unwrap();
    drain(&mut bench.core)
}

#[test]
fn a_server_that_answers_the_probe_makes_a_proxy_and_nobody_gets_an_address_before() {
    let (mut bench, probe) = auto();
    assert!(bench.broadcast(fixtures::plain(DISCOVER, MAC)).is_silent(), "held");
    assert!(bench.broadcast(fixtures::uefi_pxe(DISCOVER, [2, 0, 0, 0, 4, 4])).is_silent(), "held");
    let done = see(&mut bench, &offer_to(&probe, Ipv4Addr::new(10, 0, 0, 9)));
    assert_eq!(done.stages(), [Stage::OtherServer, Stage::Yielded]);
    assert_eq!(bench.core.acting(), Mode::Proxy);
    let done = bench.wait(LISTEN_TIME);
    assert!(done.reply().yiaddr.is_unspecified(), "the boot client alone, with a file alone");
    assert!(bench.broadcast(fixtures::plain(DISCOVER, MAC)).is_silent());
}

#[test]
fn on_a_silent_link_what_was_held_is_answered_after_half_a_second() {
    let (mut bench, _) = auto();
    assert!(bench.broadcast(fixtures::plain(DISCOVER, MAC)).is_silent());
    let asked_again = bench.wait(Duration::from_millis(300));
    assert!(probe::said(asked_again.reply()).is_some(), "a second probe, should the first be lost");
    assert!(!bench.wait(Duration::from_millis(200)).reply().yiaddr.is_unspecified());
    assert!(LISTEN_TIME < SECOND);
    bench.lease(|kind| fixtures::plain(kind, MAC));
}

#[test]
fn what_another_node_has_answered_is_not_answered_again_after_that() {
    // The answer is seen before its question, or after it.
    for seen_first in [true, false] {
        let (mut bench, _) = auto();
        bench.core.set_members(bench.now, [1, 2].map(member));
        let node = Holder::Client(ClientKey::ethernet([2, 0, 0, 0, 8, 2]));
        let (address, state) = (Ipv4Addr::new(10, 0, 0, 2), LeaseState::Member);
        let (counter, since, author, remaining_ms) = (9, 9, member(2), 60_000);
        let record = LeaseRecord { holder: node, address, state, counter, since, author, remaining_ms };
        bench.merge(&[record]);
        let offer = fixtures::plain(OFFER, MAC).field(0, &[2]).field(16, &[10, 0, 0, 188]);
        let offer = offer.address(code::SERVER_ID, address).end();
        if seen_first {
            see(&mut bench, &offer);
        }
        assert!(bench.broadcast(fixtures::plain(DISCOVER, MAC)).is_silent());
        if !seen_first {
            see(&mut bench, &offer);
        }
        let sent = bench.wait(LISTEN_TIME).sent;
        assert!(sent.iter().all(|(packet, ..)| probe::said(packet).is_some()), "{sent:?}");
    }
}

#[test]
fn a_server_that_comes_later_is_asked_and_yielded_to() {
    let (mut bench, _) = auto();
    bench.wait(10 * SECOND);
    bench.wait(10 * SECOND);
    bench.lease(|kind| fixtures::plain(kind, MAC));
    // A client takes its offer: everybody on the link sees that.
    let other = [2, 0, 0, 0, 4, 4];
    let request = fixtures::plain(REQUEST, other).address(code::SERVER_ID, SITE);
    let done = bench.broadcast(request.address(code::REQUESTED_ADDRESS, Ipv4Addr::new(10, 0, 0, 9)));
    assert_eq!(done.stages(), [Stage::OtherServer]);
    let probe = done.reply().clone();
    assert_eq!(bench.core.acting(), Mode::Full, "a name alone proves nothing");
    see(&mut bench, &offer_to(&probe, Ipv4Addr::new(10, 0, 0, 9)));
    assert_eq!(bench.core.acting(), Mode::Proxy);
    let renews = bench.unicast(fixtures::plain(REQUEST, MAC).ciaddr(Ipv4Addr::new(10, 0, 0, 150)), SITE);
    assert!(renews.is_silent(), "nobody prolongs what is held of this node");
}

#[test]
fn a_slow_server_is_yielded_to_although_it_has_been_asked_again_since() {
    let (mut bench, _) = auto();
    bench.wait(SECOND);
    bench.wait(10 * SECOND);
    let foreign =
        offer_to(&Packet::parse(&fixtures::plain(DISCOVER, MAC).end()).unwrap(), Ipv4Addr::new(10, 0, 0, 9));
    let first = see(&mut bench, &foreign).reply().clone();
    assert!(probe::said(&first).is_some(), "asked because a server was seen");
    bench.wait(3 * SECOND);
    assert!(probe::said(see(&mut bench, &foreign).reply()).is_some(), "asked again");
    see(&mut bench, &offer_to(&first, Ipv4Addr::new(10, 0, 0, 9)));
    assert_eq!(bench.core.acting(), Mode::Proxy);
}

#[test]
fn a_server_that_answers_no_strangers_is_believed_in_when_its_clients_go_on_choosing_it() {
    let (mut bench, _) = auto();
    bench.wait(10 * SECOND);
    for n in 0..4 {
        assert_eq!(bench.core.acting(), Mode::Full);
        let request = fixtures::plain(REQUEST, [2, 0, 0, 0, 4, n]).address(code::SERVER_ID, SITE);
        bench.broadcast(request.address(code::REQUESTED_ADDRESS, Ipv4Addr::new(10, 0, 0, 9)));
        bench.wait(11 * SECOND);
    }
    assert_eq!(bench.core.acting(), Mode::Proxy);
}

#[test]
fn nodes_of_one_fabric_do_not_take_each_other_for_a_site() {
    let (mut one, probe_of_one) = auto();
    let config = Config { mode: Mode::Auto, fabric: [1; 8], ..config(2) };
    let mut other = super::super::Core::new(config, member(2)).unwrap();
    let probe_of_other = drain(&mut other).sent.remove(0).2;
    one.core.handle_packet(one.now, &probe_of_other, super::super::Arrival::broadcast());
    assert!(drain(&mut one.core).is_silent());
    one.wait(10 * SECOND);
    // Its OFFER is seen before it is known as a node.
    let offer = Build::new(OFFER, MAC).field(0, &[2]).field(16, &[10, 0, 0, 150]);
    see(&mut one, &offer.address(code::SERVER_ID, Ipv4Addr::new(10, 0, 0, 2)).end());
    one.wait(60 * SECOND);
    assert_eq!(one.core.acting(), Mode::Full);
    assert_eq!(probe_of_one.chaddr().len(), 6);
}

#[test]
fn a_node_outside_of_the_links_subnet_is_a_proxy() {
    let server = Ipv4Addr::new(192, 168, 1, 5);
    let bench = Bench::new(Config { mode: Mode::Auto, server, ..config(1) });
    assert_eq!(bench.core.acting(), Mode::Proxy);
}

#[test]
fn two_fabrics_on_one_link_tell_both_their_operators_and_one_leaves_strangers_to_the_other() {
    let (mut one, probe) = auto();
    let two = Ipv4Addr::new(10, 0, 0, 77);
    let mut other = Bench::new(Config { fabric: [2; 8], server: two, strangers: false, ..config(7) });
    other.core.handle_packet(other.now, &probe_bytes(&probe), super::super::Arrival::broadcast());
    let done = drain(&mut other.core);
    assert_eq!(done.stages(), [Stage::OtherFabric]);
    assert_eq!(done.to(), SocketAddrV4::new(Ipv4Addr::BROADCAST, 68));
    let told = see(&mut one, done.bytes());
    assert_eq!((told.stages(), told.events[0].address), (vec![Stage::OtherFabric], Some(two)));
    assert_eq!(one.core.acting(), Mode::Full, "no site's server");
    // A stranger.
    one.wait(LISTEN_TIME);
    assert!(other.broadcast(fixtures::plain(DISCOVER, MAC)).is_silent());
    one.lease(|kind| fixtures::plain(kind, MAC));
    // A client of the other fabric that remembers its address is not refused here.
    let remembers = fixtures::plain(REQUEST, [2, 0, 0, 0, 4, 4])
        .address(code::REQUESTED_ADDRESS, Ipv4Addr::new(10, 9, 9, 9));
    assert!(one.broadcast(remembers).is_silent());
}

#[test]
fn a_fabric_that_takes_no_strangers_answers_whom_it_knows() {
    let mut config = Config { strangers: false, ..config(1) };
    let address = Ipv4Addr::new(10, 0, 0, 40);
    config.reservations.push(Reservation::of_address(ClientKey::ethernet(MAC), address));
    let mut bench = Bench::new(config);
    assert_eq!(bench.lease(|kind| fixtures::plain(kind, MAC)), address);
    assert!(bench.broadcast(fixtures::plain(DISCOVER, [2, 0, 0, 0, 4, 4])).is_silent());
    assert_eq!(bench.core.counters().strangers, 1);
}

fn probe_bytes(probe: &Packet) -> Vec<u8> {
    let (fabric, server) = probe::said(probe).unwrap();
    probe::discover(probe.chaddr().try_into().unwrap(), probe.xid, fabric, server)
}

fn sweeping() -> Bench {
    let mut core = super::super::Core::new(Config { sweep: true, ..config(1) }, member(1)).unwrap();
    drain(&mut core);
    Bench { core, now: crate::dhcp::time::Time::ZERO }
}

#[test]
fn the_whole_pool_is_asked_for_once_by_all_nodes_together() {
    let mut asked = Vec::new();
    for n in 1..=3 {
        let mut core = super::super::Core::new(Config { sweep: true, ..config(n) }, member(n)).unwrap();
        core.set_members(crate::dhcp::time::Time::ZERO, (1..=3).map(member));
        drain(&mut core);
        let mut bench = Bench { core, now: crate::dhcp::time::Time::ZERO };
        for _ in 0..4 {
            asked.extend(bench.wait(Duration::from_millis(50)).asked);
        }
    }
    asked.sort_unstable();
    let expected: Vec<_> = (100..200).map(|last| Ipv4Addr::new(10, 0, 0, last)).collect();
    assert_eq!(asked, expected);
}

#[test]
fn a_finding_is_kept_by_asking_again_and_forgotten_when_nobody_answers() {
    let mut bench = sweeping();
    let used = Ipv4Addr::new(10, 0, 0, 150);
    bench.core.address_taken(bench.now, used, Some(ClientKey::ethernet([9; 6])));
    let done = drain(&mut bench.core);
    assert_eq!((done.stages(), done.records[0].holder), (vec![Stage::Foreign], Holder::Foreign(used)));
    bench.core.address_taken(bench.now, used, Some(ClientKey::ethernet([9; 6])));
    assert!(drain(&mut bench.core).records.is_empty(), "a talkative host is no news");
    let mut again = 0;
    for _ in 0..TAKEN_HOLD.as_secs() - 1 {
        again += bench.wait(SECOND).asked.iter().filter(|&&address| address == used).count();
    }
    assert!(again >= 1, "asked for again while it is kept");
    bench.wait(2 * SECOND);
    let wish = fixtures::plain(DISCOVER, MAC).address(code::REQUESTED_ADDRESS, used);
    assert_eq!(bench.broadcast(wish).reply().yiaddr, used);
}

#[test]
fn an_offer_in_doubt_is_made_at_once_and_taken_back_if_somebody_answers() {
    let mut bench = sweeping();
    let done = bench.broadcast(fixtures::plain(DISCOVER, MAC));
    let address = done.reply().yiaddr;
    assert_eq!(done.asked, [address]);
    bench.core.address_taken(bench.now, address, Some(ClientKey::ethernet([9; 6])));
    drain(&mut bench.core);
    let refused = bench.broadcast(select(fixtures::plain(REQUEST, MAC), address));
    assert_eq!(refused.reply().message_type, MessageType::Nak);
    assert_ne!(bench.lease(|kind| fixtures::plain(kind, MAC)), address);
}

#[test]
fn neither_the_client_itself_nor_a_lie_takes_a_lease() {
    let mut bench = sweeping();
    let address = bench.lease(|kind| fixtures::plain(kind, MAC));
    for by in [MAC, [9; 6]] {
        bench.core.address_taken(bench.now, address, Some(ClientKey::ethernet(by)));
    }
    let renewed = bench.unicast(fixtures::plain(REQUEST, MAC).ciaddr(address), address);
    assert_eq!(renewed.reply().message_type, MessageType::Ack);
}

#[test]
fn questions_in_doubt_are_bounded() {
    let mut config = config(1);
    config.subnets[0].ranges = vec![(Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 253))];
    config.sweep = true;
    let mut core = super::super::Core::new(config, member(1)).unwrap();
    drain(&mut core);
    let mut bench = Bench { core, now: crate::dhcp::time::Time::ZERO };
    let asked: usize = (0..1000_u32)
        .map(|n| {
            bench
                .broadcast(fixtures::plain(DISCOVER, [2, 0, 0, 1, n.to_be_bytes()[2], n.to_be_bytes()[3]]))
                .asked
                .len()
        })
        .sum();
    assert_eq!(asked, 200);
}
