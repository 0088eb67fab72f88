//! `bootfabric status` and `bootfabric events`.

use std::path::PathBuf;

use anyhow::Context;
use fabric::exchange::Route;
use tokio::io::AsyncBufReadExt;

use super::output::print_line;
use crate::human::human_bytes;
use crate::node::control::{Request, ask, ask_line, socket_path};
use crate::node::status::{ShareStatus, Status};

/// Where a node of this machine keeps its control socket unless told otherwise.
pub(crate) const DEFAULT_STATE: &str = "/run/bootfabric";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The node's state directory
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE)]
    state: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct EventsArgs {
    /// The node's state directory
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE)]
    state: PathBuf,
    /// Go on until stopped (this is what the command does; the flag is for habit's sake)
    #[arg(short, long)]
    follow: bool,
}

pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let line = runtime()?.block_on(ask_line(&socket_path(&args.state), &Request::Status))?;
    if args.json {
        return print_line(line.trim_end());
    }
    let status: Status =
        serde_json::from_str(&line).context("the node is of another version than this command")?;
    for line in lines(&status) {
        print_line(&line)?;
    }
    Ok(())
}

pub(crate) fn follow(args: &EventsArgs) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let stream = ask(&socket_path(&args.state), &Request::Events).await?;
        let mut lines = tokio::io::BufReader::new(stream).lines();
        while let Some(line) = lines.next_line().await.context("the node went away")? {
            print_line(&line)?;
        }
        Ok(())
    })
}

fn lines(status: &Status) -> Vec<String> {
    let mut lines = vec![format!(
        "{}  {}  node {}  {} {}",
        status.name,
        status.address.map_or_else(|| "no address yet".into(), |address| address.to_string()),
        status.node.short(),
        if status.serves_boot { "boots others on" } else { "not booting others yet on" },
        status.interface,
    )];
    match &status.release {
        Some(release) => lines.push(format!(
            "release {} {} (generation {})  {}",
            release.name, release.version, release.generation, release.id
        )),
        None => lines.push("no release yet: `bootfabric image build` makes one".into()),
    }
    if status.private {
        lines.push(match &status.refused {
            None => "private fabric".into(),
            Some(refused) => format!("private fabric: {refused}"),
        });
    }
    lines.push(format!("\npeers ({})", status.peers.len()));
    for peer in &status.peers {
        let sent = human_bytes(peer.fetched);
        let boots = if peer.serves_boot { "boots others" } else { "joining" };
        let route = if peer.route == Some(Route::Swarm) { " (reached over the swarm only)" } else { "" };
        lines.push(format!(
            "  {:<16} {:<15} {}  {boots}, sent us {sent}{route}",
            peer.name,
            peer.address,
            peer.node.0.short()
        ));
    }
    if !status.bans.is_empty() {
        lines.push(format!("\nbanned ({})", status.bans.len()));
    }
    for ban in &status.bans {
        let name = ban.name.as_deref().unwrap_or("(not here)");
        lines.push(format!("  {name:<16} {}  {}", ban.node.0.short(), ban.why));
        if let Some(proof) = &ban.proof {
            lines.push(format!("  {:<16} {} came, {} is right", "", proof.got, proof.expected));
        }
    }
    lines.push(format!("\nblobs ({})", status.blobs.len()));
    for blob in &status.blobs {
        let share = (blob.held * 100).checked_div(blob.size).unwrap_or(100);
        lines.push(format!("  {:<12} {:>9}  {share:>3} %  {}", blob.role, human_bytes(blob.size), blob.blob));
        lines.extend(blob.share.map(|share| share_line(&share)));
    }
    lines.push(format!("\nleases ({})", status.leases.len()));
    for lease in &status.leases {
        lines.push(format!("  {:<15} {:<18} {}", lease.address, lease.client, lease.state));
    }
    lines.push(format!("\nboots ({})", status.boots.len()));
    for boot in &status.boots {
        let address = boot.address.map_or_else(String::new, |address| address.to_string());
        lines.push(format!(
            "  {:<18} {address:<15} {:<14} {:<12} {:>9} in {} s, {} s ago",
            boot.mac,
            boot.class,
            boot.stage,
            human_bytes(boot.bytes),
            boot.seconds,
            boot.idle_seconds
        ));
    }
    lines
}

/// What is said of a blob of which a share is kept.
fn share_line(share: &ShareStatus) -> String {
    let ShareStatus { sharers, copies, lacking, no_room } = *share;
    let mut line = match sharers {
        1 => "    the first of its share: all stays until others keep one".to_owned(),
        _ => format!("    a share: {sharers} nodes keep {copies} copies of each chunk"),
    };
    if lacking > 0 {
        line.push_str(&format!(", {} to come", human_bytes(lacking)));
    }
    if no_room > 0 {
        line.push_str(&format!(", no memory for {} of it", human_bytes(no_room)));
    }
    line
}
