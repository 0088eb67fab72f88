//! One switch, an origin, and machines that boot from each other.
//!
//! A thin layer over [`netlab`] that knows what this program says of itself: nodes are known by name, their addresses
//! and ids are learned from their events.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use netlab::{
    Capture, EventLog, Firmware, Host, Lab, LabOptions, Mac, Machine, MachineSpec, Process, Switch,
};

use super::assets::{Assets, RootKind};
use crate::event::{Event, Source};
use crate::node::status::Status;

/// A machine's boot, under emulation on a machine with other work: generous, because waiting ends at the event.
pub const BOOT_DEADLINE: Duration = Duration::from_secs(420);
/// Anything that takes seconds.
pub const STEP_DEADLINE: Duration = Duration::from_secs(120);
/// Memory of a machine: room for the image, its unpacked first stage, and a running Debian.
const MACHINE_MEMORY_MIB: u32 = 640;

/// Size of a machine's disk: a Debian, its store, and room. The file is sparse.
const DISK_BYTES: u64 = 3 << 30;

/// The firmware of a lab machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Boot {
    /// SeaBIOS with the iPXE option ROM.
    Bios,
    /// OVMF: PXE, then `snponly.efi`.
    Uefi,
}

/// Options of a cluster.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the lab.
    pub name: &'static str,
    /// What machines boot.
    pub root: RootKind,
    /// The firmware of its machines.
    pub boot: Boot,
    /// Where to keep consoles and captures.
    pub keep: Option<PathBuf>,
}

/// A switch with nodes.
pub struct Cluster {
    lab: Lab,
    switch: Switch,
    capture: Capture,
    assets: Assets,
    options: Options,
}

/// A node that is a namespace on this machine.
pub struct HostNode {
    /// The namespace.
    pub host: Host,
    /// The node's process.
    pub process: Process,
    /// The operator's directory it runs from.
    pub home: PathBuf,
    /// The id and address it reported.
    pub node: Started,
    program: PathBuf,
    state: PathBuf,
}

/// A node that is a namespace on this machine and may not serve yet.
pub struct StartingNode {
    /// The namespace.
    pub host: Host,
    /// The node's process.
    pub process: Process,
    /// The operator's directory it runs from.
    pub home: PathBuf,
    program: PathBuf,
    state: PathBuf,
}

/// A node that is a virtual machine.
pub struct MachineNode {
    /// Name in the lab.
    pub name: String,
    /// The virtual machine.
    pub machine: Machine,
}

/// What a node says of itself once it serves.
#[derive(Debug, Clone)]
pub struct Started {
    /// Its id in the swarm.
    pub node: String,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Cluster {
    /// An empty switch under capture.
    ///
    /// # Errors
    /// If the lab cannot be made; the message says what is missing.
    pub fn new(assets: Assets, options: Options) -> anyhow::Result<Self> {
        let lab = Lab::with_options(options.name, &LabOptions { keep: options.keep.clone() })
            .context("cannot make the lab")?;
        let switch = lab.switch("sw0")?;
        let capture = switch.capture("switch", "")?;
        Ok(Self { lab, switch, capture, assets, options })
    }

    /// The lab of a test with the program at `program`; none where labs are to be skipped. What `NETLAB_KEEP` names keeps
    /// consoles and captures.
    ///
    /// # Errors
    /// If this machine cannot run labs, or the lab cannot be made; the message says what is missing.
    pub fn in_test(
        program: &Path,
        name: &'static str,
        root: RootKind,
        boot: Boot,
    ) -> anyhow::Result<Option<Self>> {
        if !netlab::ready_or_skip()? {
            return Ok(None);
        }
        let keep = std::env::var_os("NETLAB_KEEP").map(Into::into);
        Self::new(Assets::find(program)?, Options { name, root, boot, keep }).map(Some)
    }

    /// The lab.
    #[must_use]
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The switch.
    #[must_use]
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// Everything that crossed the switch.
    #[must_use]
    pub fn capture(&self) -> &Capture {
        &self.capture
    }

    /// What machines boot.
    #[must_use]
    pub fn root(&self) -> RootKind {
        self.options.root
    }

    /// Makes an operator's directory for a host node, with the image in its store.
    ///
    /// # Errors
    /// If building the image fails.
    pub fn make_home(&self, name: &str) -> anyhow::Result<PathBuf> {
        let home = self.lab.directory().join(format!("{name}.home"));
        self.assets.home(self.options.root, &home)?;
        Ok(home)
    }

    /// The same with an image that machines can install on disks, and `line` behind its kernel arguments.
    ///
    /// # Errors
    /// If building the image fails.
    pub fn make_disk_home(&self, name: &str, line: &str) -> anyhow::Result<PathBuf> {
        let home = self.lab.directory().join(format!("{name}.home"));
        self.assets.disk_home(self.options.root, line, &home)?;
        Ok(home)
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        self.assets.program()
    }

    /// Starts a node in a namespace of its own, from `home`, and waits until it serves.
    ///
    /// # Errors
    /// If it does not start; its log is in the message.
    pub fn start_host(&self, name: &str, home: PathBuf, more: &[&str]) -> anyhow::Result<HostNode> {
        self.spawn_host(name, home, more)?.started()
    }

    /// Starts a node in a namespace of its own, from `home`.
    ///
    /// # Errors
    /// If the namespace or the process cannot be made.
    pub fn spawn_host(&self, name: &str, home: PathBuf, more: &[&str]) -> anyhow::Result<StartingNode> {
        let host = self.lab.host(name, &self.switch)?;
        let program = self.assets.program().to_owned();
        let state = self.lab.directory().join(format!("{name}.state"));
        let process = spawn_up(&host, &program, &home, &state, more)?;
        Ok(StartingNode { host, process, home, program, state })
    }

    /// Powers a bare machine on.
    ///
    /// # Errors
    /// If the virtual machine does not start.
    pub fn power_on(&self, name: &str, mac: Option<Mac>) -> anyhow::Result<MachineNode> {
        self.power_on_with(name, mac, MACHINE_MEMORY_MIB)
    }

    /// Powers a bare machine with that much memory on.
    ///
    /// # Errors
    /// If the virtual machine does not start.
    pub fn power_on_with(
        &self,
        name: &str,
        mac: Option<Mac>,
        memory_mib: u32,
    ) -> anyhow::Result<MachineNode> {
        let mut spec = self.spec(name).memory_mib(memory_mib);
        if let Some(mac) = mac {
            spec = spec.mac(mac);
        }
        self.power_on_as(&spec)
    }

    /// Powers a machine on whose disk is the file `disk`, made if it is missing.
    ///
    /// # Errors
    /// If the file cannot be made or the virtual machine does not start.
    pub fn power_on_with_disk(&self, name: &str, mac: Mac, disk: &Path) -> anyhow::Result<MachineNode> {
        let file = std::fs::File::options().create(true).truncate(false).write(true).open(disk);
        let file = file.with_context(|| format!("cannot make {}", disk.display()))?;
        if file.metadata()?.len() == 0 {
            file.set_len(DISK_BYTES)?;
        }
        self.power_on_as(&self.spec(name).mac(mac).disk(disk))
    }

    /// A machine with this cluster's firmware, to be changed and powered on.
    #[must_use]
    pub fn spec(&self, name: &str) -> MachineSpec {
        let firmware = match self.options.boot {
            Boot::Bios => Firmware::Bios,
            Boot::Uefi => Firmware::uefi(),
        };
        MachineSpec::new(name, firmware).memory_mib(MACHINE_MEMORY_MIB)
    }

    /// Powers the machine of `spec` on.
    ///
    /// # Errors
    /// If the virtual machine does not start.
    pub fn power_on_as(&self, spec: &MachineSpec) -> anyhow::Result<MachineNode> {
        let machine = self.lab.machine(spec, &self.switch)?;
        Ok(MachineNode { name: machine.name().to_owned(), machine })
    }

    /// What machines boot from.
    #[must_use]
    pub fn assets(&self) -> &Assets {
        &self.assets
    }
}

impl HostNode {
    /// What the node says of its state.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn status(&self) -> anyhow::Result<Status> {
        ask_status(&self.host, &self.program, &self.state)
    }
}

impl StartingNode {
    /// Waits until it serves.
    ///
    /// # Errors
    /// If it does not within the time of a boot; its log is in the message.
    pub fn started(self) -> anyhow::Result<HostNode> {
        let node = started(self.host.events()).with_context(|| self.process.describe())?;
        let Self { host, process, home, program, state } = self;
        Ok(HostNode { host, process, home, node, program, state })
    }

    /// What the node says of its state.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn status(&self) -> anyhow::Result<Status> {
        ask_status(&self.host, &self.program, &self.state)
    }

    /// Starts it again after its process has ended, over what it left.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start_again(&mut self, more: &[&str]) -> anyhow::Result<()> {
        self.process = spawn_up(&self.host, &self.program, &self.home, &self.state, more)?;
        Ok(())
    }
}

/// Starts `bootfabric up` in the namespace of `host`.
fn spawn_up(
    host: &Host,
    program: &Path,
    home: &Path,
    state: &Path,
    more: &[&str],
) -> anyhow::Result<Process> {
    let mut command = host.command(program);
    command.args(["up", "--interface", host.interface(), "--name", host.name(), "--fabric"]).arg(home);
    command.arg("--state").arg(state).arg("--events").arg(host.events_path()).args(more);
    Ok(host.spawn("up", &mut command)?)
}

fn ask_status(host: &Host, program: &Path, state: &Path) -> anyhow::Result<Status> {
    let output = host.command(program).args(["status", "--json", "--state"]).arg(state).output()?;
    ensure!(output.status.success(), "no status: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("the status cannot be read")
}

impl MachineNode {
    /// Its events.
    #[must_use]
    pub fn events(&self) -> &EventLog {
        self.machine.events()
    }

    /// Waits until it serves as a node.
    ///
    /// # Errors
    /// If it does not within the time of a boot.
    pub fn started(&self) -> anyhow::Result<Started> {
        started(self.events())
    }

    /// Waits for the event `name`.
    ///
    /// # Errors
    /// If it does not come within the time of a boot.
    pub fn wait_for(&self, name: &str) -> anyhow::Result<Event> {
        let event = self.events().wait_for_name(name, BOOT_DEADLINE)?;
        parse(&event).with_context(|| format!("event {name} of {}", self.name))
    }

    /// Waits until `blob` with the given role is complete and says where it came from.
    ///
    /// # Errors
    /// If it does not come within the time of a boot.
    pub fn complete(&self, role: &str) -> anyhow::Result<Vec<Source>> {
        let wanted = |event: &netlab::Event| event.is("blob-complete") && event.text("role") == Some(role);
        let event = self.events().wait_for(&format!("{role} complete"), BOOT_DEADLINE, wanted)?;
        match parse(&event)? {
            Event::BlobComplete { sources, .. } => Ok(sources),
            other => anyhow::bail!("unexpected {other:?}"),
        }
    }

    /// Its events from now on. What its console has said, often twice, is no answer to what is waited for from now on either.
    #[must_use]
    pub fn from_now(&self) -> EventLog {
        self.machine.console().skip();
        self.machine.events().from_now()
    }

    /// Waits until the root's own init has taken over and done its work, the device's hash is the release's and, for
    /// a root with systemd, the agent runs as its service. Returns the hash.
    ///
    /// # Errors
    /// If one of these does not happen.
    pub fn booted(&self, root: RootKind) -> anyhow::Result<String> {
        self.booted_in(self.events(), root)
    }

    /// As [`MachineNode::booted`], by what it says in `events`: those since it was started again ([`MachineNode::from_now`]).
    ///
    /// # Errors
    /// If one of these does not happen.
    pub fn booted_in(&self, events: &EventLog, root: RootKind) -> anyhow::Result<String> {
        let wait_for = |name: &str| parse(&events.wait_for_name(name, BOOT_DEADLINE)?);
        let hash = match wait_for("root-hashed")? {
            Event::RootHashed { computed, expected, matches } => {
                ensure!(
                    matches && computed == expected,
                    "{}: the device hashes to {computed}, not {expected}",
                    self.name
                );
                computed
            }
            other => anyhow::bail!("unexpected {other:?}"),
        };
        wait_for("handed-over")?;
        self.machine.console().wait_for(root.booted_text(), BOOT_DEADLINE)?;
        if root != RootKind::Busybox {
            match wait_for("took-over")? {
                Event::TookOver { fetched: 0 } => {}
                other => anyhow::bail!("{}: the service fetched again: {other:?}", self.name),
            }
        }
        Ok(hash)
    }
}

fn started(events: &EventLog) -> anyhow::Result<Started> {
    let event = events.wait_for_name("node-started", BOOT_DEADLINE)?;
    match parse(&event)? {
        Event::NodeStarted { node, address, .. } => Ok(Started { node, address }),
        other => anyhow::bail!("unexpected {other:?}"),
    }
}

/// A lab event as this program's own.
///
/// # Errors
/// If it is none: names and fields are an interface, so that is a defect.
pub fn parse(event: &Arc<netlab::Event>) -> anyhow::Result<Event> {
    serde_json::from_value(event.value.clone())
        .with_context(|| format!("not an event of this program: {}", event.value))
}

/// Bytes of `sources` by address.
#[must_use]
pub fn by_address(sources: &[Source]) -> BTreeMap<Ipv4Addr, u64> {
    let mut bytes = BTreeMap::new();
    for source in sources {
        if let Ok(address) = source.address.parse() {
            *bytes.entry(address).or_default() += source.bytes;
        }
    }
    bytes
}
