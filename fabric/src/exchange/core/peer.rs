//! One neighbour over all blobs: how fast it is, how much it is asked for, whether it may be asked at all.

use std::collections::BTreeSet;

use super::rate::Rate;
use super::time::{MS, SECOND, Time};
use super::{PeerHint, PeerKey};
use crate::id::BlobId;

/// A neighbour's number in this core.
pub(crate) type Slot = u32;

/// Requests under way that a fetch spreads over its neighbours at least, before any speed is known. In a swarm others keep a
/// neighbour's uplink busy between two requests of ours; a lone seeder must never wait for our next one.
const MIN_SPREAD: u32 = 4;
/// Requests for cells that a seeder offered: it offers no more than it can send soon, and everybody waits for them, so its
/// uplink must not idle for the round trip between two of ours.
const OFFERED_DEPTH: u32 = 3;
/// Requests with one peer at most: beyond it they only wait in its queue.
const MAX_DEPTH: u32 = 16;
/// Work kept at a peer ahead of its answers: covers the round trip and our own delays on a fast link.
const LEAD: u64 = 10 * MS;
/// Time's worth of bytes in one request, so that a fast peer is asked for longer runs.
const REQUEST_TIME: u64 = 10 * MS;
/// First rest of a peer that failed; doubles with each failure in a row.
const FIRST_REST: u64 = 250 * MS;
/// Longest rest: a machine that reboots is back in about this time.
const MAX_REST: u64 = 10 * SECOND;
/// Broken promises or malformed messages after which a peer is not asked again. Honest mistakes (a message that crossed
/// another) are rare and do not add up to this many.
const MAX_OFFENCES: u32 = 32;
/// Blobs unknown here in which a peer's interest is remembered.
const MAX_INTERESTS: usize = 64;
/// Bytes per second assumed of a peer that has not been measured: slow enough to give it time.
pub(crate) const UNKNOWN_RATE: u64 = 64 * 1024;

/// Whether a peer may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Ready,
    Resting(Time),
    Banned,
}

/// What there is to do for a blob: how much may be asked of one neighbour depends on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    /// Mean bytes of a cell.
    pub(crate) cell: u64,
    /// Bytes missing.
    pub(crate) missing: u64,
    /// Bytes per second that come in from all.
    pub(crate) rate: u64,
    /// Neighbours that have something of it and may be asked.
    pub(crate) givers: u32,
    /// The neighbours hold more of it than we do.
    pub(crate) behind: bool,
}

impl Work {
    /// What each neighbour would bring if all were equal: nobody is asked for more at once, so that the last bytes do not all
    /// wait for one neighbour.
    fn share(&self) -> u64 {
        self.missing / u64::from(self.givers.max(1))
    }
}

/// A neighbour.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) key: PeerKey,
    pub(crate) hint: PeerHint,
    pub(crate) rate: Rate,
    pub(crate) standing: Standing,
    /// Requests and bytes under way.
    pub(crate) requests: u32,
    pub(crate) bytes: u64,
    failures: u32,
    offences: u32,
    /// Requests numbered below this were made before the last chunk that it denied: they may be denied for the same reason.
    pub(crate) denied: u64,
    /// Blobs not known here that it is interested in.
    pub(crate) interests: BTreeSet<BlobId>,
    /// Bytes received and requests answered, for the report.
    pub(crate) fetched: u64,
    pub(crate) answered: u64,
}

impl Peer {
    pub(crate) fn new(key: PeerKey, hint: PeerHint) -> Self {
        Self {
            key,
            hint,
            rate: Rate::default(),
            standing: Standing::Ready,
            requests: 0,
            bytes: 0,
            failures: 0,
            offences: 0,
            denied: 0,
            interests: BTreeSet::new(),
            fetched: 0,
            answered: 0,
        }
    }

    /// Whether another request may go to it now, for what it `offered` or for anything.
    pub(crate) fn takes_more(&self, now: Time, work: &Work, offered: bool) -> bool {
        let least = if offered && self.failures == 0 { OFFERED_DEPTH } else { 0 };
        // No more under way than it has brought: the queue of an idle link takes the first bytes at once, and makes a peer look
        // a hundred times as fast as it is.
        let most = work.share().min(self.fetched);
        self.ready(now)
            && self.requests < self.depth(work).max(least)
            && self.bytes < most.max(work.cell.saturating_mul(u64::from(least.max(2))))
    }

    /// Whether it may be asked at all.
    pub(crate) fn ready(&self, now: Time) -> bool {
        match self.standing {
            Standing::Ready => true,
            Standing::Resting(until) => until <= now,
            Standing::Banned => false,
        }
    }

    fn depth(&self, work: &Work) -> u32 {
        if self.failures > 0 {
            return 1;
        }
        let ahead = self.worth(work, LEAD) / work.cell.max(1);
        // In a swarm all have as many requests under way, and who was slower once would stay behind to the end.
        let floor = (MIN_SPREAD / work.givers.max(1)).max(1 + u32::from(work.behind));
        floor.saturating_add(u32::try_from(ahead).unwrap_or(MAX_DEPTH)).min(MAX_DEPTH)
    }

    /// Bytes that one request to it may ask for.
    pub(crate) fn request_size(&self, work: &Work) -> u64 {
        self.worth(work, REQUEST_TIME).min(work.share() / 2).min(super::grid::MAX_CELL).max(work.cell)
    }

    /// Bytes that it is trusted to bring in `time` microseconds: at its own speed, or at its share of the speed of all, lest one
    /// that is asked for little seems slow because of it.
    fn worth(&self, work: &Work, time: u64) -> u64 {
        let share = work.rate / u64::from(work.givers.max(1));
        let worth = self.rate.per_second().unwrap_or(0).max(share).saturating_mul(time) / SECOND;
        // As in `takes_more`.
        worth.min(self.fetched)
    }

    /// Microseconds until what is under way and `more` bytes should be here.
    pub(crate) fn expected(&self, more: u64) -> u64 {
        self.rate.time_for(self.bytes.saturating_add(more), UNKNOWN_RATE)
    }

    pub(crate) fn asked(&mut self, now: Time, bytes: u64) {
        if self.requests == 0 {
            self.rate.resumed(now);
        }
        self.requests += 1;
        self.bytes += bytes;
    }

    /// A request of `bytes` is over, however it ended.
    pub(crate) fn over(&mut self, bytes: u64) {
        self.requests = self.requests.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    pub(crate) fn delivered(&mut self, now: Time, bytes: u64) {
        self.rate.received(now, bytes);
        self.fetched += bytes;
        self.answered += 1;
        self.failures = 0;
    }

    /// Lets it rest for `rest`, or for a time that grows with its failures in a row.
    pub(crate) fn failed(&mut self, now: Time, rest: Option<u64>) {
        let grown = FIRST_REST.saturating_mul(1 << self.failures.min(16)).min(MAX_REST);
        self.failures = self.failures.saturating_add(1);
        if self.standing != Standing::Banned {
            self.standing = Standing::Resting(now.after(rest.unwrap_or(grown)));
        }
    }

    /// Counts an offence; true if it was one too many.
    pub(crate) fn offended(&mut self) -> bool {
        self.offences = self.offences.saturating_add(1);
        self.offences == MAX_OFFENCES
    }

    pub(crate) fn offences(&self) -> u32 {
        self.offences
    }

    /// Remembers that it is interested in a blob that is not known here.
    pub(crate) fn remember(&mut self, blob: BlobId) {
        if self.interests.len() < MAX_INTERESTS {
            self.interests.insert(blob);
        }
    }
}
