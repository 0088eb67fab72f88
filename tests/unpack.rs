//! A root that is unpacked while it arrives, when that goes wrong: the agent dies half-way, and the machine boots nevertheless.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use bootfabric::event::Event;
use bootfabric::lab::assets::{Assets, RootKind};
use bootfabric::lab::cluster::{Boot, Cluster, parse};
use bootfabric::lab::scenario::root_blob;

/// A boot under emulation takes part of a minute.
const PATIENCE: Duration = Duration::from_secs(180);
/// What the shell of the first stage says when it listens.
const PROMPT: &str = "first stage# ";
/// Ends the agent as nothing else would, and goes on.
const KILL: &str = "for p in /proc/[0-9]*; do grep -q @bootfabric $p/cmdline && kill -9 ${p#/proc/}; done; echo kil\"led\"; exit\n";
/// Counts what is left of a root that was begun, and goes on.
const LEFT: &str =
    "echo left: $(grep -c /sysroot /proc/mounts) $(cat /sys/block/zram*/disksize | grep -vc '^0$'); exit\n";

#[test]
fn a_root_whose_agent_dies_half_way_is_unpacked_without_it() -> anyhow::Result<()> {
    let program = Path::new(env!("CARGO_BIN_EXE_bootfabric"));
    let Some(cluster) = Cluster::in_test(program, "unpack", RootKind::Busybox, Boot::Bios)? else {
        return Ok(());
    };
    let home = cluster.make_home("origin")?;
    let line = Assets::kernel_line("bootfabric.break=root,mount");
    cluster.assets().set(cluster.root(), &home, &["--root-mode", "zram", "--cmdline", &line])?;
    let origin = cluster.start_host("origin", home.clone(), &[])?;
    let peer = origin.node.address.to_string();
    // Of the origin the machine gets all but what is in the middle.
    damage_the_middle(&root_blob(&origin)?)?;
    let machine = cluster.power_on("a", None)?;
    let console = machine.machine.console();
    machine.events().wait_for_name("bad-chunk", PATIENCE)?;
    let half = |event: &netlab::Event| {
        let number = |field| event.number(field).unwrap_or(0);
        let some = event.is("progress") && event.text("role") == Some("unpack") && number("bytes") > 0;
        some && number("bytes") < number("total")
    };
    machine.events().wait_for("a root that is filled in part", PATIENCE, half)?;
    console.wait_for(PROMPT, PATIENCE)?;
    console.send(KILL)?;
    console.wait_for("killed", PATIENCE)?;
    console.wait_for("the root is unpacked once it is complete: the agent ended", PATIENCE)?;

    let _whole = cluster.start_host("whole", cluster.make_home("whole")?, &["--peer", &peer])?;
    console.wait_for(PROMPT, PATIENCE)?;
    console.send(LEFT)?;
    console.wait_for("left: 0 0", PATIENCE)?;
    let unpacked = machine.events().wait_for_name("root-unpacked", PATIENCE)?;
    let Event::RootUnpacked { original, mode, .. } = parse(&unpacked)? else {
        anyhow::bail!("another event");
    };
    ensure!(original > 0 && mode == "zram", "{original} bytes, {mode}");
    let filled = machine.events().all().iter().any(|event| event.is("root-filled"));
    ensure!(!filled, "the agent had filled it all");
    machine.booted(cluster.root())?;
    Ok(())
}

/// Changes what is in the middle of the file at `path`.
fn damage_the_middle(path: &Path) -> anyhow::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let file = std::fs::File::options().write(true).open(path)?;
    Ok(file.write_all_at(&[0x55; 64], file.metadata()?.len() / 2)?)
}
