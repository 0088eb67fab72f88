//! `bootfabric lab sim`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fabric::exchange::sim::{Fault, Loss, Scenario};

use super::output::{print_json, print_line};
use super::transfer_bar::TransferBar;
use crate::lab::sim::Figures;
use crate::limits::Rate;

/// Bytes of headers in a full segment on Ethernet: Ethernet, IPv4, TCP with timestamps.
const HEADERS: u32 = 66;
/// Neighbours outside its rack that a node has at least.
const OUTSIDE: u32 = 16;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs the same core that decides in every node, thousands of times in one process and in virtual time: a flash crowd in which
all nodes ask for one blob at the same moment and one has it. A seed gives the same run again, to the byte. What the model
leaves out is in docs/simulator.md. Needs no root.

  bootfabric lab sim --nodes 10000 --plot swarm.svg
  bootfabric lab sim --nodes 999 --racks 25 --oversubscription 4
  bootfabric lab sim --nodes 200 --churn 20 --loss 0.1 --kill-origin
  bootfabric lab sim --nodes 200 --liars 5")]
pub(crate) struct Args {
    /// Nodes that fetch, besides the origin
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    nodes: u32,
    /// Size of the blob in MiB
    #[arg(long, default_value_t = 64, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=65_536))]
    size: u64,
    /// Rate of every node's link, each way, as in 400mbit or 50MB
    #[arg(long, default_value = "50mbit", value_name = "RATE")]
    rate: Rate,
    /// Neighbours of a node
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1000))]
    degree: u32,
    /// Racks that the nodes stand in, each behind one uplink
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    racks: u32,
    /// How many times what its uplink carries the links of a rack carry together
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    oversubscription: u64,
    /// Nodes do not know of racks
    #[arg(long)]
    rack_blind: bool,
    /// Links differ by up to so much from the rate, in per cent
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=90))]
    spread: u32,
    /// TCP segments that links lose, in per cent
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", value_parser = percentage)]
    loss: f64,
    /// Answers whose connection breaks half-way, in per cent
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", value_parser = percentage)]
    resets: f64,
    /// Nodes that crash while one copy is sent, and come back with nothing, in per cent
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    churn: u32,
    /// Seconds until such a node is back
    #[arg(long, default_value_t = 2, value_name = "SECONDS")]
    down: u64,
    /// Nodes that crash and stay away, in per cent
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    leave: u32,
    /// Nodes that join later than the others, while one copy is sent, in per cent
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    late: u32,
    /// Milliseconds until neighbours find out that a node is gone
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    notice: u64,
    /// Nodes that put a wrong chunk into each answer, in per cent
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=90))]
    liars: u32,
    /// Milliseconds until a node that starts takes part: it dials, shakes hands and fetches the index
    #[arg(long, default_value_t = 350, value_name = "MS")]
    start: u64,
    /// Milliseconds that a request or message between two busy links waits in their queues
    #[arg(long, default_value_t = 26, value_name = "MS")]
    queue: u64,
    /// The origin dies as soon as every chunk has left it
    #[arg(long)]
    kill_origin: bool,
    /// The seed: the same one gives the same run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write the curve of completion as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let scenario = scenario(args);
    let total = scenario.size.saturating_mul(u64::from(scenario.nodes));
    let begun = Instant::now();
    let bar = TransferBar::new("simulating", total);
    let outcome = scenario.run_watched(&mut |sample| bar.at(sample.held));
    drop(bar);
    let wall: Duration = begun.elapsed();
    let figures = Figures::new(&scenario, &outcome, wall);
    if let Some(file) = &args.plot {
        write_plot(file, &figures.plot(&outcome, &details(args)).svg())?;
    }
    if args.json {
        print_json(&figures)?;
    } else {
        print_line(&figures.table())?;
    }
    if figures.all_done() {
        Ok(())
    } else {
        bail!(
            "not every node was done when the simulated time was over: fewer of them must crash, leave or lie, or --degree must \
             be larger"
        )
    }
}

fn write_plot(file: &Path, svg: &str) -> anyhow::Result<()> {
    std::fs::write(file, svg).with_context(|| {
        format!("cannot write the plot to {}: name another place with --plot", file.display())
    })
}

fn scenario(args: &Args) -> Scenario {
    let crowd = Scenario::flash_crowd(args.nodes, args.size << 20, args.rate.bytes_per_second());
    let mut scenario = Scenario {
        degree: args.degree,
        seed: args.seed,
        spread: args.spread,
        headers: HEADERS,
        loss: Loss { segments: per_million(args.loss), resets: per_million(args.resets) },
        notice: args.notice.saturating_mul(1000),
        start: args.start.saturating_mul(1000),
        queue: args.queue.saturating_mul(1000),
        ..crowd
    };
    if args.racks > 1 {
        scenario = scenario.in_racks(args.racks, args.oversubscription);
        scenario.racks.known = !args.rack_blind;
        scenario.degree = scenario.degree.max(scenario.racks.near + OUTSIDE);
    }
    if args.churn > 0 {
        scenario = scenario.with_churn(args.churn, Some(args.down.saturating_mul(1_000_000)));
    }
    if args.leave > 0 {
        scenario = scenario.with_churn(args.leave, None);
    }
    if args.late > 0 {
        scenario = scenario.with_latecomers(args.late);
    }
    if args.liars > 0 {
        scenario = scenario.with_liars(args.liars);
    }
    if args.kill_origin {
        scenario.faults.push(Fault::OriginDiesAfterFirstCopy);
    }
    scenario
}

/// What makes the run harder than a plain flash crowd, for below the title of the plot.
fn details(args: &Args) -> String {
    let racks = (args.racks > 1).then(|| {
        let known = if args.rack_blind { ", unknown to the nodes" } else { "" };
        format!("uplinks {}:1{known}", args.oversubscription)
    });
    let percent = |value: f64, what: &str| (value > 0.0).then(|| format!("{value} % {what}"));
    let parts = [
        Some(format!("degree {}", args.degree)),
        racks,
        percent(f64::from(args.spread), "spread of links"),
        percent(args.loss, "lost segments"),
        percent(args.resets, "broken answers"),
        percent(f64::from(args.churn), "crash and return"),
        percent(f64::from(args.leave), "leave"),
        percent(f64::from(args.late), "come late"),
        percent(f64::from(args.liars), "lie"),
        args.kill_origin.then(|| "the origin dies after its first copy".to_owned()),
    ];
    parts.into_iter().flatten().map(|part| part + ", ").collect()
}

fn percentage(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|value| (0.0..=100.0).contains(value))
        .ok_or_else(|| "a number from 0 to 100 is expected".into())
}

/// Per cent as parts of a million.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to a million")]
fn per_million(percent: f64) -> u32 {
    (percent * 10_000.0).round() as u32
}
