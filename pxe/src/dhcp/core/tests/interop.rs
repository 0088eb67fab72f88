//! The lines of the interoperability list about DHCP, each by its id: `grep 'fn d17_'` finds the test of line D17. Lines that
//! need real hardware have their fixture here.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::super::Arrival;
use super::bench::{Bench, Done, MAC, SERVER, config, drain, member, select};
use crate::dhcp::class::{Arch, ClientClass};
use crate::dhcp::client::{ClientKey, INFINIBAND};
use crate::dhcp::config::{ClientMatch, Config, Mode, ProxyStyle, Reservation, Subnet, Told};
use crate::dhcp::fixtures::{self, Build, DISCOVER, REQUEST};
use crate::dhcp::loader::Loader;
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
fn d1_an_offer_without_option_43_is_followed_up_on_4011() {
    let mut bench = proxy(ProxyStyle::Port4011);
    let done = bench.broadcast(fixtures::uefi_pxe(DISCOVER, MAC));
    assert_eq!(done.reply().option(code::VENDOR), None);
    assert_eq!((done.reply().siaddr, done.reply().address_option(code::SERVER_ID)), (SERVER, Some(SERVER)));
    let ack = on_4011(&mut bench, fixtures::uefi_pxe(REQUEST, MAC));
    assert_eq!(
        (ack.reply().message_type, text(ack.reply(), code::BOOT_FILE)),
        (MessageType::Ack, "snponly.efi".into())
    );
}

#[test]
fn d2_with_the_bypass_bit_the_file_is_in_the_offer() {
    let done = proxy(ProxyStyle::Bypass).broadcast(fixtures::uefi_pxe(DISCOVER, MAC));
    assert_eq!(done.reply().option(code::VENDOR), Some(&[6, 1, 8, 255][..]));
    assert_eq!(text(done.reply(), code::BOOT_FILE), "snponly.efi");
}

#[test]
fn d3_the_style_without_the_bypass_bit_for_firmware_that_ignores_it() {
    let done = proxy(ProxyStyle::Port4011).broadcast(fixtures::uefi_pxe(DISCOVER, MAC));
    assert_eq!(done.reply().option(code::VENDOR_CLASS), Some(&b"PXEClient"[..]));
}

#[test]
fn d4_a_request_to_a_proxy_is_answered_on_67_and_on_4011() {
    let mut bench = proxy(ProxyStyle::Bypass);
    let named = fixtures::uefi_pxe(REQUEST, MAC).address(code::SERVER_ID, SERVER);
    assert_eq!(bench.broadcast(named).reply().message_type, MessageType::Ack);
    let alone = fixtures::uefi_pxe(REQUEST, MAC).ciaddr(AT);
    assert_eq!(bench.unicast(alone, AT).reply().message_type, MessageType::Ack);
    assert_eq!(on_4011(&mut bench, fixtures::uefi_pxe(REQUEST, MAC)).reply().message_type, MessageType::Ack);
    let of_site = fixtures::uefi_pxe(REQUEST, MAC).address(code::SERVER_ID, SITE);
    assert!(bench.unicast(of_site, AT).is_silent());
}

#[test]
fn d5_the_4011_ack_holds_a_boot_file() {
    let mut bench = proxy(ProxyStyle::Port4011);
    for build in [fixtures::bios_pxe(REQUEST, MAC), fixtures::uefi_pxe(REQUEST, MAC)] {
        assert!(!on_4011(&mut bench, build).reply().file.is_empty());
    }
    let unknown = Build::new(REQUEST, MAC)
        .option(code::VENDOR_CLASS, b"PXEClient")
        .option(code::ARCHITECTURE, &[0, 22]);
    assert!(on_4011(&mut bench, unknown).is_silent(), "nothing to boot: no answer rather than a useless one");
}

#[test]
fn d6_proxy_replies_name_the_server_twice() {
    for style in [ProxyStyle::Bypass, ProxyStyle::Port4011] {
        for build in [fixtures::bios_pxe(DISCOVER, MAC), fixtures::uefi_pxe(DISCOVER, MAC)] {
            let done = proxy(style).broadcast(build);
            assert_eq!(
                (done.reply().siaddr, done.reply().address_option(code::SERVER_ID)),
                (SERVER, Some(SERVER))
            );
        }
    }
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
fn d12_ipxe_finds_server_and_file_in_the_proxy_offer_of_either_style() {
    for style in [ProxyStyle::Bypass, ProxyStyle::Port4011] {
        let done = proxy(style).broadcast(fixtures::bios_ipxe(DISCOVER, MAC));
        assert_eq!(done.reply().siaddr, SERVER);
        assert!(!done.reply().file.is_empty() && done.reply().option(code::VENDOR).is_some());
    }
}

#[test]
fn d13_ipxe_is_told_not_to_wait_only_where_it_gets_its_lease_here() {
    assert_eq!(offer(fixtures::bios_ipxe(DISCOVER, MAC)).option(code::IPXE), Some(&[176, 1, 1][..]));
    let done = proxy(ProxyStyle::Bypass).broadcast(fixtures::bios_ipxe(DISCOVER, MAC));
    assert_eq!(done.reply().option(code::IPXE), None);
}

#[test]
fn d14_ipxe_gets_a_whole_url_and_not_the_loader_again() {
    for build in [fixtures::bios_ipxe(DISCOVER, MAC), fixtures::uefi_ipxe(DISCOVER, MAC)] {
        assert_eq!(text(&offer(build), code::BOOT_FILE), "http://10.0.0.1/boot.ipxe");
    }
}

#[test]
fn d15_the_vendor_class_does_not_hide_ipxe() {
    let build = fixtures::uefi_http(DISCOVER, MAC).option(code::USER_CLASS, b"iPXE");
    assert_eq!(class_of(build), ClientClass::UefiIpxe);
    assert_eq!(
        class_of(fixtures::uefi_pxe(DISCOVER, MAC).option(code::IPXE, &[19, 1, 1])),
        ClientClass::UefiIpxe
    );
}

#[test]
fn d16_the_features_of_an_ipxe_are_read() {
    let packet = Packet::parse(&fixtures::bios_ipxe(DISCOVER, MAC).end()).unwrap();
    let features = crate::dhcp::class::Client::classify(&packet).unwrap().ipxe.unwrap();
    assert!(features.http && features.bzimage && !features.efi);
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
fn d19_every_form_of_machine_id_is_accepted_and_returned() {
    for uuid in
        [&[0; 17][..], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], &[1, 2], &[0xd1; 17]]
    {
        let build = Build::new(DISCOVER, MAC).option(code::ARCHITECTURE, &[0, 7]).option(code::UUID, uuid);
        assert_eq!(offer(build).option(code::UUID), Some(uuid));
    }
    assert_eq!(offer(of_arch(7)).option(code::UUID), None);
    let one = Build::new(DISCOVER, MAC).option(code::ARCHITECTURE, &[0, 7]).option(code::UUID, &[0; 17]);
    let other = Build::new(DISCOVER, [2, 0, 0, 0, 5, 5])
        .option(code::ARCHITECTURE, &[0, 7])
        .option(code::UUID, &[0; 17]);
    let mut bench = Bench::full();
    assert_ne!(
        bench.broadcast(one).reply().yiaddr,
        bench.broadcast(other).reply().yiaddr,
        "no identity alone"
    );
}

#[test]
fn d20_one_machine_keeps_one_address_through_all_its_client_ids() {
    let mut bench = Bench::full();
    let first = bench.lease(|kind| fixtures::bios_pxe(kind, MAC));
    assert_eq!(bench.lease(|kind| fixtures::bios_ipxe(kind, MAC)), first);
    assert_eq!(bench.lease(|kind| fixtures::plain(kind, MAC)), first);
    assert_eq!(bench.core.leases().filter(|lease| lease.address == first).count(), 1);
    let seconds = offer(fixtures::bios_pxe(DISCOVER, MAC)).u32_option(code::LEASE_TIME);
    assert_eq!(seconds, Some(240), "short while it boots");
}

#[test]
fn d21_the_table_of_architectures() {
    let uefi = |arch| ClientClass::UefiPxe { arch: Arch(arch) };
    let http = |arch| ClientClass::UefiHttp { arch: Arch(arch) };
    for (arch, class) in [
        (0, ClientClass::BiosPxe),
        (6, uefi(6)),
        (7, uefi(7)),
        (9, uefi(7)),
        (10, uefi(10)),
        (11, uefi(11)),
        (15, http(15)),
        (16, http(16)),
        (18, http(18)),
        (19, http(19)),
        (25, uefi(25)),
        (27, uefi(27)),
        (37, uefi(37)),
        (39, uefi(39)),
        (41, ClientClass::RaspberryPi),
        (22, ClientClass::Other { arch: Arch(22) }),
    ] {
        assert_eq!(class_of(of_arch(arch)), class, "{arch}");
        assert_eq!(class.to_string().parse(), Ok(class));
    }
    let list = Build::new(DISCOVER, MAC).option(code::ARCHITECTURE, &[0, 99, 0, 9, 0, 7]);
    assert_eq!(class_of(list), uefi(7), "the first known code");
}

#[test]
fn d22_a_raspberry_pi_is_known_by_its_address_and_gets_its_menu() {
    let reply = offer(fixtures::raspberry_pi(DISCOVER, [1, 2, 3]));
    let menu = b"\x06\x01\x03\x0a\x04\x00PXE\x09\x14\x00\x00\x11Raspberry Pi Boot\xff";
    assert_eq!(reply.option(code::VENDOR), Some(&menu[..]));
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
fn d33_an_infiniband_address_is_kept_whole() {
    let guid = [0, 2, 0xc9, 3, 0, 0x11, 0x22, 0x33];
    let build = |kind| {
        Build::new(kind, MAC).hardware(INFINIBAND, 8).field(28, &guid).option(code::ARCHITECTURE, &[0, 7])
    };
    let mut bench = Bench::full();
    let address = bench.lease(build);
    let key = ClientKey::new(INFINIBAND, &guid).unwrap();
    let holder = crate::dhcp::lease::Holder::Client(key);
    assert!(bench.core.leases().any(|lease| lease.holder == holder && lease.address == address));
    let reply = bench.broadcast(build(DISCOVER)).reply().clone();
    assert_eq!((reply.hardware_type, reply.chaddr()), (INFINIBAND, &guid[..]));
    // IP over InfiniBand sends no address at all, only an identifier (RFC 4390).
    let nameless =
        |kind| Build::new(kind, [0; 6]).hardware(INFINIBAND, 0).option(code::CLIENT_ID, &[255, 1, 2, 3]);
    assert_ne!(bench.lease(nameless), address);
}

#[test]
fn d34_two_interfaces_of_one_machine_are_one_node() {
    let macs = [MAC, [0x52, 0x54, 0, 1, 2, 4]];
    let mut config = config(1);
    for (mac, last) in macs.into_iter().zip([40, 41]) {
        let known = Reservation::of_address(ClientKey::ethernet(mac), Ipv4Addr::new(10, 0, 0, last));
        config.reservations.push(Reservation { name: Some("db1".into()), ..known });
    }
    let mut bench = Bench::new(config);
    for (mac, last) in macs.into_iter().zip([40, 41]) {
        let done = bench.broadcast(fixtures::plain(DISCOVER, mac));
        assert_eq!(
            (done.reply().yiaddr.octets()[3], text(done.reply(), code::HOST_NAME)),
            (last, "db1".into())
        );
    }
}

#[test]
fn h1_an_http_client_gets_its_vendor_class_and_a_url() {
    for bench in [&mut Bench::full(), &mut proxy(ProxyStyle::Bypass), &mut proxy(ProxyStyle::Port4011)] {
        let done = bench.broadcast(fixtures::uefi_http(DISCOVER, MAC));
        assert_eq!(done.reply().option(code::VENDOR_CLASS), Some(&b"HTTPClient"[..]));
        assert_eq!(text(done.reply(), code::BOOT_FILE), "http://10.0.0.1/snponly.efi");
    }
}

#[test]
fn h2_a_reserved_machine_gets_what_its_class_loads_unless_it_has_a_loader_of_its_own() {
    let mut config = config(1);
    let address = Ipv4Addr::new(10, 0, 0, 40);
    config.reservations.push(Reservation::of_address(ClientKey::ethernet(MAC), address));
    let reply = Bench::new(config.clone()).broadcast(fixtures::uefi_http(DISCOVER, MAC)).reply().clone();
    assert_eq!(
        (reply.yiaddr, text(&reply, code::BOOT_FILE)),
        (address, "http://10.0.0.1/snponly.efi".into())
    );
    let class = ClientClass::UefiHttp { arch: Arch::X64_HTTP };
    config.reservations[0].told.loaders.set(class, Loader::Http("uki.efi".into()));
    let reply = Bench::new(config).broadcast(fixtures::uefi_http(DISCOVER, MAC)).reply().clone();
    assert_eq!(text(&reply, code::BOOT_FILE), "http://10.0.0.1/uki.efi");
}

#[test]
fn h3_urls_name_addresses_so_that_no_name_server_is_needed() {
    let reply = offer(fixtures::uefi_http(DISCOVER, MAC));
    assert_eq!(reply.option(code::NAME_SERVER), None);
    let url = text(&reply, code::BOOT_FILE);
    let host = url.trim_start_matches("http://").split('/').next().unwrap();
    assert!(host.parse::<Ipv4Addr>().is_ok(), "{url}");
}

#[test]
fn h4_http_boot_has_both_paths() {
    assert!(!offer(fixtures::uefi_http(DISCOVER, MAC)).yiaddr.is_unspecified());
    let done = proxy(ProxyStyle::Bypass).broadcast(fixtures::uefi_http(DISCOVER, MAC));
    assert!(done.reply().yiaddr.is_unspecified() && done.reply().option(code::BOOT_FILE).is_some());
}

#[test]
fn e3_leases_do_not_slow_replies_down() {
    let mut bench = Bench::full();
    for round in 0..300_u16 {
        let [high, low] = round.to_be_bytes();
        bench.broadcast(fixtures::plain(DISCOVER, [2, 0, 0, 7, high, low]));
    }
    // Bounded by the subnet, whoever came by; the search for an address is bounded by the pool.
    assert!(bench.core.leases().count() <= 8 * 100);
}

#[test]
fn e4_a_booted_machine_renews_what_it_booted_with() {
    let mut bench = Bench::full();
    let address = bench.lease(|kind| fixtures::bios_ipxe(kind, MAC));
    bench.wait(Duration::from_secs(120));
    let done = bench.unicast(fixtures::plain(REQUEST, MAC).ciaddr(address), address);
    assert_eq!((done.reply().yiaddr, done.reply().u32_option(code::LEASE_TIME)), (address, Some(3600)));
}

#[test]
fn e8_raspberry_pis_that_power_on_at_once_get_addresses_of_their_own() {
    let mut bench = Bench::full();
    let offered: std::collections::BTreeSet<_> = (0..50)
        .map(|n| bench.broadcast(fixtures::raspberry_pi(DISCOVER, [0, 0, n])).reply().yiaddr)
        .collect();
    assert_eq!(offered.len(), 50);
}

#[test]
fn e9_a_thousand_retries_in_one_moment_change_nothing() {
    let mut bench = Bench::full();
    let first = bench.broadcast(fixtures::bios_pxe(DISCOVER, MAC)).reply().yiaddr;
    for n in 0..1000 {
        assert_eq!(bench.broadcast(fixtures::bios_pxe(DISCOVER, MAC).xid(n)).reply().yiaddr, first);
    }
    assert_eq!(bench.core.leases().filter(|lease| lease.state == LeaseState::Offered).count(), 1);
}

#[test]
fn a_client_id_is_reserved_for_whatever_interface_sends_it() {
    let id = [255, 0, 0, 0, 9, 1, 2, 3];
    let mut config = config(1);
    let address = Ipv4Addr::new(10, 0, 0, 44);
    let mut told = Told::default();
    told.options.insert(42, vec![10, 0, 0, 9]);
    told.options.insert(code::DOMAIN_NAME, b"storage.example".to_vec());
    let known = Reservation::of_address(ClientMatch::Id(id.to_vec()), address);
    config.reservations.push(Reservation { told, ..known });
    config.subnets[0].domain = Some("example".into());
    let mut bench = Bench::new(config);
    for mac in [MAC, [2, 0, 0, 0, 8, 8]] {
        let done = bench.broadcast(Build::new(DISCOVER, mac).option(code::CLIENT_ID, &id));
        if mac == MAC {
            assert_eq!(done.reply().yiaddr, address);
        }
        assert_eq!(done.reply().option(42), Some(&[10, 0, 0, 9][..]));
        assert_eq!(text(done.reply(), code::DOMAIN_NAME), "storage.example", "in place of the subnet's");
    }
    let other = bench.broadcast(fixtures::plain(DISCOVER, [2, 0, 0, 0, 8, 9]));
    assert_eq!((text(other.reply(), code::DOMAIN_NAME), other.reply().option(42)), ("example".into(), None));
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
fn d11_the_last_of_many_proxies_still_answers_within_the_two_seconds_that_ipxe_waits() {
    let mut bench = proxy(ProxyStyle::Bypass);
    bench.core.set_members(bench.now, (1..=200).map(member));
    let discover = fixtures::bios_ipxe(DISCOVER, MAC);
    let mut waited = Duration::ZERO;
    let mut done = bench.broadcast(discover);
    while done.is_silent() {
        waited += Duration::from_millis(20);
        assert!(waited < Duration::from_secs(1), "all others are dead");
        done = bench.wait(Duration::from_millis(20));
    }
    assert!(!done.reply().file.is_empty());
}

#[test]
fn d35_ipxe_gets_its_vendor_class_back_only_where_another_server_answers_too() {
    let mut bench = Bench::full();
    let class = |done: &Done| done.reply().option(code::VENDOR_CLASS).map(<[u8]>::to_vec);
    assert_eq!(class(&bench.broadcast(fixtures::bios_ipxe(DISCOVER, MAC))), None);
    let foreign = Build::new(fixtures::OFFER, [2, 0, 0, 0, 9, 9])
        .field(0, &[2])
        .field(16, &[10, 0, 0, 9])
        .address(code::SERVER_ID, SITE);
    bench.core.observe_reply(bench.now, &foreign.end()).unwrap();
    drain(&mut bench.core);
    let asked = fixtures::bios_ipxe(DISCOVER, MAC);
    assert_eq!(class(&bench.broadcast(asked)), Some(b"PXEClient:Arch:00000:UNDI:002001".to_vec()));
    assert_eq!(class(&bench.broadcast(fixtures::bios_pxe(DISCOVER, [2, 0, 0, 0, 4, 7]))), None);
}

#[test]
fn h7_an_offer_is_the_same_after_each_of_the_firmwares_pauses() {
    let mut bench = Bench::full();
    let first = bench.broadcast(fixtures::uefi_http(DISCOVER, MAC)).reply().yiaddr;
    for seconds in [4, 8, 16, 32] {
        bench.wait(Duration::from_secs(seconds));
        assert_eq!(bench.broadcast(fixtures::uefi_http(DISCOVER, MAC)).reply().yiaddr, first, "{seconds} s");
    }
}

#[test]
fn e2_arp_makes_nobody_known() {
    let mut bench = Bench::new(Config { strangers: false, ..config(1) });
    bench.core.address_taken(bench.now, AT, Some(ClientKey::ethernet(MAC)));
    drain(&mut bench.core);
    assert!(bench.broadcast(fixtures::plain(DISCOVER, MAC)).is_silent(), "a stranger as before");
    assert_eq!(bench.core.client_at(bench.now, AT), None);
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
