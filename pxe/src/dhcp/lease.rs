//! A lease, how it travels between nodes, and which of two statements about it counts.
//!
//! Each node keeps at most one lease per holder. Every change carries a [`Version`]: a logical counter, always above
//! every counter its author has seen, and the author. Of two leases of one holder the higher version counts, so that
//! merging is commutative, associative and idempotent, and no wall clock is needed. Two holders of one address are
//! no matter of merging: both records stay, and [`Lease::claim`] names the one who keeps the address on every node.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::ClientKey;
use super::rank::MemberId;
use super::time::Time;

/// Longest time that a record of another node may claim for a lease: a day, as no node gives longer ones.
pub const MAX_REMAINING: Duration = Duration::from_secs(24 * 3600);
/// Records with a counter above this are refused: no fabric makes 2^48 changes, and a counter near the top would
/// leave no room for later ones.
pub const MAX_COUNTER: u64 = 1 << 48;

/// Lease times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// For a boot stage: short, or the pool drains in a mass boot, since each machine is several clients and none
    /// releases. Its address stays the last to be given to another for [`super::table::STALE_KEEP`] after that.
    pub boot: Duration,
    /// For an operating system.
    pub plain: Duration,
    /// How long an offer is held: EDK2 collects offers for 4 s before it asks.
    pub offer: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self {
            boot: Duration::from_secs(240),
            plain: Duration::from_secs(3600),
            offer: Duration::from_secs(12),
        }
    }
}

/// Who holds an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Holder {
    /// A client, or a node by the hardware address of its interface.
    Client(ClientKey),
    /// Somebody unknown who uses an address of the pool: declined by a client, or seen on the link.
    Foreign(Ipv4Addr),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(key) => fmt::Display::fmt(key, f),
            Self::Foreign(address) => write!(f, "somebody at {address}"),
        }
    }
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// State of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LeaseState {
    /// Offered, waiting for the client's REQUEST.
    Offered,
    /// Acknowledged.
    Bound,
    /// Given back; kept until the lease it ends would have run out, so that no late copy revives it.
    Released,
    /// In use by somebody who is no client of the fabric. Only for [`Holder::Foreign`].
    Declined,
    /// A node's own address; holds as long as its author is a live member.
    Member,
}

/// Which statement about a holder is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Logical counter.
    pub counter: u64,
    /// Who wrote it; decides between equal counters.
    pub author: MemberId,
}

/// What one node knows of one holder's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Who holds it.
    pub holder: Holder,
    /// The address.
    pub address: Ipv4Addr,
    /// Its state.
    pub state: LeaseState,
    /// Which statement this is.
    pub version: Version,
    /// The counter at which this holder first claimed this address; renewals keep it.
    pub since: u64,
    /// When it runs out by this node's time; `None` while the author is a live member ([`LeaseState::Member`] only).
    pub expires: Option<Time>,
}

impl Lease {
    /// Whether it keeps others from the address at `now`.
    #[must_use]
    pub fn is_live(&self, now: Time) -> bool {
        self.state != LeaseState::Released && !self.is_expired(now)
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_expired(&self, now: Time) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// How strong this claim to the address is; the smallest of several keeps it. A node's own address comes first,
    /// then a foreign host that is there already, then bound before offered, then who claimed first by the logical
    /// counter, then the smaller holder. Renewing changes nothing of it, so two claimants never take turns.
    #[must_use]
    pub fn claim(&self) -> impl Ord + use<> {
        let state = match self.state {
            LeaseState::Member => 0,
            LeaseState::Declined => 1,
            LeaseState::Bound => 2,
            LeaseState::Offered => 3,
            LeaseState::Released => 4,
        };
        (state, self.since, self.holder)
    }

    /// The total order in which statements about one holder replace each other. State and address only decide between
    /// records that an author wrote under one counter, as one that forgot its counter in a restart might.
    #[must_use]
    pub fn order(&self) -> impl Ord + use<> {
        (self.version, self.state, self.address)
    }

    /// The record that tells other nodes, or `None` if there is nothing left to tell.
    #[must_use]
    pub fn record(&self, now: Time) -> Option<LeaseRecord> {
        let remaining = match self.expires {
            None => MAX_REMAINING,
            Some(expires) => expires.since(now),
        };
        let remaining_ms = u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX);
        (remaining_ms > 0).then_some(LeaseRecord {
            holder: self.holder,
            address: self.address,
            state: self.state,
            counter: self.version.counter,
            since: self.since,
            author: self.version.author,
            remaining_ms,
        })
    }
}

/// A lease on its way to other nodes. Times are what was left when it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// Who holds it.
    pub holder: Holder,
    /// The address.
    pub address: Ipv4Addr,
    /// Its state.
    pub state: LeaseState,
    /// Logical counter of the change.
    pub counter: u64,
    /// Counter at which the holder first claimed the address.
    pub since: u64,
    /// Who made the change.
    pub author: MemberId,
    /// Milliseconds that were left.
    pub remaining_ms: u32,
}

/// Why a record of another node is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The counter leaves no room for later changes.
    #[error("its counter {0} is beyond any honest count")]
    Counter(u64),
    /// Holder and state contradict each other.
    #[error("its holder and state contradict each other")]
    State,
}

impl LeaseRecord {
    /// The lease that this record means when it arrives at `now`.
    ///
    /// # Errors
    /// [`RecordError`] for records that no correct node sends.
    pub fn received(&self, now: Time) -> Result<Lease, RecordError> {
        if self.counter > MAX_COUNTER || self.since > self.counter {
            return Err(RecordError::Counter(self.counter.max(self.since)));
        }
        let consistent = match self.holder {
            Holder::Client(_) => self.state != LeaseState::Declined,
            Holder::Foreign(address) => self.state == LeaseState::Declined && address == self.address,
        };
        if !consistent {
            return Err(RecordError::State);
        }
        let remaining = Duration::from_millis(u64::from(self.remaining_ms)).min(MAX_REMAINING);
        Ok(Lease {
            holder: self.holder,
            address: self.address,
            state: self.state,
            version: Version { counter: self.counter, author: self.author },
            since: self.since,
            expires: Some(now + remaining),
        })
    }
}
