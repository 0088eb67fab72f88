//! iPXE and HTTP clients: a whole URL, and no name server.

use std::time::Duration;

use super::*;
use crate::dhcp::class::Arch;
use crate::dhcp::client::ClientKey;
use crate::dhcp::config::Reservation;
use crate::dhcp::loader::Loader;

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
fn h7_an_offer_is_the_same_after_each_of_the_firmwares_pauses() {
    let mut bench = Bench::full();
    let first = bench.broadcast(fixtures::uefi_http(DISCOVER, MAC)).reply().yiaddr;
    for seconds in [4, 8, 16, 32] {
        bench.wait(Duration::from_secs(seconds));
        assert_eq!(bench.broadcast(fixtures::uefi_http(DISCOVER, MAC)).reply().yiaddr, first, "{seconds} s");
    }
}
