//! Who a client is: its hardware address.
//!
//! A machine shows up under several client identifiers in one boot (firmware, iPXE, installer, system), and its UUID
//! is zero, repeated or missing on real hardware. The hardware address is the one name that all stages share, so it
//! is the lease key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// ARP hardware type of Ethernet (RFC 1700).
pub const ETHERNET: u8 = 1;
/// ARP hardware type of `InfiniBand` (RFC 4391).
pub const INFINIBAND: u8 = 32;
/// The `chaddr` field holds 16 bytes (RFC 2131 §2).
pub const MAX_HARDWARE_ADDRESS: usize = 16;

/// Hardware type and address of a client: the key of its lease, its bucket and its rank list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct ClientKey {
    hardware_type: u8,
    length: u8,
    address: [u8; MAX_HARDWARE_ADDRESS],
}

/// How a key is written in records: nothing that a peer sends can break the length's invariant.
#[derive(Serialize, Deserialize)]
struct Wire(u8, Vec<u8>);

impl ClientKey {
    /// Below every key that a client can have: the start of a range over keys.
    pub(super) const LOWEST: Self = Self { hardware_type: 0, length: 0, address: [0; MAX_HARDWARE_ADDRESS] };

    /// A key from the header's `htype`, `hlen` and `chaddr`; `None` if the address is empty or longer than 16 bytes.
    #[must_use]
    pub fn new(hardware_type: u8, address: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_HARDWARE_ADDRESS];
        bytes.get_mut(..address.len())?.copy_from_slice(address);
        let length = u8::try_from(address.len()).ok().filter(|&length| length > 0)?;
        Some(Self { hardware_type, length, address: bytes })
    }

    /// The key of an Ethernet interface.
    #[must_use]
    pub fn ethernet(mac: [u8; 6]) -> Self {
        let mut address = [0; MAX_HARDWARE_ADDRESS];
        for (to, from) in address.iter_mut().zip(mac) {
            *to = from;
        }
        Self { hardware_type: ETHERNET, length: 6, address }
    }

    /// The key of a client that sends no hardware address, only a client identifier, as IP over `InfiniBand` does
    /// (RFC 4390 §2.1): a digest of the identifier stands for the address. `None` if the identifier is empty.
    #[must_use]
    pub fn from_client_id(hardware_type: u8, client_id: &[u8]) -> Option<Self> {
        if client_id.is_empty() {
            return None;
        }
        let digest = blake3::hash(client_id);
        Self::new(hardware_type, digest.as_bytes().get(..MAX_HARDWARE_ADDRESS)?)
    }

    /// ARP hardware type.
    #[must_use]
    pub fn hardware_type(&self) -> u8 {
        self.hardware_type
    }

    /// The hardware address, 1 to 16 bytes.
    #[must_use]
    pub fn address(&self) -> &[u8] {
        self.address.get(..usize::from(self.length)).unwrap_or(&self.address)
    }

    /// The address of an Ethernet client.
    #[must_use]
    pub fn mac(&self) -> Option<[u8; 6]> {
        if self.hardware_type == ETHERNET { self.address().try_into().ok() } else { None }
    }
}

impl TryFrom<Wire> for ClientKey {
    type Error = BadHardwareAddress;

    fn try_from(Wire(hardware_type, address): Wire) -> Result<Self, Self::Error> {
        Self::new(hardware_type, &address).ok_or(BadHardwareAddress)
    }
}

impl From<ClientKey> for Wire {
    fn from(key: ClientKey) -> Self {
        Self(key.hardware_type, key.address().to_vec())
    }
}

/// The text or bytes are no hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a hardware address: write 1 to 16 bytes in hexadecimal, joined by colons, as in 52:54:00:12:34:56"
)]
pub struct BadHardwareAddress;

impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hardware_type != ETHERNET {
            write!(f, "{}/", self.hardware_type)?;
        }
        for (index, byte) in self.address().iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClientKey {
    type Err = BadHardwareAddress;

    /// Reads `52:54:00:12:34:56`, dashes instead of colons, and `32/…` for another hardware type than Ethernet.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (hardware_type, address) = match text.split_once('/') {
            Some((hardware_type, address)) => {
                (hardware_type.parse().map_err(|_| BadHardwareAddress)?, address)
            }
            None => (ETHERNET, text),
        };
        let bytes = address
            .split([':', '-'])
            .map(|part| u8::from_str_radix(part, 16).map_err(|_| BadHardwareAddress))
            .collect::<Result<Vec<_>, _>>()?;
        Self::new(hardware_type, &bytes).ok_or(BadHardwareAddress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip() {
        for text in ["52:54:00:12:34:56", "32/00:01:02:03:04:05:06:07"] {
            assert_eq!(text.parse::<ClientKey>().unwrap().to_string(), text);
        }
        let seventeen = ["00"; 17].join(":");
        for bad in ["", "52:54:00:12:34:5g", "x/01", seventeen.as_str()] {
            assert!(bad.parse::<ClientKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn records_cannot_carry_a_bad_length() {
        let key = ClientKey::ethernet([1, 2, 3, 4, 5, 6]);
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<ClientKey>(&json).unwrap(), key);
        assert!(serde_json::from_str::<ClientKey>("[1,[]]").is_err());
        assert!(serde_json::from_str::<ClientKey>("[1,[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]]").is_err());
    }
}
