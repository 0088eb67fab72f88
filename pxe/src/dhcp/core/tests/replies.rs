//! What each class of client is told: the fixtures of the firmware notes and the interoperability list.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::super::Arrival;
use super::bench::{Bench, MAC, SERVER, config};
use crate::dhcp::config::{Mode, ProxyStyle};
use crate::dhcp::event::Stage;
use crate::dhcp::fixtures::{self, Build, DISCOVER, INFORM, REQUEST};
use crate::dhcp::packet::{MessageType, Packet, code};

const TFTP_SERVER: u8 = 66;

fn offer(build: Build) -> (Packet, Vec<u8>) {
    let done = Bench::full().broadcast(build);
    (done.reply().clone(), done.bytes().to_vec())
}

fn text(packet: &Packet, code: u8) -> Option<&str> {
    packet.option(code).map(|bytes| std::str::from_utf8(bytes).unwrap())
}

#[test]
fn every_reply_is_padded_and_starts_with_its_type() {
    for build in [
        fixtures::plain(DISCOVER, MAC),
        fixtures::bios_ipxe(DISCOVER, MAC),
        fixtures::uefi_http(DISCOVER, MAC),
        fixtures::raspberry_pi(DISCOVER, [1, 2, 3]),
    ] {
        let (reply, bytes) = offer(build);
        assert!(bytes.len() >= 300);
        assert_eq!(bytes[240..243], [53, 1, 2]);
        assert_eq!(reply.address_option(code::SERVER_ID), Some(SERVER));
        assert_eq!(reply.option(code::SUBNET_MASK), Some(&[255, 255, 255, 0][..]));
        assert_eq!(reply.option(code::ROUTER), None);
        let lease = reply.u32_option(code::LEASE_TIME).unwrap();
        assert_eq!((reply.u32_option(58), reply.u32_option(59)), (Some(lease / 2), Some(lease - lease / 8)));
    }
}

#[test]
fn bios_ipxe_gets_the_script_and_no_wait() {
    let (reply, _) = offer(fixtures::bios_ipxe(DISCOVER, MAC));
    assert_eq!(text(&reply, code::BOOT_FILE), Some("http://10.0.0.1/boot.ipxe"));
    assert_eq!(reply.file, b"http://10.0.0.1/boot.ipxe");
    assert_eq!(reply.option(code::IPXE), Some(&[0xb0, 1, 1][..]));
    assert_eq!(reply.siaddr, SERVER);
    assert_eq!(reply.option(code::CLIENT_ID), Some(&[&[1], &MAC[..]].concat()[..]), "RFC 6842");
    assert_eq!(reply.option(code::UUID), Some(&[0; 17][..]));
    assert_eq!(reply.option(code::VENDOR_CLASS), None);
    let (reply, _) = offer(fixtures::uefi_ipxe(DISCOVER, MAC));
    assert_eq!(text(&reply, code::BOOT_FILE), Some("http://10.0.0.1/boot.ipxe"));
    assert_eq!(reply.option(code::IPXE), Some(&[0xb0, 1, 1][..]));
}

#[test]
fn firmware_gets_its_loader_by_tftp_from_one_server_in_all_fields() {
    for (build, name) in [
        (fixtures::bios_pxe(DISCOVER, MAC), "undionly.kpxe"),
        (fixtures::uefi_pxe(DISCOVER, MAC), "snponly.efi"),
    ] {
        let (reply, bytes) = offer(build);
        assert_eq!(reply.file, name.as_bytes());
        assert_eq!(text(&reply, code::BOOT_FILE), Some(format!("{name}\0").as_str()), "ended as a C string");
        assert_eq!(reply.siaddr, SERVER);
        assert_eq!(text(&reply, TFTP_SERVER), Some("10.0.0.1"));
        assert_eq!(bytes[44..52], *b"10.0.0.1");
        assert_eq!(reply.option(code::VENDOR_CLASS), None, "it would send EDK2 to port 4011");
        assert_eq!(reply.option(code::IPXE), None);
    }
}

#[test]
fn uefi_http_gets_a_url_and_its_vendor_class() {
    let (reply, _) = offer(fixtures::uefi_http(DISCOVER, MAC));
    assert_eq!(text(&reply, code::BOOT_FILE), Some("http://10.0.0.1/snponly.efi"));
    assert_eq!(reply.file, b"http://10.0.0.1/snponly.efi");
    assert_eq!(reply.option(code::VENDOR_CLASS), Some(&b"HTTPClient"[..]));
    assert!(reply.wants_broadcast());
}

#[test]
fn a_raspberry_pi_gets_its_menu_and_no_padding_inside() {
    let (reply, bytes) = offer(fixtures::raspberry_pi(DISCOVER, [1, 2, 3]));
    assert_eq!(reply.option(code::VENDOR_CLASS), Some(&b"PXEClient"[..]));
    let menu = reply.option(code::VENDOR).unwrap();
    assert_eq!(menu.len(), 32);
    assert_eq!(menu[..11], [6, 1, 3, 10, 4, 0, b'P', b'X', b'E', 9, 20]);
    assert_eq!(menu[14..31], *b"Raspberry Pi Boot");
    assert_eq!(text(&reply, TFTP_SERVER), Some("10.0.0.1"));
    assert_eq!(reply.siaddr, SERVER);
    assert_eq!(reply.option(code::UUID).map(<[u8]>::len), Some(17));
    let mut at = 240;
    while bytes[at] != 255 {
        assert_ne!(bytes[at], 0);
        at += 2 + usize::from(bytes[at + 1]);
    }
    let ack = Bench::full().broadcast(super::bench::select(
        fixtures::raspberry_pi(REQUEST, [1, 2, 3]),
        Ipv4Addr::new(10, 0, 0, 120),
    ));
    assert!(ack.reply().option(code::VENDOR).is_some(), "its REQUEST names no vendor class");
}

#[test]
fn a_plain_client_gets_no_boot_file() {
    let (reply, _) = offer(fixtures::plain(DISCOVER, MAC));
    assert_eq!((reply.option(code::BOOT_FILE), reply.option(TFTP_SERVER)), (None, None));
    assert!(reply.file.is_empty() && reply.siaddr.is_unspecified());
    assert_eq!(reply.u32_option(code::LEASE_TIME), Some(3600));
}

#[test]
fn an_unknown_architecture_gets_an_address_only() {
    let (reply, _) = offer(Build::new(DISCOVER, MAC).option(code::ARCHITECTURE, &[0, 22]));
    assert!(!reply.yiaddr.is_unspecified());
    assert_eq!(reply.option(code::BOOT_FILE), None);
}

#[test]
fn asked_for_lease_times_are_honoured_within_bounds() {
    for (asked, given) in [(30_u32, 60_u32), (600, 600), (u32::MAX, 3600)] {
        let (reply, _) = offer(fixtures::plain(DISCOVER, MAC).option(code::LEASE_TIME, &asked.to_be_bytes()));
        assert_eq!(reply.u32_option(code::LEASE_TIME), Some(given));
    }
}

#[test]
fn the_clients_size_limit_is_respected() {
    let mut config = config(1);
    config.subnets[0].domain = Some("d".repeat(200));
    config.subnets[0].name_servers = (0..20).map(|n| Ipv4Addr::new(10, 0, 0, 200 + n)).collect();
    let length = |build: Build| Bench::new(config.clone()).broadcast(build).bytes().len();
    let client_id = [7; 60];
    let small = fixtures::uefi_http(DISCOVER, MAC).option(code::CLIENT_ID, &client_id);
    assert!(length(small.clone()) <= 548);
    assert!(length(small.option(code::MAX_SIZE, &1500_u16.to_be_bytes())) > 548);
}

#[test]
fn a_long_url_fits_the_option_if_not_the_field() {
    let mut config = config(1);
    let path = "a/".repeat(70);
    config
        .loaders
        .set(crate::dhcp::class::ClientClass::BiosIpxe, crate::dhcp::loader::Loader::Http(path.clone()));
    let done = Bench::new(config).broadcast(fixtures::bios_ipxe(DISCOVER, MAC));
    assert!(done.reply().file.is_empty());
    assert_eq!(text(done.reply(), code::BOOT_FILE), Some(format!("http://10.0.0.1/{path}").as_str()));
}

fn proxy(style: ProxyStyle) -> Bench {
    Bench::new(crate::dhcp::Config { mode: Mode::Proxy, proxy_style: style, ..config(1) })
}

#[test]
fn a_proxy_offers_the_file_and_no_address() {
    let mut bench = proxy(ProxyStyle::Bypass);
    for build in [fixtures::bios_ipxe(DISCOVER, MAC), fixtures::uefi_pxe(DISCOVER, MAC)] {
        let done = bench.broadcast(build);
        let reply = done.reply();
        assert_eq!(reply.message_type, MessageType::Offer);
        assert!(reply.yiaddr.is_unspecified());
        assert_eq!((reply.siaddr, reply.address_option(code::SERVER_ID)), (SERVER, Some(SERVER)));
        assert_eq!(reply.option(code::VENDOR_CLASS), Some(&b"PXEClient"[..]));
        assert_eq!(reply.option(code::VENDOR), Some(&[6, 1, 8, 255][..]));
        assert_eq!((reply.option(code::LEASE_TIME), reply.option(code::IPXE)), (None, None));
        assert!(!reply.file.is_empty());
        assert!(done.records.is_empty());
        assert_eq!(done.stages(), [Stage::Discover, Stage::ProxyOffer]);
    }
    let http = bench.broadcast(fixtures::uefi_http(DISCOVER, MAC));
    assert_eq!(http.reply().option(code::VENDOR_CLASS), Some(&b"HTTPClient"[..]));
    assert_eq!(http.reply().option(code::VENDOR), None);
}

#[test]
fn a_proxy_leaves_requests_and_plain_clients_to_the_site() {
    let mut bench = proxy(ProxyStyle::Bypass);
    assert!(bench.broadcast(fixtures::plain(DISCOVER, MAC)).is_silent());
    let site = Ipv4Addr::new(10, 0, 0, 254);
    let request = fixtures::uefi_pxe(REQUEST, MAC)
        .address(code::SERVER_ID, site)
        .address(code::REQUESTED_ADDRESS, site);
    assert!(bench.broadcast(request).is_silent());
    assert!(bench.broadcast(fixtures::uefi_pxe(REQUEST, MAC).ciaddr(site)).is_silent());
}

#[test]
fn port_4011_answers_the_sender_with_a_boot_file() {
    let address = Ipv4Addr::new(10, 0, 0, 130);
    let arrival = Arrival { source: SocketAddrV4::new(address, 4011), unicast: true, port: 4011 };
    let mut bench = proxy(ProxyStyle::Port4011);
    assert_eq!(bench.broadcast(fixtures::uefi_pxe(DISCOVER, MAC)).reply().option(code::VENDOR), None);
    let done = bench.arrive(fixtures::uefi_pxe(REQUEST, MAC).ciaddr(address), arrival);
    let reply = done.reply();
    assert_eq!(reply.message_type, MessageType::Ack);
    assert_eq!(done.to(), SocketAddrV4::new(address, 4011));
    assert_eq!(reply.file, b"snponly.efi");
    assert_eq!(reply.option(code::VENDOR_CLASS), Some(&b"PXEClient"[..]));
    assert_eq!(reply.option(code::UUID), Some(&[0; 17][..]));
    assert!(bench.arrive(fixtures::plain(REQUEST, MAC).ciaddr(address), arrival).is_silent());
    assert!(!bench.arrive(fixtures::uefi_pxe(INFORM, MAC).ciaddr(address), arrival).is_silent());
}

#[test]
fn off_means_silence() {
    let mut bench = Bench::new(crate::dhcp::Config { mode: Mode::Off, ..config(1) });
    let done = bench.broadcast(fixtures::bios_ipxe(DISCOVER, MAC));
    assert!(done.is_silent() && done.events.is_empty());
}
