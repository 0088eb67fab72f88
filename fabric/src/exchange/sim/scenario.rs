//! What is simulated, as plain data.

use super::super::core::Time;
use super::super::core::rng::Rng;
use super::loss::Loss;
use super::net::SEGMENT;
use super::outcome::{Outcome, Sample};
use super::swarm::Swarm;

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
    /// Links differ by up to so many percent of [`Scenario::rate`], up and down; the origin's does not.
    pub spread: u32,
    /// Racks that the nodes stand in.
    pub racks: Racks,
    /// Microseconds that a byte travels.
    pub latency: u64,
    /// Microseconds more that a control message takes: batching, wake-ups.
    pub control: u64,
    /// Microseconds from a node's start until it takes part: it dials, shakes hands, fetches the index. Part of every node's time.
    pub start: u64,
    /// Microseconds that a request or a message from a busy sender to a busy receiver waits behind what is queued in their ports.
    pub queue: u64,
    /// Bytes of headers for each TCP segment of 1448; 66 is what Ethernet, IP and TCP take.
    pub headers: u32,
    /// What links lose.
    pub loss: Loss,
    /// Microseconds until neighbours find out that a node is gone.
    pub notice: u64,
    /// When each node joins, in the order of their numbers; those not listed join at the start.
    pub joins: Vec<Time>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// The seed of everything random.
    pub seed: u64,
    /// The simulation ends at this moment even if somebody is not done.
    pub limit: Time,
}

/// Where nodes stand: in racks of about equal size, in the order of their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Racks {
    /// How many; with less than two there is one switch.
    pub count: u32,
    /// Bytes per second of a rack's uplink, each way.
    pub uplink: u64,
    /// Neighbours that a node has in its own rack at least, if the rack is as large.
    pub near: u32,
    /// Nodes know who stands in their own rack.
    pub known: bool,
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
    /// Node `node` dies at this moment and comes back with nothing.
    Crashes {
        /// Which.
        node: u32,
        /// When.
        at: Time,
        /// Microseconds until it joins again.
        down: u64,
    },
    /// One chunk of each answer of node `node` is wrong.
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
            spread: 0,
            racks: Racks::default(),
            latency: 200,
            control: 3_000,
            start: 0,
            queue: 0,
            headers: 0,
            loss: Loss::default(),
            notice: 0,
            joins: Vec::new(),
            faults: Vec::new(),
            seed: 1,
            limit: Time(1_000_000 * (20 * size / rate.max(1)).max(60)),
        }
    }

    /// The nodes stand in `count` racks, the origin in the first one, behind uplinks that carry the `oversubscription`th part of
    /// what the links of a full rack do. Everybody knows all of its own rack and, of the others, as many as the degree leaves.
    #[must_use]
    pub fn in_racks(mut self, count: u32, oversubscription: u64) -> Self {
        let largest = (self.nodes + 1).div_ceil(count.max(1));
        let uplink = self.rate * u64::from(largest) / oversubscription.max(1);
        self.racks = Racks { count, uplink, near: largest, known: true };
        self
    }

    /// Another `percent` of the nodes crash at random moments within the time of one copy, and come back with nothing after
    /// `down` microseconds; or stay away, if that is `None`.
    #[must_use]
    pub fn with_churn(mut self, percent: u32, down: Option<u64>) -> Self {
        let mut rng = Rng::new(self.seed ^ u64::from(percent) ^ down.map_or(1, |_| 2) << 32);
        let mut nodes: Vec<u32> = (1..=self.nodes).collect();
        rng.shuffle(&mut nodes);
        nodes.truncate((u64::from(self.nodes) * u64::from(percent) / 100) as usize);
        let bound = self.bound();
        self.faults.extend(nodes.into_iter().map(|node| {
            let at = Time(rng.within(bound));
            match down {
                Some(down) => Fault::Crashes { node, at, down },
                None => Fault::Dies { node, at },
            }
        }));
        self
    }

    /// The last `percent` of the nodes join at random moments within the time of one copy.
    #[must_use]
    pub fn with_latecomers(mut self, percent: u32) -> Self {
        let mut rng = Rng::new(self.seed ^ 0x1a7e << 32);
        let late = u64::from(self.nodes) * u64::from(percent.min(100)) / 100;
        let (early, bound) = (u64::from(self.nodes) - late, self.bound());
        let join = |node: u64| if node < early { Time(0) } else { Time(rng.within(bound)) };
        self.joins = (0..u64::from(self.nodes)).map(join).collect();
        self
    }

    /// Another `percent` of the nodes lie.
    #[must_use]
    pub fn with_liars(mut self, percent: u32) -> Self {
        let mut rng = Rng::new(self.seed ^ 0x11e5 << 32);
        let mut nodes: Vec<u32> = (1..=self.nodes).collect();
        rng.shuffle(&mut nodes);
        nodes.truncate((u64::from(self.nodes) * u64::from(percent.min(100)) / 100) as usize);
        self.faults.extend(nodes.into_iter().map(|node| Fault::Lies { node }));
        self
    }

    /// The time in which the slowest link or uplink carries one copy of the blob and nothing else, S/B, in microseconds.
    #[must_use]
    pub fn bound(&self) -> u64 {
        self.size.saturating_mul(1_000_000) / self.slowest()
    }

    /// The least time in which every node can have its copy, in microseconds, whoever asks whom, for a blob of `pieces`: the start,
    /// then S/B with headers, and as many pieces more as it takes rounds of doubling to reach all (Mundinger, Weber, Weiss,
    /// J. Sched. 2008).
    #[must_use]
    pub fn least(&self, pieces: u32) -> u64 {
        let wire = self.size + self.size * u64::from(self.headers) / SEGMENT;
        let copy = wire.saturating_mul(1_000_000) / self.slowest();
        self.start + copy + copy * u64::from(self.nodes.max(1).ilog2()) / u64::from(pieces.max(1))
    }

    /// Bytes per second of the slowest link or uplink.
    fn slowest(&self) -> u64 {
        let link = self.rate - self.rate * u64::from(self.spread.min(90)) / 100;
        let slowest = if self.racks.count > 1 { link.min(self.racks.uplink) } else { link };
        slowest.max(1)
    }

    /// Runs it.
    #[must_use]
    pub fn run(&self) -> Outcome {
        self.run_watched(&mut |_| {})
    }

    /// Runs it and tells how far it is, some two hundred times for the time of one copy.
    #[must_use]
    pub fn run_watched(&self, watch: &mut dyn FnMut(&Sample)) -> Outcome {
        Swarm::new(self).run(watch)
    }
}
