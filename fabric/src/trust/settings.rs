//! Settings: what every node of a fabric must know to answer machines that nobody has configured.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::error::TrustError;
use super::signed::{Signed, Statement};
use super::text::check_name;
use crate::codec;
use crate::id::ObjectId;

/// The swarm's TCP port, unless the settings say otherwise.
const SWARM_PORT: u16 = 7744;

/// Largest pool (addresses): every node keeps lease state for it and sweeps it with ARP.
const MAX_POOL: u32 = 1 << 16;

/// Shortest lease of a booting machine (s): firmware must get through its download without renewing.
const MIN_LEASE_S: u32 = 30;
/// Longest lease (s): a week, after which an unused address must be free again.
const MAX_LEASE_S: u32 = 7 * 24 * 3600;

/// An IPv4 subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Subnet {
    /// The network address: all host bits are zero.
    pub network: Ipv4Addr,
    /// How many leading bits are the network's, 8 to 30.
    pub prefix: u8,
}

impl Subnet {
    /// The subnet mask.
    #[must_use]
    pub fn mask(&self) -> Ipv4Addr {
        let host_bits = 32u32.saturating_sub(self.prefix.into());
        Ipv4Addr::from_bits(u32::MAX.checked_shl(host_bits).unwrap_or(0))
    }

    /// The broadcast address.
    #[must_use]
    pub fn broadcast(&self) -> Ipv4Addr {
        self.network | !self.mask()
    }

    /// Whether `address` belongs to the subnet, its network and broadcast addresses included.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address & self.mask() == self.network
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// The fabric-wide settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Name of the fabric: 1 to 64 of `a-z 0-9 . _ -`. Not unique; the trust root is.
    pub name: String,
    /// Place in the order of settings of this fabric; at least 1.
    pub generation: u64,
    /// The subnet of the nodes.
    pub subnet: Subnet,
    /// First address that nodes hand out.
    pub pool_first: Ipv4Addr,
    /// Last address that nodes hand out.
    pub pool_last: Ipv4Addr,
    /// Lease of a machine that is booting (s): firmware does not renew, and asks again as another client soon.
    pub boot_lease_s: u32,
    /// Lease of a machine that runs (s).
    pub lease_s: u32,
    /// TCP port of every node's HTTP service.
    pub http_port: u16,
    /// TCP port of every node's swarm.
    pub swarm_port: u16,
    /// Whether only machines with a [`Membership`](super::Membership) take part. The same for as long as the fabric lives.
    pub private: bool,
    /// What operators say of single machines ([`decode_machines`](super::decode_machines)), if anything.
    pub machines: Option<ObjectId>,
}

impl Settings {
    /// Generation 1 for a switch that has nothing else on it: 10.77.0.0/22 with a pool of 992 addresses,
    /// 10.77.0.16 to 10.77.3.239. That is more machines than one broadcast domain should hold; the addresses below
    /// and above the pool are left for machines with fixed addresses.
    ///
    /// Boot leases last 10 minutes, others an hour. HTTP is on port 80, because some firmware ignores other ports.
    #[must_use]
    pub fn default_for_bare_switch(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            generation: 1,
            subnet: Subnet { network: Ipv4Addr::new(10, 77, 0, 0), prefix: 22 },
            pool_first: Ipv4Addr::new(10, 77, 0, 16),
            pool_last: Ipv4Addr::new(10, 77, 3, 239),
            boot_lease_s: 600,
            lease_s: 3600,
            http_port: 80,
            swarm_port: SWARM_PORT,
            private: false,
            machines: None,
        }
    }

    /// How many addresses the pool has.
    #[must_use]
    pub fn pool_size(&self) -> u32 {
        self.pool_last.to_bits().saturating_sub(self.pool_first.to_bits()).saturating_add(1)
    }

    /// Checks that the settings make sense, and says what would.
    ///
    /// # Errors
    /// [`TrustError::Invalid`].
    pub fn check(&self) -> Result<(), TrustError> {
        self.problem().map_err(|why| TrustError::Invalid { what: Self::NAME, why })
    }

    fn problem(&self) -> Result<(), String> {
        let Self { subnet, pool_first, pool_last, .. } = self;
        check_name("the name of the fabric", &self.name)?;
        if self.generation == 0 {
            return Err("the generation is 0: the first is 1".into());
        }
        if !(8..=30).contains(&subnet.prefix) {
            return Err(format!(
                "the subnet {subnet} has a prefix of {} bits: 8 to 30 are possible",
                subnet.prefix
            ));
        }
        if !subnet.contains(subnet.network) {
            let network = subnet.network & subnet.mask();
            return Err(format!("{subnet} is not a subnet: {network}/{} is", subnet.prefix));
        }
        for (which, address) in [("first", pool_first), ("last", pool_last)] {
            if !subnet.contains(*address) || *address == subnet.network || *address == subnet.broadcast() {
                return Err(format!(
                    "the {which} address of the pool, {address}, is no host address of {subnet}"
                ));
            }
        }
        if pool_first > pool_last {
            return Err(format!("the pool ends at {pool_last}, before it begins at {pool_first}"));
        }
        if self.pool_size() > MAX_POOL {
            return Err(format!(
                "the pool has {} addresses: at most {MAX_POOL} are possible",
                self.pool_size()
            ));
        }
        for (which, lease) in [("boot lease", self.boot_lease_s), ("lease", self.lease_s)] {
            if !(MIN_LEASE_S..=MAX_LEASE_S).contains(&lease) {
                return Err(format!("the {which} is {lease} s: {MIN_LEASE_S} to {MAX_LEASE_S} are possible"));
            }
        }
        if self.http_port == 0 || self.swarm_port == 0 || self.http_port == self.swarm_port {
            let (http, swarm) = (self.http_port, self.swarm_port);
            return Err(format!("HTTP port {http} and swarm port {swarm} must differ and not be 0"));
        }
        let bulk = self.swarm_port.checked_add(1);
        if self.private && bulk.is_none_or(|bulk| bulk == self.http_port) {
            let swarm = self.swarm_port;
            return Err(format!(
                "the port after the swarm port {swarm} is the members' bulk service's and must be free"
            ));
        }
        Ok(())
    }
}

/// Format 2 lacks the last field of format 3, `machines`: one byte where nothing is said of machines.
const PLAIN: u8 = 2;
/// Format 1 lacks `private` as well, one byte: it is that of fabrics which are not.
const OPEN: u8 = 1;

/// Signed [`Settings`].
pub type SignedSettings = Signed<Settings>;

impl Statement for Settings {
    const KIND: u8 = 2;
    const NAME: &'static str = "settings";
    const FORMAT: u8 = 3;
    /// A name, a hash and a handful of numbers.
    const MAX_PAYLOAD: usize = 1024;

    fn format(&self) -> u8 {
        match self {
            Self { machines: Some(_), .. } => Self::FORMAT,
            Self { private: true, .. } => PLAIN,
            _ => OPEN,
        }
    }

    fn to_payload(&self) -> Result<Vec<u8>, TrustError> {
        self.check()?;
        let mut payload =
            codec::encode(Self::NAME, self).map_err(|_| TrustError::Malformed { what: Self::NAME })?;
        let lacks = usize::from(Self::FORMAT - self.format());
        payload.truncate(payload.len().saturating_sub(lacks));
        Ok(payload)
    }

    fn from_payload(format: u8, payload: &[u8]) -> Result<Self, TrustError> {
        let mut payload = payload.to_vec();
        // False and none are written as 0.
        payload.resize(payload.len() + usize::from(Self::FORMAT - format), 0);
        let settings: Self =
            codec::decode(Self::NAME, &payload).map_err(|_| TrustError::Malformed { what: Self::NAME })?;
        settings.check()?;
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Hash;

    #[test]
    fn the_default_is_valid_and_round_trips() {
        let settings = Settings::default_for_bare_switch("lab");
        assert_eq!((settings.pool_size(), settings.subnet.to_string()), (992, "10.77.0.0/22".into()));
        assert_eq!(settings.subnet.broadcast(), Ipv4Addr::new(10, 77, 3, 255));
        let private = Settings { private: true, ..settings.clone() };
        let machines = Settings { machines: Some(ObjectId(Hash::of(b"text"))), ..settings.clone() };
        assert_eq!((private.format(), machines.format()), (2, 3));
        for settings in [settings, private, machines] {
            let payload = settings.to_payload().unwrap();
            assert_eq!(Settings::from_payload(settings.format(), &payload).unwrap(), settings);
        }
    }

    #[test]
    fn settings_that_older_programs_made_are_read_and_theirs_stay_as_they_were() {
        // Made by a program that knew format 1 alone.
        let old = "036c6162010a4d0000160a4d00100a4d03efd804901c50c03c";
        let old = hex::decode(old).unwrap();
        let settings = Settings::default_for_bare_switch("lab");
        assert_eq!((settings.format(), settings.to_payload().unwrap()), (1, old.clone()));
        assert_eq!(Settings::from_payload(1, &old).unwrap(), settings);
        assert!(Settings::from_payload(2, &old).is_err());
    }

    #[test]
    fn each_mistake_is_named() {
        type Spoil = fn(&mut Settings);
        let spoiled: [(&str, Spoil); 11] = [
            ("name", |s| s.name = "Lab 1".into()),
            ("generation", |s| s.generation = 0),
            ("prefix", |s| s.subnet.prefix = 31),
            ("prefix", |s| s.subnet.prefix = 255),
            ("10.77.0.0/22 is", |s| s.subnet.network = Ipv4Addr::new(10, 77, 0, 1)),
            ("first address", |s| s.pool_first = Ipv4Addr::new(10, 77, 0, 0)),
            ("last address", |s| s.pool_last = s.subnet.broadcast()),
            ("ends at", |s| s.pool_last = Ipv4Addr::new(10, 77, 0, 15)),
            ("boot lease", |s| s.boot_lease_s = 0),
            ("lease is", |s| s.lease_s = u32::MAX),
            ("port", |s| s.http_port = s.swarm_port),
        ];
        for (word, spoil) in spoiled {
            let mut settings = Settings::default_for_bare_switch("lab");
            spoil(&mut settings);
            let error = settings.to_payload().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let crowded = Settings { private: true, swarm_port: 79, ..Settings::default_for_bare_switch("lab") };
        assert!(crowded.check().unwrap_err().to_string().contains("bulk service"));
        let mut wide = Settings::default_for_bare_switch("lab");
        wide.subnet = Subnet { network: Ipv4Addr::new(10, 0, 0, 0), prefix: 8 };
        wide.pool_last = Ipv4Addr::new(10, 200, 0, 0);
        assert!(wide.check().unwrap_err().to_string().contains("at most 65536"));
    }
}
