//! What an operator says of machines: subnets and pools, groups and nodes, what each is told. `docs/dhcp.md` describes the file.
//!
//! Owns the reading and checking of the text ([`Machines::read`]) and what it means for DHCP and for the boot script. How the
//! text travels is the business of [`fabric::trust::encode_machines`] and the node.

mod check;
mod file;
mod options;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use fabric::trust::Settings;
use pxe::dhcp::config::{ClientMatch, LeaseTimes, MachineId, Reservation};
use pxe::dhcp::loader::LoaderTable;
use pxe::dhcp::packet::code;
use pxe::dhcp::{ClientKey, Config, Network, Subnet};

/// Something in the file that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Line in the file, from 1.
    pub(crate) line: usize,
    /// Where in the file: `node.n1.address`.
    pub(crate) field: String,
    /// What is wrong, and what to do.
    pub(crate) why: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, field, why } = self;
        if field.is_empty() {
            write!(f, "line {line}: {why}")
        } else {
            write!(f, "line {line}: {field}: {why}")
        }
    }
}

/// All that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if n == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A checked file.
#[derive(Debug, Clone)]
pub(crate) struct Machines {
    strangers: bool,
    /// The subnet of the nodes.
    link: Subnet,
    /// Those behind relays.
    relayed: Vec<Subnet>,
    reservations: Vec<Reservation>,
    loaders: LoaderTable,
    times: LeaseTimes,
    /// Further kernel arguments of machines that are not named.
    kernel_args: String,
    /// All further kernel arguments of each node, by its name.
    node_args: BTreeMap<String, String>,
    /// The names of nodes, by what they are known by.
    names: BTreeMap<ClientMatch, String>,
}

/// The fabric's own subnet and its pool.
fn own_subnet(settings: &Settings) -> Result<Subnet, pxe::dhcp::config::ConfigError> {
    let network = Network::new(settings.subnet.network, settings.subnet.prefix)?;
    Ok(Subnet { ranges: vec![(settings.pool_first, settings.pool_last)], ..Subnet::whole(network) })
}

fn times(settings: &Settings) -> LeaseTimes {
    LeaseTimes {
        boot: Duration::from_secs(settings.boot_lease_s.into()),
        plain: Duration::from_secs(settings.lease_s.into()),
        ..LeaseTimes::default()
    }
}

impl Machines {
    /// What holds where nobody says anything of machines.
    ///
    /// # Errors
    /// If the settings' subnet is none.
    pub(crate) fn none(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self {
            strangers: true,
            link: own_subnet(settings)?,
            relayed: Vec::new(),
            reservations: Vec::new(),
            loaders: LoaderTable::default(),
            times: times(settings),
            kernel_args: String::new(),
            node_args: BTreeMap::new(),
            names: BTreeMap::new(),
        })
    }

    /// What a node obeys that cannot read what is said: it answers no machine that it does not know already.
    ///
    /// # Errors
    /// If the settings' subnet is none.
    pub(crate) fn left_to_others(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self { strangers: false, ..Self::none(settings)? })
    }

    /// Reads and checks a file for the fabric with these settings.
    ///
    /// # Errors
    /// [`Problems`], each with its line and field.
    pub(crate) fn read(text: &str, settings: &Settings) -> anyhow::Result<Self> {
        Ok(check::Checker::new(text).check(Self::none(settings)?)?)
    }

    /// The configuration of a node's DHCP service.
    pub(crate) fn dhcp(&self, server: Ipv4Addr, own: ClientKey) -> Config {
        let mut config = Config::new(server, own, self.link.clone());
        config.subnets.extend(self.relayed.iter().cloned());
        config.reservations.clone_from(&self.reservations);
        config.loaders = self.loaders.clone();
        config.times = self.times;
        config.strangers = self.strangers;
        config
    }

    /// The subnet of the nodes.
    pub(crate) fn link(&self) -> &Subnet {
        &self.link
    }

    /// The prefix length of the subnet that holds `address`, the link's if none does.
    pub(crate) fn prefix_of(&self, address: Ipv4Addr) -> u8 {
        self.subnet_of(address).unwrap_or(&self.link).network.prefix()
    }

    /// The router that DHCP names first to the machine at `address`, which may be a node with a name: what is said to
    /// it alone, else what is said to its subnet. `None` if nothing is, or the subnet is unknown.
    pub(crate) fn gateway_of(&self, address: Ipv4Addr, name: Option<&str>) -> Option<Ipv4Addr> {
        let subnet = self.subnet_of(address)?;
        let of_node =
            self.reservations.iter().filter(|known| name.is_some() && known.name.as_deref() == name);
        let own = of_node.filter_map(|known| known.told.options.get(&code::ROUTER)).next();
        let said = own.or_else(|| subnet.options.get(&code::ROUTER));
        let first = |option: &Vec<u8>| option.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets));
        match (own, subnet.routers.first()) {
            (None, Some(router)) => Some(*router),
            _ => said.and_then(first),
        }
    }

    fn subnet_of(&self, address: Ipv4Addr) -> Option<&Subnet> {
        std::iter::once(&self.link).chain(&self.relayed).find(|subnet| subnet.network.contains(address))
    }

    /// Whether machines differ in their kernel arguments.
    pub(crate) fn tells_machines_apart(&self) -> bool {
        !self.node_args.is_empty()
    }

    /// The name of the node that has this hardware address or UUID.
    pub(crate) fn name_of(&self, mac: Option<ClientKey>, uuid: Option<MachineId>) -> Option<&str> {
        let by = |client: ClientMatch| self.names.get(&client).map(String::as_str);
        mac.and_then(|mac| by(ClientMatch::Hardware(mac)))
            .or_else(|| uuid.and_then(|uuid| by(ClientMatch::Machine(uuid))))
            .or_else(|| uuid.and_then(|uuid| by(ClientMatch::Machine(uuid.swapped()))))
    }

    /// The kernel arguments of a node, or of one that is not named, beside the release's.
    pub(crate) fn kernel_args(&self, name: Option<&str>) -> &str {
        name.and_then(|name| self.node_args.get(name)).unwrap_or(&self.kernel_args)
    }

    /// How many nodes are named.
    pub(crate) fn len(&self) -> usize {
        self.node_args.len()
    }
}

#[cfg(test)]
mod tests;
