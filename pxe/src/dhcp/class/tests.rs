use proptest::prelude::*;

use super::super::fixtures::{self, Build, DISCOVER, REQUEST};
use super::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

fn classify(build: Build) -> Client {
    Client::classify(&Packet::parse(&build.end()).unwrap()).unwrap()
}

#[test]
fn captured_clients() {
    let x64 = ClientClass::UefiPxe { arch: Arch::X64 };
    let http = ClientClass::UefiHttp { arch: Arch::X64_HTTP };
    for kind in [DISCOVER, REQUEST] {
        for (build, class) in [
            (fixtures::bios_ipxe(kind, MAC), ClientClass::BiosIpxe),
            (fixtures::bios_pxe(kind, MAC), ClientClass::BiosPxe),
            (fixtures::uefi_pxe(kind, MAC), x64),
            (fixtures::uefi_ipxe(kind, MAC), ClientClass::UefiIpxe),
            (fixtures::uefi_http(kind, MAC), http),
            (fixtures::raspberry_pi(kind, [1, 2, 3]), ClientClass::RaspberryPi),
            (fixtures::plain(kind, MAC), ClientClass::Plain),
        ] {
            assert_eq!(classify(build).class, class);
        }
    }
}

#[test]
fn the_first_known_architecture_counts() {
    let client = classify(
        Build::new(DISCOVER, MAC)
            .option(code::VENDOR_CLASS, b"PXEClient:Arch:00009:UNDI:003000")
            .option(code::ARCHITECTURE, &[0x7f, 1, 0, 9, 0, 7]),
    );
    assert_eq!(client.class, ClientClass::UefiPxe { arch: Arch::X64 });
    assert_eq!(client.archs, [Arch(0x7f01), Arch(9), Arch(7)]);
}

#[test]
fn without_option_93_the_vendor_class_tells() {
    let client =
        classify(Build::new(DISCOVER, MAC).option(code::VENDOR_CLASS, b"PXEClient:Arch:00011:UNDI:003000"));
    assert_eq!(client.class, ClientClass::UefiPxe { arch: Arch::ARM64 });
    let client = classify(Build::new(DISCOVER, MAC).option(code::VENDOR_CLASS, b"PXEClient"));
    assert_eq!(client.class, ClientClass::BiosPxe);
}

#[test]
fn ipxe_shows_itself_by_user_class_or_features() {
    for user_class in [&b"iPXE"[..], b"\x04iPXE"] {
        assert_eq!(
            classify(Build::new(DISCOVER, MAC).option(code::USER_CLASS, user_class)).class,
            ClientClass::BiosIpxe
        );
    }
    let client = classify(Build::new(DISCOVER, MAC).option(code::IPXE, &[36, 1, 1, 19, 1, 1, 24, 9]));
    assert_eq!(client.class, ClientClass::UefiIpxe);
    assert_eq!(client.ipxe, Some(IpxeFeatures { http: true, bzimage: false, efi: true }));
    assert_eq!(
        classify(Build::new(DISCOVER, MAC).option(code::USER_CLASS, b"gpxe")).class,
        ClientClass::Plain
    );
}

#[test]
fn a_raspberry_pi_running_a_system_is_plain() {
    let mac = [0xdc, 0xa6, 0x32, 1, 2, 3];
    assert_eq!(classify(fixtures::plain(DISCOVER, mac)).class, ClientClass::Plain);
}

#[test]
fn the_key_is_the_hardware_address_or_else_the_client_id() {
    let infiniband = Build::new(DISCOVER, [0; 6]).hardware(32, 0).option(code::CLIENT_ID, b"\xff\x01guid");
    let packet = Packet::parse(&infiniband.end()).unwrap();
    assert_eq!(
        Client::classify(&packet).unwrap().key,
        ClientKey::from_client_id(32, b"\xff\x01guid").unwrap()
    );
    let long = Build::new(DISCOVER, MAC).hardware(32, 8).end();
    assert_eq!(Client::classify(&Packet::parse(&long).unwrap()).unwrap().key.address().len(), 8);
    let nobody = Build::new(DISCOVER, MAC).hardware(1, 0).end();
    assert_eq!(Client::classify(&Packet::parse(&nobody).unwrap()), None);
}

proptest! {
    #[test]
    fn any_options_are_survived(options in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut bytes = Build::new(DISCOVER, MAC).end();
        bytes.pop();
        bytes.extend_from_slice(&options);
        let client = Client::classify(&Packet::parse(&bytes).unwrap());
        prop_assert!(client.is_some());
    }
}
