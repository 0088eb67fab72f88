//! A running node goes on as another program: same process, same node, and nobody's download breaks.

use std::path::Path;

use anyhow::{Context, ensure};
use bootfabric::lab::assets::RootKind;
use bootfabric::lab::cluster::{Boot, Cluster, STEP_DEADLINE};
use netlab::wait_until;

/// Bytes that are downloaded: far more than waits in the buffers of a connection.
const DOWNLOAD: usize = 64 << 20;
/// How long that takes: longer than it takes another program to serve, and than a node that ends waits for its last transfers.
const DOWNLOAD_SECONDS: usize = 40;

#[test]
fn a_running_node_goes_on_as_another_program() -> anyhow::Result<()> {
    let program = Path::new(env!("CARGO_BIN_EXE_bootfabric"));
    let Some(cluster) = Cluster::in_test(program, "upgrade", RootKind::Busybox, Boot::Bios)? else {
        return Ok(());
    };
    let home = cluster.make_home("origin")?;
    let files = cluster.lab().directory().join("files");
    std::fs::create_dir(&files)?;
    let content: Vec<u8> = (0..DOWNLOAD).map(|at| (at * 7 + at / 4096) as u8).collect();
    std::fs::write(files.join("large"), &content)?;
    let next = cluster.lab().directory().join("bootfabric-next");
    std::fs::copy(program, &next)?;
    let files = files.to_str().context("an odd directory")?;
    let origin = cluster.start_host("origin", home, &["--files", files])?;
    let client = cluster.lab().host("client", cluster.switch())?;
    let mut udhcpc = client.command("busybox");
    // The client's interface has no address but the one it is given: the lease is real, and asked for once.
    udhcpc.args(["udhcpc", "-i", client.interface(), "-n", "-q", "-f", "-s"]);
    udhcpc.arg(lease_script(&cluster)?);
    ensure!(client.spawn("udhcpc", &mut udhcpc)?.wait(STEP_DEADLINE)?.success(), "the client got no address");

    let before = origin.status()?;
    let file = cluster.lab().directory().join("downloaded");
    let mut curl = client.command("curl");
    curl.args(["-sS", "--limit-rate", &(DOWNLOAD / DOWNLOAD_SECONDS).to_string(), "-o"]).arg(&file);
    curl.arg(format!("http://{}/large", origin.node.address));
    let curl = client.spawn("curl", &mut curl)?;
    wait_until("the download has begun", STEP_DEADLINE, || {
        std::fs::metadata(&file).ok().filter(|file| file.len() > 0)
    })?;

    let mut upgrade = origin.host.command(&next);
    upgrade.args(["node", "upgrade", "--state"]).arg(cluster.lab().directory().join("origin.state"));
    let upgrade = origin.host.spawn("upgrade", &mut upgrade)?;
    // While the download goes on, the other program serves in the node's place: nobody waits for its end.
    wait_until("the node is served by the new program", STEP_DEADLINE, || {
        let taken = origin.host.events().all().iter().any(|event| event.is("took-over"));
        (taken && origin.status().is_ok()).then_some(())
    })?;
    ensure!(curl.is_running(), "the download was to last longer: it ended before the node changed hands");
    let script = client
        .command("curl")
        .args(["-sSf", &format!("http://{}/boot.ipxe", origin.node.address)])
        .output()?;
    ensure!(script.status.success(), "nobody answers: {}", String::from_utf8_lossy(&script.stderr));

    ensure!(curl.wait(STEP_DEADLINE)?.success(), "the download broke: {}", curl.describe());
    ensure!(std::fs::read(&file)? == content, "something else was downloaded");
    ensure!(upgrade.wait(STEP_DEADLINE)?.success(), "{}", upgrade.describe());

    ensure!(origin.process.is_running(), "the node's process ended: {}", origin.process.describe());
    let exe = std::fs::read_link(format!("/proc/{}/exe", origin.process.pid()))?;
    ensure!(exe == next, "the process is {}", exe.display());
    let after = wait_until("it boots others again", STEP_DEADLINE, || {
        origin.status().ok().filter(|status| status.serves_boot)
    })?;
    ensure!(after.node == before.node, "another node");
    let addresses = |leases: &[bootfabric::node::status::LeaseStatus]| {
        leases.iter().map(|lease| lease.address).collect::<Vec<_>>()
    };
    ensure!(
        addresses(&after.leases) == addresses(&before.leases) && !after.leases.is_empty(),
        "leases are lost: {:?}",
        after.leases
    );
    Ok(())
}

/// Slow clients keep nobody from stopping a node.
#[test]
fn a_node_that_waits_for_its_last_transfers_ends_when_it_is_told_to() -> anyhow::Result<()> {
    let program = Path::new(env!("CARGO_BIN_EXE_bootfabric"));
    let Some(cluster) = Cluster::in_test(program, "relieved", RootKind::Busybox, Boot::Bios)? else {
        return Ok(());
    };
    let home = cluster.make_home("origin")?;
    let files = cluster.lab().directory().join("files");
    std::fs::create_dir(&files)?;
    std::fs::write(files.join("large"), vec![1; DOWNLOAD])?;
    let origin =
        cluster.start_host("origin", home, &["--files", files.to_str().context("an odd directory")?])?;
    let mut curl = origin.host.command("curl");
    curl.args(["-sS", "--limit-rate", "64k", "-o"]).arg(cluster.lab().directory().join("downloaded"));
    let curl = origin.host.spawn("curl", curl.arg(format!("http://{}/large", origin.node.address)))?;
    wait_until("the download has begun", STEP_DEADLINE, || {
        std::fs::metadata(cluster.lab().directory().join("downloaded")).ok().filter(|file| file.len() > 0)
    })?;
    let mut upgrade = origin.host.command(program);
    upgrade.args(["node", "upgrade", "--state"]).arg(cluster.lab().directory().join("origin.state"));
    let _upgrade = origin.host.spawn("upgrade", &mut upgrade)?;
    wait_until("the node is served by the new program", STEP_DEADLINE, || {
        let taken = origin.host.events().all().iter().any(|event| event.is("took-over"));
        taken.then_some(())
    })?;
    ensure!(curl.is_running() && origin.process.is_running(), "nothing was left to wait for");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(origin.process.pid())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    origin.process.wait(STEP_DEADLINE)?;
    Ok(())
}

/// A script that gives the interface the leased address.
fn lease_script(cluster: &Cluster) -> anyhow::Result<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let path = cluster.lab().directory().join("lease");
    std::fs::write(
        &path,
        "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr add \"$ip/$mask\" dev \"$interface\"\n",
    )?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
