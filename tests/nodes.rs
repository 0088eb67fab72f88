//! Several nodes on one switch, each a real program in a namespace of its own; clients from Debian's packages.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bootfabric::lab::assets::{Assets, RootKind};
use bootfabric::lab::cluster::{Boot, Cluster, HostNode, Options, STEP_DEADLINE};
use bootfabric::lab::scenario;
use netlab::pcap::DhcpKind;
use netlab::wait_until;

/// Long enough for every standby to have spoken if it were to.
const SILENCE: Duration = Duration::from_secs(2);

fn cluster(name: &'static str) -> anyhow::Result<Option<Cluster>> {
    if !netlab::ready_or_skip()? {
        return Ok(None);
    }
    let assets = Assets::find(Path::new(env!("CARGO_BIN_EXE_bootfabric")))?;
    let options = Options { name, root: RootKind::Busybox, boot: Boot::Bios, keep: None };
    Cluster::new(assets, options).map(Some)
}

fn two_nodes(cluster: &Cluster) -> anyhow::Result<(HostNode, HostNode)> {
    let one = cluster.start_host("one", cluster.make_home("one")?, &[])?;
    let peer = one.node.address.to_string();
    let two = cluster.start_host("two", cluster.make_home("two")?, &["--peer", &peer])?;
    wait_until("both nodes see each other", STEP_DEADLINE, || {
        let sees = |node: &HostNode| {
            node.status().is_ok_and(|status| status.peers.iter().any(|peer| peer.serves_boot))
        };
        (sees(&one) && sees(&two)).then_some(())
    })
    .with_context(|| format!("{:?}\n{:?}", one.status(), two.status()))?;
    Ok((one, two))
}

#[test]
fn d7_two_nodes_answer_a_discover_once() -> anyhow::Result<()> {
    let Some(cluster) = cluster("once")? else { return Ok(()) };
    let (one, two) = two_nodes(&cluster)?;
    assert_ne!(one.node.address, two.node.address);
    // Enough clients that each node is the responder of some.
    for number in 0..6 {
        let client = cluster.lab().host(&format!("client{number}"), cluster.switch())?;
        let mut udhcpc = client.command("busybox");
        udhcpc.args(["udhcpc", "-i", client.interface(), "-n", "-q", "-f", "-s", "/bin/true"]);
        let done = client.spawn("udhcpc", &mut udhcpc)?.wait(STEP_DEADLINE)?;
        assert!(done.success(), "client {number} got no address");
        let count = |kind| -> anyhow::Result<usize> {
            let trace = cluster.capture().trace()?;
            Ok(trace.dhcp_of(client.mac()).filter(|message| message.kind == kind).count())
        };
        assert_eq!((count(DhcpKind::Offer)?, count(DhcpKind::Ack)?), (count(DhcpKind::Discover)?, 1));
    }
    // Nobody speaks late either.
    let offers = || {
        cluster.capture().trace().map(|trace| trace.dhcp.iter().filter(|m| m.kind == DhcpKind::Offer).count())
    };
    let before = offers()?;
    let late = wait_until("a late offer", SILENCE, || offers().ok().filter(|now| *now != before));
    assert!(late.is_err(), "a standby answered late");
    Ok(())
}

#[test]
fn a_dead_responders_clients_are_answered_by_the_other() -> anyhow::Result<()> {
    let Some(cluster) = cluster("standby")? else { return Ok(()) };
    let (one, two) = two_nodes(&cluster)?;
    one.process.kill()?;
    one.host.delete()?;
    for number in 0..4 {
        let client = cluster.lab().host(&format!("client{number}"), cluster.switch())?;
        let mut udhcpc = client.command("busybox");
        udhcpc.args(["udhcpc", "-i", client.interface(), "-n", "-q", "-f", "-s", "/bin/true"]);
        assert!(client.spawn("udhcpc", &mut udhcpc)?.wait(STEP_DEADLINE)?.success());
        let trace = cluster.capture().trace()?;
        let servers: Vec<_> = trace.dhcp_of(client.mac()).filter_map(|message| message.server_id()).collect();
        assert!(servers.iter().all(|server| *server == two.node.address), "{servers:?}");
    }
    Ok(())
}

#[test]
fn a_damaged_store_is_said_at_the_start() -> anyhow::Result<()> {
    let Some(cluster) = cluster("rotten")? else { return Ok(()) };
    let home = cluster.make_home("origin")?;
    let blobs = std::fs::read_dir(home.join("store/blobs"))?.collect::<Result<Vec<_>, _>>()?;
    for blob in blobs {
        scenario::damage(&blob.path())?;
    }
    let host = cluster.lab().host("origin", cluster.switch())?;
    let mut up = host.command(env!("CARGO_BIN_EXE_bootfabric"));
    up.args(["up", "--interface", host.interface(), "--fabric"])
        .arg(&home)
        .arg("--state")
        .arg(home.join("state"));
    let output = up.output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("damaged") && text.contains("--peer"), "{text}");
    Ok(())
}
