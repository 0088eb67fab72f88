//! Which address a client is offered.

use std::net::Ipv4Addr;

use super::super::config::Served;
use super::super::lease::{Holder, Lease, LeaseState};
use super::super::packet::code;
use super::super::table::Occupancy;
use super::{Core, Request};

/// An address for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) address: Ipv4Addr,
    /// The offer of another client that is taken back for it.
    pub(super) reclaims: Option<Lease>,
}

impl Core {
    /// The address to offer, or `None` when every address is held: its reservation, its last address, the one another
    /// node just named to it, the one it asks for, else its probe sequence; addresses that somebody had not long ago
    /// come after all others, the longest unused first, and the oldest unanswered offer of another client comes last.
    pub(super) fn choose(&self, request: &Request, served: &Served) -> Option<Choice> {
        let (key, who) = (request.key(), request.client.who());
        let holder = request.holder();
        let given = |address: Ipv4Addr| {
            served.subnet.network.contains(address) && self.settings.allows(&who, address)
        };
        let not_held = |address: Ipv4Addr| {
            !matches!(self.table.occupancy(address, &holder, self.now), Occupancy::Held(_))
                && !self.hints.is_told_to_another(self.now, &key, address)
        };
        let free = |address: Ipv4Addr| {
            self.table.occupancy(address, &holder, self.now) == Occupancy::Free
                && !self.hints.is_told_to_another(self.now, &key, address)
        };

        let reserved = self.settings.reservation(&who).and_then(|known| known.address);
        let last = self.table.get(&holder).map(|lease| lease.address);
        let told = self.hints.address_of(self.now, &key);
        let known = [reserved, last, told].into_iter().flatten().find(|&a| given(a) && not_held(a));
        let asked =
            || request.packet.address_option(code::REQUESTED_ADDRESS).filter(|&a| given(a) && free(a));
        let probed = || {
            if self.table.is_full(&served.pool) {
                return None;
            }
            served.pool.probe(&key, self.leaders(served)).find(|&a| free(a) && given(a))
        };
        let stale =
            || self.table.oldest_stale(self.now, |a| not_held(a) && given(a)).map(|lease| lease.address);
        known
            .or_else(asked)
            .or_else(probed)
            .or_else(stale)
            .map(|address| Choice { address, reclaims: None })
            .or_else(|| self.reclaim(&holder, given))
    }

    fn reclaim(&self, holder: &Holder, given: impl Fn(Ipv4Addr) -> bool) -> Option<Choice> {
        let only_offered = |address: Ipv4Addr| {
            self.table
                .at(address)
                .filter(|lease| lease.holder != *holder && lease.is_live(self.now))
                .all(|lease| lease.state == LeaseState::Offered)
        };
        let offer = self.table.oldest_offer(self.now, |address| given(address) && only_offered(address))?;
        Some(Choice { address: offer.address, reclaims: Some(offer) })
    }

    /// Whether a client may keep or take this address: it has the strongest live claim, or nobody has one and the
    /// address is one that it could be given. What has been reserved for another since goes to that one.
    pub(super) fn may_have(&self, request: &Request, address: Ipv4Addr) -> bool {
        let who = request.client.who();
        match self.table.keeper(address, self.now) {
            Some(lease) => {
                lease.holder == request.holder() && !self.settings.is_reserved_for_another(&who, address)
            }
            None => self.settings.allows(&who, address),
        }
    }

    /// Whether somebody else has this address, or is to have it.
    pub(super) fn is_held_by_another(&self, request: &Request, address: Ipv4Addr) -> bool {
        self.table.keeper(address, self.now).is_some_and(|lease| lease.holder != request.holder())
            || self.settings.is_reserved_for_another(&request.client.who(), address)
    }
}
