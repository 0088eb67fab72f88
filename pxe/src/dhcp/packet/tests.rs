use proptest::prelude::*;

use super::super::fixtures::{Build, DISCOVER};
use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

#[test]
fn header_and_options() {
    let address = Ipv4Addr::new(10, 0, 0, 5);
    let bytes =
        Build::new(DISCOVER, MAC).broadcast().ciaddr(address).address(code::REQUESTED_ADDRESS, address).end();
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!((packet.op, packet.hardware_type, packet.xid), (1, 1, 0x0100_0001));
    assert_eq!(packet.chaddr(), MAC);
    assert_eq!(packet.ciaddr, address);
    assert!(packet.wants_broadcast());
    assert_eq!(packet.address_option(code::REQUESTED_ADDRESS), Some(address));
    assert_eq!(packet.message_type, MessageType::Discover);
}

#[test]
fn what_is_no_dhcp_is_named() {
    let good = Build::new(DISCOVER, MAC).end();
    assert_eq!(Packet::parse(&good[..239]), Err(PacketError::Short(239)));
    assert_eq!(Packet::parse(&vec![0; MAX_PACKET + 1]), Err(PacketError::Long(MAX_PACKET + 1)));
    let bad = |at, value: u8| Build::new(DISCOVER, MAC).field(at, &[value]).end();
    assert_eq!(Packet::parse(&bad(236, 0)), Err(PacketError::NoCookie));
    assert_eq!(Packet::parse(&bad(2, 17)), Err(PacketError::HardwareAddress(17)));
    assert_eq!(Packet::parse(&bad(2, 255)), Err(PacketError::HardwareAddress(255)));
    assert_eq!(Packet::parse(&good[..HEADER]), Err(PacketError::NoMessageType));
}

#[test]
fn a_broken_option_costs_only_itself() {
    // A list of architectures, and a rapid commit with content, both of which the typed codec cannot read.
    let mut bytes = Build::new(DISCOVER, MAC)
        .option(code::ARCHITECTURE, &[0, 9, 0, 7])
        .option(80, &[1])
        .option(code::VENDOR_CLASS, b"PXEClient")
        .end();
    bytes.pop();
    bytes.extend_from_slice(&[code::UUID, 17, 0]);
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.option(code::ARCHITECTURE), Some(&[0, 9, 0, 7][..]));
    assert_eq!(packet.option(code::VENDOR_CLASS), Some(&b"PXEClient"[..]));
    assert_eq!(packet.option(code::UUID), None);
}

#[test]
fn parts_of_an_option_are_joined_wherever_they_are() {
    let bytes = Build::new(DISCOVER, MAC)
        .option(code::USER_CLASS, b"iP")
        .option(code::OVERLOAD, &[3])
        .field(108, &[code::USER_CLASS, 1, b'X', 255])
        .field(44, &[code::USER_CLASS, 1, b'E', 255])
        .end();
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.option(code::USER_CLASS), Some(&b"iPXE"[..]));
    assert!(packet.file.is_empty(), "an overloaded file field is no name");
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
        let _ = Packet::parse(&bytes);
    }

    #[test]
    fn any_options_are_survived(
        hlen: u8,
        options in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut bytes = Build::new(DISCOVER, MAC).field(2, &[hlen]).end();
        bytes.pop();
        bytes.extend_from_slice(&options);
        prop_assert_eq!(Packet::parse(&bytes).is_ok(), hlen <= 16 && Packet::parse(&bytes).is_ok());
    }
}
