//! The network interface that DHCP runs on.

use std::net::Ipv4Addr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;

/// An interface as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its IPv4 addresses, with prefix lengths; none before it is configured.
    pub addresses: Vec<(Ipv4Addr, u8)>,
}

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// There is none of that name.
    #[error("there is no network interface {name}; there are: {present}")]
    NotFound {
        /// The name asked for.
        name: String,
        /// The names that exist.
        present: String,
    },
    /// It has no Ethernet address.
    #[error("the interface {0} has no Ethernet address: name an Ethernet or Wi-Fi interface")]
    NotEthernet(String),
    /// The kernel did not list the interfaces.
    #[error("cannot list the network interfaces")]
    List(#[source] nix::Error),
}

impl Interface {
    /// Looks an interface up in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`InterfaceError`] names the interfaces that exist.
    pub fn find(name: &str) -> Result<Self, InterfaceError> {
        let mut present: Vec<String> = Vec::new();
        let mut mac = None;
        let mut addresses = Vec::new();
        for entry in getifaddrs().map_err(InterfaceError::List)? {
            if present.last() != Some(&entry.interface_name) {
                present.push(entry.interface_name.clone());
            }
            if entry.interface_name != name {
                continue;
            }
            let Some(address) = entry.address else { continue };
            if let Some(link) = address.as_link_addr() {
                mac = link.addr().filter(|mac| link.halen() == 6 && *mac != [0; 6]).or(mac);
            } else if let Some(inet) = address.as_sockaddr_in() {
                let mask = entry
                    .netmask
                    .and_then(|mask| mask.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::ip));
                let prefix = mask.map_or(32, |mask| u32::from(mask).leading_ones());
                addresses.push((inet.ip(), u8::try_from(prefix).unwrap_or(32)));
            }
        }
        present.sort_unstable();
        present.dedup();
        let not_found = || InterfaceError::NotFound { name: name.to_owned(), present: present.join(", ") };
        let index = if_nametoindex(name).map_err(|_| not_found())?;
        let mac = mac.ok_or_else(|| InterfaceError::NotEthernet(name.to_owned()))?;
        Ok(Self { name: name.to_owned(), index, mac, addresses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_help() {
        let error = Interface::find("no-such-if0").unwrap_err().to_string();
        assert!(error.contains("no-such-if0") && error.contains("lo"), "{error}");
        assert!(matches!(Interface::find("lo"), Err(InterfaceError::NotEthernet(_))));
    }
}
