//! Network interfaces as the program sees them: their hardware address, their IPv4 address, their existence.

use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrIn;
use serde::{Deserialize, Serialize};

/// An IPv4 address with the length of its subnet prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    /// The address.
    pub address: Ipv4Addr,
    /// Prefix length, 0 to 32.
    pub prefix: u8,
}

/// Why an interface or an address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No such interface.
    #[error("there is no interface `{name}`; this machine has: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The text is not `A.B.C.D/N`.
    #[error("`{0}` is not an address with a prefix length, like 10.77.0.1/24")]
    Cidr(String),
    /// The system refused to say.
    #[error("cannot read the addresses of the interfaces")]
    Addresses(#[source] nix::Error),
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl std::str::FromStr for Cidr {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || LinkError::Cidr(text.chars().take(60).collect());
        let (address, prefix) = text.split_once('/').ok_or_else(error)?;
        let cidr = Self {
            address: address.parse().map_err(|_| error())?,
            prefix: prefix.parse().map_err(|_| error())?,
        };
        if cidr.prefix <= 32 { Ok(cidr) } else { Err(error()) }
    }
}

impl TryFrom<String> for Cidr {
    type Error = LinkError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

/// The hardware address of `interface`, six bytes in text form `52:54:00:…`.
///
/// Asked of the kernel by netlink, not read from `/sys`: that one shows the namespace it was mounted in.
///
/// # Errors
/// [`LinkError::Unknown`], which lists what there is.
pub fn hardware_address(interface: &str) -> Result<String, LinkError> {
    let entries: Vec<_> = getifaddrs().map_err(LinkError::Addresses)?.collect();
    let found = entries
        .iter()
        .filter(|entry| entry.interface_name == interface)
        .find_map(|entry| entry.address.as_ref()?.as_link_addr()?.addr());
    if let Some(bytes) = found {
        return Ok(bytes.map(|byte| format!("{byte:02x}")).join(":"));
    }
    let mut known: Vec<_> =
        entries.into_iter().map(|entry| entry.interface_name).filter(|name| name != "lo").collect();
    known.sort();
    known.dedup();
    Err(LinkError::Unknown { name: interface.chars().take(40).collect(), known: known.join(", ") })
}

/// The name of the interface with hardware address `mac`.
///
/// # Errors
/// [`LinkError::Addresses`] if the system does not say.
pub fn by_hardware_address(mac: &str) -> Result<Option<String>, LinkError> {
    let mut entries = getifaddrs().map_err(LinkError::Addresses)?;
    Ok(entries.find_map(|entry| {
        let bytes = entry.address.as_ref()?.as_link_addr()?.addr()?;
        let text = bytes.map(|byte| format!("{byte:02x}")).join(":");
        (text == mac).then_some(entry.interface_name)
    }))
}

/// The first IPv4 address of `interface`, if it has one.
///
/// # Errors
/// [`LinkError::Addresses`] if the system does not say.
pub fn ipv4(interface: &str) -> Result<Option<Cidr>, LinkError> {
    for entry in getifaddrs().map_err(LinkError::Addresses)? {
        let address = entry.address.as_ref().and_then(|address| address.as_sockaddr_in()).map(SockaddrIn::ip);
        let mask = entry.netmask.as_ref().and_then(|mask| mask.as_sockaddr_in()).map(SockaddrIn::ip);
        if entry.interface_name == interface
            && let (Some(address), Some(mask)) = (address, mask)
        {
            let prefix = u8::try_from(u32::from(mask).count_ones()).unwrap_or(32);
            return Ok(Some(Cidr { address, prefix }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_prefix() {
        assert_eq!("10.77.0.1/24".parse::<Cidr>().unwrap().to_string(), "10.77.0.1/24");
        for bad in ["", "10.77.0.1", "10.77.0.1/33", "10.77.0/24", "a/b"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_interface_is_answered_with_the_known_ones() {
        let error = hardware_address("no-such-if0").unwrap_err().to_string();
        assert!(error.contains("no-such-if0") && error.contains("this machine has"), "{error}");
    }
}
