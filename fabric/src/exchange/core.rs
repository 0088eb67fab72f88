//! The exchange's core: who asks whom for which run of chunks, as a pure state machine.
//!
//! Owns what the neighbours hold, what is missing, what is under way, and what to tell whom. Never touches a socket, a
//! clock, a runtime or a byte of content: inputs are method calls that carry `now`, outputs are drained with
//! [`Core::poll`] after each input until it returns `None`; then [`Core::deadline`] says when to call [`Core::tick`].
//! A core with the same seed and inputs gives the same outputs.
//!
//! Nothing that a neighbour says is trusted: lengths and numbers are checked against the blob's index, what does not fit
//! is counted as an offence, and a neighbour is not asked again after a bad chunk or too many offences.
//!
//! | file | concept |
//! |---|---|
//! | [`grid`] | cells: the units in which work is given out |
//! | `view`, `blob` | what a neighbour holds; what we and all of them hold |
//! | `peer`, `rate`, `bans` | how fast a neighbour is and whether it may be asked |
//! | `picker`, `fetch`, `schedule` | which cell, what is under way, which neighbour |
//! | `imports`, `importing` | what has to come from other racks, and who of ours fetches it |
//! | `lot` | an order among nodes that nobody has to tell |
//! | `governor`, `announce` | the seeder in a flash crowd; when to tell of new cells |
//! | `share`, `review` | what a node keeps that need not hold the whole blob, and how it looks after that |
//! | `seek` | when other neighbours are needed |
//! | `report` | what a core tells of itself |

mod announce;
mod bans;
mod blob;
mod fetch;
mod governor;
pub mod grid;
mod importing;
mod imports;
mod incoming;
mod lot;
mod peer;
mod picker;
mod rate;
mod report;
mod requests;
mod review;
pub(crate) mod rng;
mod schedule;
mod seek;
mod share;
mod spread;
pub(crate) mod time;
mod view;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::ban::Ban;
use super::event::ExchangeEvent;
use super::message::{Message, Run};
use crate::bitfield::Bitfield;
use crate::id::{BlobId, NodeId};
use bans::Bans;
use blob::Blob;
pub use fetch::RequestId;
use fetch::{Fetch, Flight};
use grid::Grid;
use peer::{Peer, Slot, Standing};
use rate::Rate;
pub use report::{BlobReport, PeerReport};
pub use requests::Failure;
pub use review::{Review, ShareReport};
use rng::Rng;
pub use time::Time;

/// Names a neighbour.
pub type PeerKey = NodeId;

/// Neighbours of one node. A swarm needs about 32; beyond this many the messages cost more than the choice gains.
pub const MAX_PEERS: usize = 1024;

/// What is known of a neighbour besides what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerHint {
    /// Asked last: the machine that brought the blob, or one behind a narrow link.
    pub origin: bool,
    /// It stands in another rack: asked only for what nobody in ours holds or is fetching already.
    pub far: bool,
    /// Tells racks apart: a number that all neighbours of one rack have in common. A seeder gives each rack as much of its first
    /// copy, so that no rack has to give the others more than its links carry.
    pub rack: u64,
}

/// Which fetch goes first when a neighbour can be asked for several; higher is sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Content for later, such as the release of a coming rollout.
    Prefetch,
    /// The root filesystem of a node that boots.
    Root,
    /// What the next machine needs to boot: kernel, first stage, loaders.
    Boot,
}

/// The order in which the cells of a blob are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Rarest first: best for the swarm.
    Rarest,
    /// Rarest first among this many cells after the first missing one: for a consumer that reads in order.
    Window(u32),
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Fetch these bytes from the peer, then report with [`Core::stored`] and [`Core::finished`].
    Request {
        /// Names the request.
        id: RequestId,
        /// Whom to ask.
        peer: PeerKey,
        /// The blob.
        blob: BlobId,
        /// The chunks.
        run: Run,
        /// Their bytes in the blob.
        bytes: Range<u64>,
    },
    /// Give the request up; nothing about it needs to be reported, whatever it has stored still may be.
    Cancel(RequestId),
    /// Send a message.
    Send {
        /// To whom.
        to: PeerKey,
        /// The message.
        message: Message,
    },
    /// Something worth telling happened.
    Event(ExchangeEvent),
}

/// The state machine.
#[derive(Debug)]
pub struct Core {
    rng: Rng,
    /// Our own place among the nodes of our rack.
    name: u64,
    peers: BTreeMap<Slot, Peer>,
    slots: BTreeMap<PeerKey, Slot>,
    next_slot: Slot,
    bans: Bans,
    blobs: BTreeMap<BlobId, Blob>,
    /// Fetches, the most urgent and then the oldest first.
    fetches: BTreeMap<(Reverse<Priority>, u64), BlobId>,
    flights: BTreeMap<RequestId, Flight>,
    /// When each of them is given up, in order: the next deadline is asked for after every input.
    expiries: BTreeSet<(Time, RequestId)>,
    next_id: u64,
    /// Bytes under way, over all peers, and how fast they come.
    in_flight: u64,
    rate: Rate,
    /// The latest moment heard of.
    seen: Time,
    /// From this moment on no neighbour rests.
    resting: Time,
    outputs: VecDeque<Output>,
}

impl Core {
    /// A core that knows nothing; `seed` breaks its ties.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            name: seed,
            peers: BTreeMap::new(),
            slots: BTreeMap::new(),
            next_slot: 0,
            bans: Bans::default(),
            blobs: BTreeMap::new(),
            fetches: BTreeMap::new(),
            flights: BTreeMap::new(),
            expiries: BTreeSet::new(),
            next_id: 0,
            in_flight: 0,
            rate: Rate::default(),
            seen: Time::default(),
            resting: Time::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Tells the core by what key its neighbours know this node: those of one rack take turns by their keys. Without it the turns
    /// are random, and more is imported twice.
    pub fn known_as(&mut self, key: PeerKey) {
        self.name = lot::name(key);
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// A neighbour can be asked and told. One already known is kept, with the new hint. Beyond [`MAX_PEERS`] it is ignored.
    pub fn peer_up(&mut self, now: Time, key: PeerKey, hint: PeerHint) {
        if let Some(peer) = self.slots.get(&key).and_then(|slot| self.peers.get_mut(slot)) {
            peer.hint = hint;
            if matches!(peer.standing, Standing::Resting(_)) {
                peer.standing = Standing::Ready;
            }
        } else {
            if self.peers.len() >= MAX_PEERS {
                return;
            }
            let mut peer = Peer::new(key, hint);
            if self.bans.holds(&key) {
                peer.standing = Standing::Banned;
            }
            self.slots.insert(key, self.next_slot);
            self.peers.insert(self.next_slot, peer);
            self.next_slot += 1;
        }
        if let Some(&slot) = self.slots.get(&key) {
            self.blobs.values_mut().for_each(|blob| blob.place(slot, hint.far));
        }
        let blobs: Vec<BlobId> =
            self.blobs.iter().filter(|(_, blob)| blob.interested).map(|(&blob, _)| blob).collect();
        for blob in blobs {
            self.send(key, Message::Interested { blob });
        }
        self.schedule(now);
    }

    /// A neighbour is gone: what it was asked for is asked of others. A ban outlives it.
    pub fn peer_down(&mut self, now: Time, key: PeerKey) {
        let Some(&slot) = self.slots.get(&key) else { return };
        self.drop_flights_of(slot);
        for blob in self.blobs.values_mut() {
            let shared = blob.views.get(&slot).is_some_and(|view| view.sharing);
            if let Some(share) = blob.share.as_mut().filter(|_| shared) {
                share.lost(now, key);
            }
            blob.forget(slot);
        }
        self.peers.remove(&slot);
        self.slots.remove(&key);
        let ids: Vec<BlobId> = self.blobs.keys().copied().collect();
        for blob in ids {
            self.spread(now, blob);
        }
        self.schedule(now);
    }

    /// This node holds `have` of a blob and serves it. Held chunks are added to those known; a fetch goes on.
    pub fn seed(&mut self, now: Time, grid: &Arc<Grid>, have: &Bitfield) {
        if have.len() != grid.chunks() {
            return;
        }
        let id = grid.blob();
        if let Some(blob) = self.blobs.get_mut(&id) {
            for run in have.runs() {
                blob.keep(run, |announcer, cell, holders| announcer.add(now, cell, holders));
            }
            self.spread(now, id);
            return self.schedule(now);
        }
        let mut blob = Blob::new(Arc::clone(grid), have.clone());
        self.peers.iter().for_each(|(&slot, peer)| blob.place(slot, peer.hint.far));
        self.blobs.insert(id, blob);
        let remembered = |(&slot, peer): (&Slot, &mut Peer)| peer.interests.remove(&id).then_some(slot);
        let waiting: Vec<Slot> = self.peers.iter_mut().filter_map(remembered).collect();
        for slot in waiting {
            self.interest(slot, id, true);
        }
        self.spread(now, id);
    }

    /// Fetches what is missing of a blob; `have` is held already. A fetch that runs takes on the new priority and order.
    pub fn fetch(&mut self, now: Time, grid: &Arc<Grid>, have: &Bitfield, priority: Priority, order: Order) {
        self.seed(now, grid, have);
        let id = grid.blob();
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        if blob.complete() {
            self.outputs.push_back(Output::Event(ExchangeEvent::BlobComplete { blob: id }));
            return;
        }
        blob.share = None;
        blob.fetch = Some(Fetch::new(now, priority, order, &blob.cells));
        self.drop_flights_for(id);
        self.fetches.retain(|_, other| *other != id);
        self.next_id += 1;
        self.fetches.insert((Reverse(priority), self.next_id), id);
        self.spread(now, id);
        self.schedule(now);
    }

    /// These chunks of a blob are asked for before all others: something waits for them. Said again, the new ones count.
    pub fn first(&mut self, now: Time, id: BlobId, run: Run) {
        if let Some(blob) = self.blobs.get_mut(&id) {
            blob.first = blob.grid.cells_of(run.chunks());
            self.schedule(now);
        }
    }

    /// Stops fetching a blob; what is held of it is still served.
    pub fn stop(&mut self, now: Time, id: BlobId) {
        self.drop_flights_for(id);
        self.fetches.retain(|_, other| *other != id);
        if let Some(blob) = self.blobs.get_mut(&id) {
            blob.fetch = None;
        }
        self.spread(now, id);
        self.schedule(now);
    }

    /// Forgets a blob that is no longer held, and says so.
    pub fn forget(&mut self, now: Time, id: BlobId) {
        self.drop_flights_for(id);
        self.fetches.retain(|_, other| *other != id);
        if let Some(blob) = self.blobs.remove(&id) {
            for (slot, view) in &blob.views {
                if let Some(peer) = self.peers.get_mut(slot) {
                    if view.interested {
                        peer.remember(id);
                    }
                    let message = Message::Dropped { blob: id };
                    self.outputs.push_back(Output::Send { to: peer.key, message });
                }
            }
        }
        self.schedule(now);
    }

    /// Time has passed: gives up what is late, announces what is due, asks where it can.
    pub fn tick(&mut self, now: Time) {
        self.expire(now);
        self.seek(now);
        let ids: Vec<BlobId> = self.blobs.keys().copied().collect();
        for id in ids {
            self.spread(now, id);
        }
        self.schedule(now);
    }

    /// When [`Core::tick`] is due, or `None` while nothing waits for time.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let blobs =
            self.blobs.values().flat_map(|blob| [blob.announcer.deadline(), blob.governor.deadline()]);
        let fetches = self.request_deadline().into_iter().chain(self.seek_deadline());
        blobs.flatten().chain(fetches).chain(self.import_deadline()).min()
    }

    /// Whether the whole blob is held here, as far as was reported.
    #[must_use]
    pub fn complete(&self, blob: &BlobId) -> bool {
        self.blobs.get(blob).is_some_and(Blob::complete)
    }

    /// Whether all chunks of `run` are held here, as far as was reported.
    #[must_use]
    pub fn holds(&self, blob: &BlobId, run: Run) -> bool {
        self.blobs.get(blob).is_some_and(|blob| blob.have.has_all(run.chunks()))
    }

    /// Verified bytes of the blob held here, as far as was reported.
    #[must_use]
    pub fn held(&self, blob: &BlobId) -> u64 {
        self.blobs.get(blob).map_or(0, |blob| blob.held)
    }

    /// The neighbours that are not asked any more, present or not, and why.
    #[must_use]
    pub fn bans(&self) -> BTreeMap<PeerKey, Ban> {
        self.bans.all()
    }

    /// Says again all that `key` should know, after messages to it were lost.
    pub fn refresh(&mut self, key: PeerKey) {
        let Some(&slot) = self.slots.get(&key) else { return };
        let ids: Vec<BlobId> = self.blobs.keys().copied().collect();
        for id in ids {
            let Some(blob) = self.blobs.get(&id) else { continue };
            if blob.interested {
                self.send(key, Message::Interested { blob: id });
            }
            if self.blobs.get(&id).and_then(|blob| blob.views.get(&slot)).is_some_and(|view| view.interested)
            {
                self.interest(slot, id, true);
            }
        }
    }

    fn send(&mut self, to: PeerKey, message: Message) {
        self.outputs.push_back(Output::Send { to, message });
    }

    fn event(&mut self, event: ExchangeEvent) {
        self.outputs.push_back(Output::Event(event));
    }
}
