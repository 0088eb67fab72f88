//! Core: who is told which record, and when.
//!
//! A new record goes to all neighbours within [`BATCH`]. Who receives one passes it to those of its neighbours that are
//! not neighbours of the sender: each node tells its neighbours who its neighbours are, so in a full mesh nothing is sent
//! twice, and in a sparse one everything floods. What gets lost (a list of neighbours a moment out of date, a broken
//! connection) is found by digests: every greeting and every ping carries one, and a node whose digest differs *pulls* the
//! differing buckets, from one neighbour at a time, at most once per [`PULL_AGAIN`] from each. What a pull brings is not
//! flooded; instead the node tells its new digest, and its neighbours pull in turn. So a newcomer with thirty neighbours
//! fetches the table once.
//!
//! Never owns: sockets, clocks, who is connected (it is told).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::table::{BUCKETS, Digests, Table};
use super::{Record, RecordError};
use crate::id::NodeId;

/// What a new record waits for company: a tenth of what a standby responder waits.
pub(crate) const BATCH: Duration = Duration::from_millis(5);
/// Bytes of records in one message: small enough not to hold up a ping.
const MAX_BATCH_LEN: usize = 64 * 1024;
/// Bytes of records in the answer to one pull; the rest is pulled again.
const MAX_ANSWER_LEN: usize = 1024 * 1024;
/// An answer takes milliseconds; after this the neighbour is left alone and another is asked.
const PULL_TIMEOUT: Duration = Duration::from_secs(3);
/// Under constant change digests always differ a little; this bounds what that costs.
const PULL_AGAIN: Duration = Duration::from_secs(5);
/// A difference that stands so long although we pulled is pulled again: something went wrong that should not have.
const PULL_ANYWAY: Duration = Duration::from_secs(60);
/// How often ages are looked at.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);

/// A message between two replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Words {
    /// New records. `pulled`: part of the answer to a pull.
    Records {
        /// The records.
        records: Vec<Record>,
        /// Not to be flooded.
        pulled: bool,
    },
    /// "Send me what differs from this."
    Pull(Box<Digests>),
    /// "That was all", and what the sender's table amounts to.
    PullEnd {
        /// Whether all that differed was sent.
        complete: bool,
        /// The sender's digest.
        digest: u64,
    },
    /// "My table now amounts to this."
    Digest(u64),
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send the words to these neighbours.
    Send(Vec<NodeId>, Words),
    /// Tell the user of these records.
    News(Vec<Record>),
}

#[derive(Debug, Default)]
struct Neighbour {
    neighbours: BTreeSet<NodeId>,
    digest: u64,
    /// The digest it had when we last pulled from it.
    pulled: Option<u64>,
    last_pull: Option<Instant>,
    answer_after: Option<Instant>,
}

#[derive(Debug)]
struct Pending {
    record: Record,
    from: Option<NodeId>,
}

/// One node's replica.
#[derive(Debug)]
pub(crate) struct Replica {
    table: Table,
    neighbours: BTreeMap<NodeId, Neighbour>,
    pending: Vec<Pending>,
    flush_at: Option<Instant>,
    pulling: Option<(NodeId, Instant)>,
    pulled_news: bool,
    expire_at: Option<Instant>,
}

impl Replica {
    pub(crate) fn new(table: Table) -> Self {
        Self {
            table,
            neighbours: BTreeMap::new(),
            pending: Vec::new(),
            flush_at: None,
            pulling: None,
            pulled_news: false,
            expire_at: None,
        }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.table.digests().fold()
    }

    pub(crate) fn topic(&self, topic: u8, now: Instant) -> Vec<Record> {
        self.table.topic(topic, now)
    }

    /// A record of our own.
    ///
    /// # Errors
    /// [`RecordError`] if the table does not take it.
    pub(crate) fn put(&mut self, record: Record, now: Instant) -> Result<(), RecordError> {
        if self.table.merge(&record, now)? {
            self.queue(record, None, now);
        }
        Ok(())
    }

    pub(crate) fn peer_up(&mut self, node: NodeId, digest: u64) {
        self.neighbours.insert(node, Neighbour { digest, ..Neighbour::default() });
    }

    pub(crate) fn peer_down(&mut self, node: NodeId) {
        self.neighbours.remove(&node);
        if self.pulling.is_some_and(|(from, _)| from == node) {
            self.pulling = None;
        }
    }

    /// A neighbour says who its neighbours are.
    pub(crate) fn neighbours_of(&mut self, node: NodeId, neighbours: BTreeSet<NodeId>) {
        if let Some(neighbour) = self.neighbours.get_mut(&node) {
            neighbour.neighbours = neighbours;
        }
    }

    /// A neighbour's digest, as pings carry it.
    pub(crate) fn digest_of(&mut self, node: NodeId, digest: u64) {
        if let Some(neighbour) = self.neighbours.get_mut(&node) {
            neighbour.digest = digest;
        }
    }

    /// Words from a neighbour.
    pub(crate) fn hear(&mut self, from: NodeId, words: Words, now: Instant) -> Vec<Action> {
        if !self.neighbours.contains_key(&from) {
            return Vec::new();
        }
        match words {
            Words::Records { records, pulled } => self.merge(from, records, pulled, now),
            Words::Pull(theirs) => self.answer(from, &theirs, now),
            Words::PullEnd { complete, digest } => self.pull_ended(from, complete, digest),
            Words::Digest(digest) => {
                self.digest_of(from, digest);
                Vec::new()
            }
        }
    }

    /// What is due now.
    pub(crate) fn poll(&mut self, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush(&mut actions);
        }
        if let Some((node, until)) = self.pulling
            && until <= now
        {
            self.pulling = None;
            if let Some(neighbour) = self.neighbours.get_mut(&node) {
                neighbour.pulled = None;
            }
        }
        if self.pulling.is_none()
            && let Some(node) = self.next_pull(now)
        {
            self.pulling = Some((node, now + PULL_TIMEOUT));
            if let Some(neighbour) = self.neighbours.get_mut(&node) {
                neighbour.pulled = Some(neighbour.digest);
                neighbour.last_pull = Some(now);
            }
            actions.push(Action::Send(vec![node], Words::Pull(Box::new(self.table.digests()))));
        }
        if self.expire_at.is_none_or(|at| at <= now) {
            self.table.expire(now);
            self.expire_at = Some(now + EXPIRE_EVERY);
        }
        actions
    }

    /// When [`poll`](Self::poll) has more to do.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let pull = match self.pulling {
            Some((_, until)) => Some(until),
            None => self.wanted().map(|(_, at)| at.unwrap_or(now)).min(),
        };
        [self.flush_at, pull, self.expire_at].into_iter().flatten().min()
    }

    fn merge(&mut self, from: NodeId, records: Vec<Record>, pulled: bool, now: Instant) -> Vec<Action> {
        let mut news = Vec::new();
        for record in records {
            if self.table.merge(&record, now) == Ok(true) {
                if pulled {
                    self.pulled_news = true;
                } else {
                    self.queue(record.clone(), Some(from), now);
                }
                news.push(record);
            }
        }
        if news.is_empty() { Vec::new() } else { vec![Action::News(news)] }
    }

    fn queue(&mut self, record: Record, from: Option<NodeId>, now: Instant) {
        self.pending.push(Pending { record, from });
        self.flush_at.get_or_insert(now + BATCH);
    }

    /// Sends what is pending: the same batch to neighbours that lack the same records.
    fn flush(&mut self, actions: &mut Vec<Action>) {
        self.flush_at = None;
        let pending = std::mem::take(&mut self.pending);
        let mut sources: BTreeMap<Option<NodeId>, Vec<Record>> = BTreeMap::new();
        for Pending { record, from } in pending {
            sources.entry(from).or_default().push(record);
        }
        for (from, records) in sources {
            let source = from.and_then(|from| self.neighbours.get(&from));
            let lacks = |node: &NodeId| {
                Some(*node) != from && source.is_none_or(|source| !source.neighbours.contains(node))
            };
            let to: Vec<NodeId> = self.neighbours.keys().filter(|node| lacks(node)).copied().collect();
            if !to.is_empty() {
                actions.extend(batches(records, false).map(|words| Action::Send(to.clone(), words)));
            }
        }
    }

    fn answer(&mut self, to: NodeId, theirs: &Digests, now: Instant) -> Vec<Action> {
        let Some(neighbour) = self.neighbours.get_mut(&to) else { return Vec::new() };
        if neighbour.answer_after.is_some_and(|after| now < after) {
            return Vec::new();
        }
        neighbour.answer_after = Some(now + PULL_AGAIN / 2);
        let (mut records, mut len, mut complete) = (Vec::new(), 0, true);
        for record in self.table.differing(theirs, now) {
            len += record.wire_len();
            if len > MAX_ANSWER_LEN {
                complete = false;
                break;
            }
            records.push(record);
        }
        let end = Words::PullEnd { complete, digest: self.digest() };
        batches(records, true).chain([end]).map(|words| Action::Send(vec![to], words)).collect()
    }

    fn pull_ended(&mut self, from: NodeId, complete: bool, digest: u64) -> Vec<Action> {
        if self.pulling.is_none_or(|(node, _)| node != from) {
            return Vec::new();
        }
        self.pulling = None;
        if let Some(neighbour) = self.neighbours.get_mut(&from) {
            neighbour.digest = digest;
            neighbour.pulled = complete.then_some(digest);
        }
        if !std::mem::take(&mut self.pulled_news) {
            return Vec::new();
        }
        let to: Vec<NodeId> = self.neighbours.keys().copied().collect();
        vec![Action::Send(to, Words::Digest(self.digest()))]
    }

    /// Neighbours that may have what we lack, and from when on to pull from them: their table is not empty and their
    /// digest differs from ours.
    fn wanted(&self) -> impl Iterator<Item = (NodeId, Option<Instant>)> {
        let ours = self.digest();
        self.neighbours.iter().filter(move |(_, n)| n.digest != 0 && n.digest != ours).map(|(node, n)| {
            let pause = if n.pulled == Some(n.digest) { PULL_ANYWAY } else { PULL_AGAIN };
            (*node, n.last_pull.map(|last| last + pause))
        })
    }

    fn next_pull(&self, now: Instant) -> Option<NodeId> {
        self.wanted().find(|(_, at)| at.is_none_or(|at| at <= now)).map(|(node, _)| node)
    }
}

fn batches(records: Vec<Record>, pulled: bool) -> impl Iterator<Item = Words> {
    let mut batches: Vec<Vec<Record>> = Vec::new();
    let mut len = MAX_BATCH_LEN;
    for record in records {
        len += record.wire_len();
        match batches.last_mut() {
            Some(batch) if len <= MAX_BATCH_LEN => batch.push(record),
            _ => {
                len = record.wire_len();
                batches.push(vec![record]);
            }
        }
    }
    batches.into_iter().map(move |records| Words::Records { records, pulled })
}

impl TryFrom<Vec<u64>> for Digests {
    type Error = ();

    fn try_from(digests: Vec<u64>) -> Result<Self, ()> {
        <[u64; BUCKETS]>::try_from(digests).map(Self).map_err(|_| ())
    }
}

#[cfg(test)]
mod tests;
