//! What came of a scenario, and the figures that people compare.

use super::super::core::Time;

/// How far the swarm is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When.
    pub at: Time,
    /// Bytes that all fetching nodes that live hold together.
    pub held: u64,
    /// Nodes that are complete.
    pub complete: u32,
    /// Nodes that fetch, complete ones included: those that are there.
    pub present: u32,
}

/// What came of a scenario.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// For each fetching node the microseconds from its (last) joining to its last byte; `None` if it did not finish.
    pub times: Vec<Option<u64>>,
    /// For each fetching node when it was complete, since the start.
    pub ends: Vec<Option<Time>>,
    /// Bytes that left each node, the origin first; heads and messages included.
    pub sent: Vec<u64>,
    /// Bytes that came into each rack from others.
    pub imported: Vec<u64>,
    /// How many of those were messages.
    pub heard: Vec<u64>,
    /// Bytes that left each rack for others.
    pub exported: Vec<u64>,
    /// Nodes that died and did not come back.
    pub lost: u32,
    /// Messages between neighbours.
    pub messages: u64,
    /// Requests made.
    pub requests: u64,
    /// When the origin saw its first copy out.
    pub first_copy: Option<Time>,
    /// Requests that were given up or failed.
    pub failures: u64,
    /// Peers banned, over all nodes.
    pub bans: u64,
    /// Nodes that lie; they are in none of the times.
    pub liars: u32,
    /// Wrong chunks that liars sent.
    pub offences: u64,
    /// Bytes that came and were thrown away: those chunks, and what had come of answers that were given up.
    pub wasted: u64,
    /// Things that happened in the simulation.
    pub steps: u64,
    /// How far the swarm was, some two hundred times for the time of one copy.
    pub progress: Vec<Sample>,
    /// The time of one copy: [`Scenario::bound`](super::Scenario::bound), in microseconds.
    pub bound: u64,
    /// The least time in which every node can have its copy: [`Scenario::least`](super::Scenario::least), in microseconds.
    pub least: u64,
    /// Bytes of the blob.
    pub size: u64,
}

impl Outcome {
    /// Time of the last of `nodes` (numbers from 1) divided by the bound; infinite if one did not finish.
    #[must_use]
    pub fn stretch(&self, nodes: std::ops::RangeInclusive<u32>) -> f64 {
        let time = |node: u32| self.times.get(node as usize - 1).copied().flatten();
        let last = nodes.map(time).try_fold(0, |last: u64, time| Some(last.max(time?)));
        last.map_or(f64::INFINITY, |last| last as f64 / self.bound as f64)
    }

    /// Time of the last node that finished divided by the bound.
    #[must_use]
    pub fn last(&self) -> f64 {
        self.times.iter().flatten().max().map_or(0.0, |&last| last as f64 / self.bound as f64)
    }

    /// Time of the last node that finished divided by the least possible.
    #[must_use]
    pub fn over_least(&self) -> f64 {
        self.last() * self.bound as f64 / self.least.max(1) as f64
    }

    /// Nodes that finished.
    #[must_use]
    pub fn complete(&self) -> usize {
        self.times.iter().flatten().count()
    }

    /// The time within which `percent` of all nodes that finished had done so, each since its own joining, divided by the bound.
    #[must_use]
    pub fn percentile(&self, percent: u32) -> f64 {
        let mut times: Vec<u64> = self.times.iter().flatten().copied().collect();
        times.sort_unstable();
        let rank = (times.len() * percent.min(100) as usize).div_ceil(100).max(1);
        times.get(rank - 1).map_or(0.0, |&time| time as f64 / self.bound as f64)
    }

    /// Copies of the blob that left the origin.
    #[must_use]
    pub fn copies(&self) -> f64 {
        self.sent.first().map_or(0.0, |&sent| self.in_copies(sent))
    }

    /// Copies of the blob that came into each rack from others, messages apart.
    #[must_use]
    pub fn imports(&self) -> Vec<f64> {
        self.imported.iter().zip(&self.heard).map(|(&all, &heard)| self.in_copies(all - heard)).collect()
    }

    fn in_copies(&self, bytes: u64) -> f64 {
        bytes as f64 / self.size.max(1) as f64
    }
}
