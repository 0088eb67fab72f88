//! How long the first stage takes: a machine from kernel start to the hand-over, against the same kernel that starts a trivial init.
//!
//! `cargo bench --bench first_stage`; `RUNS` says how often (default 3, medians are printed), `BOOTFABRIC_PROGRAM` names another
//! program than this build's; `ROOT=zram` holds the root another way, `ROOT=disk` installs it on an empty disk, `LINK=40mbit` is the most that the operator's machine sends. Needs root, QEMU and `make assets`. QEMU loads the kernel itself in both, so firmware has no part in it;
//! what comes before the kernel's first instruction is the same in both. Both run one after the other in the same lab,
//! under the same emulation. Time that waits for the network (the link, the release, boot blobs, the root) is told apart; what
//! the first stage does meanwhile (`drivers`) counts as its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark stops where it cannot go on")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use bootfabric::home::{Home, RELEASE_HEAD};
use bootfabric::lab::assets::{Assets, RootKind};
use bootfabric::lab::cluster::{BOOT_DEADLINE, Boot, Cluster};
use fabric::store::{Store, StoreOptions};
use fabric::trust::SignedRelease;
use netlab::{DirectKernel, Firmware, MachineSpec};

/// Phases that wait for others.
const NETWORK: [&str; 4] = ["link", "release", "boot-blobs", "root"];
/// What the trivial init says.
const TRIVIAL: &str = "the trivial init runs";
/// What the first stage says last.
const HANDING_OVER: &str = "handing over to";
/// Memory of both machines.
const MEMORY_MIB: u32 = 768;
/// Processors of both machines.
const CPUS: u8 = 2;
/// Most that the first stage may take beyond the trivial init, network aside (seconds).
const BAR: f64 = 3.0;
/// Bytes of the disk, if there is one.
const DISK_BYTES: u64 = 3 << 30;
/// An address that nobody else has.
const ADDRESS: &str = "10.77.0.200";
/// Hardware address of the machine with the first stage.
const MAC: &str = "52:54:00:00:0f:01";

fn main() -> anyhow::Result<()> {
    let runs = std::env::var("RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(3_usize);
    let program = std::env::var_os("BOOTFABRIC_PROGRAM");
    let program = program.as_ref().map_or(Path::new(env!("CARGO_BIN_EXE_bootfabric")), Path::new);
    let Some(cluster) = Cluster::in_test(program, "firststage", RootKind::Debian, Boot::Bios)? else {
        return Ok(());
    };
    let root = std::env::var("ROOT").unwrap_or_default();
    let on_disk = root == "disk";
    let home = if on_disk { cluster.make_disk_home("origin", "")? } else { cluster.make_home("origin")? };
    let image = Image::find(&home)?;
    let trivial = trivial_initramfs(&cluster)?;
    let link = std::env::var("LINK").ok();
    let limit: Vec<&str> = link.iter().flat_map(|link| ["--upload-limit", link]).collect();
    let origin = cluster.start_host("origin", home, &limit)?;
    let root = match root.as_str() {
        "" => String::new(),
        "disk" => "bootfabric.root=disk bootfabric.disk=/dev/vda".to_owned(),
        mode => format!("bootfabric.root={mode}"),
    };
    let line = format!(
        "quiet {} {root} bootfabric.release={} bootfabric.address={ADDRESS}/24 bootfabric.mac={MAC} bootfabric.peers={}",
        image.words, image.release, origin.node.address
    );
    let (mut direct, mut staged, mut local, mut filled) = (vec![], vec![], vec![], vec![]);
    let mut phases: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for run in 0..runs {
        let firmware = DirectKernel::new(&image.kernel, &trivial, &Assets::kernel_line("quiet"));
        direct.push(until(&cluster, &format!("direct{run}"), firmware, false, TRIVIAL)?.took);
        let firmware = DirectKernel::new(&image.kernel, &image.first_stage, &line);
        let Until { took, phases: millis, cores } =
            until(&cluster, &format!("staged{run}"), firmware, on_disk, HANDING_OVER)?;
        staged.push(took);
        filled.extend(cores);
        let waited: f64 = NETWORK.iter().filter_map(|phase| millis.get(*phase)).sum();
        local.push(took - waited);
        for (phase, seconds) in millis {
            phases.entry(phase).or_default().push(seconds);
        }
    }
    let beyond: Vec<_> = local.iter().zip(&direct).map(|(local, direct)| local - direct).collect();
    println!("kernel to trivial init       {}", spread(&direct));
    println!("kernel to hand-over          {}", spread(&staged));
    println!("  network aside              {}", spread(&local));
    println!("  beyond the trivial init    {}   bar {BAR}", spread(&beyond));
    if let Some(most) = filled.into_iter().reduce(f64::max) {
        println!("processors that unpacked, on average, the waiting included: {most:.2} of {CPUS}");
    }
    for (phase, seconds) in phases {
        println!("    {phase:<12} {}", spread(&seconds));
    }
    Ok(())
}

/// What is started.
struct Image {
    release: String,
    words: String,
    kernel: PathBuf,
    first_stage: PathBuf,
}

impl Image {
    /// The image in the operator's directory `home`.
    fn find(home: &Path) -> anyhow::Result<Self> {
        let home = Home::at(Some(home))?;
        let store = Store::open_reader(&home.store_path(), StoreOptions::default())?;
        let id = store.head(RELEASE_HEAD)?.context("no release")?;
        let bytes = store.object(&id).context("no release")?;
        let release = SignedRelease::decode(&bytes)?.verify(&home.trust_root()?)?;
        let path = |blob| store.blob(blob).map(|blob| blob.path().to_owned()).context("no such blob");
        Ok(Self {
            release: id.to_string(),
            kernel: path(&release.kernel.blob)?,
            first_stage: path(&release.first_stage.blob)?,
            // Tests have the root hashed once more. Machines do that where it lay on a disk, and this one has none.
            words: release.cmdline.replace("bootfabric.hash=yes", ""),
        })
    }
}

/// An initramfs with nothing but a static shell as its init, from the busybox root.
fn trivial_initramfs(cluster: &Cluster) -> anyhow::Result<PathBuf> {
    let tree = cluster.lab().directory().join("trivial");
    std::fs::create_dir_all(tree.join("dev"))?;
    let busybox = which("busybox").context("busybox is missing: `make setup` installs it")?;
    std::fs::copy(busybox, tree.join("busybox"))?;
    let init = tree.join("init");
    std::fs::write(
        &init,
        format!(
            "#!/busybox sh\n/busybox mount -t devtmpfs dev /dev\nexec >/dev/console\necho {TRIVIAL}\nexec /busybox sleep 1000\n"
        ),
    )?;
    let archive = cluster.lab().directory().join("trivial.cpio");
    let script = format!("chmod 755 init && find . | busybox cpio -o -H newc >{}", archive.display());
    let status =
        Command::new("sh").arg("-c").arg(script).current_dir(&tree).stderr(Stdio::null()).status()?;
    anyhow::ensure!(status.success(), "cannot make the trivial initramfs");
    Ok(archive)
}

fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// A machine until it said what was waited for.
struct Until {
    /// Seconds from power-on.
    took: f64,
    /// Those of each phase.
    phases: BTreeMap<String, f64>,
    /// Processors that unpacked its root while it came, on average, if it did.
    cores: Option<f64>,
}

/// Starts a machine, with an empty disk if it is to have one, and waits for `text`.
fn until(
    cluster: &Cluster,
    name: &str,
    kernel: DirectKernel,
    on_disk: bool,
    text: &str,
) -> anyhow::Result<Until> {
    let mut spec =
        MachineSpec::new(name, Firmware::Kernel(kernel)).memory_mib(MEMORY_MIB).cpus(CPUS).mac(MAC.parse()?);
    if on_disk {
        let disk = cluster.lab().directory().join(format!("{name}.disk"));
        std::fs::File::create(&disk)?.set_len(DISK_BYTES)?;
        spec = spec.disk(&disk);
    }
    let began = cluster.lab().elapsed();
    let machine = cluster.lab().machine(&spec, cluster.switch())?;
    let seen = machine.console().wait_for(text, BOOT_DEADLINE)?.at;
    let seconds = |event: &std::sync::Arc<netlab::Event>, field: &str| {
        Some(f64::from(u32::try_from(event.number(field)?).ok()?) / 1000.0)
    };
    let events = machine.events().all();
    let done = events.iter().filter(|event| event.is("phase-done"));
    let phases = done.filter_map(|event| Some((event.text("phase")?.to_owned(), seconds(event, "millis")?)));
    let phases = phases.collect();
    let filled = events.iter().find(|event| event.is("root-filled"));
    let cores = filled.and_then(|event| Some(seconds(event, "worked_millis")? / seconds(event, "millis")?));
    machine.kill()?;
    machine.delete()?;
    Ok(Until { took: (seen - began).as_secs_f64(), phases, cores })
}

/// `median (low–high)` seconds.
fn spread(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    format!("{:7.2} s ({:.2}–{:.2})", at((sorted.len().max(1) - 1) / 2), at(0), at(sorted.len().max(1) - 1))
}
