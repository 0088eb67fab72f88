//! Many cores in one process, in virtual time, over seeded links: what the exchange does at a size that no lab has.
//!
//! Owns the scenarios, the modelled [network](net) and the measuring. Never changes what a core decides: the same
//! [`Core`](super::core::Core) runs in every node. A scenario with the same seed gives the same outcome.

pub mod net;
mod swarm;

#[cfg(test)]
mod tests;

pub use swarm::Outcome;

use super::core::Time;

/// A swarm to simulate. Node 0 is the origin and holds the blob from the start.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Fetching nodes, besides the origin.
    pub nodes: u32,
    /// Neighbours of a node; as many as there are nodes or more means all of them.
    pub degree: u32,
    /// Bytes of the blob.
    pub size: u64,
    /// Mean bytes of a chunk; they vary from a quarter to about twice that.
    pub chunk: u32,
    /// Bytes per second of every link, each way.
    pub rate: u64,
    /// Microseconds that a byte travels.
    pub latency: u64,
    /// Microseconds more that a control message takes: queues, batching, wake-ups.
    pub control: u64,
    /// When each node joins, in the order of their numbers; those not listed join at the start.
    pub joins: Vec<Time>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// The seed of everything random.
    pub seed: u64,
    /// The simulation ends at this moment even if somebody is not done.
    pub limit: Time,
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The origin dies as soon as it has seen its first copy out.
    OriginDiesAfterFirstCopy,
    /// Node `node` dies at this moment.
    Dies {
        /// Which.
        node: u32,
        /// When.
        at: Time,
    },
    /// Node `node` answers every request with damaged bytes.
    Lies {
        /// Which.
        node: u32,
    },
}

impl Scenario {
    /// A flash crowd of `nodes` on one switch that all start at once, everybody a neighbour of everybody.
    #[must_use]
    pub fn flash_crowd(nodes: u32, size: u64, rate: u64) -> Self {
        Self {
            nodes,
            degree: nodes,
            size,
            chunk: 32 * 1024,
            rate,
            latency: 200,
            control: 3_000,
            joins: Vec::new(),
            faults: Vec::new(),
            seed: 1,
            limit: Time(1_000_000 * (20 * size / rate.max(1)).max(60)),
        }
    }

    /// The time in which one link carries one copy, in microseconds: the bound for any number of nodes.
    #[must_use]
    pub fn bound(&self) -> u64 {
        self.size.saturating_mul(1_000_000) / self.rate.max(1)
    }

    /// Runs it.
    #[must_use]
    pub fn run(&self) -> Outcome {
        swarm::Swarm::new(self).run()
    }
}
