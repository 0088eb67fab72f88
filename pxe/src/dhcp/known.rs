//! Clients that are known beforehand: how they are recognised, and what they are told.
//!
//! Owns the table from what a packet shows of its sender to a [`Reservation`]. Knows no packets and no leases.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::client::ClientKey;
use super::config::{ConfigError, LeaseTimes, Subnet};
use super::loader::LoaderTable;

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

/// What clients of a group, or one client, are told differently from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Loaders instead of [`Config::loaders`](super::Config::loaders), by class.
    pub loaders: LoaderTable,
    /// Options by code; they replace the subnet's of the same code.
    pub options: BTreeMap<u8, Vec<u8>>,
    /// Lease times instead of [`Config::times`](super::Config::times).
    pub times: Option<LeaseTimes>,
}

impl Default for Told {
    fn default() -> Self {
        Self { loaders: LoaderTable::empty(), options: BTreeMap::new(), times: None }
    }
}

/// A client that is known beforehand. Several may have one name: a machine with two interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The client.
    pub client: ClientMatch,
    /// The address that it always gets, inside a subnet, in or outside of the pool.
    pub address: Option<Ipv4Addr>,
    /// Its host name, told in option 12.
    pub name: Option<String>,
    /// What it is told differently.
    pub told: Told,
}

impl Reservation {
    /// A client that gets this address and nothing else of its own.
    #[must_use]
    pub fn of_address(client: impl Into<ClientMatch>, address: Ipv4Addr) -> Self {
        Self { client: client.into(), address: Some(address), name: None, told: Told::default() }
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

/// The known clients.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownClients {
    by_client: BTreeMap<ClientMatch, Reservation>,
    addresses: BTreeSet<Ipv4Addr>,
}

impl KnownClients {
    /// Checks reservations against the subnets that they belong to.
    pub(super) fn new(reservations: &[Reservation], subnets: &[Subnet]) -> Result<Self, ConfigError> {
        let mut known = Self::default();
        for reservation in reservations {
            known.add(reservation, subnets).map_err(|why| ConfigError::Reservation {
                client: reservation.client.clone(),
                address: reservation.address.unwrap_or(Ipv4Addr::UNSPECIFIED),
                why,
            })?;
        }
        Ok(known)
    }

    fn add(&mut self, reservation: &Reservation, subnets: &[Subnet]) -> Result<(), &'static str> {
        if let Some(address) = reservation.address {
            match subnets.iter().find(|subnet| subnet.network.contains(address)) {
                None => return Err("lies in no configured subnet"),
                Some(subnet) if subnet.is_infrastructure(address) => {
                    return Err("belongs to a router, a DNS server or the network itself");
                }
                Some(_) => {}
            }
            if !self.addresses.insert(address) {
                return Err("is reserved twice");
            }
        }
        let twice = Err("is the client's second reservation");
        if let ClientMatch::Machine(id) = reservation.client
            && id.swapped() != id
            && self.by_client.insert(ClientMatch::Machine(id.swapped()), reservation.clone()).is_some()
        {
            return twice;
        }
        match self.by_client.insert(reservation.client.clone(), reservation.clone()) {
            Some(_) => twice,
            None => Ok(()),
        }
    }

    /// The reservation of a client.
    pub(super) fn of(&self, who: &Who<'_>) -> Option<&Reservation> {
        if self.by_client.is_empty() {
            return None;
        }
        let by_key = self.by_client.get(&ClientMatch::Hardware(who.key));
        let by_id = || self.by_client.get(&ClientMatch::Id(who.id?.to_vec()));
        by_key.or_else(by_id).or_else(|| self.by_client.get(&ClientMatch::Machine(who.machine?)))
    }

    pub(super) fn is_reserved(&self, address: Ipv4Addr) -> bool {
        self.addresses.contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_read_printed_and_known_in_both_byte_orders() {
        let text = "00112233-4455-6677-8899-aabbccddeeff";
        let id: MachineId = text.parse().unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.swapped().to_string(), "33221100-5544-7766-8899-aabbccddeeff");
        assert_eq!(id.swapped().swapped(), id);
        for bad in ["", "0011", "00112233-4455-6677-8899-aabbccddeefg", &text.replace('-', "")] {
            assert!(bad.parse::<MachineId>().is_err(), "{bad}");
        }
        assert!("00000000-0000-0000-0000-000000000000".parse::<MachineId>().is_err());
        let option = [&[0][..], &id.0].concat();
        assert_eq!(MachineId::from_option(&option), Some(id));
        assert_eq!(MachineId::from_option(&[0; 17]), None);
        assert_eq!(MachineId::from_option(&id.0), None);

        let reserved = Reservation {
            client: ClientMatch::Machine(id),
            address: None,
            name: Some("n1".into()),
            told: Told::default(),
        };
        let known = KnownClients::new(std::slice::from_ref(&reserved), &[]).unwrap();
        for machine in [id, id.swapped()] {
            let who = Who { machine: Some(machine), ..Who::of_key(ClientKey::ethernet([2; 6])) };
            assert_eq!(known.of(&who), Some(&reserved));
        }
        let twin = Reservation { client: ClientMatch::Machine(id.swapped()), ..reserved.clone() };
        assert!(KnownClients::new(&[reserved, twin], &[]).is_err());
    }
}
