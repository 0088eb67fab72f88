//! `bootfabric up`, and the hidden `bootfabric agent` of booted machines.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use super::status::DEFAULT_STATE;
use crate::event::Events;
use crate::home::Home;
use crate::limits::Limits;
use crate::link::{self, Cidr};
use crate::node::config::{DhcpMode, NodeConfig};
use crate::node::{self, Ended, Start};
use crate::stage::RootOptions;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The interface is the one on the switch with the bare machines. If it has no IPv4 address and nobody answers for the one
chosen, the node takes an address of the fabric's pool for itself.

With --dhcp auto the node asks the link for a DHCP server of the site, for half a second before it answers anybody and every
few minutes after that. While there is none, it gives addresses itself; from the moment one is found it tells boot files
alone (ProxyDHCP), until it is started again. An interface whose address lies outside of the fabric's subnet makes it a proxy
at once. Beside a site's DHCP server give the interface an address of the site's network.

In a private fabric the node becomes a member by the operator's key in the fabric's directory, under the name of this node;
without that key it waits until `bootfabric member admit` is said on a member.

Needs root, or the capabilities CAP_NET_BIND_SERVICE, CAP_NET_RAW and CAP_NET_ADMIN.")]
pub(crate) struct Args {
    /// Interface on the switch with the bare machines
    #[arg(short, long, value_name = "NAME")]
    interface: String,
    /// The fabric's directory [default: /var/lib/bootfabric for root, else ~/.local/share/bootfabric]
    #[arg(long, value_name = "DIR")]
    fabric: Option<PathBuf>,
    /// Directory of the store, on a disk of its own perhaps [default: the fabric's own]
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Directory for the control socket and the node's key
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE)]
    state: PathBuf,
    /// Name of this node [default: the host name]
    #[arg(long)]
    name: Option<String>,
    /// Address to use, if the interface has none
    #[arg(long, value_name = "A.B.C.D/N")]
    address: Option<Cidr>,
    /// A node to begin with; others are found through it (may be repeated)
    #[arg(long = "peer", value_name = "ADDRESS")]
    peers: Vec<Ipv4Addr>,
    /// Rack that this machine stands in: what other racks have is fetched about once for all of the rack
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, value_parser = super::rack)]
    rack: String,
    /// How to answer DHCP
    #[arg(long, value_enum, default_value = "auto")]
    dhcp: DhcpMode,
    #[command(flatten)]
    limits: Limits,
    /// Directory with boot files of your own, served read-only over TFTP and HTTP; one with a loader's name takes its place
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,
    /// File to append events to, one JSON object a line
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct AgentArgs {
    /// Serve as the first stage says in this file; commands come on standard input, events go to standard output
    #[arg(long, value_name = "FILE")]
    first_stage: Option<PathBuf>,
    /// Take sockets, identity and store over from the agent with this state directory
    #[arg(long, value_name = "DIR")]
    take_over: Option<PathBuf>,
}

/// Threads of a node's runtime: the bulk path costs little, and small machines have few cores.
const WORKERS: usize = 2;

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(WORKERS).enable_all().build().context("cannot start the runtime")
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let home = Home::at(args.fabric.as_deref())?;
    let trust_root = home.trust_root()?;
    let mac = link::hardware_address(&args.interface)?;
    let address = match args.address {
        Some(address) => Some(address),
        None => link::ipv4(&args.interface)?,
    };
    let events = Events::new();
    let config = NodeConfig {
        name: args.name.unwrap_or_else(host_name),
        interface: args.interface,
        mac,
        address,
        trust_root,
        state: args.state,
        store: args.store.unwrap_or_else(|| home.store_path()),
        first_peers: args.peers,
        release: None,
        rack: args.rack,
        dhcp: args.dhcp,
        http_port: None,
        swarm_port: None,
        limits: args.limits,
        root: RootOptions::default(),
        events: args.events,
        files: args.files,
        private: false,
        volatile: false,
        awaits_disk: false,
    };
    // Without it the node of a private fabric waits to be admitted like any other.
    let operator = home.operator().ok();
    run_node(Start::Operator(config, operator.map(Box::new)), events)
}

pub(crate) fn run_agent(args: AgentArgs) -> anyhow::Result<()> {
    let events = Events::new();
    let start = match (args.first_stage, args.take_over) {
        (Some(path), _) => {
            events.add_sink(Box::new(std::io::stdout()));
            Start::FirstStage(node::config::from_first_stage(&path)?)
        }
        (None, Some(state)) => Start::TakeOver(state),
        (None, None) => anyhow::bail!("--first-stage or --take-over is needed"),
    };
    run_node(start, events)
}

/// Runs a node until its end, whatever program it is then.
pub(super) fn run_node(start: Start, events: Events) -> anyhow::Result<()> {
    match runtime()?.block_on(node::run(start, events))? {
        Ended::Done => Ok(()),
        Ended::Becomes { program, state } => {
            let error = Command::new(&program).args(["agent", "--take-over"]).arg(state).exec();
            Err(error).with_context(|| format!("cannot become {}", program.display()))
        }
    }
}

fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "node".into())
}
