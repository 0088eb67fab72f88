//! Who answers a client: rendezvous hashing over the live members.
//!
//! A client's hash picks a bucket, and the bucket orders the members. Rank 0 answers, the others stand by in that
//! order. When a member joins or leaves, only the buckets it leads change hands.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::client::ClientKey;

/// Domain separation of the two hashes: another use of the same inputs gives other values.
const BUCKET_CONTEXT: &str = "bootfabric 2026 dhcp client bucket";
const RANK_CONTEXT: &str = "bootfabric 2026 dhcp responder rank";

/// More buckets than this give no better balance: nodes on one link number in the hundreds, and each bucket's slice
/// of a /16 still holds 256 addresses.
pub const MAX_BUCKETS: u16 = 256;
/// A slice should hold several addresses, else two clients of one bucket leave it at once; a /28 has 3 buckets.
pub const MIN_SLICE: u32 = 4;

/// A node as DHCP knows it: 32 opaque bytes, such as the hash of its public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberId([u8; 32]);

impl MemberId {
    /// An id from its bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for MemberId {
    /// The first four bytes in hexadecimal, enough to tell nodes apart in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One of the buckets that clients fall into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u16);

impl Bucket {
    pub(super) const fn new(index: u16) -> Self {
        Self(index)
    }

    /// Its number, below the bucket count.
    #[must_use]
    pub const fn index(self) -> u16 {
        self.0
    }
}

/// How many buckets the clients of a pool fall into. Depends on the pool's size alone, so all nodes agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buckets(u16);

impl Buckets {
    /// The buckets of a pool of this many addresses: at least one.
    #[must_use]
    pub fn for_pool(addresses: u32) -> Self {
        let wanted = addresses / MIN_SLICE;
        Self(u16::try_from(wanted).unwrap_or(MAX_BUCKETS).clamp(1, MAX_BUCKETS))
    }

    /// How many there are: 1 to [`MAX_BUCKETS`].
    #[must_use]
    pub const fn count(self) -> u16 {
        self.0
    }

    /// The bucket of a client.
    #[must_use]
    pub fn of(self, key: &ClientKey) -> Bucket {
        let index = client_hash(key) % u64::from(self.0);
        Bucket(u16::try_from(index).unwrap_or_default())
    }

    /// The members in the order in which they answer this client, best first. The order of `members` does not matter.
    #[must_use]
    pub fn rank(self, members: &[MemberId], key: &ClientKey) -> Vec<MemberId> {
        let bucket = self.of(key);
        let mut scored: Vec<_> = members.iter().map(|&member| (score(bucket, member), member)).collect();
        scored.sort_unstable_by(|a, b| b.cmp(a));
        scored.dedup();
        scored.into_iter().map(|(_, member)| member).collect()
    }

    /// The rank of `me` for this client: how many of `members` come before it.
    #[must_use]
    pub fn rank_of(self, me: MemberId, members: &[MemberId], key: &ClientKey) -> usize {
        let bucket = self.of(key);
        let mine = (score(bucket, me), me);
        members.iter().filter(|&&member| member != me && (score(bucket, member), member) > mine).count()
    }
}

/// The first rank of every bucket, kept until the members change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaders(Vec<MemberId>);

impl Leaders {
    /// No member, no leader.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// The leaders of all buckets; none if there are no members.
    #[must_use]
    pub fn new(buckets: Buckets, members: &[MemberId]) -> Self {
        let leader =
            |index| members.iter().copied().max_by_key(|&member| (score(Bucket(index), member), member));
        Self((0..buckets.count()).map_while(leader).collect())
    }

    /// The leader of a bucket.
    #[must_use]
    pub fn of(&self, bucket: Bucket) -> Option<MemberId> {
        self.0.get(usize::from(bucket.0)).copied()
    }
}

/// The bucket of a client in a pool of this many addresses.
#[must_use]
pub fn bucket(key: &ClientKey, pool_size: u32) -> Bucket {
    Buckets::for_pool(pool_size).of(key)
}

/// The order in which `members` answer a client whose address comes from a pool of this many addresses.
#[must_use]
pub fn rank(members: &[MemberId], key: &ClientKey, pool_size: u32) -> Vec<MemberId> {
    Buckets::for_pool(pool_size).rank(members, key)
}

/// The one hash of a client that everything is derived from.
pub(super) fn client_hash(key: &ClientKey) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key(BUCKET_CONTEXT);
    hasher.update(&[key.hardware_type()]).update(key.address());
    first_u64(&hasher)
}

fn score(bucket: Bucket, member: MemberId) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key(RANK_CONTEXT);
    hasher.update(&bucket.0.to_le_bytes()).update(&member.0);
    first_u64(&hasher)
}

fn first_u64(hasher: &blake3::Hasher) -> u64 {
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(n: u8) -> MemberId {
        MemberId::new([n; 32])
    }

    #[test]
    fn small_and_large_pools() {
        assert_eq!(Buckets::for_pool(0).count(), 1);
        assert_eq!(Buckets::for_pool(13).count(), 3);
        assert_eq!(Buckets::for_pool(65_000).count(), MAX_BUCKETS);
        assert_eq!(Buckets::for_pool(u32::MAX).count(), MAX_BUCKETS);
    }

    #[test]
    fn leadership_is_spread() {
        let members: Vec<_> = (1..=4).map(member).collect();
        let mut led = [0; 4];
        for n in 0..1000_u16 {
            let [high, low] = n.to_be_bytes();
            let first = rank(&members, &ClientKey::ethernet([2, 0, 0, 0, high, low]), 10_000)[0];
            led[usize::from(first.as_bytes()[0]) - 1] += 1;
        }
        assert!(led.iter().all(|&count| count > 120), "{led:?}");
    }

    proptest! {
        #[test]
        fn order_of_members_does_not_matter(mac: [u8; 6], mut ids in proptest::collection::vec(any::<u8>(), 1..20)) {
            let key = ClientKey::ethernet(mac);
            let members: Vec<_> = ids.iter().map(|&n| member(n)).collect();
            let one = rank(&members, &key, 200);
            ids.reverse();
            let members: Vec<_> = ids.iter().map(|&n| member(n)).collect();
            prop_assert_eq!(&one, &rank(&members, &key, 200));
            let buckets = Buckets::for_pool(200);
            prop_assert_eq!(Leaders::new(buckets, &members).of(buckets.of(&key)), Some(one[0]));
            for (index, &id) in one.iter().enumerate() {
                prop_assert_eq!(Buckets::for_pool(200).rank_of(id, &one, &key), index);
            }
        }

        #[test]
        fn a_departure_moves_only_what_it_led(mac: [u8; 6], gone in 0_u8..6) {
            let key = ClientKey::ethernet(mac);
            let all: Vec<_> = (0..6).map(member).collect();
            let rest: Vec<_> = all.iter().copied().filter(|&id| id != member(gone)).collect();
            let expected: Vec<_> = rank(&all, &key, 200).into_iter().filter(|&id| id != member(gone)).collect();
            prop_assert_eq!(expected, rank(&rest, &key, 200));
        }
    }
}
