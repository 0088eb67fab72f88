//! systemd-networkd, the program that booted systems have: as a client of nodes, and beside a machine that the fabric booted.

mod dhcp_lab;

use std::net::Ipv4Addr;

use anyhow::{Context, ensure};
use dhcp_lab::*;
use netlab::pcap::DhcpKind;
use netlab::{Host, Process, wait_until};

/// Gives the program a `/run/systemd` of its own, with the file of `$2` for its interface. A `/sys` that cannot be written tells
/// it, as in any container, that no udev will name devices to it.
const RUN: &str = r#"set -e
mount -o remount,bind,ro /sys
mount -t tmpfs tmpfs /run/systemd
mkdir /run/systemd/network /run/systemd/netif
chown systemd-network: /run/systemd/netif
printf '%s' "$1" >/run/systemd/network/10-test.network
SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console exec /lib/systemd/systemd-networkd
"#;

/// Starts it on `host`, whose interface `file` describes.
fn networkd(host: &Host, file: &str) -> anyhow::Result<Process> {
    let mut unshare = host.command("unshare");
    unshare.args(["--mount", "sh", "-c", RUN, "networkd", file]);
    Ok(host.spawn("networkd", &mut unshare)?)
}

#[test]
fn networkd_gets_an_address_and_the_router_of_its_subnet() -> anyhow::Result<()> {
    let Some(link) = Link::new("networkd")? else { return Ok(()) };
    let home = link.make_home("networkd", POOL)?;
    let node = link.start("node", 1, &home, &[])?;
    let file = link.lab.directory().join("machines.toml");
    std::fs::write(&file, "[subnet.'10.77.0.0/22']\nrouters = '10.77.0.1'\n")?;
    let own = link.lab.directory().join("node.own");
    let mut set = node.host.command(env!("CARGO_BIN_EXE_bootfabric"));
    set.args(["machines", "set"]).arg(file).arg("--fabric").arg(&own).arg("--state").arg(own.join("state"));
    ensure!(set.status()?.success(), "`machines set` failed");
    node.host.events().wait_for_name("machines-set", PATIENCE)?;

    let host = link.lab.host("client", &link.switch)?;
    let client = networkd(&host, "[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n")?;
    let leased = || {
        let trace = link.capture.trace().ok()?;
        trace.dhcp_of(host.mac()).find(|seen| seen.kind == DhcpKind::Ack).map(|seen| seen.yiaddr)
    };
    let address = wait_until("an ACK", PATIENCE, leased).with_context(|| client.describe())?;
    let shows = |args: &[&str], text: &str| {
        wait_until(text, PATIENCE, || host.namespace().ip(args).ok()?.contains(text).then_some(()))
            .with_context(|| client.describe())
    };
    shows(&["address", "show", "dev", "eth0"], &format!("inet {address}/22 "))?;
    shows(&["route", "show", "default"], "default via 10.77.0.1 dev eth0 proto dhcp")?;
    let trace = link.capture.trace()?;
    let kinds: Vec<_> = trace.dhcp_of(host.mac()).map(|seen| seen.kind).collect();
    assert_eq!(kinds, [DhcpKind::Discover, DhcpKind::Offer, DhcpKind::Request, DhcpKind::Ack]);
    assert!(address != Ipv4Addr::new(10, 77, 0, 1) && client.is_running());
    Ok(())
}

#[test]
fn networkd_leaves_address_and_router_of_a_booted_machine_alone() -> anyhow::Result<()> {
    let Some(link) = Link::new("unmanaged")? else { return Ok(()) };
    let host = link.host("machine", "10.88.0.9/24")?;
    // As the first stage sets it.
    host.namespace().ip(&[
        "route",
        "add",
        "default",
        "via",
        "10.88.0.1",
        "dev",
        "eth0",
        "proto",
        "boot",
        "onlink",
    ])?;
    let looks = || -> anyhow::Result<_> {
        Ok((
            host.namespace().ip(&["-4", "address", "show", "dev", "eth0"])?,
            host.namespace().ip(&["route"])?,
        ))
    };
    let before = looks()?;
    let file = format!("[Match]\nMACAddress={}\n\n[Link]\nUnmanaged=yes\n", host.mac());
    let process = networkd(&host, &file)?;
    process.wait_for_log("eth0: State changed: initialized -> unmanaged", PATIENCE)?;
    assert_eq!(looks()?, before);
    process.terminate()?;
    assert_eq!(looks()?, before, "nor when it ends");
    Ok(())
}
