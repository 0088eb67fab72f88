//! DHCP options by name or number, and how their values are written (RFC 2132 and its successors).
//!
//! Names are Kea's; dnsmasq's are understood as well.

use std::net::Ipv4Addr;

use toml::Value;

use crate::link::Cidr;

/// Longest value (bytes) of one option: more leaves no room in a packet.
const MAX_VALUE: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Address,
    Addresses,
    Text,
    Bool,
    U8,
    U16,
    U32,
    /// Names in the encoding of DNS (RFC 3397).
    Domains,
    /// `10.1.0.0/16 via 10.0.0.1` (RFC 3442).
    Routes,
    /// Nobody said what it is: text, `hex:…`, or a list of addresses.
    Any,
}

const KNOWN: &[(u8, &[&str], Kind)] = &[
    (3, &["routers", "router"], Kind::Addresses),
    (4, &["time-servers", "time-server"], Kind::Addresses),
    (6, &["domain-name-servers", "dns-server"], Kind::Addresses),
    (7, &["log-servers", "log-server"], Kind::Addresses),
    (9, &["lpr-servers", "lpr-server"], Kind::Addresses),
    (15, &["domain-name"], Kind::Text),
    (17, &["root-path"], Kind::Text),
    (19, &["ip-forwarding", "ip-forward-enable"], Kind::Bool),
    (23, &["default-ip-ttl", "default-ttl"], Kind::U8),
    (26, &["interface-mtu", "mtu"], Kind::U16),
    (28, &["broadcast-address", "broadcast"], Kind::Address),
    (40, &["nis-domain"], Kind::Text),
    (41, &["nis-servers", "nis-server"], Kind::Addresses),
    (42, &["ntp-servers", "ntp-server"], Kind::Addresses),
    (43, &["vendor-encapsulated-options", "vendor-encap"], Kind::Any),
    (44, &["netbios-name-servers", "netbios-ns"], Kind::Addresses),
    (46, &["netbios-node-type", "netbios-nodetype"], Kind::U8),
    (69, &["smtp-server"], Kind::Addresses),
    (72, &["www-server"], Kind::Addresses),
    (100, &["pcode", "posix-timezone"], Kind::Text),
    (101, &["tcode", "tzdb-timezone"], Kind::Text),
    (108, &["v6-only-preferred"], Kind::U32),
    (119, &["domain-search"], Kind::Domains),
    (121, &["classless-static-route", "classless-static-routes"], Kind::Routes),
    (150, &["tftp-server-address"], Kind::Addresses),
    (209, &["pxelinux-configfile", "config-file"], Kind::Text),
    (210, &["pxelinux-pathprefix", "path-prefix"], Kind::Text),
    (211, &["pxelinux-reboottime", "reboot-time"], Kind::U32),
];

/// What the server says itself, and what to write instead.
fn is_ours(code: u8) -> Option<&'static str> {
    match code {
        0 | 255 => Some("it is no option"),
        1 => Some("it follows from the subnet"),
        12 => Some("it is the name of the node"),
        51 | 58 | 59 => Some("write `lease` and `boot-lease`"),
        50 | 52..=57 | 60 | 61 | 82 | 93 | 94 | 97 | 175 => Some("it is part of the protocol"),
        66 | 67 => Some("write `loaders`"),
        _ => None,
    }
}

/// The code of an option, from its name (`ntp-servers`, `option:ntp-server`) or its number.
pub(super) fn code(name: &str) -> Result<u8, String> {
    let name = name.strip_prefix("option:").unwrap_or(name);
    let known = KNOWN.iter().find(|(_, names, _)| names.contains(&name)).map(|(code, ..)| *code);
    let reserved = match name {
        "subnet-mask" | "netmask" => Some(1),
        "host-name" | "hostname" => Some(12),
        "dhcp-lease-time" => Some(51),
        "tftp-server-name" | "tftp-server" => Some(66),
        "boot-file-name" | "bootfile-name" => Some(67),
        _ => None,
    };
    let code = known
        .or(reserved)
        .or_else(|| name.parse().ok())
        .ok_or_else(|| format!("no option is called `{name}`: write its number, 1 to 254"))?;
    match is_ours(code) {
        Some(instead) => Err(format!("option {code} cannot be set here: {instead}")),
        None => Ok(code),
    }
}

/// The bytes of an option's value.
pub(super) fn value(code: u8, value: &Value) -> Result<Vec<u8>, String> {
    let kind = KNOWN.iter().find(|(known, ..)| *known == code).map_or(Kind::Any, |(.., kind)| *kind);
    let bytes = match (kind, value) {
        (_, Value::String(text)) if text.starts_with("hex:") => hex(text)?,
        (Kind::Address, value) => match addresses(value)?.as_slice() {
            [one] => one.octets().to_vec(),
            _ => return Err("one address is needed".into()),
        },
        (Kind::Addresses, value) | (Kind::Any, value @ Value::Array(_)) => {
            addresses(value)?.iter().flat_map(Ipv4Addr::octets).collect()
        }
        (Kind::Text | Kind::Any, Value::String(text)) => text.as_bytes().to_vec(),
        (Kind::Bool, Value::Boolean(yes)) => vec![(*yes).into()],
        (Kind::U8, value) => vec![number(value)?],
        (Kind::U16, value) => number::<u16>(value)?.to_be_bytes().to_vec(),
        (Kind::U32, value) => number::<u32>(value)?.to_be_bytes().to_vec(),
        (Kind::Domains, value) => {
            texts(value)?.into_iter().map(domain).collect::<Result<Vec<_>, _>>()?.concat()
        }
        (Kind::Routes, value) => {
            texts(value)?.into_iter().map(route).collect::<Result<Vec<_>, _>>()?.concat()
        }
        (Kind::Bool, _) => return Err("true or false is needed".into()),
        (Kind::Text, _) => return Err("a text is needed".into()),
        (Kind::Any, _) => {
            return Err(
                "what this option holds is not known: write \"hex:00 1f\", a text, or a list of addresses"
                    .into(),
            );
        }
    };
    match bytes.len() {
        0 => Err("it is empty".into()),
        length if length > MAX_VALUE => {
            Err(format!("it has {length} bytes, at most {MAX_VALUE} are allowed"))
        }
        _ => Ok(bytes),
    }
}

/// Bytes written as `hex:001f`, with spaces, colons and dashes where people like them.
pub(super) fn hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = text
        .strip_prefix("hex:")
        .unwrap_or(text)
        .bytes()
        .filter(|byte| !matches!(byte, b' ' | b':' | b'-'))
        .collect();
    let bad = || format!("`{text}` is not a number of whole bytes in hexadecimal, like hex:001f");
    let byte = |pair: &[u8]| {
        std::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .ok_or_else(bad)
    };
    digits.chunks(2).map(byte).collect()
}

fn number<T: TryFrom<i64>>(value: &Value) -> Result<T, String> {
    let number = value.as_integer().ok_or("a number is needed")?;
    T::try_from(number).map_err(|_| format!("{number} does not fit into this option"))
}

/// One text, or a list of them.
fn texts(value: &Value) -> Result<Vec<&str>, String> {
    let needed = || "a text, or a list of texts, is needed".to_owned();
    match value {
        Value::String(text) => Ok(vec![text]),
        Value::Array(all) => all.iter().map(|one| one.as_str().ok_or_else(needed)).collect(),
        _ => Err(needed()),
    }
}

fn addresses(value: &Value) -> Result<Vec<Ipv4Addr>, String> {
    texts(value)?.into_iter().flat_map(|text| text.split(',')).map(|text| address(text.trim())).collect()
}

pub(super) fn address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("`{text}` is not an IPv4 address, like 10.77.0.1"))
}

fn domain(name: &str) -> Result<Vec<u8>, String> {
    let bad = || format!("`{name}` is not a domain name");
    let mut bytes = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        let length =
            u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length)).ok_or_else(bad)?;
        bytes.push(length);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    Ok(bytes)
}

/// Prefix length, the bytes of the network that it covers, router.
fn route(text: &str) -> Result<Vec<u8>, String> {
    let bad = || format!("`{text}` is not a route, like \"10.1.0.0/16 via 10.0.0.1\"");
    let (network, router) = text.split_once(" via ").ok_or_else(bad)?;
    let (destination, prefix): (Ipv4Addr, u8) = match network.trim() {
        "default" | "0.0.0.0/0" => (Ipv4Addr::UNSPECIFIED, 0),
        network => {
            let network: Cidr = network.parse().map_err(|_| bad())?;
            (network.address, network.prefix)
        }
    };
    let covered = usize::from(prefix.div_ceil(8));
    let mut bytes = vec![prefix];
    bytes.extend(destination.octets().into_iter().take(covered));
    bytes.extend(address(router.trim())?.octets());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(line: &str) -> Result<(u8, Vec<u8>), String> {
        let table: toml::Table = line.parse().unwrap();
        let (name, written) = table.iter().next().unwrap();
        let code = code(name)?;
        Ok((code, value(code, written)?))
    }

    #[test]
    fn options_are_known_by_both_names_and_by_number() {
        for line in [
            "ntp-servers = ['10.0.0.1', '10.0.0.2']",
            "\"option:ntp-server\" = '10.0.0.1,10.0.0.2'",
            "42 = ['10.0.0.1', '10.0.0.2']",
        ] {
            assert_eq!(option(line), Ok((42, vec![10, 0, 0, 1, 10, 0, 0, 2])), "{line}");
        }
    }

    #[test]
    fn values_are_written_as_the_option_wants_them() {
        for (line, bytes) in [
            ("interface-mtu = 9000", &[0x23, 0x28][..]),
            ("ip-forwarding = true", &[1]),
            ("domain-name = 'a.b'", b"a.b"),
            ("domain-search = ['a.b', 'c']", b"\x01a\x01b\x00\x01c\x00"),
            ("121 = '10.1.0.0/16 via 10.0.0.1'", &[16, 10, 1, 10, 0, 0, 1]),
            ("121 = ['default via 10.0.0.1']", &[0, 10, 0, 0, 1]),
            ("224 = 'hex:00 1f-a0'", &[0, 0x1f, 0xa0]),
            ("224 = 'text'", b"text"),
            ("224 = ['1.2.3.4']", &[1, 2, 3, 4]),
        ] {
            assert_eq!(option(line).unwrap().1, bytes, "{line}");
        }
    }

    #[test]
    fn mistakes_say_what_to_do() {
        for (line, word) in [
            ("ntpservers = 1", "number"),
            ("67 = 'x'", "loaders"),
            ("hostname = 'x'", "name of the node"),
            ("interface-mtu = 70000", "70000"),
            ("interface-mtu = 'x'", "number"),
            ("ntp-servers = '10.0.0'", "10.77.0.1"),
            ("224 = 7", "hex:"),
            ("224 = 'hex:1'", "hex:001f"),
            ("121 = '10.1.0.0/16'", "via"),
            ("224 = ''", "empty"),
        ] {
            let error = option(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
