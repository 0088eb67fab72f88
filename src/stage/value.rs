//! Values of the kernel line and the checks that make them usable.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Why a value cannot be used. Each text says what is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Nothing after the `=`.
    #[error("a value is missing")]
    Empty,
    /// Not a release id.
    #[error("a release id of 64 hexadecimal digits is expected")]
    Release,
    /// Not an address with prefix.
    #[error("an IPv4 address of a machine with its prefix length is expected, as in 10.77.0.23/24")]
    Address,
    /// Not a router's address.
    #[error("the IPv4 address of a router is expected, as in 10.77.0.1, or 0.0.0.0 for none")]
    Gateway,
    /// Not a hardware address.
    #[error("an Ethernet address is expected, as in 52:54:00:12:34:56")]
    Mac,
    /// Not a list of addresses.
    #[error("IPv4 addresses separated by commas are expected, as in 10.77.0.1,10.77.0.9")]
    Peers,
    /// Not a port.
    #[error("a port from 1 to 65535 is expected")]
    Port,
    /// Not a host name.
    #[error("a host name is expected: up to 63 letters, digits and hyphens, not starting with a hyphen")]
    Name,
    /// Not a device.
    #[error("a path below /dev is expected, as in /dev/ttyS1")]
    Device,
    /// Not a path.
    #[error("an absolute path without `..` is expected")]
    Path,
    /// Not a rate, or too low a one.
    #[error("a rate of at least 1mbit is expected, as in 400mbit or 50MB")]
    Rate,
    /// Not a disk.
    #[error("a disk is expected, as in /dev/nvme0n1, serial:S4EWNX0R or pci:0000:00:1f.2")]
    Disk,
    /// Not a UUID.
    #[error("the UUID of a filesystem is expected, as in disk:0f3a9c42-0001-4abc-8def-0123456789ab")]
    Uuid,
    /// Not a root mode.
    #[error("overlay, zram, tmpfs, disk or disk:UUID is expected")]
    Root,
    /// Not a size of a file-system in memory.
    #[error("a size of at least 16M or a part of memory is expected, as in 512M, 2G or 40%")]
    Size,
    /// Not a compressor.
    #[error("zstd, lz4 or lzo-rle is expected")]
    Compression,
    /// Not a policy of what is kept for others.
    #[error("`all`, `none`, `share` or `share:COPIES` (1 to 16) is expected")]
    Seed,
    /// Not a number of things.
    #[error("a number from 1 on is expected")]
    Count,
    /// Not a yes or no.
    #[error("yes or no is expected")]
    Flag,
}

/// Object id of a signed release: 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReleaseId(String);

impl FromStr for ReleaseId {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if is_hash(text) { Ok(Self(text.to_ascii_lowercase())) } else { Err(ValueError::Release) }
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` has the form of a hash: 64 hexadecimal digits.
pub(crate) fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a machine can have this address, in whatever network.
fn is_of_a_machine(ip: Ipv4Addr) -> bool {
    !(ip.is_loopback() || ip.is_multicast() || ip.is_broadcast() || ip.octets()[0] == 0)
}

/// Reads the address of a router. `0.0.0.0` is none: some DHCP servers say so.
pub(super) fn gateway(text: &str) -> Result<Option<Ipv4Addr>, ValueError> {
    let ip: Ipv4Addr = text.parse().map_err(|_| ValueError::Gateway)?;
    if ip.is_unspecified() {
        return Ok(None);
    }
    if is_of_a_machine(ip) { Ok(Some(ip)) } else { Err(ValueError::Gateway) }
}

/// An interface's address: one a machine can have, with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address {
    /// The machine's address.
    pub(crate) ip: Ipv4Addr,
    /// Bits of the network part: 1 to 32.
    pub(crate) prefix: u8,
}

impl Address {
    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// The network's broadcast address; `None` for the prefixes 31 and 32, which have none (RFC 3021).
    pub(crate) fn broadcast(self) -> Option<Ipv4Addr> {
        (self.prefix < 31).then(|| Ipv4Addr::from_bits(self.ip.to_bits() | !self.mask()))
    }

    fn is_network(self) -> bool {
        self.prefix < 31 && self.ip.to_bits() & !self.mask() == 0
    }
}

impl FromStr for Address {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (ip, prefix) = text.split_once('/').ok_or(ValueError::Address)?;
        let ip: Ipv4Addr = ip.parse().map_err(|_| ValueError::Address)?;
        let prefix: u8 = prefix.parse().map_err(|_| ValueError::Address)?;
        let address = Self { ip, prefix };
        let odd = !(1..=32).contains(&prefix)
            || !is_of_a_machine(ip)
            || address.is_network()
            || address.broadcast() == Some(ip);
        if odd { Err(ValueError::Address) } else { Ok(address) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mac([u8; 6]);

impl Mac {
    /// The name of a node that nobody named: `node-` and the digits of the address.
    pub(super) fn node_name(self) -> String {
        self.0.iter().fold("node-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
    }
}

impl FromStr for Mac {
    type Err = ValueError;

    /// Accepts colons and, as iPXE's `hexhyp` writes them, hyphens.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && !part.starts_with('+'))
                .ok_or(ValueError::Mac)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| ValueError::Mac)?;
        }
        // Group addresses belong to no machine, and neither does the one of all zeroes.
        if parts.next().is_some() || bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(ValueError::Mac);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A name that a node can have: one label of a host name (RFC 1123, section 2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeName(String);

impl NodeName {
    /// The name.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let good = (1..=63).contains(&text.len())
            && !text.starts_with('-')
            && !text.ends_with('-')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if good { Ok(Self(text.to_owned())) } else { Err(ValueError::Name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_a_machine_cannot_have_are_refused() {
        for text in [
            "10.0.0.0/8",
            "10.0.0.255/24",
            "127.0.0.1/8",
            "224.0.0.1/24",
            "0.0.0.1/24",
            "10.0.0.1",
            "10.0.0.1/0",
            "10.0.0.1/33",
            "10.0.0.1/-1",
            "255.255.255.255/32",
            "::1/64",
            "10.0.0.1/24/1",
        ] {
            assert_eq!(text.parse::<Address>(), Err(ValueError::Address), "{text}");
        }
    }

    #[test]
    fn broadcast_addresses_follow_the_prefix() {
        let broadcast = |text: &str| text.parse::<Address>().unwrap().broadcast().map(|ip| ip.to_string());
        assert_eq!(broadcast("10.77.0.23/24").as_deref(), Some("10.77.0.255"));
        assert_eq!(broadcast("10.77.0.23/1").as_deref(), Some("127.255.255.255"));
        assert_eq!(broadcast("10.77.0.23/31"), None);
        assert_eq!(broadcast("10.77.0.23/32"), None);
    }

    #[test]
    fn hardware_addresses_name_their_node() {
        let mac: Mac = "52:54:00:12:34:ab".parse().unwrap();
        assert_eq!(mac.node_name(), "node-5254001234ab");
        assert_eq!("52-54-00-12-34-AB".parse(), Ok(mac));
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "+2:54:00:12:34:56",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(ValueError::Mac), "{text}");
        }
    }

    #[test]
    fn names_are_host_names() {
        for text in ["a", "node-525400123456", "9"] {
            assert!(text.parse::<NodeName>().is_ok(), "{text}");
        }
        for text in ["", "-a", "a-", "a.b", "a b", "ä", &"a".repeat(64)] {
            assert_eq!(text.parse::<NodeName>(), Err(ValueError::Name), "{text}");
        }
    }
}
