//! Many cores in one process, in virtual time, over seeded links: what the exchange does at a size that no lab has.
//!
//! Owns the scenarios, the modelled network and the measuring. Never changes what a core decides: the same
//! [`Core`](super::core::Core) runs in every node. A scenario with the same seed gives the same outcome. What the model leaves
//! out is listed in `docs/simulator.md`.
//!
//! | file | concept |
//! |---|---|
//! | `scenario`, `outcome` | what is simulated, what came of it: plain data |
//! | `topology` | who is whose neighbour, and where |
//! | `net`, `loss` | links, uplinks of racks, flows; what a lossy link does to them |
//! | `queue`, `node`, `swarm`, `answers` | the order of events, a node, all of them, what they ask of each other |

mod answers;
mod loss;
mod net;
mod node;
mod outcome;
mod queue;
mod scenario;
mod swarm;
mod topology;

#[cfg(test)]
mod tests;

pub use loss::Loss;
pub use outcome::{Outcome, Sample};
pub use scenario::{Fault, Racks, Scenario};
