//! An address for this machine itself, on a switch where nobody gives one.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use anyhow::Context;
use pxe::dhcp::arp::{PROBE_TIME, probe};
use pxe::dhcp::interface::Interface;
use pxe::dhcp::pool::pick_own_address;
use pxe::dhcp::{ClientKey, Subnet};

use crate::link::Cidr;
use crate::stage::netlink::{self, LinkIndex};
use crate::stage::value::Address;

/// Addresses tried before giving up: on a bare switch the first is free.
const MAX_TRIES: usize = 16;

/// Takes a free address of the fabric's pool for `interface`: asks the link first (RFC 5227), then sets it.
pub(crate) async fn take(interface: &str, subnet: &Subnet) -> anyhow::Result<Cidr> {
    let link = Interface::find(interface)?;
    let index = LinkIndex(link.index);
    netlink::set_up(index, true).with_context(|| format!("cannot bring {interface} up"))?;
    let own = ClientKey::ethernet(link.mac);
    let mut taken = BTreeSet::new();
    for _ in 0..MAX_TRIES {
        let address = pick_own_address(subnet, &own, &taken).context("no address of the pool is free")?;
        if probe(&link, address, PROBE_TIME).await.with_context(|| format!("cannot probe on {interface}"))? {
            taken.insert(address);
            continue;
        }
        return set(interface, index, address, subnet.network.prefix());
    }
    anyhow::bail!(
        "the first {MAX_TRIES} addresses tried on {interface} are in use: is another network on this link? \
         Give the interface an address, or choose another subnet with `bootfabric init`"
    )
}

fn set(interface: &str, index: LinkIndex, address: Ipv4Addr, prefix: u8) -> anyhow::Result<Cidr> {
    let cidr = Cidr { address, prefix };
    netlink::add_address(index, Address { ip: address, prefix })
        .with_context(|| format!("cannot give {cidr} to {interface}"))?;
    Ok(cidr)
}
