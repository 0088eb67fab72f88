//! The lines of the interoperability list about DHCP, each by its id: `grep -r 'fn d17_'` finds the test of line D17. Lines that
//! need real hardware have their fixture here. Here is what an answer looks like, and to whom it goes.

mod clients;
mod http;
mod proxy;

use std::net::{Ipv4Addr, SocketAddrV4};

use super::super::Arrival;
use super::bench::{Bench, Done, MAC, SERVER, config, select};
use crate::dhcp::class::ClientClass;
use crate::dhcp::config::{Config, Mode, ProxyStyle, Subnet};
use crate::dhcp::fixtures::{self, Build, DISCOVER, REQUEST};
use crate::dhcp::packet::{MessageType, Packet, code};
use crate::dhcp::{LeaseState, Network};

const SITE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const AT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 130);

fn proxy(proxy_style: ProxyStyle) -> Bench {
    Bench::new(Config { mode: Mode::Proxy, proxy_style, ..config(1) })
}

fn on_4011(bench: &mut Bench, build: Build) -> Done {
    let source = SocketAddrV4::new(AT, 4011);
    bench.arrive(build.ciaddr(AT), Arrival { source, unicast: true, port: 4011 })
}

fn offer(build: Build) -> Packet {
    Bench::full().broadcast(build).reply().clone()
}

fn text(packet: &Packet, code: u8) -> String {
    String::from_utf8_lossy(packet.option(code).unwrap_or_default()).trim_end_matches('\0').to_owned()
}

fn of_arch(arch: u16) -> Build {
    Build::new(DISCOVER, MAC)
        .option(code::VENDOR_CLASS, b"PXEClient")
        .option(code::ARCHITECTURE, &arch.to_be_bytes())
}

fn class_of(build: Build) -> ClientClass {
    let packet = Packet::parse(&build.end()).unwrap();
    crate::dhcp::class::Client::classify(&packet).unwrap().class
}

#[test]
fn d8_a_full_offer_is_a_lease_with_a_file_and_no_vendor_class() {
    let reply = offer(fixtures::uefi_pxe(DISCOVER, MAC));
    assert!(!reply.yiaddr.is_unspecified() && reply.option(code::VENDOR_CLASS).is_none());
    assert_eq!(text(&reply, code::BOOT_FILE), "snponly.efi");
}

#[test]
fn d9_firmware_that_keeps_no_proxy_offers_boots_from_full_dhcp() {
    assert!(offer(fixtures::uefi_pxe(DISCOVER, MAC)).option(code::BOOT_FILE).is_some());
}

#[test]
fn d10_firmware_that_never_asks_4011_boots_from_full_dhcp() {
    let reply = offer(fixtures::uefi_pxe(DISCOVER, MAC));
    assert!(reply.option(code::VENDOR).is_none() && !reply.file.is_empty());
}

#[test]
fn d17_requests_addressed_to_another_server_are_left_alone() {
    let mut bench = Bench::full();
    for address in [Ipv4Addr::new(10, 0, 0, 120), Ipv4Addr::new(192, 168, 1, 5)] {
        let request = fixtures::bios_ipxe(REQUEST, MAC)
            .address(code::SERVER_ID, SITE)
            .address(code::REQUESTED_ADDRESS, address);
        assert!(bench.broadcast(request).is_silent());
    }
}

#[test]
fn d18_an_offered_address_is_reserved_everywhere_before_it_is_asked_for() {
    let mut bench = Bench::full();
    let first = bench.broadcast(fixtures::raspberry_pi(DISCOVER, [1, 2, 3]));
    assert_eq!((first.records.len(), first.records[0].state), (1, LeaseState::Offered));
    let mut seen = vec![first.reply().yiaddr];
    for n in 0..99 {
        let address = bench.broadcast(fixtures::raspberry_pi(DISCOVER, [9, 9, n])).reply().yiaddr;
        assert!(!seen.contains(&address), "{address} offered twice");
        seen.push(address);
    }
}

#[test]
fn d23_a_raspberry_pis_request_without_vendor_class_is_answered_without_padding() {
    let mut bench = Bench::full();
    let address = bench.broadcast(fixtures::raspberry_pi(DISCOVER, [1, 2, 3])).reply().yiaddr;
    let done = bench.broadcast(select(fixtures::raspberry_pi(REQUEST, [1, 2, 3]), address));
    assert_eq!(done.reply().message_type, MessageType::Ack);
    let mut at = 240;
    while done.bytes()[at] != 255 {
        assert_ne!(done.bytes()[at], 0, "a pad before the end");
        at += 2 + usize::from(done.bytes()[at + 1]);
    }
}

#[test]
fn d24_only_pxe_roms_get_a_nul_behind_the_file_name() {
    assert_eq!(
        offer(fixtures::bios_pxe(DISCOVER, MAC)).option(code::BOOT_FILE),
        Some(&b"undionly.kpxe\0"[..])
    );
    for build in [fixtures::uefi_http(DISCOVER, MAC), fixtures::bios_ipxe(DISCOVER, MAC)] {
        assert!(!offer(build).option(code::BOOT_FILE).unwrap().ends_with(&[0]));
    }
}

#[test]
fn d25_header_and_option_name_the_same_file_and_nothing_is_overloaded() {
    for build in [
        fixtures::bios_pxe(DISCOVER, MAC),
        fixtures::uefi_pxe(DISCOVER, MAC),
        fixtures::uefi_http(DISCOVER, MAC),
    ] {
        let reply = offer(build);
        assert_eq!(String::from_utf8_lossy(&reply.file), text(&reply, code::BOOT_FILE));
        assert_eq!(reply.option(code::OVERLOAD), None);
    }
}

#[test]
fn d26_next_server_is_the_same_in_all_three_places() {
    for build in [
        fixtures::bios_pxe(DISCOVER, MAC),
        fixtures::uefi_pxe(DISCOVER, MAC),
        fixtures::raspberry_pi(DISCOVER, [1, 2, 3]),
    ] {
        let done = Bench::full().broadcast(build);
        assert_eq!(
            (done.reply().siaddr, text(done.reply(), code::TFTP_SERVER)),
            (SERVER, SERVER.to_string())
        );
        assert_eq!(done.bytes()[44..53], *b"10.0.0.1\0");
    }
}

#[test]
fn d27_the_broadcast_flag_is_returned_and_answers_are_broadcast_anyway() {
    let relay = Ipv4Addr::new(10, 0, 0, 200);
    for flagged in [true, false] {
        let build = || if flagged { of_arch(7).broadcast() } else { of_arch(7) };
        let done = Bench::full().broadcast(build());
        assert_eq!((done.reply().wants_broadcast(), *done.to().ip()), (flagged, Ipv4Addr::BROADCAST));
        assert_eq!(Bench::full().broadcast(build().giaddr(relay)).reply().wants_broadcast(), flagged);
    }
}

#[test]
fn d28_a_relayed_answer_goes_to_the_relays_server_port() {
    let relay = Ipv4Addr::new(10, 0, 0, 200);
    let done = Bench::full().broadcast(of_arch(7).broadcast().giaddr(relay));
    assert_eq!(done.to(), SocketAddrV4::new(relay, 67));
}

#[test]
fn d29_option_82_is_returned_as_it_came_and_last() {
    let relay = Ipv4Addr::new(10, 0, 0, 200);
    let information = [1, 4, 0, 1, 0, 5, 2, 3, 9, 9, 9];
    let done = Bench::full().broadcast(of_arch(7).giaddr(relay).option(code::RELAY_AGENT, &information));
    assert_eq!(done.reply().option(code::RELAY_AGENT), Some(&information[..]));
    let end = done.bytes().iter().rposition(|&byte| byte == 255).unwrap();
    assert_eq!(done.bytes()[end - 13..end], [&[82, 11][..], &information].concat());
}

#[test]
fn d30_a_relayed_raspberry_pi_gets_a_server_of_our_own_subnet() {
    let done = Bench::full()
        .broadcast(fixtures::raspberry_pi(DISCOVER, [1, 2, 3]).giaddr(Ipv4Addr::new(10, 0, 0, 200)));
    assert_eq!(done.reply().siaddr, SERVER);
}

#[test]
fn d32_the_seconds_field_changes_nothing() {
    for seconds in [[0, 0], [0, 4], [0xff, 0xff]] {
        assert_eq!(
            Bench::full().broadcast(fixtures::bios_ipxe(DISCOVER, MAC).field(8, &seconds)).sent.len(),
            1
        );
    }
}

#[test]
fn every_relayed_subnet_has_its_pool_and_options() {
    let relay = Ipv4Addr::new(10, 5, 0, 1);
    let mut config = config(1);
    let mut subnet = Subnet::whole(Network::new(relay, 24).unwrap());
    subnet.routers = vec![relay];
    subnet.options.insert(42, vec![10, 5, 0, 1]);
    config.subnets.push(subnet);
    let mut bench = Bench::new(config);
    let reply = bench.broadcast(fixtures::plain(DISCOVER, MAC).giaddr(relay)).reply().clone();
    assert_eq!(reply.yiaddr.octets()[..3], [10, 5, 0]);
    assert_eq!((reply.address_option(code::ROUTER), reply.address_option(42)), (Some(relay), Some(relay)));
    let nowhere = bench.broadcast(fixtures::plain(DISCOVER, MAC).giaddr(Ipv4Addr::new(10, 6, 0, 1)));
    assert!(nowhere.is_silent());
}

#[test]
fn e5_where_broadcasts_are_swallowed_a_relay_brings_them() {
    let mut bench = Bench::full();
    let relay = Ipv4Addr::new(10, 0, 0, 2);
    let arrival = Arrival { source: SocketAddrV4::new(relay, 67), unicast: true, port: 67 };
    let done = bench.arrive(fixtures::plain(DISCOVER, MAC).giaddr(relay), arrival);
    assert_eq!(done.to(), SocketAddrV4::new(relay, 67), "not a broadcast in the whole exchange");
    assert!(!done.reply().yiaddr.is_unspecified());
}
