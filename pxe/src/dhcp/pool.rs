//! Which addresses exist and in which order they are tried for a client.
//!
//! The pool is cut into one slice per bucket. A client's search starts at a place in its own slice that only its hash
//! decides, goes round the slice, and then through the other slices: every address comes exactly once, so the
//! search fails only when nothing is free. Owns arithmetic alone; which address is taken is the lease table's matter.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::client::ClientKey;
use super::rank::{Bucket, Buckets, Leaders, client_hash};
use super::subnet::Subnet;

/// Addresses for clients: ascending ranges without gaps inside and without overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    ranges: Vec<Range>,
    size: u32,
    buckets: Buckets,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u32,
    length: u32,
    /// How many addresses the earlier ranges hold.
    before: u32,
}

impl Pool {
    /// The pool of a subnet: its ranges, clipped to host addresses and merged where they touch. An address that must never
    /// be given (routers, servers) stays in: it is refused when it comes up, so that bucket sizes do not depend on it.
    #[must_use]
    pub fn new(subnet: &Subnet) -> Self {
        let (low, high) = subnet.network.hosts();
        let mut spans: Vec<(u32, u32)> = subnet
            .ranges
            .iter()
            .map(|&(first, last)| (u32::from(first).max(low.into()), u32::from(last).min(high.into())))
            .filter(|(first, last)| first <= last)
            .collect();
        spans.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (first, last) in spans {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        let mut size = 0_u32;
        let mut ranges = Vec::new();
        for (first, last) in merged {
            // A /0 would hold one address more than a u32 counts; saturating loses only that one.
            let length = (last - first).saturating_add(1);
            ranges.push(Range { first, length, before: size });
            size = size.saturating_add(length);
        }
        Self { ranges, size, buckets: Buckets::for_pool(size) }
    }

    /// How many addresses it holds.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The buckets its clients fall into.
    #[must_use]
    pub fn buckets(&self) -> Buckets {
        self.buckets
    }

    /// Whether an address belongs to it.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        self.ranges.iter().any(|range| address >= range.first && address - range.first < range.length)
    }

    /// All addresses in the order in which they are tried for `key`, each exactly once: the slice of its bucket, then
    /// those of the other buckets that the same member leads, then the rest. So two members that work at the same moment
    /// meet only when one of them has used up all that it leads.
    pub fn probe<'a>(
        &'a self,
        key: &ClientKey,
        leaders: &'a Leaders,
    ) -> impl Iterator<Item = Ipv4Addr> + use<'a> {
        let place = client_hash(key) >> 32;
        let own = self.buckets.of(key);
        let leader = leaders.of(own);
        let same = self.buckets_from(own).filter(move |&bucket| leaders.of(bucket) == leader);
        let rest = self.buckets_from(own).filter(move |&bucket| leaders.of(bucket) != leader);
        same.chain(rest).flat_map(move |bucket| self.slice_from(bucket, place))
    }

    /// All buckets, `own` first.
    fn buckets_from(&self, own: Bucket) -> impl Iterator<Item = Bucket> + use<> {
        let count = self.buckets.count();
        let own = own.index();
        (own..count).chain(0..own).map(Bucket::new)
    }

    /// All addresses of a bucket's slice, from the one at `place` round.
    fn slice_from(&self, bucket: Bucket, place: u64) -> impl Iterator<Item = Ipv4Addr> + use<'_> {
        let (start, length) = self.slice(bucket.index().into());
        let offset = u32::try_from(place % u64::from(length.max(1))).unwrap_or_default();
        (0..length).filter_map(move |index| self.nth(start + (offset + index) % length))
    }

    /// First index and length of a bucket's slice.
    fn slice(&self, bucket: u32) -> (u32, u32) {
        let count = u64::from(self.buckets.count());
        let cut = |bucket: u64| u32::try_from(u64::from(self.size) * bucket / count).unwrap_or(self.size);
        let start = cut(u64::from(bucket));
        (start, cut(u64::from(bucket) + 1) - start)
    }

    /// The bucket whose slice holds the address with this number.
    pub(super) fn bucket_of(&self, index: u32) -> Bucket {
        let count = u64::from(self.buckets.count());
        let bucket = ((u64::from(index) + 1) * count - 1) / u64::from(self.size.max(1));
        Bucket::new(u16::try_from(bucket).unwrap_or_default())
    }

    /// The address with this number.
    pub(super) fn nth(&self, index: u32) -> Option<Ipv4Addr> {
        let range = self.ranges.iter().rev().find(|range| range.before <= index)?;
        Some(Ipv4Addr::from(range.first + (index - range.before)))
    }
}

/// The address a node takes for itself on a bare switch: the first of its own probe sequence that is not in `taken`.
/// The driver asks the link about each ([`super::arp::probe`]) and adds what is in use to `taken`.
#[must_use]
pub fn pick_own_address(subnet: &Subnet, own: &ClientKey, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    Pool::new(subnet)
        .probe(own, &Leaders::none())
        .find(|address| !taken.contains(address) && !subnet.is_infrastructure(*address))
}

#[cfg(test)]
mod tests {
    use super::super::rank::MemberId;
    use super::super::subnet::Network;
    use super::*;
    use proptest::prelude::*;

    fn subnet(prefix: u8, ranges: &[(u32, u32)]) -> Subnet {
        let network = Network::new(Ipv4Addr::new(10, 7, 0, 0), prefix).unwrap();
        let base = u32::from(network.address());
        let ranges = ranges.iter().map(|&(a, b)| ((base + a).into(), (base + b).into())).collect();
        Subnet { ranges, ..Subnet::whole(network) }
    }

    #[test]
    fn neighbouring_ranges_become_one() {
        let pool = Pool::new(&subnet(24, &[(10, 19), (20, 29), (15, 22), (100, 100), (250, 999)]));
        assert_eq!(pool.size(), 20 + 1 + 5);
        assert!(pool.contains(Ipv4Addr::new(10, 7, 0, 254)));
        assert!(!pool.contains(Ipv4Addr::new(10, 7, 0, 255)));
        assert!(!pool.contains(Ipv4Addr::new(10, 7, 0, 30)));
    }

    #[test]
    fn own_address_skips_what_is_taken() {
        let subnet = subnet(29, &[(1, 6)]);
        let own = ClientKey::ethernet([2, 0, 0, 0, 0, 1]);
        let mut taken = BTreeSet::new();
        while let Some(address) = pick_own_address(&subnet, &own, &taken) {
            assert!(taken.insert(address));
        }
        assert_eq!(taken.len(), 6);
    }

    proptest! {
        #[test]
        fn the_search_visits_every_address_once(
            mac: [u8; 6],
            members in 0_u8..5,
            ranges in proptest::collection::vec((0_u32..600, 0_u32..200), 0..5),
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(first, length)| (first, first + length)).collect();
            let pool = Pool::new(&subnet(22, &ranges));
            // The slow and obvious oracle: the set of all host addresses inside any range.
            let base = u32::from(Ipv4Addr::new(10, 7, 0, 0));
            let expected: BTreeSet<_> = (1..1023_u32)
                .filter(|host| ranges.iter().any(|(first, last)| (first..=last).contains(&host)))
                .map(|host| Ipv4Addr::from(base + host))
                .collect();
            let members: Vec<_> = (0..members).map(|n| MemberId::new([n; 32])).collect();
            let leaders = Leaders::new(pool.buckets(), &members);
            let visited: Vec<_> = pool.probe(&ClientKey::ethernet(mac), &leaders).collect();
            prop_assert_eq!(visited.len(), expected.len());
            prop_assert_eq!(pool.size() as usize, expected.len());
            prop_assert_eq!(visited.into_iter().collect::<BTreeSet<_>>(), expected);
        }

        #[test]
        fn buckets_start_in_their_own_slice(mac: [u8; 6]) {
            let pool = Pool::new(&subnet(24, &[(1, 254)]));
            let key = ClientKey::ethernet(mac);
            let bucket = u32::from(pool.buckets().of(&key).index());
            let (start, length) = pool.slice(bucket);
            let slice: BTreeSet<_> = (start..start + length).filter_map(|index| pool.nth(index)).collect();
            let first: BTreeSet<_> = pool.probe(&key, &Leaders::none()).take(length as usize).collect();
            prop_assert_eq!(first, slice);
            prop_assert!((start..start + length).all(|index| u32::from(pool.bucket_of(index).index()) == bucket));
        }
    }
}
