//! Addresses of the pool that somebody unknown uses: found by asking the link, never by waiting before an offer.
//!
//! Each address is asked for by the node that leads its bucket, so that a pool is swept once, not once by each node: fast
//! in the first round, afterwards as often as a finding is forgotten. An address is asked for as well, beside the offer,
//! when it is offered in doubt: somebody had it not long ago, or the first round has not come to it. Whoever answers in time makes
//! the client start again with another address.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::super::client::ClientKey;
use super::super::config::Mode;
use super::super::event::{BootEvent, Stage};
use super::super::lease::{Holder, LeaseState};
use super::super::table::Occupancy;
use super::super::time::Time;
use super::{Core, Output, TAKEN_HOLD};

/// The first round: so many addresses of a pool at each step, 500 a second.
const FIRST_STEP: Duration = Duration::from_millis(50);
const FIRST_ADDRESSES: u32 = 25;
/// Later rounds take half of the time for which a finding is kept.
const STEP: Duration = Duration::from_secs(1);
const ROUND_STEPS: u32 = 300;
/// Questions in doubt per second: a storm of clients must not become a storm of broadcasts.
const MAX_DOUBTS: u32 = 200;

/// Where the sweep is.
#[derive(Debug)]
pub(super) struct Sweep {
    next: Option<Time>,
    /// The next address of the link's pool, by number.
    cursor: u32,
    first_round: bool,
    doubts: (Time, u32),
}

impl Sweep {
    pub(super) fn new(sweeps: bool) -> Self {
        Self { next: sweeps.then_some(Time::ZERO), cursor: 0, first_round: true, doubts: (Time::ZERO, 0) }
    }

    /// Begins anew, over another pool.
    pub(super) fn restart(&mut self) {
        (self.cursor, self.first_round) = (0, true);
    }

    pub(super) fn next_due(&self) -> Option<Time> {
        self.next
    }
}

impl Core {
    /// Asks for the addresses whose turn it is.
    pub(super) fn sweep_if_due(&mut self) {
        if self.sweep.next.is_none_or(|at| at > self.now) {
            return;
        }
        let Some(served) = self.settings.subnets.first().filter(|_| self.acting() == Mode::Full) else {
            self.sweep.next = None;
            return;
        };
        let (first, size) = (self.sweep.first_round, served.pool.size());
        let count = if first { FIRST_ADDRESSES } else { size.div_ceil(ROUND_STEPS) };
        let end = size.min(self.sweep.cursor.saturating_add(count));
        let leaders = self.leaders(served);
        let asked: Vec<Ipv4Addr> = (self.sweep.cursor..end)
            .filter(|&index| leaders.of(served.pool.bucket_of(index)) == Some(self.me))
            .filter_map(|index| served.pool.nth(index))
            .filter(|&address| !self.is_known_to_be_used(address))
            .collect();
        self.outputs.extend(asked.into_iter().map(Output::Ask));
        let done = end >= size;
        self.sweep.cursor = if done { 0 } else { end };
        self.sweep.first_round = first && !done;
        self.sweep.next = Some(self.now + if first { FIRST_STEP } else { STEP });
    }

    /// Whether a client or a node has it; findings are asked for again.
    fn is_known_to_be_used(&self, address: Ipv4Addr) -> bool {
        self.table
            .keeper(address, self.now)
            .is_some_and(|lease| matches!(lease.state, LeaseState::Bound | LeaseState::Member))
    }

    /// An address is about to be offered to somebody who had no lease of it.
    pub(super) fn doubt(&mut self, address: Ipv4Addr, holder: &Holder) {
        let stale = self.table.occupancy(address, holder, self.now) != Occupancy::Free;
        if self.sweep.next.is_none() || !(stale || self.sweep.first_round) {
            return;
        }
        let (since, count) = &mut self.sweep.doubts;
        if self.now.since(*since) >= Duration::from_secs(1) {
            (*since, *count) = (self.now, 0);
        }
        *count += 1;
        if *count <= MAX_DOUBTS {
            self.outputs.push_back(Output::Ask(address));
        }
    }

    /// Notes that an address is used on the link by `by`, as ARP tells it. Nothing happens if that is a client that has or had
    /// it, or if a client or node has a lease of it: that one finds out by itself, and must not lose it to a lie. An
    /// offer is taken back.
    pub fn address_taken(&mut self, now: Time, address: Ipv4Addr, by: Option<ClientKey>) {
        self.advance(now);
        let pooled = self.settings.subnet_of(address).is_some_and(|served| served.pool.contains(address));
        if !pooled || self.acting() != Mode::Full || address == self.settings.config.server {
            return;
        }
        let by_holder =
            by.is_some_and(|key| self.table.at(address).any(|lease| lease.holder == Holder::Client(key)));
        let keeper = self.table.keeper(address, self.now).copied();
        match keeper.map(|lease| lease.state) {
            _ if by_holder => return,
            Some(LeaseState::Bound | LeaseState::Member) => return,
            Some(LeaseState::Declined)
                if keeper
                    .and_then(|lease| lease.expires)
                    .is_some_and(|end| end.since(self.now) > TAKEN_HOLD / 2) =>
            {
                return;
            }
            Some(LeaseState::Declined) => {}
            Some(_) | None => {
                if let Some(offer) = keeper {
                    self.end(offer);
                }
                let reason = by.map(|key| format!("{key} answers for it"));
                let event = BootEvent::new(Stage::Foreign, Holder::Foreign(address));
                self.emit(BootEvent { address: Some(address), reason, ..event });
            }
        }
        self.take(address);
    }
}
