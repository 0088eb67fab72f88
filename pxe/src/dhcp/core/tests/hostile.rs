//! Whatever comes in: no panic, bounded memory, and others still boot.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use proptest::prelude::*;

use super::super::Arrival;
use super::bench::{Bench, MAC, drain, member};
use crate::dhcp::fixtures::{self, Build, DISCOVER};
use crate::dhcp::lease::LeaseRecord;

prop_compose! {
    fn any_packet()(
        kind in 0_u8..20, mac: [u8; 6], op in 0_u8..4, hlen in 0_u8..18,
        addresses in proptest::collection::vec(any::<[u8; 4]>(), 4..5),
        options in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..12)), 0..8),
        near: [bool; 4], cut in 0_usize..100,
    ) -> Vec<u8> {
        let mut build = Build::new(kind, mac).field(0, &[op]).field(2, &[hlen]);
        for (index, (address, near)) in addresses.iter().zip(near).enumerate() {
            let address = if near { [10, 0, 0, address[3]] } else { *address };
            build = build.field(12 + 4 * index, &address);
        }
        for (code, value) in options {
            build = build.option(code, &value);
        }
        let mut bytes = build.end();
        if cut > 90 {
            bytes.truncate(bytes.len() - (cut - 90));
        }
        bytes
    }
}

proptest! {
    #[test]
    fn any_sequence_of_packets_is_survived(
        packets in proptest::collection::vec((any_packet(), any::<bool>(), any::<bool>(), 0_u64..20_000), 1..60),
    ) {
        let mut bench = Bench::full();
        bench.core.set_members(bench.now, [member(2), member(3)]);
        for (bytes, unicast, boot_port, millis) in packets {
            bench.wait(Duration::from_millis(millis));
            let source = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 9), 68);
            let port = if boot_port { 4011 } else { 67 };
            bench.core.handle_packet(bench.now, &bytes, Arrival { source, unicast, port });
            let _ = bench.core.observe_reply(bench.now, &bytes);
            for (reply, _, _) in drain(&mut bench.core).sent {
                prop_assert_eq!(reply.op, 2);
            }
        }
    }

    #[test]
    fn any_records_are_survived(texts in proptest::collection::vec((any::<[u8; 4]>(), any::<u64>(), any::<u32>()), 0..50)) {
        let mut bench = Bench::full();
        let template = bench.broadcast(fixtures::plain(DISCOVER, MAC)).records[0];
        for (address, counter, remaining_ms) in texts {
            let record = LeaseRecord { address: address.into(), counter, since: counter, remaining_ms, ..template };
            bench.merge(&[record]);
        }
        // A later change still counts above all that was taken in.
        bench.lease(|kind| fixtures::plain(kind, [2, 0, 0, 0, 9, 9]));
    }
}

#[test]
fn a_flood_of_clients_locks_nobody_out() {
    let mut bench = Bench::full();
    for n in 0..20_000_u32 {
        let [_, a, b, c] = n.to_be_bytes();
        bench.broadcast(fixtures::plain(DISCOVER, [2, 0, 1, a, b, c]));
        if n % 1000 == 999 {
            bench.lease(|kind| fixtures::bios_ipxe(kind, [2, 0, 2, a, b, c]));
        }
    }
    assert_eq!(bench.core.counters().unanswered, 0);
    assert!(bench.core.leases().count() <= 8 * 254, "bounded by the subnet");
}

#[test]
fn standing_by_for_too_many_is_bounded_and_counted() {
    let mut bench = Bench::full();
    bench.core.set_members(bench.now, (2..20).map(member));
    for n in 0..10_000_u32 {
        let [_, a, b, c] = n.to_be_bytes();
        bench.broadcast(fixtures::plain(DISCOVER, [2, 0, 1, a, b, c]));
    }
    assert!(bench.core.counters().dropped_standbys > 1000);
}
