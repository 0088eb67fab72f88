//! Beside a site's own server.

use std::time::Duration;

use super::*;
use crate::dhcp::core::tests::bench::{drain, member};

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
fn d12_ipxe_finds_server_and_file_in_the_proxy_offer_of_either_style() {
    for style in [ProxyStyle::Bypass, ProxyStyle::Port4011] {
        let done = proxy(style).broadcast(fixtures::bios_ipxe(DISCOVER, MAC));
        assert_eq!(done.reply().siaddr, SERVER);
        assert!(!done.reply().file.is_empty() && done.reply().option(code::VENDOR).is_some());
    }
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
