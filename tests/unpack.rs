//! A root that is unpacked while it arrives, when that goes wrong: the agent dies, and the machine boots nevertheless.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use bootfabric::event::Event;
use bootfabric::lab::assets::{Assets, RootKind};
use bootfabric::lab::cluster::{Boot, Cluster};

/// A boot under emulation takes part of a minute.
const PATIENCE: Duration = Duration::from_secs(180);
/// In the shell of the first stage: ends the agent as nothing else would, and goes on.
const KILL: &str = "for p in /proc/[0-9]*; do grep -q @bootfabric $p/cmdline && kill -9 ${p#/proc/}; done; echo kil\"led\"; exit\n";

#[test]
fn a_root_whose_agent_dies_is_unpacked_without_it() -> anyhow::Result<()> {
    let program = Path::new(env!("CARGO_BIN_EXE_bootfabric"));
    let Some(cluster) = Cluster::in_test(program, "unpack", RootKind::Busybox, Boot::Bios)? else {
        return Ok(());
    };
    let home = cluster.make_home("origin")?;
    let line = Assets::kernel_line("bootfabric.break=mount");
    cluster.assets().set(cluster.root(), &home, &["--root-mode", "zram", "--cmdline", &line])?;
    let _origin = cluster.start_host("origin", home, &[])?;
    let machine = cluster.power_on("a", None)?;
    let console = machine.machine.console();
    machine.events().wait_for_name("root-filled", PATIENCE)?;
    console.wait_for("first stage# ", PATIENCE)?;
    console.send(KILL)?;
    console.wait_for("killed", PATIENCE)?;
    console.wait_for("the root was not unpacked while it came", PATIENCE)?;
    let Event::RootUnpacked { original, mode, .. } = machine.wait_for("root-unpacked")? else {
        anyhow::bail!("another event");
    };
    ensure!(original > 0 && mode == "zram", "{original} bytes, {mode}");
    machine.booted(cluster.root())?;
    Ok(())
}
