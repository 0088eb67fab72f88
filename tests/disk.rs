//! Machines with disks: installed over the network, started without one, and seeding again; and a cluster that lost power.

#[allow(dead_code, reason = "a disk's lab is made otherwise")]
mod debian;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use bootfabric::event::Event;
use bootfabric::lab::assets::{Assets, RootKind};
use bootfabric::lab::cluster::{BOOT_DEADLINE, Boot, Cluster, MachineNode, STEP_DEADLINE, by_address};
use debian::Debian;
use netlab::{Mac, wait_until};

const A: Mac = Mac([0x52, 0x54, 0x00, 0xd1, 0x5c, 0x0a]);
const B: Mac = Mac([0x52, 0x54, 0x00, 0xd1, 0x5c, 0x0b]);

fn cluster(name: &'static str, root: RootKind, boot: Boot) -> anyhow::Result<Option<Cluster>> {
    Cluster::in_test(Path::new(env!("CARGO_BIN_EXE_bootfabric")), name, root, boot)
}

/// Waits until the root on the machine's disk has been started.
fn runs_from_disk(machine: &MachineNode, root: RootKind) -> anyhow::Result<()> {
    let mounted = |event: &netlab::Event| event.is("root-mounted") && event.text("mode") == Some("disk");
    machine.events().wait_for("a root on the disk", BOOT_DEADLINE, mounted)?;
    machine.wait_for("handed-over")?;
    machine.machine.console().wait_for(root.booted_text(), BOOT_DEADLINE)?;
    Ok(())
}

/// A machine installs itself, starts with its cable unplugged, and once it is plugged in installs the next one.
fn installed_and_unplugged(name: &'static str, root: RootKind, boot: Boot) -> anyhow::Result<()> {
    let Some(cluster) = cluster(name, root, boot)? else { return Ok(()) };
    let home = cluster.make_disk_home("origin", "bootfabric.root=disk bootfabric.disk=/dev/vda")?;
    let origin = cluster.start_host("origin", home, &[])?;
    let bench = Debian { cluster, origin };
    let Debian { cluster, origin } = &bench;
    let disk = |name: &str| cluster.lab().directory().join(format!("{name}.disk"));
    let say = |what: &str| bench.say(what);

    let first = cluster.power_on_with_disk("a", A, &disk("a"))?;
    let Event::DiskInstalled { disk: node, millis, .. } = first.wait_for("disk-installed")? else {
        anyhow::bail!("another event");
    };
    ensure!(node == "/dev/vda", "installed on {node}");
    runs_from_disk(&first, root)?;
    let filled = first.events().all().iter().any(|event| event.is("root-filled"));
    ensure!(filled, "the root was not unpacked while it came");
    say(&format!("A installed itself ({millis} ms) and runs from its disk"));
    let key = first.started()?.node;
    // Its root is not synced to the disk by pulling the plug: what was written at installation must be there all the same.
    first.machine.kill()?;
    origin.process.kill()?;

    let again = cluster.power_on_with_disk("a2", A, &disk("a"))?;
    // Before its firmware looks: the monitor is there a moment after the machine.
    wait_until("the cable to be unplugged", STEP_DEADLINE, || again.machine.set_carrier(false).ok())?;
    runs_from_disk(&again, root)?;
    say("A starts from its disk, unplugged");
    let node = again.started()?;
    ensure!(node.node == key, "it is another node now");
    again.machine.set_carrier(true)?;
    if root == RootKind::DebianSsh {
        bench.sound(&again)?;
    }

    let second = cluster.power_on_with_disk("b", B, &disk("b"))?;
    let sources = by_address(&second.complete("root")?);
    ensure!(sources.keys().all(|address| *address == node.address), "B took its root from {sources:?}");
    second.wait_for("disk-installed")?;
    runs_from_disk(&second, root)?;
    say("B installed itself from A, plugged in again");
    Ok(())
}

#[test]
fn a_bios_machine_installs_starts_unplugged_and_seeds() -> anyhow::Result<()> {
    installed_and_unplugged("disk-bios", RootKind::DebianSsh, Boot::Bios)
}

#[test]
fn a_uefi_machine_installs_starts_unplugged_and_seeds() -> anyhow::Result<()> {
    installed_and_unplugged("disk-uefi", RootKind::Busybox, Boot::Uefi)
}

#[test]
#[ignore = "soak: Debian, where a smaller root shows the same of the firmware"]
fn a_uefi_machine_installs_a_debian() -> anyhow::Result<()> {
    installed_and_unplugged("disk-debian", RootKind::DebianSsh, Boot::Uefi)
}

/// A disk that holds something is left alone, and the machine says why before it fetches anything.
#[test]
fn a_disk_with_data_is_left_alone() -> anyhow::Result<()> {
    let Some(cluster) = cluster("disk-held", RootKind::Busybox, Boot::Bios)? else { return Ok(()) };
    let home = cluster.make_disk_home("origin", "bootfabric.root=disk bootfabric.disk=serial:held")?;
    let _origin = cluster.start_host("origin", home, &[])?;
    let disk = cluster.lab().directory().join("held.disk");
    let content = vec![0xda; 1 << 20];
    std::fs::write(&disk, &content)?;
    let machine = cluster.power_on_with_disk("held", A, &disk)?;
    let Event::PhaseFailed { phase, error, remedy } = machine.wait_for("phase-failed")? else {
        anyhow::bail!("another event");
    };
    ensure!(phase == "disk" && error.contains("/dev/vda holds data"), "{phase}: {error}");
    ensure!(remedy.contains("bootfabric.disk-wipe=yes"), "{remedy}");
    machine.machine.kill()?;
    ensure!(std::fs::read(&disk)? == content, "the disk was written to");
    Ok(())
}

/// The image goes to the disk as it comes, never through memory: it may be larger than that. Power that goes meanwhile costs
/// nothing but the time.
#[test]
fn an_image_larger_than_memory_is_installed_after_power_went() -> anyhow::Result<()> {
    const NOISE_MIB: u64 = 320;
    const MEMORY_MIB: u32 = 288;
    let Some(cluster) = cluster("disk-large", RootKind::Busybox, Boot::Bios)? else { return Ok(()) };
    let line = "bootfabric.root=disk bootfabric.disk=/dev/vda";
    let home = cluster.make_disk_home("origin", line)?;
    let directory = cluster.lab().directory();
    let mut noise = File::create(directory.join("noise"))?;
    std::io::copy(&mut File::open("/dev/urandom")?.take(NOISE_MIB << 20), &mut noise)?;
    drop(noise);
    let tar = directory.join("large.tar");
    std::fs::copy(cluster.assets().root(RootKind::Busybox)?, &tar)?;
    let mut append = Command::new("tar");
    append.arg("--append").arg("--file").arg(&tar).arg("--directory").arg(directory).arg("noise");
    ensure!(append.status()?.success(), "tar failed");
    let line = Assets::kernel_line(line);
    cluster.assets().build(
        RootKind::Busybox,
        &tar,
        &home,
        &["--version", "2", "--disk", "--cmdline", &line],
    )?;
    let _origin = cluster.start_host("origin", home, &[])?;

    let disk = directory.join("large.disk");
    File::create(&disk)?.set_len(3 << 30)?;
    let spec = |name: &str| cluster.spec(name).mac(A).memory_mib(MEMORY_MIB).disk(&disk);
    let cut = cluster.power_on_as(&spec("cut"))?;
    let arrives = |event: &netlab::Event| {
        event.is("progress") && event.text("role") == Some("root") && event.number("bytes") > Some(0)
    };
    cut.events().wait_for("some of the root", BOOT_DEADLINE, arrives)?;
    cut.machine.kill()?;

    let machine = cluster.power_on_as(&spec("large"))?;
    let bytes: u64 = machine.complete("root")?.iter().map(|source| source.bytes).sum();
    ensure!(bytes > u64::from(MEMORY_MIB) << 20, "{bytes} bytes are not more than memory");
    machine.wait_for("disk-installed")?;
    runs_from_disk(&machine, RootKind::Busybox)
}

/// The whole cluster lost power. The first machine that comes back has a store on its disk, and seeds the next.
#[test]
fn after_a_blackout_the_first_machine_with_a_store_seeds_the_rest() -> anyhow::Result<()> {
    let Some(cluster) = cluster("blackout", RootKind::Busybox, Boot::Bios)? else { return Ok(()) };
    let home = cluster.make_disk_home("operator", "")?;
    let disk = cluster.lab().directory().join("kept.disk");
    install(cluster.program(), &home, &disk)?;
    let first = cluster.power_on_with_disk("a", A, &disk)?;
    first.booted(cluster.root())?;
    let node = first.started()?;
    // Its firmware would ask again and again; under emulation it gives up after a minute.
    let bare = cluster.power_on("bare", Some(B))?;
    let sources = by_address(&bare.complete("root")?);
    ensure!(sources.keys().eq([&node.address]), "the bare machine took its root from {sources:?}");
    bare.booted(cluster.root())?;
    Ok(())
}

/// Installs kernel, loader and store of the image on a file, the way an operator does it on a disk.
fn install(program: &Path, home: &Path, file: &Path) -> anyhow::Result<()> {
    File::create(file)?.set_len(1 << 30)?;
    let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output()?;
    ensure!(made.status.success(), "no loop device: {}", String::from_utf8_lossy(&made.stderr));
    let device = String::from_utf8(made.stdout)?.trim().to_owned();
    let mut install = Command::new(program);
    install.args(["image", "install", "busybox", "--no-root", "--disk", &device, "--fabric"]).arg(home);
    let done = install.output().context("cannot run the program");
    ensure!(Command::new("losetup").args(["--detach", &device]).status()?.success(), "{device} stays");
    let done = done?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
