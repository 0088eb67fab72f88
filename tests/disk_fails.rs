//! Installations that something goes wrong with on the way: the agent dies, the disk fails, the machine is not admitted yet.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use bootfabric::event::Event;
use bootfabric::lab::assets::{Assets, RootKind};
use bootfabric::lab::cluster::{BOOT_DEADLINE, Boot, Cluster, MachineNode, STEP_DEADLINE, by_address};
use bootfabric::lab::scenario::root_blob;
use netlab::{EventLog, LinkShape, Mac, wait_until};

const A: Mac = Mac([0x52, 0x54, 0x00, 0xd1, 0x5c, 0x1a]);
const B: Mac = Mac([0x52, 0x54, 0x00, 0xd1, 0x5c, 0x1b]);
/// What does not compress in the root, and the link that it comes over in the time that a person needs for a word.
const NOISE_MIB: u64 = 32;
const LINK_BIT: u64 = 20_000_000;
const LINE: &str = "bootfabric.root=disk bootfabric.disk=/dev/vda";

/// A lab whose image installs itself on disks and has a large file in its root.
struct Bench {
    cluster: Cluster,
    home: PathBuf,
    /// Of the large file, in hexadecimal.
    hash: String,
}

impl Bench {
    /// With `line` on the kernel line, in a fabric that `init` makes with `arguments`.
    fn new(name: &'static str, line: &str, arguments: &[&str]) -> anyhow::Result<Option<Self>> {
        let program = Path::new(env!("CARGO_BIN_EXE_bootfabric"));
        let Some(cluster) = Cluster::in_test(program, name, RootKind::Busybox, Boot::Bios)? else {
            return Ok(None);
        };
        let directory = cluster.lab().directory();
        let home = directory.join("origin.home");
        let noise = directory.join("noise");
        std::io::copy(&mut File::open("/dev/urandom")?.take(NOISE_MIB << 20), &mut File::create(&noise)?)?;
        let hash = Command::new("sha256sum").arg(&noise).output()?;
        let hash = String::from_utf8(hash.stdout)?.split(' ').next().unwrap_or_default().to_owned();
        ensure!(hash.len() == 64, "sha256sum failed");
        let tar = directory.join("large.tar");
        std::fs::copy(cluster.assets().root(RootKind::Busybox)?, &tar)?;
        let mut append = Command::new("tar");
        append.arg("--append").arg("--file").arg(&tar).arg("--directory").arg(directory).arg("noise");
        ensure!(append.status()?.success(), "tar failed");
        let mut init = Command::new(program);
        ensure!(init.args(["init", "--fabric"]).arg(&home).args(arguments).status()?.success(), "no fabric");
        let line = Assets::kernel_line(line);
        let more = ["--version", "1", "--disk", "--cmdline", &line];
        cluster.assets().build(RootKind::Busybox, &tar, &home, &more)?;
        Ok(Some(Self { cluster, home, hash }))
    }

    fn disk(&self, name: &str) -> PathBuf {
        self.cluster.lab().directory().join(format!("{name}.disk"))
    }

    /// Waits until the machine runs from its disk, and expects that all of the root is on it.
    fn runs_whole(&self, machine: &MachineNode) -> anyhow::Result<()> {
        machine.wait_for("handed-over")?;
        let console = machine.machine.console();
        console.wait_for(RootKind::Busybox.booted_text(), BOOT_DEADLINE)?;
        console.send("\nsync; echo 3 >/proc/sys/vm/drop_caches; sha256sum /noise; cat /proc/mounts\n")?;
        console.wait_for(&self.hash, STEP_DEADLINE)?;
        console.wait_for("/dev/vda4 / ext4", STEP_DEADLINE)?;
        Ok(())
    }
}

/// The first failure of `phase` in `events`.
fn fails(events: &EventLog, phase: &str) -> anyhow::Result<(String, String)> {
    let failed = |event: &netlab::Event| event.is("phase-failed") && event.text("phase") == Some(phase);
    let event = events.wait_for(&format!("a failure of {phase}"), BOOT_DEADLINE, failed)?;
    let text = |name: &str| event.text(name).map(str::to_owned).context("no text");
    Ok((text("error")?, text("remedy")?))
}

/// Until some of the root has come and is right, the disk stays as it is, whatever may be done to it. What an agent has half
/// filled is filled by PID 1, anew, and nothing is missing of it.
#[test]
fn a_disk_is_wiped_when_the_image_comes_and_filled_though_the_agent_dies() -> anyhow::Result<()> {
    let line = format!("{LINE} bootfabric.disk-wipe=yes bootfabric.break=root");
    let Some(bench) = Bench::new("disk-killed", &line, &[])? else {
        return Ok(());
    };
    let whole = bench.cluster.lab().directory().join("whole.home");
    ensure!(Command::new("cp").arg("-a").args([&bench.home, &whole]).status()?.success(), "no copy");
    let origin = bench.cluster.start_host("origin", bench.home.clone(), &[])?;
    spoil(&root_blob(&origin)?)?;
    let disk = bench.disk("a");
    let content = vec![0xda; 1 << 20];
    std::fs::write(&disk, &content)?;
    File::options().write(true).open(&disk)?.set_len(3 << 30)?;
    let machine = bench.cluster.power_on_with_disk("a", A, &disk)?;
    machine.events().wait_for_name("bad-chunk", BOOT_DEADLINE)?;
    let mut head = vec![0; content.len()];
    File::open(&disk)?.read_exact(&mut head)?;
    ensure!(head == content, "the disk was written to before anything was given");

    let peer = origin.node.address.to_string();
    let whole = bench.cluster.start_host("whole", whole, &["--peer", &peer])?;
    whole.host.port().shape(LinkShape::rate(LINK_BIT))?;
    let console = machine.machine.console();
    console.wait_for("a break before root", BOOT_DEADLINE)?;
    console.wait_for("first stage#", STEP_DEADLINE)?;
    // As soon as there is something of the large file.
    console.send("until [ $(du -m /sysroot/noise | cut -f1) -gt 2 ]; do usleep 50000; done; kill -9 $(pidof @bootfabric); exit\n")?;
    let (error, _) = fails(machine.machine.events(), "root")?;
    ensure!(error.contains("agent: ended (killed by SIGKILL)"), "{error}");
    ensure!(!machine.machine.events().all().iter().any(|event| event.is("root-filled")), "it was too late");
    machine.wait_for("disk-installed")?;
    bench.runs_whole(&machine)
}

/// Makes all of the file at `path` something else.
fn spoil(path: &Path) -> anyhow::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let file = File::options().write(true).open(path)?;
    let size = file.metadata()?.len();
    Ok(std::io::copy(&mut std::io::repeat(0x55).take(size), &mut &file).map(drop)?)
}

/// What a disk does not take the kernel tells once: a machine that tried again would start from what is there.
#[test]
fn a_disk_that_fails_while_it_is_filled_is_not_made_to_start() -> anyhow::Result<()> {
    /// Behind all tables of the root's filesystem, where the large file comes to lie, in MiB.
    const BAD: std::ops::Range<u64> = 366..900;
    let Some(bench) = Bench::new("disk-bad", LINE, &[])? else { return Ok(()) };
    let _origin = bench.cluster.start_host("origin", bench.home.clone(), &[])?;
    let disk = bench.disk("bad");
    File::create(&disk)?.set_len(3 << 30)?;
    let rules = disk.with_extension("rules");
    let mut file = File::create(&rules)?;
    for sector in BAD.map(|mib| (mib << 11) + 1024) {
        // Taken the next time: a disk that puts another sector in its place.
        writeln!(
            file,
            "[inject-error]\nevent = \"write_aio\"\nerrno = \"5\"\nsector = \"{sector}\"\nonce = \"on\"\n"
        )?;
    }
    let failing = PathBuf::from(format!("blkdebug:{}:{}", rules.display(), disk.display()));
    let machine =
        bench.cluster.power_on_as(&bench.cluster.spec("bad").mac(A).memory_mib(640).disk(&failing))?;
    // However often it tries.
    let mut events = machine.from_now();
    for _ in 0..2 {
        let (error, remedy) = fails(&events, "install")?;
        ensure!(error.contains("cannot write to /sysroot: I/O error"), "{error}");
        ensure!(remedy.contains("start this machine again"), "{remedy}");
        events = machine.from_now();
    }
    machine.machine.kill()?;
    let mut head = vec![0; 4096];
    let mut disk = File::open(disk)?;
    disk.read_exact(&mut head)?;
    ensure!(head.iter().all(|byte| *byte == 0), "the disk has a table");
    Ok(())
}

/// A machine of a private fabric is a member whenever its disk starts, and gives members what is on it.
#[test]
#[ignore = "soak: three boots that show nothing new of firmware"]
fn a_member_that_installed_itself_starts_unplugged_and_seeds() -> anyhow::Result<()> {
    let Some(bench) = Bench::new("disk-private", LINE, &["--private"])? else { return Ok(()) };
    let origin = bench.cluster.start_host("origin", bench.home.clone(), &[])?;
    // Two at once, and the newcomer's link is not what decides.
    origin.host.port().shape(LinkShape::rate(LINK_BIT))?;
    let state = bench.cluster.lab().directory().join("origin.state");
    let admit = |machine: &MachineNode| -> anyhow::Result<()> {
        machine.wait_for("not-admitted")?;
        wait_until("the machine to be admitted", STEP_DEADLINE, || {
            let mut member = origin.host.command(bench.cluster.program());
            member.args(["member", "admit", "--waiting", "--json", "--fabric"]).arg(&bench.home);
            let output = member.arg("--state").arg(&state).output().ok()?;
            String::from_utf8_lossy(&output.stdout).contains("\"node\"").then_some(())
        })?;
        Ok(())
    };
    let first = bench.cluster.power_on_with_disk("a", A, &bench.disk("a"))?;
    admit(&first)?;
    first.wait_for("disk-installed")?;
    bench.runs_whole(&first)?;
    let key = first.started()?.node;
    first.machine.kill()?;

    let again = bench.cluster.power_on_with_disk("a2", A, &bench.disk("a"))?;
    wait_until("the cable to be unplugged", STEP_DEADLINE, || again.machine.set_carrier(false).ok())?;
    bench.runs_whole(&again)?;
    let node = again.started()?;
    ensure!(node.node == key, "it is another node now");
    again.machine.set_carrier(true)?;

    let second = bench.cluster.power_on_with_disk("b", B, &bench.disk("b"))?;
    admit(&second)?;
    let sources = by_address(&second.complete("root")?);
    println!("b took its root from {sources:?}");
    ensure!(sources.contains_key(&node.address), "none of it came from the disk's member: {sources:?}");
    let Event::DiskInstalled { .. } = second.wait_for("disk-installed")? else {
        anyhow::bail!("another event")
    };
    bench.runs_whole(&second)
}
