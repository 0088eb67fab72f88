//! What a machine is told that a private fabric turns away.

use fabric::id::NodeId;
use fabric::swarm::Refusal;

/// Why a node gets nothing, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.words())]
pub(crate) struct NotAdmitted {
    /// Why.
    pub(crate) why: Refusal,
    /// The node.
    pub(crate) node: NodeId,
}

impl NotAdmitted {
    fn words(self) -> String {
        match self.why {
            Refusal::NotAdmitted => format!("this machine waits to be admitted, its id is {}", self.node),
            Refusal::Withdrawn => {
                format!("this machine is no member any more, its id is {}", self.node)
            }
        }
    }

    /// What a person can do.
    pub(crate) fn remedy(self) -> String {
        format!("on a machine with an operator's key: `bootfabric member admit {}`", self.node)
    }
}
