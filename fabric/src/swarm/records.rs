//! Small replicated soft state: who last said what about a key.
//!
//! A record is (topic, key) → (counter, author, value); the highest (counter, author, value) wins everywhere, whatever
//! the order, repetition or loss of messages. Records carry their age instead of a time, as OSPF's advertisements do
//! (RFC 2328 section 12.1.1): nodes have no common clock. Each node drops a record that nobody renewed for
//! [`MAX_AGE`]; ages travel with records, so an old one is not brought back.
//!
//! Two cores: [`table`] keeps and merges, [`replicate`] decides who is told what. Neither owns sockets or clocks.

pub(crate) mod replicate;
pub(crate) mod table;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// Bytes in a record's key.
pub const MAX_KEY: usize = 64;
/// Bytes in a record's value: a lease and what belongs to it.
pub const MAX_VALUE: usize = 256;
/// Records kept: every client of one large network with room to spare, at most 8 MiB.
pub const MAX_RECORDS: usize = 16_384;
/// Age at which a record that nobody renewed is dropped: three times the longest lease that makes sense here (a day).
pub const MAX_AGE: Duration = Duration::from_secs(3 * 24 * 3600);

/// One replicated statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What kind of key it is; numbers are given out by those who use records.
    pub topic: u8,
    /// At most [`MAX_KEY`] bytes.
    pub key: Vec<u8>,
    /// Order among statements about the same key.
    pub counter: u64,
    /// Who said it; decides between equal counters.
    pub author: NodeId,
    /// At most [`MAX_VALUE`] bytes.
    pub value: Vec<u8>,
    /// How long ago it was said, summed up over the nodes it passed.
    pub age: Duration,
}

/// A statement of this node that is to be replicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// What kind of key it is.
    pub topic: u8,
    /// At most [`MAX_KEY`] bytes.
    pub key: Vec<u8>,
    /// Order among statements about the same key.
    pub counter: u64,
    /// At most [`MAX_VALUE`] bytes.
    pub value: Vec<u8>,
}

/// Why a record is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The key or the value is too long.
    #[error("a record's {what} is at most {max} bytes")]
    TooLong {
        /// Which of them.
        what: &'static str,
        /// The most bytes it may have.
        max: usize,
    },
    /// The table is full of records that precede this one.
    #[error("the table of replicated records is full ({MAX_RECORDS})")]
    Full,
    /// Something newer is known about the key.
    #[error("a newer record about this key is known")]
    Older,
    /// The swarm has shut down.
    #[error("the swarm has shut down")]
    Closed,
}

impl Record {
    pub(crate) fn check(&self) -> Result<(), RecordError> {
        if self.key.len() > MAX_KEY {
            return Err(RecordError::TooLong { what: "key", max: MAX_KEY });
        }
        if self.value.len() > MAX_VALUE {
            return Err(RecordError::TooLong { what: "value", max: MAX_VALUE });
        }
        Ok(())
    }

    /// About what it takes on the wire.
    fn wire_len(&self) -> usize {
        self.key.len() + self.value.len() + 52
    }
}

/// A record on the wire; the age in seconds, rounded down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireRecord(u8, Vec<u8>, u64, NodeId, Vec<u8>, u32);

impl From<&Record> for WireRecord {
    fn from(record: &Record) -> Self {
        let age = u32::try_from(record.age.as_secs()).unwrap_or(u32::MAX);
        Self(record.topic, record.key.clone(), record.counter, record.author, record.value.clone(), age)
    }
}

impl From<WireRecord> for Record {
    fn from(WireRecord(topic, key, counter, author, value, age): WireRecord) -> Self {
        Self { topic, key, counter, author, value, age: Duration::from_secs(age.into()) }
    }
}
