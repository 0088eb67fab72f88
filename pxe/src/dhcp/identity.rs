//! By what a client is recognised.

use std::fmt;
use std::str::FromStr;

use super::client::ClientKey;

/// The UUID of a machine (SMBIOS 3.6 §7.2.1) as it is written and printed: in network order.
///
/// On the wire (option 97, RFC 4578 §2.3) EDK2 sends the first three fields in little endian, as they lie in the SMBIOS table;
/// iPXE sends them in network order. A machine is known by either.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MachineId(pub [u8; 16]);

impl MachineId {
    /// It with the first three fields in the other byte order.
    #[must_use]
    pub fn swapped(self) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = self.0;
        let mut bytes = [d, c, b, a, f, e, h, g, 0, 0, 0, 0, 0, 0, 0, 0];
        for (to, from) in bytes.iter_mut().skip(8).zip(rest) {
            *to = from;
        }
        Self(bytes)
    }

    /// Whether it names no machine: firmware without one of its own sends nothing but zeros, or nothing but ones.
    #[must_use]
    pub fn is_blank(self) -> bool {
        self.0 == [0; 16] || self.0 == [0xff; 16]
    }

    /// Reads option 97: a type, which is 0, and the UUID.
    #[must_use]
    pub fn from_option(bytes: &[u8]) -> Option<Self> {
        let (0, uuid) = bytes.split_first().map(|(kind, rest)| (*kind, rest))? else { return None };
        Some(Self(uuid.try_into().ok()?)).filter(|id| !id.is_blank())
    }
}

/// The text is no UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID: write it as `dmidecode -s system-uuid` does, 4c4c4544-0042-4d10-8056-b4c04f4d3732")]
pub struct BadMachineId;

impl FromStr for MachineId {
    type Err = BadMachineId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lengths: Vec<_> = text.split('-').map(str::len).collect();
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        if lengths != [8, 4, 4, 4, 12] || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(BadMachineId);
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| BadMachineId)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| BadMachineId)?;
        }
        Ok(Self(bytes)).and_then(|id: Self| if id.is_blank() { Err(BadMachineId) } else { Ok(id) })
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a reservation knows its client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientMatch {
    /// By its hardware address.
    Hardware(ClientKey),
    /// By the client identifier that it sends (option 61), all bytes of it. A hardware address that matches goes first.
    Id(Vec<u8>),
    /// By the UUID of its machine (option 97), which firmware sends and operating systems do not; it goes last.
    Machine(MachineId),
}

impl From<ClientKey> for ClientMatch {
    fn from(key: ClientKey) -> Self {
        Self::Hardware(key)
    }
}

impl fmt::Display for ClientMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hardware(key) => fmt::Display::fmt(key, f),
            Self::Id(id) => {
                f.write_str("client id ")?;
                id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Machine(id) => write!(f, "machine {id}"),
        }
    }
}

/// A client as reservations know it.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// Its hardware address.
    pub key: ClientKey,
    /// The client identifier that it sends.
    pub id: Option<&'a [u8]>,
    /// The UUID of its machine.
    pub machine: Option<MachineId>,
}

impl Who<'_> {
    /// Who is known by nothing but the hardware address.
    #[must_use]
    pub fn of_key(key: ClientKey) -> Self {
        Self { key, id: None, machine: None }
    }
}
