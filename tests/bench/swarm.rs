//! Whole swarms of the real program, in namespaces with shaped links and on loopback, measured from outside.
//!
//! `cargo bench --bench swarm` runs all; words after `--` run the scenarios whose names contain one of them. `RUNS` says
//! how often each (default 3; medians are printed), `PROGRAM` names another program than this build's, `KEEP` a directory for
//! logs and events. Needs root; nginx, curl and b3sum for `pair`; `make assets` for `stages-8`. Figures of one run may be
//! compared, those of two may not.
//!
//! | scenario | what |
//! |---|---|
//! | `crowd-1`, `crowd-16`, `crowd-32` | one seeder, so many fetchers that start at once, links shaped at both ends |
//! | `late-16` | the second half starts when the first is at half |
//! | `kill-16` | the seeder is killed when it says that every chunk has left it |
//! | `stages-8` | eight first stages' agents start at once, boot blobs and root, against eight fetchers of as many bytes |
//! | `tls` | runs over plain HTTP and over TLS, as a private fabric moves them |
//! | `pair` | one seeder and one fetcher on loopback, unshaped, against nginx + curl + b3sum |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark stops where it cannot go on"
)]

mod crowd;
mod measure;
mod pair;
mod stages;
mod wire;

use crowd::{Crowd, When};

const MIB: u64 = 1024 * 1024;
const MBIT: u64 = 1_000_000;

fn main() {
    // `cargo bench` adds `--bench`; what else is there are names.
    let names: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|word| name.contains(word.as_str()));
    let runs = std::env::var("RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(3_usize);
    let crowds = [
        ("crowd-1", Crowd { nodes: 1, rate_bit: 50 * MBIT, size: 64 * MIB, when: When::AtOnce }),
        ("crowd-16", Crowd { nodes: 16, rate_bit: 50 * MBIT, size: 64 * MIB, when: When::AtOnce }),
        ("crowd-32", Crowd { nodes: 32, rate_bit: 25 * MBIT, size: 64 * MIB, when: When::AtOnce }),
        ("late-16", Crowd { nodes: 16, rate_bit: 50 * MBIT, size: 64 * MIB, when: When::HalfLate }),
        ("kill-16", Crowd { nodes: 16, rate_bit: 50 * MBIT, size: 64 * MIB, when: When::SeederKilled }),
    ];
    for (name, crowd) in crowds.into_iter().filter(|(name, _)| wanted(name)) {
        crowd::report(name, &crowd, runs);
    }
    if wanted("stages-8") {
        stages::report("stages-8", 8, 50 * MBIT, 64 * MIB, runs);
    }
    if wanted("tls") {
        wire::report(1024 * MIB, runs);
    }
    if wanted("pair") {
        pair::report(1024 * MIB, runs);
    }
}
