//! Roots in RAM on real firmware: Debian with systemd in each mode, looked into over ssh; damage, and what a reboot makes of it.

mod debian;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use bootfabric::event::Event;
use bootfabric::lab::assets::{Assets, RootKind};
use bootfabric::lab::cluster::{Boot, Cluster, MachineNode, STEP_DEADLINE, by_address};
use debian::Debian;
use socket2::{Domain, Socket, Type};

/// Unpacked into plain memory, the root alone takes a fifth of it.
const MEMORY_MIB: u32 = 1024;
/// Bytes of a download at a time, and how often: a kernel takes minutes.
const PIECE: usize = 16 << 10;
const PACE: Duration = Duration::from_millis(250);
/// Tells the process of the booted system's node.
const SERVICE: &str = "systemctl show -P MainPID bootfabric";
/// What follows a damage or a kexec.
const PATIENCE: Duration = Duration::from_secs(400);

fn power_on(bench: &Debian, name: &str) -> anyhow::Result<MachineNode> {
    let spec = bench.cluster.spec(name).memory_mib(MEMORY_MIB).cpus(2).reboots().failure("[fail]");
    bench.cluster.power_on_as(&spec)
}

/// Does `script`, in which the machine starts anew without a word, and waits until it is up again. Returns the root's hash.
fn starts_anew(bench: &Debian, machine: &MachineNode, script: &str) -> anyhow::Result<String> {
    let events = machine.from_now();
    // The connection dies with the machine; whether it noticed is no matter.
    let said = bench.ssh_command(machine)?.arg(script).output()?;
    machine
        .booted_in(&events, bench.cluster.root())
        .with_context(|| format!("after `{script}`, which said {said:?}; {}", machine.machine.describe()))
}

/// A download that another machine makes, so slowly that it lasts until it may go on as fast as it can.
struct Download {
    reader: JoinHandle<std::io::Result<Vec<u8>>>,
    /// Dropped when it may.
    slow: Sender<()>,
    expected: Vec<u8>,
}

impl Download {
    /// Asks `machine` for its kernel, as soon as it holds that, from where the origin runs.
    fn begin(bench: &Debian, machine: &MachineNode) -> anyhow::Result<Self> {
        machine.wait_for("boot-blobs-held")?;
        let origin = &bench.origin;
        let kernel = origin.status()?.blobs.into_iter().find(|blob| blob.role == "kernel");
        let kernel = kernel.context("the origin has no kernel")?.blob;
        let expected = std::fs::read(origin.home.join("store/blobs").join(kernel.to_string()))?;
        let node = SocketAddr::from((machine.started()?.address, 80));
        let mut stream = origin.host.run_in(|| -> anyhow::Result<TcpStream> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            // What waits in buffers is not in flight.
            socket.set_recv_buffer_size(PIECE)?;
            socket.connect_timeout(&node.into(), STEP_DEADLINE)?;
            socket.set_read_timeout(Some(STEP_DEADLINE))?;
            Ok(socket.into())
        })??;
        write!(stream, "GET /blob/{kernel} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", node.ip())?;
        let mut answer = vec![0; PIECE];
        let count = stream.read(&mut answer)?;
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        answer.truncate(count);
        let (slow, fast) = channel::<()>();
        let reader = std::thread::spawn(move || {
            let mut piece = vec![0; PIECE];
            // Nobody sends anything: this is a pause, until the sender is gone.
            while fast.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
                let count = stream.read(&mut piece)?;
                answer.extend(piece.iter().take(count));
            }
            let so_far = answer.len();
            stream.read_to_end(&mut answer)?;
            answer.drain(..answer.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4));
            println!("{so_far} of {} bytes were here when the agents had changed", answer.len());
            Ok(answer)
        });
        Ok(Self { reader, slow, expected })
    }

    /// Reads the rest, and expects that nothing is wrong with it.
    fn end(self) -> anyhow::Result<()> {
        ensure!(!self.reader.is_finished(), "the download did not last so long, or it broke");
        drop(self.slow);
        let read = self.reader.join().ok().context("the reader panics")??;
        ensure!(read == self.expected, "{} bytes came instead of {}", read.len(), self.expected.len());
        Ok(())
    }
}

/// Boots one machine in `mode` and expects a sound Debian, and that a download from its first stage outlives that. `look` looks
/// further.
fn boots(
    name: &'static str,
    boot: Boot,
    mode: &str,
    look: impl FnOnce(&Debian, &MachineNode) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let line = Assets::kernel_line("bootfabric.seed=none");
    let Some(bench) = Debian::new(name, boot, &["--root-mode", mode, "--cmdline", &line])? else {
        return Ok(());
    };
    let machine = power_on(&bench, "a")?;
    let download = Download::begin(&bench, &machine)?;
    machine.booted(bench.cluster.root())?;
    bench.say("booted");
    download.end()?;
    bench.say("a download that was in flight has come to its end");
    bench.sound(&machine)?;
    let used = bench.used_mib(&machine)?;
    bench.say(&format!("{used} MiB used"));
    bench.ssh(&machine, "touch /usr/bin/new && ln /usr/bin/new /etc/link && rm /usr/bin/new")?;
    look(&bench, &machine)
}

#[test]
fn overlay_is_the_blob_and_what_is_written_is_compressed() -> anyhow::Result<()> {
    boots("overlay", Boot::Bios, "overlay", |bench, machine| {
        let mounts = bench.ssh(machine, "grep -E ' (/|/run/bootfabric/.*) ' /proc/mounts")?;
        for expected in
            ["bootfabric / overlay", "/run/bootfabric/upper xfs", "/run/bootfabric/lower squashfs"]
        {
            ensure!(mounts.contains(expected), "{mounts}");
        }
        let used = bench.used_mib(machine)?;
        let size = |path: &str| {
            Ok::<_, anyhow::Error>(bench.ssh(machine, &format!("du -sm {path} | cut -f1"))?.parse::<u64>()?)
        };
        let (image, program) = (size("/run/bootfabric/store/blobs")?, size("/run/bootfabric/bin")?);
        bench.say(&format!("{used} MiB used with an image of {image} MiB, a program of {program} MiB"));
        // Beside the program, whose size depends on how it was built; its budget of 8 MiB and this are 120 MiB.
        ensure!(used - image - program <= 120 - 8, "{used} MiB are used with an image of {image} MiB");
        Ok(())
    })
}

#[test]
fn zram_is_unpacked_and_the_blob_given_back() -> anyhow::Result<()> {
    boots("zram", Boot::Uefi, "zram", |bench, machine| {
        let Event::RootUnpacked { original, used, compression, .. } = machine.wait_for("root-unpacked")?
        else {
            anyhow::bail!("another event");
        };
        bench.say(&format!("{original} bytes take {used} ({compression})"));
        ensure!(used > 0 && used < original / 2, "{original} bytes take {used}");
        unpacked(bench, machine, "/dev/zram[0-9]* / ext4")
    })
}

#[test]
fn tmpfs_is_unpacked_and_the_blob_given_back() -> anyhow::Result<()> {
    boots("tmpfs", Boot::Bios, "tmpfs", |bench, machine| unpacked(bench, machine, "bootfabric / tmpfs"))
}

/// With the firmware that the tests above leave out.
#[test]
#[ignore = "soak: three more boots of a Debian"]
fn each_mode_boots_with_the_other_firmware() -> anyhow::Result<()> {
    boots("overlay2", Boot::Uefi, "overlay", |_, _| Ok(()))?;
    boots("zram2", Boot::Bios, "zram", |bench, machine| unpacked(bench, machine, "/dev/zram[0-9]* / ext4"))?;
    boots("tmpfs2", Boot::Uefi, "tmpfs", |bench, machine| unpacked(bench, machine, "bootfabric / tmpfs"))
}

fn unpacked(bench: &Debian, machine: &MachineNode, mounted: &str) -> anyhow::Result<()> {
    bench.ssh(machine, &format!("grep -q '^{mounted}' /proc/mounts"))?;
    machine.wait_for("root-dropped")?;
    // Kernel, first stage and loaders are all that is left.
    let left = bench.ssh(machine, "du -sm /run/bootfabric/store | cut -f1")?.parse::<u64>()?;
    ensure!(left < 30, "{left} MiB are left in the store");
    // What an unpacked root must have kept.
    bench.ssh(
        machine,
        "test -u /usr/bin/passwd && test -c /dev/null && test ! -e /run/bootfabric/lower/usr",
    )?;
    Ok(())
}

/// The node goes on as another program; then the newest release runs, at the same address, and the machine's firmware and loader
/// have no part in it.
#[test]
fn kexec_goes_straight_into_the_newest_release() -> anyhow::Result<()> {
    let Some(bench) = Debian::new("kexec", Boot::Bios, &[])? else { return Ok(()) };
    let root = bench.cluster.root();
    let machine = power_on(&bench, "a")?;
    let hash = machine.booted(root)?;
    let address = machine.started()?.address;
    bench.sound(&machine)?;
    let service = bench.ssh(&machine, SERVICE)?;
    let upgrade = "cp /run/bootfabric/bin/bootfabric /run/new && /run/new node upgrade && rm /run/new";
    bench.say(&bench.ssh(&machine, upgrade)?);
    ensure!(bench.ssh(&machine, SERVICE)? == service, "the service has another process");

    let home = bench.cluster.make_home("next")?;
    bench.cluster.assets().set(root, &home, &["--cmdline", &Assets::kernel_line("lab.release=2")])?;
    let origin = bench.origin.node.address.to_string();
    let _next = bench.cluster.start_host("next", home, &["--peer", &origin])?;
    let kexec = "/run/bootfabric/bin/bootfabric node kexec";
    let loaded = bench.ssh(
        &machine,
        &format!(
            "for n in $(seq 60); do {kexec} --load | grep 'generation 2' && exit; sleep 1; done; exit 1"
        ),
    )?;
    bench.say(&loaded);
    let loaders = || machine.machine.console().text().matches("iPXE").count();
    let (events, before) = (machine.from_now(), loaders());
    ensure!(before > 0, "the loader of the first boot did not show");
    ensure!(starts_anew(&bench, &machine, kexec)? == hash, "another root");
    let verified = events.wait_for_name("release-verified", PATIENCE)?;
    ensure!(verified.number("generation") == Some(2), "{:?}", verified.value);
    let line = bench.ssh(&machine, "cat /proc/cmdline")?;
    ensure!(line.contains(" lab.release=2 ") && line.contains(&format!("={address}/")), "{line}");
    ensure!(loaders() == before, "the machine went through its firmware");
    bench.sound(&machine)
}

/// Nothing of the root is needed for a machine to start anew.
#[test]
#[ignore = "soak: boots a Debian four times"]
fn a_forced_kexec_works_where_nothing_is_left_of_the_root() -> anyhow::Result<()> {
    let Some(bench) = Debian::new("forced", Boot::Bios, &[])? else { return Ok(()) };
    let machine = power_on(&bench, "a")?;
    let hash = machine.booted(bench.cluster.root())?;
    let forced = "rm -rf /usr /etc; /run/bootfabric/bin/bootfabric node kexec --force";
    for _ in 0..3 {
        ensure!(starts_anew(&bench, &machine, forced)? == hash, "another root");
        bench.sound(&machine)?;
    }
    Ok(())
}

/// Debian 13 with its own kernel, from nothing but a recipe.
#[test]
#[ignore = "soak: installs a Debian and boots it, several minutes"]
fn debian_13_from_a_recipe_runs_with_no_failed_unit() -> anyhow::Result<()> {
    const RECIPE: &str = r#"
name = "trixie"
version = "1"
suite = "trixie"
mirror = ["http://deb.debian.org/debian"]
packages = ["systemd-sysv", "udev", "dbus", "iproute2", "kmod", "login", "openssh-server"]
kernel = "linux-image-cloud-amd64"
commands = ["passwd -d root"]

[[files]]
path = "/etc/ssh/sshd_config.d/lab.conf"
content = "PermitRootLogin yes\nPermitEmptyPasswords yes\nUseDNS no\n"
"#;
    let program = Path::new(env!("CARGO_BIN_EXE_bootfabric"));
    let Some(cluster) = Cluster::in_test(program, "trixie", RootKind::DebianSsh, Boot::Bios)? else {
        return Ok(());
    };
    let (home, recipe) = (cluster.make_home("origin")?, cluster.lab().directory().join("trixie.toml"));
    std::fs::write(&recipe, RECIPE)?;
    let mut build = std::process::Command::new(program);
    build.args(["image", "build"]).arg(&recipe).arg("--fabric").arg(&home);
    let built = build.args(["--modules", "virtio", "--cmdline", &Assets::kernel_line("")]).output()?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let origin = cluster.start_host("origin", home, &[])?;
    let bench = Debian { cluster, origin };
    let machine = power_on(&bench, "a")?;
    machine.booted(bench.cluster.root())?;
    bench.sound(&machine)?;
    let version = bench.ssh(&machine, "cat /etc/debian_version; uname -r")?;
    bench.say(&version.replace('\n', ", kernel "));
    ensure!(version.starts_with("13"), "{version}");
    Ok(())
}

/// Whatever is done to it: a reboot brings back the root of the release.
#[test]
fn a_reboot_after_damage_brings_the_root_back() -> anyhow::Result<()> {
    damaged_and_rebooted("damage", 2)
}

#[test]
#[ignore = "soak: ten boots of a Debian take a quarter of an hour"]
fn ten_reboots_after_damage_bring_the_root_back() -> anyhow::Result<()> {
    damaged_and_rebooted("damage10", 10)
}

fn damaged_and_rebooted(name: &'static str, reboots: usize) -> anyhow::Result<()> {
    let line = Assets::kernel_line("bootfabric.root-size=160M");
    let Some(bench) = Debian::new(name, Boot::Bios, &["--cmdline", &line])? else { return Ok(()) };
    let machine = power_on(&bench, "a")?;
    let hash = machine.booted(bench.cluster.root())?;
    for reboot in 1..=reboots {
        let script = match reboot % 3 {
            1 => {
                fill(&bench, &machine)?;
                "rm -rf /usr /etc"
            }
            2 => {
                many_files(&bench, &machine)?;
                "rm -rf --one-file-system --no-preserve-root / 2>/dev/null"
            }
            _ => "dd if=/dev/urandom of=/usr/lib/fill bs=1M 2>/dev/null",
        };
        let damage = format!("{script}; echo b >/proc/sysrq-trigger");
        ensure!(starts_anew(&bench, &machine, &damage)? == hash, "another root after reboot {reboot}");
        bench.say(&format!("up again after `{script}`, same root hash"));
    }
    bench.sound(&machine)
}

/// The default size of what can be written, in a machine that has little more than the image needs: it is told when that is full,
/// nothing hangs or dies, and another machine boots from it all the same.
#[test]
#[ignore = "soak: fills a machine's memory under emulation, and boots another from it"]
fn a_small_machine_whose_overlay_is_full_boots_another() -> anyhow::Result<()> {
    const SMALL_MIB: u32 = 416;
    let Some(bench) = Debian::new("full", Boot::Bios, &[])? else { return Ok(()) };
    let spec = bench.cluster.spec("a").memory_mib(SMALL_MIB).cpus(2).failure("[fail]");
    let machine = bench.cluster.power_on_as(&spec)?;
    machine.booted(bench.cluster.root())?;
    bench.sound(&machine)?;
    let service = bench.ssh(&machine, SERVICE)?;
    let words = bench.ssh(&machine, "dd if=/dev/urandom of=/root/fill bs=1M 2>&1; sync; df -m /; free -m")?;
    bench.say(&words);
    ensure!(words.contains("No space left on device"), "{words}");
    bench.origin.process.kill()?;
    let other = power_on(&bench, "b")?;
    let sources = by_address(&other.complete("root")?);
    ensure!(sources.keys().eq([&machine.started()?.address]), "the root came from {sources:?}");
    other.booted(bench.cluster.root())?;
    bench.ssh(&machine, "! dmesg | grep -iE 'out of memory|oom-kill|i/o error'")?;
    bench.ssh(&machine, "/run/bootfabric/bin/bootfabric status >/dev/null")?;
    ensure!(bench.ssh(&machine, SERVICE)? == service, "the node's process is another one");
    bench.say("another machine has booted from it");
    Ok(())
}

/// Fills the overlay with what does not compress: it is told so, nothing hangs, and deleting gives the memory back.
fn fill(bench: &Debian, machine: &MachineNode) -> anyhow::Result<()> {
    let kept = "cat /sys/block/zram*/mm_stat | awk '{ sum += $3 } END { print int(sum / 1048576) }'";
    let service = bench.ssh(machine, SERVICE)?;
    let words = bench.ssh(machine, "dd if=/dev/urandom of=/root/fill bs=1M 2>&1; sync; true")?;
    ensure!(words.contains("No space left on device"), "{words}");
    let full = bench.ssh(machine, kept)?.parse::<u64>()?;
    ensure!(full > 100, "{full} MiB are kept");
    // It is still a machine that one can work with, and the same node.
    bench.ssh(machine, "! dmesg | grep -iE 'out of memory|oom-kill|i/o error'")?;
    bench.ssh(machine, "/run/bootfabric/bin/bootfabric status >/dev/null")?;
    ensure!(bench.ssh(machine, SERVICE)? == service, "the node's process is another one");
    bench.ssh(machine, "rm /root/fill && sync")?;
    // XFS tells the device in the background.
    bench.ssh(
        machine,
        &format!("for n in $(seq 100); do [ $({kept}) -lt 60 ] && exit; sleep 0.3; done; exit 1"),
    )?;
    bench.say(&format!("filled with {full} MiB, emptied again"));
    Ok(())
}

/// More files than a file-system with a fixed table would have, and still room for one more.
fn many_files(bench: &Debian, machine: &MachineNode) -> anyhow::Result<()> {
    let script = "mkdir /root/many && cd /root/many && seq 1 60000 | xargs touch && ls -f | wc -l && echo more >/root/one";
    let count = bench.ssh(machine, script)?.parse::<u64>()?;
    ensure!(count >= 60_000, "{count} files");
    bench.say(&format!("{count} files made"));
    Ok(())
}
