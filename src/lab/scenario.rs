//! The main job, step by step: machines boot from machines that were themselves booted.
//!
//! [`relay`] is points 1 to 4 (origin → A → B → C, each killed in its turn); [`shared`] and [`bereft`] are what two
//! seeders do together. Each expectation that is seen to hold is reported as a [`Check`]; the first one that does not
//! ends the scenario with an error. The demo shows the checks, the tests count them.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use fabric::id::Hash;
use fabric::trust::Settings;
use netlab::{LinkShape, Mac, wait_until};
use pxe::dhcp::rank::rank;
use pxe::dhcp::{ClientKey, MemberId};

use super::cluster::{Cluster, HostNode, MachineNode, STEP_DEADLINE, Started, by_address};

/// The origin's link at first: slow enough that the root is still to come when the boot blobs are there.
const ORIGIN_BIT: u64 = 80_000_000;
/// The origin's link while the first root is held back, so that a second machine can power on meanwhile.
const SLOW_ORIGIN_BIT: u64 = 8_000_000;
/// Least share of its root that a machine takes from each of two equal seeders, percent.
const LEAST_SHARE: u64 = 30;

/// An expectation that was seen to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was expected.
    pub what: String,
    /// The figures.
    pub detail: String,
}

/// Where checks go as they are made.
pub type Report<'a> = &'a mut dyn FnMut(Check);

fn check(report: Report<'_>, what: impl Into<String>, detail: impl Into<String>) {
    report(Check { what: what.into(), detail: detail.into() });
}

/// The machines that are alive after [`relay`].
pub struct Survivor {
    /// The last machine of the chain, with all it needs to boot others.
    pub machine: MachineNode,
    /// What it says of itself.
    pub node: Started,
    /// Hash of the root that every machine computed.
    pub root_hash: String,
}

/// Origin boots A; while A's root is coming in, another machine gets its kernel from A; the origin is destroyed; A boots
/// B; A is killed; B boots C.
///
/// # Errors
/// The first expectation that does not hold.
pub fn relay(cluster: &Cluster, report: Report<'_>) -> anyhow::Result<(Survivor, Survivor)> {
    let origin = cluster.start_host("origin", cluster.make_home("origin")?, &[])?;
    origin.host.port().shape(LinkShape::rate(ORIGIN_BIT))?;
    check(report, "the origin gave itself an address", origin.node.address.to_string());

    let a = cluster.power_on("a", None)?;
    let a_node = serve_while_fetching(cluster, &origin, &a, report)?;
    let hash = a.booted(cluster.root())?;
    check(report, "A runs its own init, and the device's hash is the release's", hash.clone());

    origin.process.kill()?;
    origin.host.delete()?;
    ensure!(!origin.host.namespace().exists(), "the origin's namespace is still there");
    check(report, "the origin is killed and its namespace deleted", "");

    let b = hop(cluster, "b", &a_node, &hash, report)?;
    a.machine.kill()?;
    check(report, "A is killed", "");
    let c = hop(cluster, "c", &b.node, &hash, report)?;
    Ok((b, c))
}

/// Boots a machine that can have everything only from `from`.
fn hop(
    cluster: &Cluster,
    name: &str,
    from: &Started,
    hash: &str,
    report: Report<'_>,
) -> anyhow::Result<Survivor> {
    let machine = cluster.power_on(name, None)?;
    let node = machine.started()?;
    let sources = by_address(&machine.complete("root")?);
    ensure!(sources.keys().all(|address| *address == from.address), "{name} took its root from {sources:?}");
    let root_hash = machine.booted(cluster.root())?;
    ensure!(root_hash == hash, "{name} runs another root: {root_hash}");
    let bytes = crossed(cluster, from.address, node.address)?;
    check(
        report,
        format!("{} booted entirely from {}", name.to_uppercase(), from.address),
        format!("{:.1} MB over TCP, same root hash", megabytes(bytes)),
    );
    Ok(Survivor { machine, node, root_hash })
}

/// Waits for A to hold the boot blobs, holds its root back, and powers a machine on that must get its kernel from A.
fn serve_while_fetching(
    cluster: &Cluster,
    origin: &HostNode,
    a: &MachineNode,
    report: Report<'_>,
) -> anyhow::Result<Started> {
    let a_node = a.started()?;
    a.wait_for("boot-blobs-held")?;
    origin.host.port().shape(LinkShape::rate(SLOW_ORIGIN_BIT))?;
    // On a busy machine A may be slow enough for its standby to step in, which is right but not what is to be seen here.
    silence_dhcp(origin)?;
    let mac = mac_answered_by(&a_node, &[&origin.node, &a_node])?;
    let early = cluster.power_on("early", Some(mac))?;
    let served = |event: &netlab::Event| {
        event.is("file-served")
            && event.text("name").is_some_and(|name| name.ends_with("/kernel"))
            && event.text("status") == Some("200")
    };
    let event = a.events().wait_for("A served a kernel", STEP_DEADLINE, served)?;
    let bytes = event.number("bytes").context("no byte count")?;
    let held_back = a
        .events()
        .all()
        .iter()
        .all(|event| !(event.is("blob-complete") && event.text("role") == Some("root")));
    ensure!(held_back, "A's root was complete before the early machine had its kernel");
    let client: Ipv4Addr =
        event.text("client").and_then(|text| text.split(':').next()?.parse().ok()).context("no client")?;
    let crossed = wait_until("the kernel in the capture", STEP_DEADLINE, || {
        crossed(cluster, a_node.address, client).ok().filter(|crossed| *crossed >= bytes)
    })?;
    early.machine.kill()?;
    origin.host.port().unshape()?;
    check(
        report,
        "while A's root was still coming in, A gave another machine its kernel",
        format!("{:.1} MB from {} to {client} in the capture", megabytes(crossed), a_node.address),
    );
    Ok(a_node)
}

/// From now on no DHCP answer leaves `node`.
fn silence_dhcp(node: &HostNode) -> anyhow::Result<()> {
    const RULES: &str = "add table inet lab; add chain inet lab out { type filter hook output priority 0; }; \
                         add rule inet lab out udp sport 67 drop";
    let output = node.host.command("nft").arg(RULES).output().context("cannot run nft")?;
    ensure!(output.status.success(), "nft failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// A machine boots with two seeders alive and takes its share from each.
///
/// # Errors
/// If it does not boot, or one of the seeders gave less than its share.
pub fn shared(cluster: &Cluster, one: &Survivor, other: &Survivor, report: Report<'_>) -> anyhow::Result<()> {
    let d = cluster.power_on("d", None)?;
    let sources = by_address(&d.complete("root")?);
    let total: u64 = sources.values().sum();
    let share = |node: &Started| sources.get(&node.address).copied().unwrap_or(0) * 100 / total.max(1);
    let shares = (share(&one.node), share(&other.node));
    ensure!(shares.0 >= LEAST_SHARE && shares.1 >= LEAST_SHARE, "D took {} % and {} %", shares.0, shares.1);
    ensure!(d.booted(cluster.root())? == one.root_hash, "D runs another root");
    d.machine.kill()?;
    check(
        report,
        "D booted from two machines at once",
        format!("{} % and {} % of its root", shares.0, shares.1),
    );
    Ok(())
}

/// A machine boots with two seeders alive, one of which dies in the middle.
///
/// # Errors
/// If it does not boot, or the death came too late to matter.
pub fn bereft(
    cluster: &Cluster,
    dying: &Survivor,
    staying: &Survivor,
    report: Report<'_>,
) -> anyhow::Result<()> {
    // Slow enough that the middle of the download can be hit.
    for survivor in [dying, staying] {
        survivor.machine.machine.port().shape(LinkShape::rate(40_000_000))?;
    }
    let d = cluster.power_on("d2", None)?;
    let halfway = |event: &netlab::Event| {
        event.is("progress")
            && event.text("role") == Some("root")
            && event.number("bytes") >= event.number("total").map(|total| total / 4)
    };
    let event = d.events().wait_for("a part of the root", super::cluster::BOOT_DEADLINE, halfway)?;
    let at = event.number("bytes").unwrap_or(0);
    dying.machine.machine.kill()?;
    ensure!(
        event.number("total").is_some_and(|total| at < total),
        "the root was complete before the seeder died"
    );
    staying.machine.machine.port().unshape()?;
    ensure!(d.booted(cluster.root())? == staying.root_hash, "D runs another root");
    d.machine.kill()?;
    check(
        report,
        "D booted although one of its two seeders died in the middle",
        format!("at {:.1} MB", megabytes(at)),
    );
    Ok(())
}

/// A hardware address whose DHCP is answered by `responder` when all of `nodes` are alive.
///
/// # Errors
/// If a node's id is not one, or (practically never) no address fits.
pub fn mac_answered_by(responder: &Started, nodes: &[&Started]) -> anyhow::Result<Mac> {
    let member = |node: &Started| -> anyhow::Result<MemberId> {
        let hash: Hash = node.node.parse()?;
        Ok(MemberId::new(*hash.as_bytes()))
    };
    let members = nodes.iter().map(|node| member(node)).collect::<anyhow::Result<Vec<_>>>()?;
    let wanted = member(responder)?;
    // Lab fabrics have the settings that `init` gives when nothing is said.
    let pool_size = Settings::default_for_bare_switch("lab").pool_size();
    (0..=255u8)
        .map(|last| [0x52, 0x54, 0x00, 0xea, 0x51, last])
        .find(|mac| rank(&members, &ClientKey::ethernet(*mac), pool_size).first() == Some(&wanted))
        .map(Mac)
        .context("no hardware address is answered by that node")
}

/// Bytes of TCP payload that crossed the switch from one address to another.
fn crossed(cluster: &Cluster, from: Ipv4Addr, to: Ipv4Addr) -> anyhow::Result<u64> {
    Ok(cluster.capture().trace()?.tcp_payload(from, to))
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Overwrites bytes in the middle of the blob file at `path`, behind the back of the store that holds it.
///
/// # Errors
/// If the file cannot be changed.
pub fn damage(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::{FileExt, PermissionsExt};
    let context = || format!("cannot damage {}", path.display());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).with_context(context)?;
    let file = std::fs::File::options().write(true).open(path).with_context(context)?;
    let length = file.metadata().with_context(context)?.len();
    // Every tenth of the blob, so that whatever a peer asks for first is hit soon.
    for tenth in 0..10 {
        file.write_all_at(&[0x55; 64], length / 10 * tenth + length / 20).with_context(context)?;
    }
    Ok(())
}

/// The file of the root's blob in the store of a host node.
///
/// # Errors
/// If the node does not say.
pub fn root_blob(node: &HostNode) -> anyhow::Result<PathBuf> {
    let status = node.status()?;
    let root = status.blobs.iter().find(|blob| blob.role == "root").context("the node has no root")?;
    Ok(node.home.join("store/blobs").join(root.blob.to_string()))
}
