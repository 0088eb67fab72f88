//! The words of a file with machines, one by one: what each means, or why it means nothing.

use std::net::Ipv4Addr;

use pxe::dhcp::Network;
use pxe::dhcp::config::ClientMatch;

use super::options;
use crate::link::Cidr;

/// Longest further kernel arguments of a node: with the release's 1024 and the fabric's own they fit a line of 2048 bytes.
pub(super) const MAX_KERNEL_ARGS: usize = 512;
/// Kernel arguments that the boot script writes itself.
const OWN_ARGS: [&str; 7] = [
    "initrd",
    "bootfabric.release",
    "bootfabric.address",
    "bootfabric.mac",
    "bootfabric.peers",
    "bootfabric.http-port",
    "bootfabric.swarm-port",
];

/// Whether `name` can be the name of a host (RFC 1123 section 2.1).
pub(super) fn is_host_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(plain)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// A hardware address.
pub(super) fn mac(text: &str) -> Result<ClientMatch, String> {
    text.parse()
        .map(ClientMatch::Hardware)
        .map_err(|error: pxe::dhcp::client::BadHardwareAddress| format!("`{text}` is {error}"))
}

/// Text, or `hex:…`.
pub(super) fn client_id(text: &str) -> Result<ClientMatch, String> {
    let bytes = if text.starts_with("hex:") { options::hex(text)? } else { text.as_bytes().to_vec() };
    if (1..=255).contains(&bytes.len()) {
        Ok(ClientMatch::Id(bytes))
    } else {
        Err("1 to 255 bytes are possible".into())
    }
}

/// A machine's UUID.
pub(super) fn uuid(text: &str) -> Result<ClientMatch, String> {
    text.parse()
        .map(ClientMatch::Machine)
        .map_err(|error: pxe::dhcp::config::BadMachineId| format!("`{text}` is {error}"))
}

/// `ADDRESS/PREFIX` of a subnet.
pub(super) fn network(text: &str) -> Result<Network, String> {
    let cidr: Cidr = text.parse().map_err(|_| format!("`{text}` is not a subnet, like 10.77.0.0/22"))?;
    let network = Network::new(cidr.address, cidr.prefix).map_err(|error| error.to_string())?;
    if network.address() == cidr.address {
        Ok(network)
    } else {
        Err(format!("{text} is not a subnet: {}/{} is", network.address(), network.prefix()))
    }
}

/// `FIRST-LAST` inside of a network.
pub(super) fn range(text: &str, network: Network) -> Result<(Ipv4Addr, Ipv4Addr), String> {
    let bad = || format!("`{text}` is not a range of addresses, like 10.77.0.16-10.77.0.239");
    let (first, last) = text.split_once('-').ok_or_else(bad)?;
    let (first, last) = (options::address(first.trim())?, options::address(last.trim())?);
    let (low, high) = network.hosts();
    if first > last || first < low || last > high {
        return Err(format!("{first}-{last} is no range of host addresses from {low} to {high}"));
    }
    Ok((first, last))
}

/// Words for the kernel line. The boot script is iPXE's, which has words of its own.
pub(super) fn kernel_args(text: &str) -> Result<String, String> {
    if let Some(bad) = text.chars().find(|&c| c != ' ' && !c.is_ascii_graphic()) {
        return Err(format!(
            "`{}` cannot be on a kernel line: only printable ASCII can",
            bad.escape_default()
        ));
    }
    if text.len() > MAX_KERNEL_ARGS {
        return Err(format!("{} bytes are too many, at most {MAX_KERNEL_ARGS} are possible", text.len()));
    }
    if text.contains("${") {
        return Err("iPXE would replace what is behind `${`".into());
    }
    for word in text.split_whitespace() {
        if matches!(word, "||" | "&&" | ";") || word.starts_with('#') {
            return Err(format!("`{word}` means something else to iPXE, which reads this line"));
        }
        let key = word.split('=').next().unwrap_or(word).replace('_', "-");
        if OWN_ARGS.contains(&key.as_str()) {
            return Err(format!("`{key}` is set by the fabric itself: take it away"));
        }
    }
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}
