//! What operators say of machines: set on one node, obeyed by all, those that come later too.

mod dhcp_lab;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;

use anyhow::{Context, ensure};
use dhcp_lab::*;
use netlab::{Host, wait_until};
use serde_json::Value;

/// Says `bootfabric machines …` on the machine of a node; what it prints as JSON.
fn machines(link: &Link, node: &Node, args: &[&str]) -> anyhow::Result<Value> {
    let own = link.lab.directory().join(format!("{}.own", node.host.name()));
    let mut command = node.host.command(env!("CARGO_BIN_EXE_bootfabric"));
    command
        .arg("machines")
        .args(args)
        .arg("--json")
        .arg("--fabric")
        .arg(&own)
        .arg("--state")
        .arg(own.join("state"));
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn file(link: &Link, text: &str) -> anyhow::Result<PathBuf> {
    let path = link.lab.directory().join("machines.toml");
    std::fs::write(&path, text)?;
    Ok(path)
}

/// Sets a file on `at` and waits until all of `nodes` obey it.
fn set(link: &Link, at: &Node, nodes: &[Node], text: &str) -> anyhow::Result<u64> {
    let path = file(link, text)?;
    let done = machines(link, at, &["set", path.to_str().context("a path")?])?;
    let generation = done["generation"].as_u64().context("no generation")?;
    for node in nodes {
        let obeys = |event: &netlab::Event| {
            event.is("machines-set") && event.number("generation") == Some(generation)
        };
        node.host.events().wait_for("machines-set", PATIENCE, obeys)?;
    }
    Ok(generation)
}

/// The boot script that `node` gives to who asks from `client`'s address.
fn script(client: &Host, node: &Node, query: &str) -> anyhow::Result<String> {
    let mut stream = client.run_in(|| TcpStream::connect((node.address, 80)))??;
    write!(stream, "GET /boot.ipxe{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn what_is_set_on_one_node_changes_what_all_answer() -> anyhow::Result<()> {
    let Some(link) = Link::new("machines")? else { return Ok(()) };
    let home = link.make_home("machines", POOL)?;
    let nodes = link.nodes(&home, 3)?;
    let host = link.host("clients", CLIENTS)?;
    let farm = Farm::new(&host)?;
    let before = farm.lease(&BTreeSet::from([1]))?[&1].0.address;

    // Many reserved clients, so that each node answers some.
    let mut text = "[group.g]\nkernel-args = 'bootfabric.root=zram'\noptions.mtu = 9000\n".to_owned();
    for n in 1..=20 {
        text += &format!(
            "[node.n{n}]\nmac = '02:bf:00:00:00:{n:02x}'\naddress = '10.77.0.{}'\ngroup = 'g'\n",
            200 + n
        );
    }
    let first = set(&link, &nodes[1], &nodes, &text)?;
    let leases = farm.lease(&(1..=20).collect())?;
    for (n, (lease, _)) in &leases {
        assert_eq!(lease.address, Ipv4Addr::new(10, 77, 0, 200 + n));
    }
    let servers: BTreeSet<_> = leases.values().map(|(lease, _)| lease.server).collect();
    assert!(servers.len() > 1, "several nodes answer: {servers:?}");
    let trace = link.capture.trace()?;
    let offer =
        trace.dhcp.iter().find(|seen| seen.yiaddr == Ipv4Addr::new(10, 77, 0, 201)).context("no offer")?;
    assert_eq!(offer.options.get(&26).map(Vec::as_slice), Some(&[0x23, 0x28][..]));
    assert_eq!(offer.options.get(&12).map(Vec::as_slice), Some(&b"n1"[..]));

    // Each machine has its own kernel line at every node, by its lease and by its word.
    host.add_address("10.77.0.201/22".parse()?)?;
    for node in &nodes {
        let asked = script(&host, node, "")?;
        assert!(asked.contains("chain --replace") && asked.contains("?mac=${netX/mac}"), "{asked}");
        let named = script(&host, node, "?mac=02:bf:00:00:00:01&uuid=")?;
        assert!(named.contains(" quiet bootfabric.root=zram bootfabric.release="), "{named}");
        assert!(named.contains(" bootfabric.name=n1"), "{named}");
        let other = script(&host, node, "?mac=02:bf:00:00:00:77&uuid=")?;
        assert!(!other.contains("zram") && other.contains("bootfabric.release="), "{other}");
    }

    // A node that starts later, from a copy of the fabric as it was, hears of it.
    let late = link.start("late", 9, &home, &["--peer", "10.77.0.1"])?;
    late.host.events().wait_for_name("machines-set", PATIENCE)?;
    let shown = machines(&link, &late, &["show"])?;
    assert_eq!((shown["generation"].as_u64(), shown["text"].as_str()), (Some(first), Some(text.as_str())));

    // Strangers are left to others, and taken back in.
    set(&link, &nodes[2], &nodes, "strangers = 'no'\n")?;
    farm.discover(99)?;
    assert!(farm.next(std::time::Instant::now() + 2 * RETRY).is_none(), "a stranger was answered");
    let last = set(&link, &nodes[0], &nodes, "")?;
    assert_eq!(last, first + 2);
    wait_until("a stranger gets its address", PATIENCE, || farm.lease(&BTreeSet::from([99])).ok())?;
    assert!(before != Ipv4Addr::new(10, 77, 0, 201));
    Ok(())
}

#[test]
fn a_file_with_mistakes_changes_nothing_and_each_is_told() -> anyhow::Result<()> {
    let Some(link) = Link::new("mistakes")? else { return Ok(()) };
    let home = link.make_home("mistakes", POOL)?;
    let nodes = link.nodes(&home, 1)?;
    let path = file(&link, "[node.n1]\naddress = '10.1.2.3'\n\n[all]\nlease = 1\n")?;
    for verb in ["check", "set"] {
        let error =
            machines(&link, &nodes[0], &[verb, path.to_str().context("a path")?]).unwrap_err().to_string();
        for part in [
            "machines.toml is not right",
            "line 1: node.n1: ",
            "line 2: node.n1.address: ",
            "line 5: all.lease: ",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
    assert_eq!(machines(&link, &nodes[0], &["show"])?["generation"], 1);
    Ok(())
}
