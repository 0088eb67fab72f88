//! What an operator sets, and what it means once checked.
//!
//! [`Config`] is what was written; [`Settings`] is made from it once and is what the core reads. Knows no packets.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::client::ClientKey;
pub use super::config_error::ConfigError;
pub use super::identity::{BadMachineId, ClientMatch, MachineId, Who};
use super::known::KnownClients;
pub use super::known::{Reservation, Told};
pub use super::lease::LeaseTimes;
use super::loader::LoaderTable;
use super::pool::Pool;
use super::probe::FabricId;
pub use super::subnet::{Network, Subnet};

/// How this node takes part in DHCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Gives addresses and boot files: there is no other DHCP server.
    #[default]
    Full,
    /// Full until a site's DHCP server is found on the link, at the start or later; from then on a proxy. A proxy from the
    /// start if this node's own address lies outside of the link's subnet.
    Auto,
    /// Gives boot files only, next to a site's DHCP server (PXE 2.1 §2.2, ports 67 and 4011).
    Proxy,
    /// Answers nobody; still keeps the replicated leases.
    Off,
}

/// How a proxy offer reaches the boot file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyStyle {
    /// Option 43 says "take the file from this offer": one round, works with iPXE and EDK2.
    #[default]
    Bypass,
    /// No option 43: the firmware asks port 4011. Some vendors' UEFI wants it.
    Port4011,
}

/// Default of [`Config::step`]: above the time a reply takes over a busy link and through a busy node, and several
/// of them fit before a client's first retry after 1 s (udhcpc) to 4 s (firmware).
pub const STEP: Duration = Duration::from_millis(60);

/// Everything the core is told once.
#[derive(Debug, Clone)]
pub struct Config {
    /// How this node takes part.
    pub mode: Mode,
    /// This node's address on the link: server identifier, TFTP and HTTP server.
    pub server: Ipv4Addr,
    /// Hardware address of the interface that holds it.
    pub own: ClientKey,
    /// Port of this node's HTTP service.
    pub http_port: u16,
    /// The link's own subnet first, then those that relays serve.
    pub subnets: Vec<Subnet>,
    /// Clients with fixed addresses.
    pub reservations: Vec<Reservation>,
    /// What each class loads.
    pub loaders: LoaderTable,
    /// Lease times.
    pub times: LeaseTimes,
    /// How long each standby rank waits for the rank before it.
    pub step: Duration,
    /// How proxy offers are written.
    pub proxy_style: ProxyStyle,
    /// The fabric of this node: told apart from another one on the same link.
    pub fabric: FabricId,
    /// Whether clients are answered of which nothing is known: no reservation, no lease. Of two fabrics on one link one should.
    pub strangers: bool,
    /// Whether the link is asked for addresses in foreign use.
    pub sweep: bool,
}

impl Config {
    /// A full server on one subnet with everything else at its default.
    #[must_use]
    pub fn new(server: Ipv4Addr, own: ClientKey, subnet: Subnet) -> Self {
        Self {
            mode: Mode::Full,
            server,
            own,
            http_port: 80,
            subnets: vec![subnet],
            reservations: Vec::new(),
            loaders: LoaderTable::default(),
            times: LeaseTimes::default(),
            step: STEP,
            proxy_style: ProxyStyle::default(),
            fabric: FabricId::default(),
            strangers: true,
            sweep: true,
        }
    }
}

/// A subnet with its pool.
#[derive(Debug, Clone)]
pub struct Served {
    /// What was configured.
    pub subnet: Subnet,
    /// The addresses for clients.
    pub pool: Pool,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) config: Config,
    pub(super) subnets: Vec<Served>,
    /// This node's address as text, for `sname` and option 66.
    pub(super) server_name: String,
    known: KnownClients,
}

impl Settings {
    /// Checks a configuration.
    ///
    /// # Errors
    /// [`ConfigError`] names what to change.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let subnets: Vec<_> =
            config.subnets.iter().map(|s| Served { subnet: s.clone(), pool: Pool::new(s) }).collect();
        let link = config.subnets.first().ok_or(ConfigError::NoSubnet)?;
        if config.mode == Mode::Full && !link.network.contains(config.server) {
            let (address, prefix) = (link.network.address(), link.network.prefix());
            return Err(ConfigError::ServerOutside { server: config.server, address, prefix });
        }
        if let Some(empty) = subnets.iter().find(|served| served.pool.size() == 0) {
            return Err(ConfigError::EmptyPool(empty.subnet.network.address()));
        }
        check_overlap(&config.subnets)?;
        let known = KnownClients::new(&config.reservations, &config.subnets)?;
        let server_name = config.server.to_string();
        Ok(Self { config, subnets, server_name, known })
    }

    /// The subnet that a client asks from: the relay's, or the link's own.
    #[must_use]
    pub fn subnet_for(&self, giaddr: Ipv4Addr) -> Option<&Served> {
        if giaddr.is_unspecified() {
            return self.subnets.first();
        }
        let named = self.subnets.iter().find(|served| served.subnet.relays.contains(&giaddr));
        named.or_else(|| self.subnet_of(giaddr))
    }

    /// The subnet that holds an address.
    #[must_use]
    pub fn subnet_of(&self, address: Ipv4Addr) -> Option<&Served> {
        self.subnets.iter().find(|served| served.subnet.network.contains(address))
    }

    /// Whether this node's address lies in the link's subnet: only then it can give addresses there.
    #[must_use]
    pub fn is_on_its_subnet(&self) -> bool {
        self.subnets.first().is_some_and(|served| served.subnet.network.contains(self.config.server))
    }

    /// The reservation of a client.
    #[must_use]
    pub fn reservation(&self, who: &Who<'_>) -> Option<&Reservation> {
        self.known.of(who)
    }

    /// Whether an address is reserved, and for another client than this.
    #[must_use]
    pub fn is_reserved_for_another(&self, who: &Who<'_>, address: Ipv4Addr) -> bool {
        self.known.is_reserved(address) && self.known.of(who).is_none_or(|own| own.address != Some(address))
    }

    /// Whether a client may ever be given `address`: a host address of a subnet, in its pool or reserved for this
    /// client, of no router and no other client's reservation, and not this node's own.
    #[must_use]
    pub fn allows(&self, who: &Who<'_>, address: Ipv4Addr) -> bool {
        let Some(served) = self.subnet_of(address) else { return false };
        let own = self.reservation(who).is_some_and(|reservation| reservation.address == Some(address));
        let pooled = served.pool.contains(address) && !self.known.is_reserved(address);
        (own || pooled) && !served.subnet.is_infrastructure(address) && address != self.config.server
    }
}

fn check_overlap(subnets: &[Subnet]) -> Result<(), ConfigError> {
    for (index, one) in subnets.iter().enumerate() {
        for other in subnets.iter().skip(index + 1) {
            let (a, b) = (one.network, other.network);
            if a.contains(b.address()) || b.contains(a.address()) {
                return Err(ConfigError::Overlap(a.address(), b.address()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let network = Network::new(Ipv4Addr::new(10, 0, 0, 7), 24).unwrap();
        Config::new(
            Ipv4Addr::new(10, 0, 0, 1),
            ClientKey::ethernet([2, 0, 0, 0, 0, 1]),
            Subnet::whole(network),
        )
    }

    #[test]
    fn mistakes_are_named() {
        assert!(Settings::new(config()).is_ok());
        let outside = Config { server: Ipv4Addr::new(10, 0, 1, 1), ..config() };
        assert!(matches!(Settings::new(outside), Err(ConfigError::ServerOutside { .. })));
        let mut twice = config();
        twice.subnets.extend(config().subnets);
        assert!(matches!(Settings::new(twice), Err(ConfigError::Overlap(..))));
        let mut reserved = config();
        let client = ClientKey::ethernet([2, 0, 0, 0, 0, 9]);
        let address = Ipv4Addr::new(10, 0, 0, 255);
        reserved.reservations.push(Reservation::of_address(client, address));
        assert!(matches!(Settings::new(reserved), Err(ConfigError::Reservation { .. })));
    }

    #[test]
    fn reserved_addresses_are_for_their_client_alone() {
        let mut config = config();
        let (mine, other) =
            (ClientKey::ethernet([2, 0, 0, 0, 0, 9]), ClientKey::ethernet([2, 0, 0, 0, 0, 8]));
        let address = Ipv4Addr::new(10, 0, 0, 50);
        config.reservations.push(Reservation::of_address(mine, address));
        let settings = Settings::new(config).unwrap();
        let (mine, other) = (Who::of_key(mine), Who::of_key(other));
        assert!(settings.allows(&mine, address));
        assert!(!settings.allows(&other, address));
        assert!(!settings.allows(&mine, Ipv4Addr::new(10, 0, 0, 1)), "the server's own");
        assert!(settings.allows(&other, Ipv4Addr::new(10, 0, 0, 51)));
    }
}
