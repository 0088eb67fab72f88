//! How nodes fetch from each other when something is in the way: HTTP ports that are blocked, liars, kill -9. Real programs
//! in namespaces.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use bootfabric::event::Event;
use bootfabric::lab::assets::{Assets, RootKind};
use bootfabric::lab::cluster::{
    Boot, Cluster, HostNode, Options, STEP_DEADLINE, StartingNode, by_address, parse,
};
use bootfabric::lab::scenario;
use fabric::exchange::Route;
use fabric::store::{Store, StoreOptions};
use netlab::LinkShape;

/// Slow enough that something can be done in the middle of a fetch.
const SLOW_BIT: u64 = 24_000_000;

fn cluster(name: &'static str) -> anyhow::Result<Option<Cluster>> {
    if !netlab::ready_or_skip()? {
        return Ok(None);
    }
    let assets = Assets::find(Path::new(env!("CARGO_BIN_EXE_bootfabric")))?;
    let keep = std::env::var_os("NETLAB_KEEP").map(Into::into);
    let options = Options { name, root: RootKind::Busybox, boot: Boot::Bios, keep };
    Cluster::new(assets, options).map(Some)
}

/// An operator's directory of the same fabric with nothing of the image in its store.
fn empty_home(cluster: &Cluster, name: &str) -> anyhow::Result<PathBuf> {
    let home = cluster.make_home(name)?;
    let store = home.join("store");
    for directory in ["blobs", "indexes"] {
        for entry in std::fs::read_dir(store.join(directory))? {
            std::fs::remove_file(entry?.path())?;
        }
    }
    std::fs::remove_file(store.join("heads/release"))?;
    Ok(home)
}

/// A node that has everything to fetch from `from`.
fn fetcher(cluster: &Cluster, name: &str, from: &[Ipv4Addr]) -> anyhow::Result<StartingNode> {
    let home = empty_home(cluster, name)?;
    let peers: Vec<String> = from.iter().map(ToString::to_string).collect();
    let more: Vec<&str> = peers.iter().flat_map(|peer| ["--peer", peer]).collect();
    cluster.spawn_host(name, home, &more)
}

fn nft(node: &HostNode, rules: &str) -> anyhow::Result<()> {
    let output = node.host.command("nft").arg(rules).output().context("cannot run nft")?;
    ensure!(output.status.success(), "nft failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// From now on `node` deals so with what comes to its HTTP port: `drop`, `reject with tcp reset`.
fn block_http(node: &HostNode, verdict: &str) -> anyhow::Result<()> {
    let rules = format!(
        "add table inet planes; add chain inet planes in {{ type filter hook input priority 0; }}; \
         add rule inet planes in tcp dport 80 {verdict}"
    );
    nft(node, &rules)
}

fn open_http(node: &HostNode) -> anyhow::Result<()> {
    nft(node, "delete table inet planes")
}

fn wait_for_route(node: &StartingNode, wanted: &str) -> anyhow::Result<()> {
    let is = |event: &netlab::Event| event.is("peer-route") && event.text("route") == Some(wanted);
    node.host.events().wait_for(&format!("the route {wanted}"), STEP_DEADLINE, is)?;
    Ok(())
}

/// Waits until `node` has some of a blob, and not all.
fn wait_for_a_part(node: &StartingNode) -> anyhow::Result<()> {
    let is = |event: &netlab::Event| {
        event.is("progress")
            && event.number("bytes").is_some_and(|bytes| bytes > 1_000_000)
            && event.number("bytes") < event.number("total").map(|total| total * 3 / 4)
    };
    node.host.events().wait_for("a part of a blob", STEP_DEADLINE, is)?;
    Ok(())
}

/// Waits until the root, which comes last, is there; the bytes of every blob and where they came from.
fn wait_for_the_image(
    node: &StartingNode,
) -> anyhow::Result<Vec<(String, u64, Vec<bootfabric::event::Source>)>> {
    let root = |event: &netlab::Event| event.is("blob-complete") && event.text("role") == Some("root");
    node.host.events().wait_for("the root", STEP_DEADLINE, root)?;
    let mut blobs = Vec::new();
    for event in node.host.events().all().iter().filter(|event| event.is("blob-complete")) {
        if let Event::BlobComplete { role, bytes, sources, .. } = parse(event)? {
            blobs.push((role, bytes, sources));
        }
    }
    Ok(blobs)
}

/// No request of `node` failed as far as it told: what HTTP could not bring came over the swarm at once.
fn came_from(node: &StartingNode, address: Ipv4Addr) -> anyhow::Result<()> {
    for (role, bytes, sources) in wait_for_the_image(node)? {
        let given = by_address(&sources).get(&address).copied().unwrap_or(0);
        ensure!(given >= bytes, "{role}: {given} of {bytes} bytes came from {address}");
    }
    Ok(())
}

fn blocked_from_the_start(name: &'static str, verdict: &str) -> anyhow::Result<()> {
    let Some(cluster) = cluster(name)? else { return Ok(()) };
    let one = cluster.start_host("one", cluster.make_home("one")?, &[])?;
    block_http(&one, verdict)?;
    let two = fetcher(&cluster, "two", &[one.node.address])?;
    wait_for_route(&two, "swarm")?;
    came_from(&two, one.node.address)?;
    let status = two.status()?;
    ensure!(status.peers.iter().all(|peer| peer.route == Some(Route::Swarm)), "{:?}", status.peers);
    ensure!(status.blobs.iter().all(|blob| blob.held == blob.size), "{:?}", status.blobs);
    Ok(())
}

#[test]
fn a_peer_whose_http_port_is_dropped_is_reached_over_the_swarm() -> anyhow::Result<()> {
    blocked_from_the_start("dropped", "drop")
}

#[test]
fn a_peer_whose_http_port_is_rejected_is_reached_over_the_swarm() -> anyhow::Result<()> {
    blocked_from_the_start("rejected", "reject with tcp reset")
}

#[test]
fn a_port_that_closes_and_opens_in_the_middle_costs_a_detour() -> anyhow::Result<()> {
    let Some(cluster) = cluster("detour")? else { return Ok(()) };
    let one = cluster.start_host("one", cluster.make_home("one")?, &[])?;
    one.host.port().shape(LinkShape::rate(SLOW_BIT))?;
    let two = fetcher(&cluster, "two", &[one.node.address])?;
    wait_for_a_part(&two)?;
    block_http(&one, "drop")?;
    wait_for_route(&two, "swarm")?;
    open_http(&one)?;
    wait_for_route(&two, "http")?;
    one.host.port().unshape()?;
    came_from(&two, one.node.address)?;
    ensure!(two.status()?.peers.iter().all(|peer| peer.route == Some(Route::Http)));
    Ok(())
}

#[test]
fn a_node_killed_in_the_middle_fetches_only_what_was_missing() -> anyhow::Result<()> {
    let Some(cluster) = cluster("resumed")? else { return Ok(()) };
    let one = cluster.start_host("one", cluster.make_home("one")?, &[])?;
    one.host.port().shape(LinkShape::rate(SLOW_BIT))?;
    let mut two = fetcher(&cluster, "two", &[one.node.address])?;
    wait_for_a_part(&two)?;
    two.process.kill()?;
    one.host.port().unshape()?;
    let total: u64 = one.status()?.blobs.iter().map(|blob| blob.size).sum();
    let held: u64 = {
        let store = Store::open(&two.home.join("store"), StoreOptions::default())?;
        store.blobs().iter().map(|blob| blob.held_bytes).sum()
    };
    ensure!(held >= 1_000_000 && held < total, "{held} of {total} bytes were held");
    let peer = one.node.address.to_string();
    two.start_again(&["--peer", &peer])?;
    let blobs = wait_for_the_image(&two)?;
    let fetched: u64 = blobs.iter().flat_map(|(.., sources)| sources).map(|source| source.bytes).sum();
    ensure!(fetched <= total - held, "{fetched} bytes were fetched, {} were missing", total - held);
    let status = two.status()?;
    ensure!(status.blobs.iter().all(|blob| blob.held == blob.size), "{:?}", status.blobs);
    let told: u64 = status.peers.iter().map(|peer| peer.fetched).sum();
    ensure!(told <= total - held, "the status tells of {told} bytes");
    Ok(())
}

#[test]
fn a_liar_is_banned_with_proof_for_all_to_see() -> anyhow::Result<()> {
    let Some(cluster) = cluster("liar")? else { return Ok(()) };
    let one = cluster.start_host("one", cluster.make_home("one")?, &[])?;
    let peer = one.node.address.to_string();
    let mut liar = cluster.spawn_host("liar", cluster.make_home("liar")?, &["--peer", &peer])?;
    let event = liar.host.events().wait_for_name("node-started", STEP_DEADLINE)?;
    let Event::NodeStarted { node: liars_key, address, .. } = parse(&event)? else {
        anyhow::bail!("{event}")
    };
    for blob in std::fs::read_dir(liar.home.join("store/blobs"))? {
        scenario::damage(&blob?.path())?;
    }
    // The honest one is slow, so that the liar is asked for much.
    one.host.port().shape(LinkShape::rate(SLOW_BIT))?;
    let two = fetcher(&cluster, "two", &[address, one.node.address])?;
    let event = two.host.events().wait_for_name("bad-chunk", STEP_DEADLINE)?;
    let Event::BadChunk { node, expected, got, .. } = parse(&event)? else { anyhow::bail!("{event}") };
    ensure!(node == liars_key && expected != got && expected.len() == 64, "{event}");
    one.host.port().unshape()?;
    wait_for_the_image(&two)?;
    // It comes back under the same key, with the right bytes even, and is still banned.
    let later = two.host.events().from_now();
    liar.process.kill()?;
    liar.start_again(&["--peer", &peer])?;
    later.wait_for("the liar to be back", STEP_DEADLINE, |event| {
        event.is("peer-up") && event.text("node") == Some(&liars_key)
    })?;
    let bans = two.status()?.bans;
    let [ban] = bans.as_slice() else { anyhow::bail!("{bans:?}") };
    ensure!(ban.node.to_string() == liars_key, "{ban:?}");
    let proof = ban.proof.context("the ban has no proof")?;
    ensure!((proof.expected.to_string(), proof.got.to_string()) == (expected, got), "{ban:?}");
    Ok(())
}
