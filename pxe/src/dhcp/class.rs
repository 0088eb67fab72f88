//! What kind of client sent a packet: decided once, then only looked up.
//!
//! Owns the reading of vendor class, user class, architecture and iPXE options. Never decides what to answer: that
//! is [`super::loader`]'s table and the core.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::client::ClientKey;
use super::identity::{MachineId, Who};
use super::packet::{Packet, code};

/// Client system architecture, option 93 (RFC 4578 §2.1, IANA "Processor Architecture Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Arch(pub u16);

impl Arch {
    /// x86 BIOS; also what every Raspberry Pi says.
    pub const BIOS: Self = Self(0);
    /// IA32 UEFI.
    pub const IA32: Self = Self(6);
    /// x86-64 UEFI.
    pub const X64: Self = Self(7);
    /// "EFI byte code", which x86-64 firmware says as well.
    pub const EBC: Self = Self(9);
    /// 32-bit ARM UEFI.
    pub const ARM32: Self = Self(10);
    /// 64-bit ARM UEFI.
    pub const ARM64: Self = Self(11);
    /// IA32 UEFI HTTP boot.
    pub const IA32_HTTP: Self = Self(15);
    /// x86-64 UEFI HTTP boot.
    pub const X64_HTTP: Self = Self(16);
    /// 64-bit ARM UEFI HTTP boot.
    pub const ARM64_HTTP: Self = Self(19);
    /// Raspberry Pi boot.
    pub const RASPBERRY_PI: Self = Self(41);

    /// One name for codes that mean the same machine: 9 is 7.
    #[must_use]
    pub const fn canonical(self) -> Self {
        match self {
            Self::EBC => Self::X64,
            other => other,
        }
    }

    const fn kind(self) -> ArchKind {
        match self.0 {
            0 => ArchKind::Bios,
            2 | 6..=11 | 25 | 27 | 29 | 33..=37 | 39 => ArchKind::Uefi,
            15..=20 | 26 | 28 | 30 | 38 | 40 => ArchKind::Http,
            41 => ArchKind::RaspberryPi,
            _ => ArchKind::Other,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ArchKind {
    Bios,
    Uefi,
    Http,
    RaspberryPi,
    Other,
}

/// The kind of client, which decides the loader and the shape of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientClass {
    /// A PXE ROM under BIOS that is not iPXE.
    BiosPxe,
    /// iPXE under BIOS: an option ROM, or ours, loaded a moment ago.
    BiosIpxe,
    /// UEFI firmware that loads by TFTP.
    UefiPxe {
        /// What it says it is.
        arch: Arch,
    },
    /// UEFI firmware that loads by HTTP.
    UefiHttp {
        /// What it says it is.
        arch: Arch,
    },
    /// iPXE under UEFI.
    UefiIpxe,
    /// A Raspberry Pi's boot ROM or EEPROM.
    RaspberryPi,
    /// A network booting client of an architecture that this table has no name for (U-Boot, OPAL, …).
    Other {
        /// What it says it is.
        arch: Arch,
    },
    /// No boot client: an operating system, or an appliance.
    Plain,
}

impl ClientClass {
    /// Whether this is a boot stage: short lease, boot file, and an answer to its router solicitations.
    #[must_use]
    pub fn boots(self) -> bool {
        self != Self::Plain
    }

    /// Whether this is iPXE.
    #[must_use]
    pub fn is_ipxe(self) -> bool {
        matches!(self, Self::BiosIpxe | Self::UefiIpxe)
    }
}

impl fmt::Display for ClientClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BiosPxe => f.write_str("bios-pxe"),
            Self::BiosIpxe => f.write_str("bios-ipxe"),
            Self::UefiPxe { arch } => write!(f, "uefi-pxe-{}", arch.0),
            Self::UefiHttp { arch } => write!(f, "uefi-http-{}", arch.0),
            Self::UefiIpxe => f.write_str("uefi-ipxe"),
            Self::RaspberryPi => f.write_str("raspberry-pi"),
            Self::Other { arch } => write!(f, "other-{}", arch.0),
            Self::Plain => f.write_str("plain"),
        }
    }
}

/// The text names no class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no class of clients: bios-pxe, bios-ipxe, uefi-ipxe, raspberry-pi, plain, or uefi-pxe-N, uefi-http-N and \
     other-N with the number of an architecture, as in uefi-pxe-7"
)]
pub struct BadClass(String);

impl FromStr for ClientClass {
    type Err = BadClass;

    /// Reads what [`ClientClass`]'s `Display` writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let arch = |number: &str| number.parse().map(Arch).map_err(|_| BadClass(text.to_owned()));
        Ok(match text {
            "bios-pxe" => Self::BiosPxe,
            "bios-ipxe" => Self::BiosIpxe,
            "uefi-ipxe" => Self::UefiIpxe,
            "raspberry-pi" => Self::RaspberryPi,
            "plain" => Self::Plain,
            _ => match text.rsplit_once('-') {
                Some(("uefi-pxe", number)) => Self::UefiPxe { arch: arch(number)? },
                Some(("uefi-http", number)) => Self::UefiHttp { arch: arch(number)? },
                Some(("other", number)) => Self::Other { arch: arch(number)? },
                _ => return Err(BadClass(text.to_owned())),
            },
        })
    }
}

impl Serialize for ClientClass {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One client as one packet shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Lease key.
    pub key: ClientKey,
    /// The client identifier that it sends, empty if none.
    pub id: Vec<u8>,
    /// The UUID of its machine, if it sends one that can be it.
    pub machine: Option<MachineId>,
    /// Its kind.
    pub class: ClientClass,
    /// All architectures it lists in option 93, in its order.
    pub archs: Vec<Arch>,
    /// What its iPXE can do, where it is one.
    pub ipxe: Option<IpxeFeatures>,
}

/// Features that iPXE lists in option 175: sub-options of length one (iPXE `src/include/ipxe/dhcp.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IpxeFeatures {
    /// Loads over HTTP (19).
    pub http: bool,
    /// Boots Linux kernels (24).
    pub bzimage: bool,
    /// Runs under UEFI (36).
    pub efi: bool,
}

impl Client {
    /// Classifies the sender of a packet; `None` if it names itself by neither hardware address nor client id.
    #[must_use]
    pub fn classify(packet: &Packet) -> Option<Self> {
        let key = ClientKey::new(packet.hardware_type, packet.chaddr())
            .or_else(|| ClientKey::from_client_id(packet.hardware_type, packet.option(code::CLIENT_ID)?))?;
        let archs = architectures(packet);
        let ipxe = ipxe_features(packet);
        let id = packet.option(code::CLIENT_ID).unwrap_or_default().to_vec();
        let machine = packet.option(code::UUID).and_then(MachineId::from_option);
        Some(Self { key, id, machine, class: classify(packet, &key, &archs, ipxe), archs, ipxe })
    }

    /// It as reservations know it.
    #[must_use]
    pub fn who(&self) -> Who<'_> {
        Who { key: self.key, id: (!self.id.is_empty()).then_some(&self.id), machine: self.machine }
    }
}

fn classify(packet: &Packet, key: &ClientKey, archs: &[Arch], ipxe: Option<IpxeFeatures>) -> ClientClass {
    let vendor_class = packet.option(code::VENDOR_CLASS).unwrap_or_default();
    let http_client = vendor_class.starts_with(b"HTTPClient");
    let pxe_client = vendor_class.starts_with(b"PXEClient");
    let boots = http_client || pxe_client || !archs.is_empty();
    // The first known code counts: firmware may list several.
    let arch = archs.iter().copied().find(|arch| arch.kind() != ArchKind::Other).or(archs.first().copied());

    if let Some(features) = ipxe {
        let uefi =
            features.efi || arch.is_some_and(|arch| matches!(arch.kind(), ArchKind::Uefi | ArchKind::Http));
        return if uefi { ClientClass::UefiIpxe } else { ClientClass::BiosIpxe };
    }
    // A Raspberry Pi's REQUEST carries no vendor class; its machine identifier still shows a boot ROM.
    if is_raspberry_pi(key) && (boots || packet.option(code::UUID).is_some()) {
        return ClientClass::RaspberryPi;
    }
    if !boots {
        return ClientClass::Plain;
    }
    let arch = arch.or_else(|| arch_of_vendor_class(vendor_class)).unwrap_or(Arch::BIOS);
    match arch.kind() {
        ArchKind::RaspberryPi => ClientClass::RaspberryPi,
        ArchKind::Http => ClientClass::UefiHttp { arch },
        _ if http_client => ClientClass::UefiHttp { arch },
        ArchKind::Bios => ClientClass::BiosPxe,
        ArchKind::Uefi => ClientClass::UefiPxe { arch: arch.canonical() },
        ArchKind::Other => ClientClass::Other { arch },
    }
}

/// Option 93 as the list it may be. 32 entries are more than there are known codes for one machine.
fn architectures(packet: &Packet) -> Vec<Arch> {
    let bytes = packet.option(code::ARCHITECTURE).unwrap_or_default();
    bytes.as_chunks::<2>().0.iter().take(32).map(|&pair| Arch(u16::from_be_bytes(pair))).collect()
}

/// `PXEClient:Arch:00007:UNDI:003000` (RFC 4578 does not say it, the PXE specification 2.1 §2.2.1 does).
fn arch_of_vendor_class(vendor_class: &[u8]) -> Option<Arch> {
    let text = std::str::from_utf8(vendor_class).ok()?;
    let mut parts = text.split(':').skip_while(|part| *part != "Arch");
    parts.nth(1)?.parse().ok().map(Arch)
}

/// Features of an iPXE client, `None` for others. Either the user class or option 175 tells: the vendor class never does.
fn ipxe_features(packet: &Packet) -> Option<IpxeFeatures> {
    let encapsulated = packet.option(code::IPXE);
    if encapsulated.is_none() && !is_ipxe_user_class(packet.option(code::USER_CLASS)?) {
        return None;
    }
    let mut features = IpxeFeatures::default();
    let mut rest = encapsulated.unwrap_or_default();
    while let [sub_option, length, tail @ ..] = rest {
        let Some((value, tail)) = tail.split_at_checked(usize::from(*length)) else { break };
        let on = value != [0];
        match sub_option {
            19 => features.http = on,
            24 => features.bzimage = on,
            36 => features.efi = on,
            _ => {}
        }
        rest = tail;
    }
    Some(features)
}

/// iPXE writes its user class without the length byte that RFC 3004 §4 asks for; both forms count.
fn is_ipxe_user_class(bytes: &[u8]) -> bool {
    bytes == b"iPXE" || bytes == b"\x04iPXE"
}

/// Address blocks of Raspberry Pi Ltd and the Foundation (IEEE MA-L).
const RASPBERRY_PI_OUIS: [[u8; 3]; 8] = [
    [0x28, 0xcd, 0xc1],
    [0x2c, 0xcf, 0x67],
    [0x3a, 0x35, 0x41],
    [0x88, 0xa2, 0x9e],
    [0xb8, 0x27, 0xeb],
    [0xd8, 0x3a, 0xdd],
    [0xdc, 0xa6, 0x32],
    [0xe4, 0x5f, 0x01],
];

fn is_raspberry_pi(key: &ClientKey) -> bool {
    key.mac().is_some_and(|[a, b, c, ..]| RASPBERRY_PI_OUIS.contains(&[a, b, c]))
}

#[cfg(test)]
mod tests;
