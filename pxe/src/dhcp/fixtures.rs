//! Packets of real clients for tests, written after captures (see the firmware notes in the documentation).

use std::net::Ipv4Addr;

use super::packet::{HEADER, code};

/// Message types (RFC 2132 §9.6).
pub(super) const DISCOVER: u8 = 1;
pub(super) const OFFER: u8 = 2;
pub(super) const REQUEST: u8 = 3;
pub(super) const DECLINE: u8 = 4;
pub(super) const RELEASE: u8 = 7;
pub(super) const INFORM: u8 = 8;

/// A packet being written.
#[derive(Debug, Clone)]
pub(super) struct Build(Vec<u8>);

impl Build {
    /// A packet of an Ethernet client, with a transaction id made from the last bytes of its address.
    pub(super) fn new(kind: u8, mac: [u8; 6]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
        bytes[28..34].copy_from_slice(&mac);
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        Self(bytes).option(code::MESSAGE_TYPE, &[kind]).xid(u32::from_be_bytes([1, mac[3], mac[4], mac[5]]))
    }

    pub(super) fn option(mut self, code: u8, value: &[u8]) -> Self {
        self.0.extend_from_slice(&[code, u8::try_from(value.len()).unwrap()]);
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn address(self, code: u8, address: Ipv4Addr) -> Self {
        self.option(code, &address.octets())
    }

    pub(super) fn xid(self, xid: u32) -> Self {
        self.field(4, &xid.to_be_bytes())
    }

    pub(super) fn broadcast(self) -> Self {
        self.field(10, &[0x80, 0])
    }

    pub(super) fn ciaddr(self, address: Ipv4Addr) -> Self {
        self.field(12, &address.octets())
    }

    pub(super) fn giaddr(self, address: Ipv4Addr) -> Self {
        self.field(24, &address.octets())
    }

    pub(super) fn hardware(self, hardware_type: u8, length: u8) -> Self {
        self.field(1, &[hardware_type, length])
    }

    pub(super) fn field(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.push(255);
        self.0
    }
}

/// SeaBIOS with QEMU's iPXE ROM.
pub(super) fn bios_ipxe(kind: u8, mac: [u8; 6]) -> Build {
    let client_id = [&[1], &mac[..]].concat();
    Build::new(kind, mac)
        .option(code::MAX_SIZE, &1472_u16.to_be_bytes())
        .option(code::ARCHITECTURE, &[0, 0])
        .option(94, &[1, 2, 1])
        .option(code::VENDOR_CLASS, b"PXEClient:Arch:00000:UNDI:002001")
        .option(code::USER_CLASS, b"iPXE")
        .option(code::PARAMETER_LIST, &[1, 3, 6, 7, 12, 15, 17, 26, 43, 60, 66, 67, 119, 175, 203])
        .option(code::IPXE, &[177, 5, 1, 26, 244, 16, 0, 24, 1, 1, 19, 1, 1, 33, 1, 1])
        .option(code::CLIENT_ID, &client_id)
        .option(code::UUID, &[0; 17])
}

/// A vendor's PXE ROM under BIOS.
pub(super) fn bios_pxe(kind: u8, mac: [u8; 6]) -> Build {
    Build::new(kind, mac)
        .option(code::MAX_SIZE, &1472_u16.to_be_bytes())
        .option(code::ARCHITECTURE, &[0, 0])
        .option(94, &[1, 2, 1])
        .option(code::VENDOR_CLASS, b"PXEClient:Arch:00000:UNDI:002001")
        .option(code::UUID, &[0; 17])
}

/// OVMF, PXE over IPv4.
pub(super) fn uefi_pxe(kind: u8, mac: [u8; 6]) -> Build {
    Build::new(kind, mac)
        .broadcast()
        .option(code::MAX_SIZE, &65280_u16.to_be_bytes())
        .option(code::UUID, &[0; 17])
        .option(94, &[1, 3, 0])
        .option(code::ARCHITECTURE, &[0, 7])
        .option(code::VENDOR_CLASS, b"PXEClient:Arch:00007:UNDI:003000")
}

/// iPXE's `snponly.efi`.
pub(super) fn uefi_ipxe(kind: u8, mac: [u8; 6]) -> Build {
    Build::new(kind, mac)
        .option(code::ARCHITECTURE, &[0, 7])
        .option(94, &[1, 3, 10])
        .option(code::VENDOR_CLASS, b"PXEClient:Arch:00007:UNDI:003010")
        .option(code::USER_CLASS, b"iPXE")
        .option(code::IPXE, &[19, 1, 1, 36, 1, 1])
}

/// OVMF, HTTP boot over IPv4.
pub(super) fn uefi_http(kind: u8, mac: [u8; 6]) -> Build {
    Build::new(kind, mac)
        .broadcast()
        .option(code::UUID, &[0; 17])
        .option(94, &[1, 3, 0])
        .option(code::ARCHITECTURE, &[0, 16])
        .option(code::VENDOR_CLASS, b"HTTPClient:Arch:00016:UNDI:003000")
}

/// A Raspberry Pi 4's EEPROM boot loader: says BIOS, repeats its serial number in the machine id.
pub(super) fn raspberry_pi(kind: u8, tail: [u8; 3]) -> Build {
    let mac = [0xdc, 0xa6, 0x32, tail[0], tail[1], tail[2]];
    let build =
        Build::new(kind, mac).option(code::UUID, &[&[0][..], &[0xd1, 0x2b, 0x31, 0x40].repeat(4)].concat());
    if kind == REQUEST {
        return build;
    }
    build
        .option(code::ARCHITECTURE, &[0, 0])
        .option(94, &[1, 2, 1])
        .option(code::VENDOR_CLASS, b"PXEClient:Arch:00000:UNDI:002001")
}

/// An operating system's client.
pub(super) fn plain(kind: u8, mac: [u8; 6]) -> Build {
    Build::new(kind, mac)
        .option(code::VENDOR_CLASS, b"udhcp 1.35.0")
        .option(code::CLIENT_ID, &[&[255, 0, 0, 0, 1, 0, 3, 0, 1], &mac[..]].concat())
}
