//! DHCP under load: one node of the real program, Kea and dnsmasq in turn, asked by `perfdhcp` in namespaces on one switch,
//! then five nodes that replicate.
//!
//! `cargo bench --bench dhcp` runs all; words after `--` run the scenarios whose names contain one of them. `PROGRAM` names
//! another program than this build's. Needs root, the lab's assets, and perfdhcp, Kea and dnsmasq. Figures of one run may
//! be compared, those of two may not.
//!
//! | scenario | what |
//! |---|---|
//! | `ceiling` | how far perfdhcp itself goes: a server that only turns packets round |
//! | `rate` | best rate of whole exchanges with less than 1 % lost, 5,000 clients, by broadcast; CPU of the server |
//! | `shared` | the same with the server on a processor where something of higher priority leaves it a tenth: perfdhcp is far from its limit there |
//! | `latency` | mean time to OFFER and ACK at 500 exchanges per second |
//! | `five` | five nodes at half of the rate that one reached: OFFERs per DISCOVER, addresses given twice, lost exchanges |
//! | `killed` | five nodes in a storm; the one that has just offered is killed: how often each client has to ask again |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark stops where it cannot go on"
)]

mod load;
#[path = "../measure.rs"]
#[allow(dead_code, reason = "shared with the other benchmark")]
mod measure;
mod reflect;
mod servers;
mod storm;

use load::{Run, Tally, perfdhcp};
use servers::{Field, Server};
use storm::storm;

/// Exchanges per second tried, in turn, until one loses 1 % or more.
const LADDER: [u32; 16] =
    [100, 250, 500, 750, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 9000, 10_000, 12_000, 14_000, 18_000];
/// Seconds of each step.
const PERIOD: u32 = 4;
/// Share of exchanges that may be lost.
const LOST: f64 = 0.01;

fn main() {
    // `cargo bench` adds `--bench`; what else is there are names.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    if let [word, address] = words.as_slice()
        && word == "reflect"
    {
        reflect::serve(address.parse().unwrap());
    }
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let field = Field::new();
    if wanted("ceiling") {
        let server = field.start(Server::Reflector);
        best("ceiling", &field, &server);
    }
    let mut ours = None;
    if wanted("rate") || wanted("five") {
        for kind in [Server::Ours, Server::Kea, Server::Dnsmasq] {
            let server = field.start(kind);
            let rate = best("rate", &field, &server);
            ours = ours.or(Some(rate));
        }
    }
    if wanted("shared") {
        let rates = [Server::Ours, Server::Kea, Server::Dnsmasq].map(|kind| {
            let server = field.start(kind);
            let _hog = server.crowd();
            best("shared", &field, &server)
        });
        println!("shared     ours / Kea = {:.2}", f64::from(rates[0]) / f64::from(rates[1]));
    }
    if wanted("latency") {
        for kind in [Server::Ours, Server::Kea, Server::Dnsmasq] {
            let server = field.start(kind);
            let run = perfdhcp(&field.client, 500, 5000, 10);
            println!("latency    {:<10} {run}", server.name());
        }
    }
    if wanted("killed") {
        killed();
    }
    if wanted("five") {
        five(ours.unwrap_or(1000) / 2);
    }
}

/// The best rate of `server`, 0 if it has none.
fn best(scenario: &str, field: &Field, server: &servers::Running) -> u32 {
    let mut best: Option<(u32, Run, f64)> = None;
    for rate in LADDER {
        let before = server.cpu();
        let run = perfdhcp(&field.client, rate, 5000, PERIOD);
        let cpu = (server.cpu() - before) / run.done().max(1.0) * 1e6;
        eprintln!("  {scenario} {} at {rate}: {run}, {cpu:.0} µs CPU each", server.name());
        if run.lost() >= LOST {
            break;
        }
        best = Some((rate, run, cpu));
    }
    match best {
        Some((rate, run, cpu)) => {
            println!("{scenario:<10} {:<10} {rate} per second: {run}, {cpu:.0} µs CPU each", server.name());
            rate
        }
        None => 0,
    }
}

fn five(rate: u32) {
    let field = Field::new();
    let nodes = field.start_nodes(5);
    let capture = field.capture();
    let run = perfdhcp(&field.client, rate, 5000, 8);
    let tally = Tally::of(&capture, run.sent());
    println!("five       5 nodes    {rate} per second: {run}; {tally}");
    drop(nodes);
}

/// Slow enough that no processor is the limit.
const STORM_RATE: u32 = 500;
const STORM_CLIENTS: usize = 3000;
/// Storms, each with nodes of its own.
const STORMS: u32 = 3;

fn killed() {
    for _ in 0..STORMS {
        let field = Field::new();
        let nodes = field.start_nodes(5);
        let told = storm(&field.client, STORM_CLIENTS, STORM_RATE, STORM_CLIENTS / 3, |server| {
            nodes[usize::from(server.octets()[3]) - 1].kill();
        });
        println!("killed     5 nodes    {STORM_RATE} per second: {told}");
    }
}
