//! The exchange at a size that no lab has, in virtual time: minutes of work, so `make soak` runs it.
//!
//! Headers, start and queues as measured on real shaped links; what the bars are made of is in `docs/simulator.md`.

use fabric::exchange::sim::{Outcome, Scenario};

/// Millions of small pieces: the allocator of the program, and not musl's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZE: u64 = 64 << 20;
/// 50 Mbit/s.
const RATE: u64 = 6_250_000;

fn crowd(nodes: u32) -> Scenario {
    Scenario {
        degree: 32,
        headers: 66,
        start: 350_000,
        queue: 26_000,
        ..Scenario::flash_crowd(nodes, SIZE, RATE)
    }
}

fn all_done_within(outcome: &Outcome, bar: f64) {
    let nodes = outcome.times.len();
    assert_eq!(outcome.complete(), nodes, "not everybody was done");
    let last = outcome.over_least();
    assert!(last <= bar, "the last of {nodes} took {last:.3} times the least possible");
}

#[test]
#[ignore = "half a minute of work"]
fn a_thousand_nodes() {
    all_done_within(&crowd(1_000).run(), 1.15);
}

#[test]
#[ignore = "minutes of work, 1 GB of memory"]
fn ten_thousand_nodes() {
    all_done_within(&crowd(10_000).run(), 1.20);
}

#[test]
#[ignore = "a minute of work, twice"]
fn twenty_five_racks_of_forty_replay() {
    let scenario = Scenario { degree: 56, ..crowd(999) }.in_racks(25, 4);
    let outcome = scenario.run();
    all_done_within(&outcome, 1.22);
    let imports = outcome.imports();
    // Headers included.
    let (most, mean) = (imports.iter().copied().fold(0.0, f64::max), imports.iter().sum::<f64>() / 25.0);
    assert!(mean <= 1.1 && most <= 1.1, "{mean:.3} copies came into a rack on average, {most:.3} at most");
    assert_eq!(scenario.run(), outcome, "the seed did not replay");
}
