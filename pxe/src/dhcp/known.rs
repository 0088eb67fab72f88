//! Clients that are known beforehand, and what they are told.
//!
//! Owns the table from what a packet shows of its sender to a [`Reservation`]. Knows no packets and no leases.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::config_error::ConfigError;
use super::identity::{ClientMatch, Who};
use super::lease::LeaseTimes;
use super::loader::LoaderTable;
use super::subnet::Subnet;

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
    use super::super::client::ClientKey;
    use super::super::identity::MachineId;
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
