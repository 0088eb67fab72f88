//! Link and network addresses as the lab writes them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// A unicast, locally administered address of the lab: `02:4e:4c:…` with the given number at the end.
    #[must_use]
    pub const fn numbered(number: u16) -> Mac {
        let [high, low] = number.to_be_bytes();
        Mac([0x02, 0x4e, 0x4c, 0x00, high, low])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Mac, BadAddress> {
        let bad =
            || BadAddress { text: text.into(), wanted: "an Ethernet address such as 02:00:00:00:00:01" };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Mac(bytes)) }
    }
}

/// An address and the length of its network's prefix, such as `10.0.0.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// The prefix length in bits.
    pub prefix: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Cidr, BadAddress> {
        let bad = || BadAddress { text: text.into(), wanted: "an address with a prefix such as 10.0.0.1/24" };
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest { Err(bad()) } else { Ok(Cidr { address, prefix }) }
    }
}

/// Text that is not the address it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct BadAddress {
    text: String,
    wanted: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_their_text() {
        for text in ["02:4e:4c:00:01:ff", "ff:ff:ff:ff:ff:ff"] {
            assert_eq!(text.parse::<Mac>().unwrap().to_string(), text);
        }
        for text in ["10.77.0.1/24", "fe80::1/64", "0.0.0.0/0"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        assert_eq!(Mac::numbered(0x0102).to_string(), "02:4e:4c:00:01:02");
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "02:4e:4c:00:01",
            "02:4e:4c:00:01:02:03",
            "2:4e:4c:0:1:2",
            "zz:4e:4c:00:01:02",
            "+1:00:00:00:00:00:",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
        for text in ["", "10.0.0.1", "10.0.0.1/33", "10.0.0/24", "::1/129", "10.0.0.1/x"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
