//! The main job on real firmware: machines boot from machines that were themselves booted.
//!
//! Each test is one lab with several virtual machines; see `bootfabric::lab::scenario` for what is expected where.

use std::path::Path;

use bootfabric::event::Event;
use bootfabric::lab::assets::RootKind;
use bootfabric::lab::cluster::{Boot, Cluster};
use bootfabric::lab::scenario::{self, Check};

fn cluster(name: &'static str, root: RootKind, boot: Boot) -> anyhow::Result<Option<Cluster>> {
    Cluster::in_test(Path::new(env!("CARGO_BIN_EXE_bootfabric")), name, root, boot)
}

/// Points 1 to 6 of the main job in one lab.
fn whole_job(name: &'static str, root: RootKind, boot: Boot) -> anyhow::Result<()> {
    let Some(cluster) = cluster(name, root, boot)? else { return Ok(()) };
    let mut seen = 0;
    let mut report = |check: Check| {
        seen += 1;
        println!("{:7.1} s  {} ({})", cluster.lab().elapsed().as_secs_f64(), check.what, check.detail);
    };
    let (b, c) = scenario::relay(&cluster, &mut report)?;
    scenario::shared(&cluster, &b, &c, &mut report)?;
    scenario::bereft(&cluster, &b, &c, &mut report)?;
    assert_eq!(seen, 9, "every expectation is checked");
    Ok(())
}

#[test]
fn bios_machines_boot_debian_from_each_other() -> anyhow::Result<()> {
    whole_job("bios", RootKind::Debian, Boot::Bios)
}

#[test]
fn uefi_machines_boot_from_each_other() -> anyhow::Result<()> {
    whole_job("uefi", RootKind::Busybox, Boot::Uefi)
}

#[test]
#[ignore = "soak: the same with systemd under UEFI takes several minutes more"]
fn uefi_machines_boot_debian_from_each_other() -> anyhow::Result<()> {
    whole_job("uefi-deb", RootKind::Debian, Boot::Uefi)
}

/// A peer that serves damaged chunks is found out, and the machine boots all the same.
#[test]
fn damaged_chunks_are_found_out() -> anyhow::Result<()> {
    let Some(cluster) = cluster("damaged", RootKind::Busybox, Boot::Bios)? else { return Ok(()) };
    let origin = cluster.start_host("origin", cluster.make_home("origin")?, &[])?;
    let peer = origin.node.address.to_string();
    let liar = cluster.start_host("liar", cluster.make_home("liar")?, &["--peer", &peer])?;
    scenario::damage(&scenario::root_blob(&liar)?)?;
    let machine = cluster.power_on("a", None)?;
    let bad = match machine.wait_for("bad-chunk")? {
        Event::BadChunk { address, .. } => address,
        other => anyhow::bail!("unexpected {other:?}"),
    };
    assert_eq!(bad, liar.node.address.to_string(), "the peer that lied is named");
    machine.booted(cluster.root())?;
    Ok(())
}

/// A machine that is too small says so, with both numbers, before it downloads anything large.
#[test]
fn too_little_memory_is_said_before_the_download() -> anyhow::Result<()> {
    let Some(cluster) = cluster("small", RootKind::Debian, Boot::Bios)? else { return Ok(()) };
    let _origin = cluster.start_host("origin", cluster.make_home("origin")?, &[])?;
    let machine = cluster.power_on_with("small", None, SMALL_MEMORY_MIB)?;
    let Event::PhaseFailed { phase, error, remedy } = machine.wait_for("phase-failed")? else {
        anyhow::bail!("another event");
    };
    assert_eq!(phase, "memory");
    let numbers = error.split_whitespace().filter(|word| word.parse::<u64>().is_ok()).count();
    assert!(numbers >= 2 && error.contains("MiB") && remedy.contains("memory"), "{error} / {remedy}");
    let fetched =
        machine.events().all().iter().any(|event| event.is("progress") && event.text("role") == Some("root"));
    assert!(!fetched, "the root was being fetched");
    Ok(())
}

/// Enough for kernel and first stage, not for a Debian.
const SMALL_MEMORY_MIB: u32 = 256;
