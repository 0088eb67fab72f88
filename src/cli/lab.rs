//! `bootfabric lab`.

use std::path::PathBuf;

use anyhow::{Context, bail};

use super::output::print_line;
use crate::lab::assets::{Assets, RootKind};
use crate::lab::cluster::{Boot, Cluster, Options};
use crate::lab::scenario::{self, Check};
use crate::lab::show::Show;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Boot bare virtual machines from each other, killing each after it has booted the next
    Demo(DemoArgs),
    /// Simulate a swarm of many nodes in virtual time: who is done when, what leaves the origin, what crosses racks
    Sim(super::sim::Args),
    /// Say what the lab is missing on this machine
    Check {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove what killed labs left behind
    Sweep,
}

#[derive(Debug, clap::Args)]
struct DemoArgs {
    /// Firmware of the machines
    #[arg(long, value_enum, default_value = "bios")]
    firmware: Boot,
    /// What they boot
    #[arg(long, value_enum, default_value = "debian")]
    root: RootKind,
    /// Directory to keep consoles, events and captures in
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Run here, without a parent that cleans up
    #[arg(long, hide = true)]
    inner: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Demo(demo) if demo.inner => run_demo(demo),
        Command::Demo(_) => run_guarded(),
        Command::Sim(sim) => super::sim::run(&sim),
        Command::Check { json } => check(json),
        Command::Sweep => {
            let swept = netlab::sweep_stale()?;
            print_line(&format!("{swept:?}"))
        }
    }
}

fn check(json: bool) -> anyhow::Result<()> {
    let missing = netlab::check().err().unwrap_or_default();
    if json {
        return super::output::print_json(&missing);
    }
    for item in &missing {
        print_line(&item.to_string())?;
    }
    if missing.is_empty() { print_line("nothing is missing") } else { bail!("the lab cannot run here yet") }
}

/// Runs the demo in a child, so that what it leaves when it is interrupted can be cleaned up.
fn run_guarded() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(async {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let mut child =
            tokio::process::Command::new(program).args(std::env::args_os().skip(1)).arg("--inner").spawn()?;
        loop {
            tokio::select! {
                ended = child.wait() => break ended.context("cannot wait for the demo"),
                // The terminal interrupts the child too; it ends, and what it leaves is removed here.
                _ = interrupt.recv() => eprintln!("Interrupted: cleaning up …"),
            }
        }
    })?;
    netlab::sweep_stale().context("cannot remove what the demo left")?;
    if ended.success() { Ok(()) } else { bail!("the demo did not succeed") }
}

fn run_demo(args: DemoArgs) -> anyhow::Result<()> {
    if let Err(missing) = netlab::check() {
        let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
        bail!(
            "the lab cannot run here yet; `make setup` installs what is missing:\n  {}",
            missing.join("\n  ")
        );
    }
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let assets = Assets::find(&program)?;
    eprintln!("Building the image, once for this program …");
    let options = Options { name: "demo", root: args.root, boot: args.firmware, keep: args.keep };
    let cluster = Cluster::new(assets, options)?;
    let show = Show::start(cluster.lab().timeline());
    let mut checks = Vec::new();
    let done = scenario::relay(&cluster, &mut |check| {
        eprintln!("{:7.1} s  ✔ {}{}", cluster.lab().elapsed().as_secs_f64(), check.what, detail(&check));
        checks.push(check);
    });
    drop(show);
    let took = cluster.lab().elapsed().as_secs();
    print_line("")?;
    for check in &checks {
        print_line(&format!("  ✔ {}{}", check.what, detail(check)))?;
    }
    match done {
        Ok(_) => print_line(&format!(
            "\nVERDICT: it works. Three bare machines booted one from another in {took} s; the first image's bringer is long gone."
        )),
        Err(error) => {
            print_line(&format!("\nVERDICT: it failed after {took} s."))?;
            Err(error)
        }
    }
}

fn detail(check: &Check) -> String {
    if check.detail.is_empty() { String::new() } else { format!(" ({})", check.detail) }
}
