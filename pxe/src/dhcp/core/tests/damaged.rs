//! Sequences of damaged packets of real clients: each is understood or refused, none panics, and the next client gets its lease.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use super::super::Arrival;
use super::bench::{Bench, drain, select};
use crate::damage::{Random, damaged};
use crate::dhcp::fixtures::{self, Build, DECLINE, DISCOVER, INFORM, RELEASE, REQUEST};
use crate::dhcp::packet::Packet;

/// What firmware, loaders and systems send in every state.
fn corpus() -> Vec<Vec<u8>> {
    let mac = |last| [2, 0, 0, 1, 0, last];
    let clients: [fn(u8, [u8; 6]) -> Build; 6] = [
        fixtures::bios_ipxe,
        fixtures::bios_pxe,
        fixtures::uefi_pxe,
        fixtures::uefi_ipxe,
        fixtures::uefi_http,
        fixtures::plain,
    ];
    let address = Ipv4Addr::new(10, 0, 0, 110);
    let mut packets = Vec::new();
    for (client, last) in clients.iter().zip(0..) {
        packets.push(client(DISCOVER, mac(last)).end());
        packets.push(
            client(DISCOVER, mac(last)).giaddr(Ipv4Addr::new(10, 0, 0, 9)).option(82, &[1, 2, 3, 4]).end(),
        );
        packets.push(select(client(REQUEST, mac(last)), address).end());
        for kind in [REQUEST, INFORM, RELEASE, DECLINE] {
            packets.push(client(kind, mac(last)).ciaddr(address).end());
        }
    }
    packets.extend([DISCOVER, REQUEST].map(|kind| fixtures::raspberry_pi(kind, [1, 2, 3]).end()));
    packets
}

fn survive(sequences: u64) {
    let corpus = corpus();
    let (mut understood, mut answered) = (0, 0);
    for seed in 1..=sequences {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bench = Bench::full();
        for _ in 0..40 {
            let [entry, other] = [(); 2].map(|()| &corpus[random.below(corpus.len())]);
            let bytes = damaged(entry, other, &mut random);
            understood += u64::from(Packet::parse(&bytes).is_ok());
            let source = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 110), 68);
            let port = if random.below(8) == 0 { 4011 } else { 67 };
            let arrival = Arrival { source, unicast: random.below(4) == 0, port };
            bench.core.handle_packet(bench.now, &bytes, arrival);
            for (reply, _, _) in drain(&mut bench.core).sent {
                assert_eq!(reply.op, 2, "seed {seed}");
                answered += 1;
            }
            bench.wait(Duration::from_millis(random.below(3000) as u64));
        }
        bench.lease(|kind| fixtures::bios_ipxe(kind, [2, 0, 0, 9, 9, 9]));
    }
    assert!(
        understood > sequences * 10 && answered > sequences,
        "{understood} understood, {answered} answered"
    );
}

#[test]
fn damaged_packets_lock_nobody_out() {
    survive(2000);
}

#[test]
#[ignore = "soak: eight million packets take half a minute"]
fn soak_damaged_packets_lock_nobody_out() {
    survive(200_000);
}
