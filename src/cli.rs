//! The command line: what was typed (here) apart from what it means (one module per noun).
//!
//! Data goes to standard output, words go to standard error. Every listing has `--json`.

mod completions;
mod desk;
mod fetch;
pub mod image;
mod init;
mod lab;
mod machines;
mod member;
mod node;
pub mod output;
mod place;
mod seed;
mod sim;
mod status;
mod store;
mod transfer_bar;
mod up;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

/// Exit status when what was asked for could not be done.
const FAILED: u8 = 1;

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "bootfabric",
    version,
    about = "Network booting without a server: every machine that was booted boots the next one",
    after_help = "\
Getting started:
  sudo bootfabric init                               make the keys and settings of a new fabric
  sudo bootfabric image build --root DIR --kernel DEB --name debian --version 1
  sudo bootfabric up --interface eth1                become the first node: bare machines on that link now boot
  sudo bootfabric status                             see who is there and who holds what
  sudo bootfabric lab demo                           see all of it in virtual machines first
(Without root, init and image build work in ~/.local/share/bootfabric; name it to `up` with --fabric.)

Exit status: 0 done; 1 could not be done, the reason is on standard error; 2 the command line is wrong."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Say more on standard error; twice for everything (RUST_LOG takes precedence)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the keys, settings and store of a new fabric
    Init(init::Args),
    /// Be a node: answer bare machines on a link, serve and fetch images
    Up(up::Args),
    /// Build, list and remove images
    Image(image::Args),
    /// List, check, pin and tidy up what a store holds
    Store(store::Args),
    /// Say what machines get: subnets, groups, nodes; addresses, options, loaders, kernel arguments
    Machines(machines::Args),
    /// List, admit and revoke the members of a private fabric
    Member(member::Args),
    /// Start this machine anew, with or without firmware; make its node go on as another program
    Node(node::Args),
    /// Show a running node: its peers, leases, clients and blobs
    Status(status::Args),
    /// Show a running node's events as they happen, one JSON object a line
    Events(status::EventsArgs),
    /// Serve files to many machines at once, without a fabric
    Seed(seed::Args),
    /// Fetch a file that others seed, from all of them at once
    Fetch(fetch::Args),
    /// Try everything on this machine: namespaces and virtual machines with real firmware
    Lab(lab::Args),
    /// Print the completions for a shell
    Completions(completions::Args),
    /// The agent of a booted machine (started by the first stage and by its service)
    #[command(hide = true)]
    Agent(up::AgentArgs),
    /// Install an image on a disk as the file says (started by the first stage)
    #[command(hide = true)]
    DiskInstall(image::install::StepArgs),
}

/// Runs what was typed.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    output::start_log(cli.verbose);
    let done = match cli.command {
        Command::Init(args) => init::run(&args),
        Command::Up(args) => up::run(args),
        Command::Image(args) => image::run(args),
        Command::Store(args) => store::run(args),
        Command::Machines(args) => machines::run(&args),
        Command::Member(args) => member::run(&args),
        Command::Node(args) => node::run(args),
        Command::Status(args) => status::run(&args),
        Command::Events(args) => status::follow(&args),
        Command::Seed(args) => seed::run(&args),
        Command::Fetch(args) => fetch::run(args),
        Command::Lab(args) => lab::run(args),
        Command::Completions(args) => completions::run(&args),
        Command::Agent(args) => up::run_agent(args),
        Command::DiskInstall(args) => image::install::run_step(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bootfabric: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

/// The runtime of `seed` and `fetch`: one thread for the network, which never waits for another; hashing and writing of
/// long runs have threads of their own.
fn share_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

/// The name of a rack.
fn rack(text: &str) -> Result<String, String> {
    let max = fabric::swarm::MAX_RACK;
    if text.len() <= max {
        Ok(text.to_owned())
    } else {
        Err(format!("the name of a rack has at most {max} bytes"))
    }
}

/// Does `work` until a signal asks the program to end.
async fn until_stopped(work: impl Future<Output = ()>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = work => {}
    }
    Ok(())
}

/// The command line's own description, for completions.
pub(crate) fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_description_is_sound() {
        super::command().debug_assert();
    }
}
