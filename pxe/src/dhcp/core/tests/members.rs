//! Several cores: ranks, standbys, replication, own addresses.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::{Core, MEMBER_GRACE};
use super::bench::{Bench, Done, MAC, config, drain, member};
use crate::dhcp::client::ClientKey;
use crate::dhcp::config::STEP;
use crate::dhcp::event::Stage;
use crate::dhcp::fixtures::{self, DISCOVER, OFFER, REQUEST};
use crate::dhcp::lease::{Holder, LeaseRecord, LeaseState};
use crate::dhcp::packet::code;
use crate::dhcp::time::Time;

/// A client for which member 1, this bench's, has this rank among members 1 to 3.
fn mac_of_rank(rank: usize) -> [u8; 6] {
    let members: Vec<_> = (1..=3).map(member).collect();
    (0..=u8::MAX)
        .map(|n| [2, 0, 0, 0, 7, n])
        .find(|&mac| crate::dhcp::rank::rank(&members, &ClientKey::ethernet(mac), 100)[rank] == member(1))
        .unwrap()
}

fn three() -> Bench {
    let mut bench = Bench::full();
    bench.core.set_members(bench.now, (1..=3).map(member));
    bench
}

fn record(mac: [u8; 6], last: u8, state: LeaseState, counter: u64, author: u8) -> LeaseRecord {
    let holder = Holder::Client(ClientKey::ethernet(mac));
    let address = Ipv4Addr::new(10, 0, 0, last);
    LeaseRecord {
        holder,
        address,
        state,
        counter,
        since: counter,
        author: member(author),
        remaining_ms: 60_000,
    }
}

/// The OFFER that node 2 sends to a client.
fn offer_of_two(mac: [u8; 6], last: u8) -> Vec<u8> {
    fixtures::bios_ipxe(OFFER, mac)
        .field(0, &[2])
        .field(16, &[10, 0, 0, last])
        .address(code::SERVER_ID, Ipv4Addr::new(10, 0, 0, 2))
        .end()
}

#[test]
fn rank_r_waits_r_steps() {
    for rank in 0..3_u32 {
        let mut bench = three();
        let mac = mac_of_rank(rank.try_into().unwrap());
        let done = bench.broadcast(fixtures::bios_ipxe(DISCOVER, mac));
        if rank == 0 {
            assert_eq!(done.sent.len(), 1);
            continue;
        }
        assert!(done.is_silent() && done.events.is_empty());
        assert_eq!(done.deadline, Some(Time::ZERO + STEP * rank));
        assert!(bench.wait(STEP * rank - Duration::from_millis(1)).is_silent());
        assert_eq!(bench.wait(Duration::from_millis(1)).sent.len(), 1);
        assert_eq!(bench.core.counters().standby_answers, 1);
    }
}

#[test]
fn a_seen_answer_ends_the_wait_and_names_the_address() {
    let mut bench = three();
    let mac = mac_of_rank(1);
    bench.broadcast(fixtures::bios_ipxe(DISCOVER, mac));
    bench.core.observe_reply(bench.now, &offer_of_two(mac, 188)).unwrap();
    assert!(bench.wait(STEP * 3).is_silent());
    // The responder dies before its record arrives; the client starts again.
    bench.broadcast(fixtures::bios_ipxe(DISCOVER, mac).xid(77));
    assert_eq!(bench.wait(STEP).reply().yiaddr, Ipv4Addr::new(10, 0, 0, 188));
}

#[test]
fn an_answer_seen_before_its_question_counts() {
    let mut bench = three();
    let mac = mac_of_rank(1);
    bench.core.observe_reply(bench.now, &offer_of_two(mac, 188)).unwrap();
    bench.broadcast(fixtures::bios_ipxe(DISCOVER, mac));
    assert!(bench.wait(STEP * 3).is_silent());
}

#[test]
fn who_is_first_but_late_leaves_it_at_a_nodes_answer() {
    let mut bench = three();
    let mac = mac_of_rank(0);
    let late = |bench: &mut Bench| {
        bench.core.observe_reply(bench.now, &offer_of_two(mac, 188)).unwrap();
        bench.broadcast(fixtures::bios_ipxe(DISCOVER, mac))
    };
    assert_eq!(late(&mut bench).sent.len(), 1, "whoever answers there is no node");
    bench.merge(&[record([2, 0, 0, 0, 8, 2], 2, LeaseState::Member, 9, 2)]);
    assert!(late(&mut bench).is_silent());
    // It asks again, with the same transaction: the answer was lost.
    bench.wait(STEP);
    assert_eq!(bench.broadcast(fixtures::bios_ipxe(DISCOVER, mac)).sent.len(), 1);
}

#[test]
fn a_record_of_the_answer_ends_the_wait_as_well() {
    let mut bench = three();
    let mac = mac_of_rank(1);
    bench.broadcast(fixtures::bios_ipxe(DISCOVER, mac));
    bench.merge(&[record(mac, 170, LeaseState::Offered, 9, 2)]);
    assert!(bench.wait(STEP * 3).is_silent());
    bench.broadcast(fixtures::bios_ipxe(DISCOVER, mac).xid(78));
    assert_eq!(
        bench.wait(STEP).reply().yiaddr,
        Ipv4Addr::new(10, 0, 0, 170),
        "the same address from the next node"
    );
}

#[test]
fn a_request_that_names_us_is_answered_at_any_rank() {
    let mut bench = three();
    let mac = mac_of_rank(2);
    let request = super::bench::select(fixtures::plain(REQUEST, mac), Ipv4Addr::new(10, 0, 0, 120));
    assert_eq!(bench.broadcast(request).sent.len(), 1);
}

#[test]
fn of_two_holders_the_later_is_refused_and_moves() {
    let mut bench = Bench::full();
    let winner = [2, 0, 0, 0, 0, 0x51];
    let address = bench.lease(|kind| fixtures::plain(kind, MAC));
    let mine = bench.core.leases().find(|lease| lease.address == address).unwrap().since;
    let older =
        LeaseRecord { since: mine - 1, ..record(winner, address.octets()[3], LeaseState::Bound, 90, 2) };
    let done = bench.merge(&[older]);
    assert_eq!(done.stages(), [Stage::Conflict]);
    assert_eq!(done.events[0].client, Holder::Client(ClientKey::ethernet(MAC)));
    assert!(bench.merge(&[older]).events.is_empty(), "told once");
    let renew = bench.unicast(fixtures::plain(REQUEST, MAC).ciaddr(address), address);
    assert_eq!(renew.reply().message_type, crate::dhcp::packet::MessageType::Nak);
    assert_ne!(bench.lease(|kind| fixtures::plain(kind, MAC)), address);
    let keeps = bench.unicast(fixtures::plain(REQUEST, winner).ciaddr(address), address);
    assert_eq!(keeps.reply().message_type, crate::dhcp::packet::MessageType::Ack);
}

#[test]
fn members_keep_their_addresses_while_they_live_and_a_while_longer() {
    let mut bench = Bench::full();
    let node = [2, 0, 0, 0, 0, 2];
    bench.core.set_members(bench.now, [member(2)]);
    bench.merge(&[record(node, 150, LeaseState::Member, 4, 2)]);
    let wish =
        || fixtures::plain(DISCOVER, MAC).address(code::REQUESTED_ADDRESS, Ipv4Addr::new(10, 0, 0, 150));
    bench.wait(Duration::from_secs(100_000));
    bench.core.set_members(bench.now, []);
    bench.wait(MEMBER_GRACE - Duration::from_secs(1));
    assert_ne!(bench.broadcast(wish()).reply().yiaddr, Ipv4Addr::new(10, 0, 0, 150));
    // It comes back in time: nothing expires.
    bench.core.set_members(bench.now, [member(2)]);
    bench.wait(Duration::from_secs(100_000));
    assert!(bench.core.leases().any(|lease| lease.state == LeaseState::Member && lease.expires.is_none()));
}

#[test]
fn a_node_insists_on_its_own_address() {
    let mut core = Core::new(config(1), member(1)).unwrap();
    let announced = drain(&mut core).records;
    assert_eq!((announced[0].address, announced[0].state), (Ipv4Addr::new(10, 0, 0, 1), LeaseState::Member));
    // The boot stages of its machine had leases under the same hardware address.
    let earlier = record([2, 0, 0, 0, 0, 1], 144, LeaseState::Bound, 40, 2);
    core.merge(Time::ZERO, &[earlier]);
    let again = drain(&mut core).records;
    assert_eq!((again[0].state, again[0].counter), (LeaseState::Member, 41));
}

#[test]
fn a_node_whose_address_was_taken_by_an_earlier_claim_is_told() {
    let mut bench = Bench::full();
    bench.core.set_members(bench.now, [member(2)]);
    let claim = LeaseRecord { since: 0, ..record([2, 0, 0, 0, 0, 2], 1, LeaseState::Member, 1, 2) };
    assert_eq!(bench.merge(&[claim]).stages(), [Stage::OwnAddressLost]);
}

#[test]
fn foreign_addresses_are_avoided_but_clients_are_not_foreign() {
    let mut bench = Bench::full();
    let address = bench.lease(|kind| fixtures::plain(kind, MAC));
    bench.core.address_taken(bench.now, address, Some(ClientKey::ethernet(MAC)));
    assert!(drain(&mut bench.core).records.is_empty());
    let foreign = Ipv4Addr::new(10, 0, 0, 150);
    bench.core.address_taken(bench.now, foreign, Some(ClientKey::ethernet([9; 6])));
    assert_eq!(drain(&mut bench.core).records[0].holder, Holder::Foreign(foreign));
    let wish = fixtures::plain(DISCOVER, [2, 0, 0, 0, 4, 4]).address(code::REQUESTED_ADDRESS, foreign);
    assert_ne!(bench.broadcast(wish).reply().yiaddr, foreign);
}

#[test]
fn a_server_outside_of_the_fabric_is_reported_once() {
    let mut bench = Bench::full();
    let see = |bench: &mut Bench| -> Done {
        bench.core.observe_reply(bench.now, &offer_of_two(MAC, 188)).unwrap();
        drain(&mut bench.core)
    };
    assert_eq!(see(&mut bench).stages(), [Stage::OtherServer]);
    assert!(see(&mut bench).events.is_empty());
    bench.merge(&[record([2, 0, 0, 0, 0, 2], 2, LeaseState::Member, 4, 2)]);
    bench.wait(Duration::from_secs(1000));
    assert!(see(&mut bench).events.is_empty(), "a node's address by now");
}

#[test]
fn solicitations_of_booting_clients_are_answered_by_their_responder() {
    let mut bench = three();
    let mac = mac_of_rank(0);
    assert!(!bench.core.answers_solicitation(bench.now, mac), "not seen booting");
    bench.broadcast(fixtures::plain(DISCOVER, mac));
    assert!(!bench.core.answers_solicitation(bench.now, mac), "a system's own affair");
    bench.broadcast(fixtures::bios_ipxe(DISCOVER, mac));
    assert!(bench.core.answers_solicitation(bench.now, mac));
    bench.wait(Duration::from_secs(200));
    assert!(!bench.core.answers_solicitation(bench.now, mac), "long ago");

    let mac = mac_of_rank(1);
    bench.broadcast(fixtures::bios_ipxe(DISCOVER, mac));
    bench.merge(&[record(mac, 170, LeaseState::Bound, 999, 2)]);
    let answers: Vec<_> = (0..4).map(|_| bench.core.answers_solicitation(bench.now, mac)).collect();
    assert_eq!(answers, [false, false, true, true], "the responder seems to be gone");
}

#[test]
fn a_joining_node_learns_everything_page_by_page() {
    let mut one = Bench::full();
    for n in 0..100 {
        one.lease(|kind| fixtures::plain(kind, [2, 0, 0, 0, 5, n]));
    }
    let mut core = Core::new(config(2), member(2)).unwrap();
    let mut after = None;
    loop {
        let page = one.core.records(one.now, after);
        let Some(last) = page.last() else { break };
        after = Some(last.holder);
        core.merge(one.now, &page);
    }
    let known: Vec<_> = one.core.leases().map(|lease| (lease.holder, lease.address)).collect();
    assert!(known.iter().all(|known| core.leases().any(|lease| (lease.holder, lease.address) == *known)));
}
