//! What `bootfabric lab sim` tells of a simulated swarm: figures for people and programs, and a plot.
//!
//! The simulating itself is [`fabric::exchange::sim`]'s.

use std::time::Duration;

use fabric::exchange::sim::{Outcome, Scenario};
use serde::Serialize;

use super::plot::{Look, Mark, Plot, Series};
use crate::human::human_bytes;

/// Percentages of the nodes whose times are told.
const PERCENTS: [u32; 8] = [1, 10, 25, 50, 75, 90, 99, 100];
/// Points of a curve at most.
const POINTS: usize = 240;

/// The figures of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Fetching nodes.
    pub nodes: u32,
    /// Neighbours of a node.
    pub degree: u32,
    /// Bytes of the blob.
    pub size: u64,
    /// Bytes per second of a link.
    pub rate: u64,
    /// Racks, and how often their links exceed their uplinks.
    pub racks: u32,
    /// The seed.
    pub seed: u64,
    /// Seconds that one copy takes over the slowest link or uplink, S/B.
    pub bound: f64,
    /// Seconds that no swarm can do it in: start, headers and rounds of doubling counted.
    pub least: f64,
    /// Nodes that finished, and nodes that left for good.
    pub complete: usize,
    /// Nodes that died and stayed away.
    pub lost: u32,
    /// Seconds until the last node was done, since it joined, and the same in bounds.
    pub last: f64,
    /// As part of the bound.
    pub stretch: f64,
    /// As part of the least.
    pub over_least: f64,
    /// For each percentage of the nodes, the time within which they were done, in bounds.
    pub percentiles: Vec<(u32, f64)>,
    /// Bytes that left the origin, messages and heads included, and as copies.
    pub origin_bytes: u64,
    /// As copies.
    pub origin_copies: f64,
    /// Seconds until the origin saw every chunk at somebody else's.
    pub first_copy: Option<f64>,
    /// Copies that came into each rack from others.
    pub imports: Vec<f64>,
    /// Bytes that came into racks from others, and of those the messages.
    pub cross_rack_bytes: u64,
    /// Messages among them.
    pub cross_rack_message_bytes: u64,
    /// Messages and requests, over all nodes.
    pub messages: u64,
    /// Requests.
    pub requests: u64,
    /// Requests that failed or were given up.
    pub failures: u64,
    /// Peers banned, over all nodes.
    pub bans: u64,
    /// Nodes that lie, and wrong chunks that they sent; nobody keeps one.
    pub liars: u32,
    /// The chunks.
    pub offences: u64,
    /// Bytes of them, and what had come of answers that were given up.
    pub wasted_bytes: u64,
    /// Events of the simulation and the seconds that it took here.
    pub steps: u64,
    /// Seconds that the simulation took.
    pub wall: f64,
    /// Seconds, part of all bytes held, nodes complete.
    pub progress: Vec<(f64, f64, u32)>,
}

impl Figures {
    /// The figures of `outcome`, for which the machine took `wall`.
    #[must_use]
    pub fn new(scenario: &Scenario, outcome: &Outcome, wall: Duration) -> Self {
        let bound = seconds(outcome.bound);
        let all = whole(scenario);
        let stretch = outcome.last();
        Self {
            nodes: scenario.nodes,
            degree: scenario.degree,
            size: scenario.size,
            rate: scenario.rate,
            racks: scenario.racks.count.max(1),
            seed: scenario.seed,
            bound,
            least: seconds(outcome.least),
            complete: outcome.complete(),
            lost: outcome.lost,
            last: stretch * bound,
            stretch,
            over_least: outcome.over_least(),
            percentiles: PERCENTS.map(|percent| (percent, outcome.percentile(percent))).to_vec(),
            origin_bytes: outcome.sent.first().copied().unwrap_or(0),
            origin_copies: outcome.copies(),
            first_copy: outcome.first_copy.map(|at| seconds(at.0)),
            imports: if scenario.racks.count > 1 { outcome.imports() } else { Vec::new() },
            cross_rack_bytes: outcome.imported.iter().sum(),
            cross_rack_message_bytes: outcome.heard.iter().sum(),
            messages: outcome.messages,
            requests: outcome.requests,
            failures: outcome.failures,
            bans: outcome.bans,
            liars: outcome.liars,
            offences: outcome.offences,
            wasted_bytes: outcome.wasted,
            steps: outcome.steps,
            wall: wall.as_secs_f64(),
            progress: outcome
                .progress
                .iter()
                .map(|sample| (seconds(sample.at.0), ratio(sample.held, all), sample.complete))
                .collect(),
        }
    }

    /// Every honest node that is still there is complete.
    #[must_use]
    pub fn all_done(&self) -> bool {
        self.complete + (self.lost + self.liars) as usize >= self.nodes as usize
    }

    /// The figures as lines for people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut lines =
            vec![format!("{}; one copy takes {:.1} s", self.setting(), self.bound), String::new()];
        let row = |name: &str, cells: Vec<String>| format!("{name:<24}{}", cells.concat());
        lines.push(row(
            "nodes done",
            self.percentiles.iter().map(|(percent, _)| format!("{percent:>6} %")).collect(),
        ));
        lines.push(row(
            "after, in such times",
            self.percentiles.iter().map(|(_, time)| format!("{time:>8.3}")).collect(),
        ));
        lines.push(String::new());
        let mut tell = |name: &str, words: String| lines.push(format!("{name:<24}{words}"));
        tell(
            "last node",
            format!(
                "{:.1} s, {:.3} times one copy, {:.3} times the least possible",
                self.last, self.stretch, self.over_least
            ),
        );
        let gone = if self.lost > 0 { format!(", {} gone for good", self.lost) } else { String::new() };
        tell("complete", format!("{} of {}{gone}", self.complete, self.nodes));
        let left = human_bytes(self.origin_bytes);
        tell("left the origin", format!("{:.3} copies ({left})", self.origin_copies));
        if let Some(at) = self.first_copy {
            tell("first copy out", format!("after {at:.1} s"));
        }
        if !self.imports.is_empty() {
            let most = self.imports.iter().copied().fold(0.0, f64::max);
            let mean = self.imports.iter().sum::<f64>() / self.imports.len() as f64;
            tell("came into a rack", format!("{mean:.3} copies on average, {most:.3} at most"));
            let messages = human_bytes(self.cross_rack_message_bytes);
            tell(
                "crossed racks",
                format!("{}, messages {messages} of it", human_bytes(self.cross_rack_bytes)),
            );
        }
        let each = |count: u64| count / u64::from(self.nodes.max(1));
        tell("for each node", format!("{} messages, {} requests", each(self.messages), each(self.requests)));
        if self.liars > 0 {
            let wasted = human_bytes(self.wasted_bytes);
            tell(
                "liars",
                format!(
                    "{} nodes, {} wrong chunks, {wasted} thrown away, none of it kept",
                    self.liars, self.offences
                ),
            );
        }
        if self.failures + self.bans > 0 {
            tell("failed requests", format!("{}, {} peers banned", self.failures, self.bans));
        }
        tell("simulated in", format!("{:.1} s, {} steps", self.wall, self.steps));
        lines.join("\n")
    }

    /// How many nodes, how much, how fast, in words.
    #[must_use]
    pub fn setting(&self) -> String {
        let racks = if self.racks > 1 { format!(" in {} racks", self.racks) } else { String::new() };
        let rate = self.rate.saturating_mul(8) / 1_000_000;
        format!("{} nodes{racks}, {} over links of {rate} Mbit/s", self.nodes, human_bytes(self.size))
    }

    /// The curves of completion.
    #[must_use]
    pub fn plot(&self, outcome: &Outcome, details: &str) -> Plot {
        let held = thin(self.progress.iter().map(|&(at, held, _)| (at, held)).collect());
        let mut ends: Vec<f64> = outcome.ends.iter().flatten().map(|at| seconds(at.0)).collect();
        ends.sort_unstable_by(f64::total_cmp);
        let nodes = f64::from(self.nodes.max(1));
        let done = (0_u32..).zip(&ends).map(|(before, &at)| (at, f64::from(before + 1) / nodes));
        let first = ends.first().map(|&at| (at, 0.0));
        let complete = thin([(0.0, 0.0)].into_iter().chain(first).chain(done).collect());
        let series = |name: &str, look, points| Series { name: name.to_owned(), look, points };
        let last = ends.last().map(|&at| Mark { at, name: format!("last node {at:.1} s") });
        Plot {
            title: self.setting(),
            subtitle: format!("{details}seed {}, last node {:.3} times one copy", self.seed, self.stretch),
            series: vec![
                series("bytes held by all", Look::Area, held),
                series("nodes complete", Look::Line, complete),
                series("", Look::Ideal, vec![(0.0, 0.0), (self.bound, 1.0)]),
            ],
            marks: [Mark { at: self.bound, name: format!("one copy {:.1} s", self.bound) }]
                .into_iter()
                .chain(last)
                .collect(),
        }
    }
}

/// At most [`POINTS`] of them, the first and the last included.
fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(POINTS).max(1);
    let last = points.len().saturating_sub(1);
    points
        .into_iter()
        .enumerate()
        .filter(|(place, _)| place % step == 0 || *place == last)
        .map(|(_, point)| point)
        .collect()
}

fn whole(scenario: &Scenario) -> u64 {
    scenario.size.saturating_mul(u64::from(scenario.nodes))
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn seconds(micros: u64) -> f64 {
    ratio(micros, 1_000_000)
}
