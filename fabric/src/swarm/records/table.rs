//! Core: the table of records, a state-based CRDT with a bound.
//!
//! Per key the highest (counter, author, value) wins. When the table is full it keeps the [`MAX_RECORDS`] keys that come
//! first in the order of their hashes, so that also full tables converge: the result is a function of the set of records
//! seen, not of their order. Digests per bucket (a 64th of the key space) find differences cheaply.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{MAX_AGE, MAX_RECORDS, Record, RecordError};
use crate::id::{Hash, NodeId};

/// Buckets of the key space: a difference costs at most a 64th of the table to repair.
pub(crate) const BUCKETS: usize = 64;

/// Digests of all buckets: equal digests, equal records (ages aside).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Digests(pub(crate) [u64; BUCKETS]);

impl Digests {
    /// One number for the whole table.
    pub(crate) fn fold(&self) -> u64 {
        self.0.iter().zip(1u64..).fold(0, |sum, (digest, n)| sum ^ digest.wrapping_mul(2 * n + 1))
    }
}

/// Place of a key in the order that decides what a full table keeps; its top six bits are the bucket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    hash: u64,
    topic: u8,
    key: Vec<u8>,
}

impl Place {
    fn of(topic: u8, key: &[u8]) -> Self {
        Self { hash: first_bits(&Hash::of(&[&[topic], key].concat())), topic, key: key.to_vec() }
    }

    fn bucket(&self) -> usize {
        usize::try_from(self.hash >> 58).unwrap_or(0)
    }
}

fn first_bits(hash: &Hash) -> u64 {
    let mut bits = [0; 8];
    bits.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_be_bytes(bits)
}

#[derive(Debug)]
struct Entry {
    counter: u64,
    author: NodeId,
    value: Vec<u8>,
    age: Duration,
    since: Instant,
    digest: u64,
}

impl Entry {
    fn age(&self, now: Instant) -> Duration {
        self.age.saturating_add(now.saturating_duration_since(self.since))
    }

    fn version(&self) -> (u64, NodeId, &[u8]) {
        (self.counter, self.author, &self.value)
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    entries: BTreeMap<Place, Entry>,
    digests: Digests,
    capacity: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self::with_capacity(MAX_RECORDS)
    }
}

impl Table {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { entries: BTreeMap::new(), digests: Digests([0; BUCKETS]), capacity }
    }

    /// Merges a record; true if it is news, false if it was known.
    ///
    /// # Errors
    /// [`RecordError`] if it is too long, too old, superseded, or the table is full of records that precede it.
    pub(crate) fn merge(&mut self, record: &Record, now: Instant) -> Result<bool, RecordError> {
        record.check()?;
        if record.age >= MAX_AGE {
            return Err(RecordError::Older);
        }
        let place = Place::of(record.topic, &record.key);
        if let Some(known) = self.entries.get_mut(&place) {
            let version = (record.counter, record.author, record.value.as_slice());
            match version.cmp(&known.version()) {
                std::cmp::Ordering::Less => return Err(RecordError::Older),
                std::cmp::Ordering::Equal => {
                    if record.age > known.age(now) {
                        (known.age, known.since) = (record.age, now);
                    }
                    return Ok(false);
                }
                std::cmp::Ordering::Greater => {}
            }
        }
        self.remove(&place);
        if self.entries.len() >= self.capacity {
            match self.entries.last_key_value() {
                Some((last, _)) if *last > place => {
                    let last = last.clone();
                    self.remove(&last);
                }
                _ => return Err(RecordError::Full),
            }
        }
        self.insert(place, record, now);
        Ok(true)
    }

    /// Drops what nobody renewed.
    pub(crate) fn expire(&mut self, now: Instant) {
        let old: Vec<Place> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.age(now) >= MAX_AGE)
            .map(|(place, _)| place.clone())
            .collect();
        for place in &old {
            self.remove(place);
        }
    }

    pub(crate) fn digests(&self) -> Digests {
        self.digests
    }

    /// The records of all buckets whose digests differ from `theirs`.
    pub(crate) fn differing(&self, theirs: &Digests, now: Instant) -> impl Iterator<Item = Record> {
        let differs: Vec<bool> =
            self.digests.0.iter().zip(theirs.0).map(|(ours, theirs)| *ours != theirs).collect();
        self.entries
            .iter()
            .filter(move |(place, _)| differs.get(place.bucket()).copied().unwrap_or(false))
            .map(move |(place, entry)| record(place, entry, now))
    }

    /// All records of a topic.
    pub(crate) fn topic(&self, topic: u8, now: Instant) -> Vec<Record> {
        let entries = self.entries.iter().filter(|(place, _)| place.topic == topic);
        entries.map(|(place, entry)| record(place, entry, now)).collect()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn insert(&mut self, place: Place, record: &Record, now: Instant) {
        let version =
            [&record.counter.to_be_bytes(), record.author.0.as_bytes().as_slice(), &record.value].concat();
        let mut bytes = place.hash.to_be_bytes().to_vec();
        bytes.push(place.topic);
        bytes.extend_from_slice(&place.key);
        bytes.extend_from_slice(&version);
        let digest = first_bits(&Hash::of(&bytes));
        if let Some(bucket) = self.digests.0.get_mut(place.bucket()) {
            *bucket ^= digest;
        }
        self.entries.insert(
            place,
            Entry {
                counter: record.counter,
                author: record.author,
                value: record.value.clone(),
                age: record.age,
                since: now,
                digest,
            },
        );
    }

    fn remove(&mut self, place: &Place) {
        if let Some(entry) = self.entries.remove(place)
            && let Some(bucket) = self.digests.0.get_mut(place.bucket())
        {
            *bucket ^= entry.digest;
        }
    }
}

fn record(place: &Place, entry: &Entry, now: Instant) -> Record {
    Record {
        topic: place.topic,
        key: place.key.clone(),
        counter: entry.counter,
        author: entry.author,
        value: entry.value.clone(),
        age: entry.age(now),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAPACITY: usize = 6;

    fn any_record() -> impl Strategy<Value = Record> {
        (0..3u8, 0..5u8, 0..3u64, 0..3u8, 0..2u8).prop_map(|(topic, key, counter, author, value)| Record {
            topic,
            key: vec![key],
            counter,
            author: NodeId(Hash::from_bytes([author; 32])),
            value: vec![value],
            age: Duration::ZERO,
        })
    }

    fn merged(records: &[Record], now: Instant) -> Table {
        let mut table = Table::with_capacity(CAPACITY);
        for record in records {
            let _ = table.merge(record, now);
        }
        table
    }

    fn contents(table: &Table, now: Instant) -> Vec<Record> {
        table.entries.iter().map(|(place, entry)| record(place, entry, now)).collect()
    }

    proptest! {
        #[test]
        fn the_result_depends_on_the_set_of_records_alone(
            (records, shuffled) in prop::collection::vec(any_record(), 0..60)
                .prop_flat_map(|records| (Just(records.clone()), Just(records).prop_shuffle())),
        ) {
            let now = Instant::now();
            let (one, mut other) = (merged(&records, now), merged(&shuffled, now));
            prop_assert!(one.len() <= CAPACITY);
            for record in &records {
                let _ = other.merge(record, now);
            }
            prop_assert_eq!(contents(&one, now), contents(&other, now));
            prop_assert_eq!(one.digests(), other.digests());
        }

        #[test]
        fn digests_tell_what_differs(ours in prop::collection::vec(any_record(), 0..30), more in any_record()) {
            let now = Instant::now();
            let (one, mut other) = (merged(&ours, now), merged(&ours, now));
            let news = other.merge(&more, now) == Ok(true);
            prop_assert_eq!(one.digests().fold() == other.digests().fold(), !news);
            prop_assert_eq!(other.differing(&one.digests(), now).any(|record| record == more), news);
        }
    }

    #[test]
    fn old_records_go_and_do_not_come_back() {
        let now = Instant::now();
        let mut table = Table::with_capacity(CAPACITY);
        let record = Record {
            topic: 1,
            key: vec![1],
            counter: 1,
            author: NodeId(Hash::of(b"a")),
            value: vec![],
            age: MAX_AGE / 2,
        };
        assert_eq!(table.merge(&record, now), Ok(true));
        let elsewhere = Record { age: MAX_AGE / 4 * 3, ..record.clone() };
        assert_eq!(table.merge(&elsewhere, now), Ok(false), "the same record, known to be older");
        table.expire(now + MAX_AGE / 4);
        assert_eq!((table.len(), table.digests().fold()), (0, 0));
        assert_eq!(table.merge(&Record { age: MAX_AGE, ..record }, now), Err(RecordError::Older));
    }

    #[test]
    fn long_keys_and_values_are_refused() {
        let now = Instant::now();
        let mut table = Table::default();
        let record = Record {
            topic: 1,
            key: vec![1; 65],
            counter: 1,
            author: NodeId(Hash::of(b"a")),
            value: vec![],
            age: Duration::ZERO,
        };
        assert!(matches!(table.merge(&record, now), Err(RecordError::TooLong { what: "key", .. })));
        let record = Record { key: vec![], value: vec![0; 257], ..record };
        assert!(matches!(table.merge(&record, now), Err(RecordError::TooLong { what: "value", .. })));
    }
}
