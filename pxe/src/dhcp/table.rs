//! All leases one node knows: by holder, by address, by time.
//!
//! Owns the indices and the merge of single leases. Never decides who gets an address; it only tells who has it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::Bound;
use std::time::Duration;

use super::client::ClientKey;
use super::lease::{Holder, Lease, LeaseState};
use super::pool::Pool;
use super::time::Time;

/// How long an expired lease is remembered. Its address goes back to its holder if that one returns, and to others only
/// when nothing else is free: iPXE never renews, and may still be loading a kernel when its boot lease is over.
pub const STALE_KEEP: Duration = Duration::from_secs(3600);
/// Holders of one address that are kept apart: as many as a switch may fall into pieces and heal again. More records for
/// one address are refused, which bounds the table by its subnets' size.
pub const MAX_CLAIMS: usize = 8;
/// How many expired leases, or offers, are looked at for an address to use again when no other is free.
const RECLAIM_SEARCH: usize = 64;

/// What taking in a lease did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// The same or an older statement was known: nothing changed.
    Known,
    /// It replaced what was known, or was new.
    Applied {
        /// Whether the holder had no live claim to this address before.
        new_claim: bool,
    },
    /// Too many holders of this address.
    Refused,
}

/// Whether an address can be given to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupancy {
    /// Nobody has it.
    Free,
    /// Somebody had it not long ago.
    Stale,
    /// Somebody has it.
    Held(Holder),
}

/// The leases.
#[derive(Debug, Clone, Default)]
pub struct Table {
    leases: BTreeMap<Holder, Lease>,
    by_address: BTreeSet<(Ipv4Addr, Holder)>,
    /// When each lease is forgotten.
    forget: BTreeSet<(Time, Holder)>,
    /// Offers, the one that runs out first at the front.
    offers: BTreeSet<(Time, Holder)>,
    /// Leases that become stale rather than free when they run out, in the order of their end.
    ends: BTreeSet<(Time, Holder)>,
    usage: Vec<Usage>,
}

/// How many addresses of a pool have anything but ended leases.
#[derive(Debug, Clone)]
struct Usage {
    pool: Pool,
    used: u32,
}

impl Table {
    /// An empty table that counts what is used of these pools.
    #[must_use]
    pub fn new(pools: impl IntoIterator<Item = Pool>) -> Self {
        let usage = pools.into_iter().map(|pool| Usage { pool, used: 0 }).collect();
        Self { usage, ..Self::default() }
    }

    /// Counts what is used of other pools from now on.
    pub fn set_pools(&mut self, pools: impl IntoIterator<Item = Pool>) {
        let addresses: BTreeSet<_> =
            self.leases.values().filter(|lease| is_used(lease)).map(|lease| lease.address).collect();
        let used = |pool: &Pool| addresses.iter().filter(|&&address| pool.contains(address)).count();
        let count = |pool: Pool| Usage { used: u32::try_from(used(&pool)).unwrap_or(u32::MAX), pool };
        self.usage = pools.into_iter().map(count).collect();
    }

    /// Whether no address of this pool is [`Occupancy::Free`]: a search through it would be in vain.
    #[must_use]
    pub fn is_full(&self, pool: &Pool) -> bool {
        self.usage.iter().any(|usage| usage.pool == *pool && usage.used >= pool.size())
    }

    /// The lease of a holder, live or not.
    #[must_use]
    pub fn get(&self, holder: &Holder) -> Option<&Lease> {
        self.leases.get(holder)
    }

    /// All leases by holder.
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// How many leases are known, expired ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether no lease is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// All leases of an address.
    pub fn at(&self, address: Ipv4Addr) -> impl Iterator<Item = &Lease> {
        let all =
            (address, Holder::Client(ClientKey::LOWEST))..=(address, Holder::Foreign(Ipv4Addr::BROADCAST));
        self.by_address.range(all).filter_map(|(_, holder)| self.leases.get(holder))
    }

    /// Addresses in use by somebody who is no client.
    pub fn foreign(&self) -> impl Iterator<Item = &Lease> {
        self.leases.range(Holder::Foreign(Ipv4Addr::UNSPECIFIED)..).map(|(_, lease)| lease)
    }

    /// The live lease that keeps an address: the strongest claim.
    #[must_use]
    pub fn keeper(&self, address: Ipv4Addr, now: Time) -> Option<&Lease> {
        self.at(address).filter(|lease| lease.is_live(now)).min_by_key(|lease| lease.claim())
    }

    /// Whether `holder` may get `address`.
    #[must_use]
    pub fn occupancy(&self, address: Ipv4Addr, holder: &Holder, now: Time) -> Occupancy {
        let mut result = Occupancy::Free;
        for lease in self.at(address).filter(|lease| lease.holder != *holder) {
            if lease.is_live(now) {
                return Occupancy::Held(lease.holder);
            }
            if lease.state != LeaseState::Released {
                result = Occupancy::Stale;
            }
        }
        result
    }

    /// The offer of another holder that is nearest to its end and whose address `usable` accepts: what a full pool
    /// takes back, so that a flood of DISCOVERs that nobody follows up cannot lock it.
    #[must_use]
    pub fn oldest_offer(&self, now: Time, usable: impl Fn(Ipv4Addr) -> bool) -> Option<Lease> {
        let offers =
            self.offers.iter().take(RECLAIM_SEARCH).filter_map(|(_, holder)| self.leases.get(holder));
        offers.filter(|lease| lease.is_live(now)).find(|lease| usable(lease.address)).copied()
    }

    /// The lease that has been over for longest and whose address `usable` accepts.
    #[must_use]
    pub fn oldest_stale(&self, now: Time, usable: impl Fn(Ipv4Addr) -> bool) -> Option<Lease> {
        let expired = self.ends.iter().take_while(|(expires, _)| *expires <= now).take(RECLAIM_SEARCH);
        expired.filter_map(|(_, holder)| self.leases.get(holder)).find(|lease| usable(lease.address)).copied()
    }

    /// Takes in a lease: the newer statement about its holder stays. Of equal statements the earlier end stays:
    /// every copy arrives late, so the earliest is the closest to the truth, and copies sent round never prolong it.
    pub fn merge(&mut self, lease: Lease, now: Time) -> Merge {
        let known = self.leases.get(&lease.holder).copied();
        if let Some(known) = known {
            if known.order() > lease.order() {
                return Merge::Known;
            }
            if known.order() == lease.order() {
                if let (Some(old), Some(new)) = (known.expires, lease.expires)
                    && new < old
                {
                    self.put(lease);
                }
                return Merge::Known;
            }
        }
        let same_address = known.is_some_and(|known| known.address == lease.address);
        if !same_address && !self.make_room(lease.address, now) {
            return Merge::Refused;
        }
        let had_claim = same_address && known.is_some_and(|known| known.is_live(now));
        self.put(lease);
        Merge::Applied { new_claim: lease.is_live(now) && !had_claim }
    }

    /// Forgets what is over at an address, the ends that are remembered last; whether there is room for one more
    /// holder after that.
    fn make_room(&mut self, address: Ipv4Addr, now: Time) -> bool {
        let here: Vec<_> = self.at(address).copied().collect();
        for lease in here.iter().filter(|lease| lease.is_expired(now)) {
            self.remove(&lease.holder);
        }
        let released =
            here.iter().filter(|lease| lease.state == LeaseState::Released && !lease.is_expired(now));
        if let Some(first) = released.min_by_key(|lease| lease.expires)
            && self.at(address).count() >= MAX_CLAIMS
        {
            self.remove(&first.holder);
        }
        self.at(address).count() < MAX_CLAIMS
    }

    /// Stores a lease whatever was known of its holder.
    pub fn put(&mut self, lease: Lease) {
        // Most changes leave the holder where it is: then only the times move.
        if let Some(known) = self.leases.get_mut(&lease.holder)
            && known.address == lease.address
            && is_used(known) == is_used(&lease)
        {
            let old = std::mem::replace(known, lease);
            self.unschedule(&old);
            self.schedule(&lease);
            return;
        }
        self.remove(&lease.holder);
        self.count(lease.address, |table| {
            table.by_address.insert((lease.address, lease.holder));
            table.leases.insert(lease.holder, lease);
        });
        self.schedule(&lease);
    }

    fn schedule(&mut self, lease: &Lease) {
        let Some(expires) = lease.expires else { return };
        self.forget.insert((forget_at(lease, expires), lease.holder));
        match lease.state {
            LeaseState::Offered => self.offers.insert((expires, lease.holder)),
            LeaseState::Bound | LeaseState::Member => self.ends.insert((expires, lease.holder)),
            LeaseState::Released | LeaseState::Declined => false,
        };
    }

    fn unschedule(&mut self, lease: &Lease) {
        let Some(expires) = lease.expires else { return };
        self.forget.remove(&(forget_at(lease, expires), lease.holder));
        match lease.state {
            LeaseState::Offered => self.offers.remove(&(expires, lease.holder)),
            LeaseState::Bound | LeaseState::Member => self.ends.remove(&(expires, lease.holder)),
            LeaseState::Released | LeaseState::Declined => false,
        };
    }

    /// Forgets a holder.
    pub fn remove(&mut self, holder: &Holder) -> Option<Lease> {
        let lease = *self.leases.get(holder)?;
        self.count(lease.address, |table| {
            table.leases.remove(holder);
            table.by_address.remove(&(lease.address, lease.holder));
        });
        self.unschedule(&lease);
        Some(lease)
    }

    /// Carries out a change at an address and keeps the count of used addresses.
    fn count(&mut self, address: Ipv4Addr, change: impl FnOnce(&mut Self)) {
        let before = self.at(address).any(is_used);
        change(self);
        let after = self.at(address).any(is_used);
        if before != after
            && let Some(usage) = self.usage.iter_mut().find(|usage| usage.pool.contains(address))
        {
            usage.used = if after { usage.used + 1 } else { usage.used.saturating_sub(1) };
        }
    }

    /// Forgets what has been expired for long enough.
    pub fn purge(&mut self, now: Time) {
        while let Some(&(at, holder)) = self.forget.first()
            && at <= now
        {
            self.remove(&holder);
        }
        while let Some(&(expires, holder)) = self.offers.first()
            && expires <= now
        {
            self.offers.remove(&(expires, holder));
        }
    }

    /// When [`Table::purge`] has something to do next.
    #[must_use]
    pub fn next_purge(&self) -> Option<Time> {
        self.forget.first().map(|&(at, _)| at)
    }

    /// Up to `limit` leases in the order of their holders, starting behind `after`: a page of the whole table.
    pub fn page(&self, after: Option<Holder>, limit: usize) -> impl Iterator<Item = &Lease> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.leases.range((start, Bound::Unbounded)).map(|(_, lease)| lease).take(limit)
    }
}

/// Whether the lease counts in [`Usage`].
fn is_used(lease: &Lease) -> bool {
    lease.state != LeaseState::Released
}

/// Released and declined leases are of no use once over; the others stay a while as the holder's last address.
fn forget_at(lease: &Lease, expires: Time) -> Time {
    match lease.state {
        LeaseState::Released | LeaseState::Declined | LeaseState::Offered => expires,
        LeaseState::Bound | LeaseState::Member => expires + STALE_KEEP,
    }
}

#[cfg(test)]
mod tests;
