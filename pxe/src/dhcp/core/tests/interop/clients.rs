//! Who asks: architectures, identities, addresses that stay.

use std::time::Duration;

use super::*;
use crate::dhcp::class::Arch;
use crate::dhcp::client::{ClientKey, INFINIBAND};
use crate::dhcp::config::{ClientMatch, Reservation, Told};
use crate::dhcp::core::tests::bench::drain;

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
fn e2_arp_makes_nobody_known() {
    let mut bench = Bench::new(Config { strangers: false, ..config(1) });
    bench.core.address_taken(bench.now, AT, Some(ClientKey::ethernet(MAC)));
    drain(&mut bench.core);
    assert!(bench.broadcast(fixtures::plain(DISCOVER, MAC)).is_silent(), "a stranger as before");
    assert_eq!(bench.core.client_at(bench.now, AT), None);
}
