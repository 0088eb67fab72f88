//! Core: what waits to be sent to one peer.
//!
//! Two lanes. *Control* (pings, records, announcements) is encoded already and goes first; *exchange* messages wait as
//! values, so that what a slow peer has not yet taken can be merged: runs of a blob join the last message of the same
//! kind about that blob, and a bitfield replaces all that was said about the blob's chunks before. Merging keeps the order of
//! messages about one blob, which is all the exchange needs. If the bound is passed even so, the peer is too slow and its
//! connection is to be closed; it greets us anew when it has caught up.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::exchange::message::{Message, Run};
use crate::id::BlobId;

/// Bytes that may wait for one peer, both lanes together: one answer to a pull (1 MiB) and bitfields of a few large
/// blobs. Only a peer that reads nothing gets there.
pub(crate) const MAX_WAITING: usize = 4 * 1024 * 1024;
/// Messages from the back of the lane that are looked at for merging.
const MERGE_WINDOW: usize = 64;

/// Something to send.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outgoing {
    /// An encoded frame.
    Frame(Bytes),
    /// An exchange message, to be encoded when its turn comes.
    Exchange(Message),
}

/// More waits for the peer than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooSlow;

/// The two lanes.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    control: VecDeque<Bytes>,
    exchange: VecDeque<Message>,
    waiting: usize,
}

impl Outbox {
    pub(crate) fn push_frame(&mut self, frame: Bytes) -> Result<(), TooSlow> {
        self.waiting += frame.len();
        self.control.push_back(frame);
        self.check()
    }

    pub(crate) fn push_exchange(&mut self, message: Message) -> Result<(), TooSlow> {
        self.waiting += cost(&message);
        if let Message::Bitfield { blob, .. } = &message {
            self.drop_chunks_of(*blob);
        }
        if let Some(message) = self.merge(message) {
            self.exchange.push_back(message);
        }
        self.check()
    }

    /// The next thing to send.
    pub(crate) fn pop(&mut self) -> Option<Outgoing> {
        if let Some(frame) = self.control.pop_front() {
            self.waiting = self.waiting.saturating_sub(frame.len());
            return Some(Outgoing::Frame(frame));
        }
        let message = self.exchange.pop_front()?;
        self.waiting = self.waiting.saturating_sub(cost(&message));
        Some(Outgoing::Exchange(message))
    }

    fn check(&self) -> Result<(), TooSlow> {
        if self.waiting > MAX_WAITING { Err(TooSlow) } else { Ok(()) }
    }

    /// What was said about chunks of the blob is superseded, unless an ask or a withdrawal lies between.
    fn drop_chunks_of(&mut self, blob: BlobId) {
        while let Some(index) = self.last_about(blob) {
            let superseded =
                matches!(self.exchange.get(index), Some(Message::Bitfield { .. } | Message::Have { .. }));
            let Some(message) = superseded.then(|| self.exchange.remove(index)).flatten() else { return };
            self.waiting = self.waiting.saturating_sub(cost(&message));
        }
    }

    /// Joins runs with those that wait; gives the message back if nothing fits.
    fn merge(&mut self, message: Message) -> Option<Message> {
        let index = self.last_about(message.blob());
        match (index.and_then(|index| self.exchange.get_mut(index)), message) {
            (Some(Message::Have { runs, .. }), Message::Have { runs: more, .. })
            | (Some(Message::Fetching { runs, .. }), Message::Fetching { runs: more, .. })
            | (Some(Message::Offer { runs, .. }), Message::Offer { runs: more, .. }) => {
                let before = runs.len() + more.len();
                for run in more {
                    join(runs, run);
                }
                // The message counted its own head and all its runs.
                let saved = HEAD + (before - runs.len()) * RUN;
                self.waiting = self.waiting.saturating_sub(saved);
                None
            }
            (_, message) => Some(message),
        }
    }

    fn last_about(&self, blob: BlobId) -> Option<usize> {
        let from = self.exchange.len().saturating_sub(MERGE_WINDOW);
        let tail = self.exchange.iter().enumerate().skip(from);
        tail.rev().find(|(_, message)| message.blob() == blob).map(|(index, _)| index)
    }
}

/// Bytes of a message without runs or words.
const HEAD: usize = 40;
/// Bytes of a run at most.
const RUN: usize = 10;

fn cost(message: &Message) -> usize {
    HEAD + match message {
        Message::Bitfield { have, .. } => have.words().len() * 10,
        Message::Have { runs, .. } | Message::Fetching { runs, .. } | Message::Offer { runs, .. } => {
            runs.len() * RUN
        }
        _ => 0,
    }
}

fn join(runs: &mut Vec<Run>, run: Run) {
    match runs.last_mut() {
        Some(last) if last.first.checked_add(last.count) == Some(run.first) => {
            last.count = last.count.saturating_add(run.count);
        }
        _ => runs.push(run),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitfield::Bitfield;
    use crate::id::Hash;

    fn blob(n: u8) -> BlobId {
        BlobId(Hash::from_bytes([n; 32]))
    }

    fn have(n: u8, first: u32, count: u32) -> Message {
        Message::Have { blob: blob(n), runs: vec![Run { first, count }] }
    }

    fn drain(outbox: &mut Outbox) -> Vec<Outgoing> {
        std::iter::from_fn(|| outbox.pop()).collect()
    }

    #[test]
    fn runs_join_and_the_order_about_one_blob_stays() {
        let mut outbox = Outbox::default();
        for message in
            [have(1, 0, 2), have(2, 7, 1), have(1, 2, 3), Message::Dropped { blob: blob(1) }, have(1, 9, 1)]
        {
            outbox.push_exchange(message).unwrap();
        }
        let sent = drain(&mut outbox);
        let expected = [have(1, 0, 5), have(2, 7, 1), Message::Dropped { blob: blob(1) }, have(1, 9, 1)]
            .map(Outgoing::Exchange);
        assert_eq!(sent, expected);
        assert_eq!(outbox.waiting, 0);
    }

    #[test]
    fn a_bitfield_replaces_what_was_said_before() {
        let mut outbox = Outbox::default();
        let full = Message::Bitfield { blob: blob(1), have: Bitfield::full(100) };
        outbox.push_exchange(Message::Interested { blob: blob(1) }).unwrap();
        outbox.push_exchange(Message::Bitfield { blob: blob(1), have: Bitfield::empty(100) }).unwrap();
        outbox.push_exchange(have(1, 3, 1)).unwrap();
        outbox.push_exchange(full.clone()).unwrap();
        let expected = [Message::Interested { blob: blob(1) }, full].map(Outgoing::Exchange);
        assert_eq!(drain(&mut outbox), expected);
        assert_eq!(outbox.waiting, 0);
    }

    #[test]
    fn control_goes_first_and_a_peer_that_takes_nothing_is_too_slow() {
        let mut outbox = Outbox::default();
        outbox.push_exchange(have(1, 0, 1)).unwrap();
        let frame = Bytes::from(vec![0; MAX_WAITING / 4]);
        for _ in 0..3 {
            outbox.push_frame(frame.clone()).unwrap();
        }
        assert_eq!(outbox.push_frame(frame.clone()), Err(TooSlow));
        assert_eq!(outbox.pop(), Some(Outgoing::Frame(frame)));
    }

    #[test]
    fn a_long_series_of_deltas_stays_small() {
        let mut outbox = Outbox::default();
        for chunk in 0..1_000_000 {
            outbox.push_exchange(have(1, chunk, 1)).unwrap();
        }
        assert_eq!(drain(&mut outbox), [Outgoing::Exchange(have(1, 0, 1_000_000))]);
    }
}
