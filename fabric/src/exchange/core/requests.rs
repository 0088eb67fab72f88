//! Requests under way: what came of them, and what is done about those that fail or are late.

use std::collections::BTreeSet;
use std::time::Duration;

use super::super::ban::{BadChunk, Ban};
use super::super::event::ExchangeEvent;
use super::super::message::Run;
use super::fetch::{Fetch, Flight, RequestId};
use super::peer::{Peer, Slot, Standing};
use super::schedule::STARVING;
use super::time::Time;
use super::{Core, Output};
use crate::id::BlobId;

/// How a request ended when it did not bring what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The peer does not hold the run: our view of it was wrong.
    NotHeld,
    /// The peer is busy.
    Refused {
        /// How long to leave it alone.
        retry_after: Duration,
    },
    /// No connection, or it broke, or it stalled; in words.
    Transport(String),
    /// The peer broke the transport's protocol; in words.
    Protocol(String),
    /// A chunk of the run has the wrong hash.
    BadChunk(BadChunk),
    /// Our own fault (a full disk): nobody is blamed. In words.
    Local(String),
}

impl Core {
    /// Chunks have been verified and kept, in part or whole of request `id`, or of one that was cancelled.
    pub fn stored(&mut self, now: Time, id: BlobId, run: Run) {
        let Some(blob) = self.blobs.get_mut(&id) else { return };
        if !blob.grid.contains(run) {
            return;
        }
        blob.keep(run.chunks(), |announcer, cell, holders| announcer.add(now, cell, holders));
        if let Some(fetch) = &mut blob.fetch {
            fetch.progress = now;
        }
        self.spread(now, id);
    }

    /// Request `id` is over. What it brought has been reported with [`Core::stored`] before.
    pub fn finished(&mut self, now: Time, id: RequestId, result: Result<(), Failure>) {
        let held_up = self.held_up(id);
        let Some(flight) = self.land(id) else {
            self.end_fetches(now);
            return self.schedule(now);
        };
        let whole = result.is_ok();
        match result {
            Ok(()) => self.delivered(now, &flight),
            Err(failure) => self.failed(now, id, &flight, failure),
        }
        let mut again = false;
        if let Some(blob) = self.blobs.get_mut(&flight.blob) {
            // What it did not bring can be asked of anybody again.
            again = blob
                .fetch
                .as_ref()
                .is_some_and(|fetch| flight.cells.clone().any(|cell| fetch.missing.has(cell)));
            if again {
                blob.views.values_mut().for_each(|view| view.exhausted = false);
            }
        }
        let raced = self.cancel_losers(&flight);
        let ended = self.end_fetches(now);
        if whole && !held_up && !again && !raced && !ended {
            self.schedule_one(now, flight.blob, flight.slot);
        } else {
            self.schedule(now);
        }
    }

    /// Whether so much is under way, request `id` included, that somebody with room may not have been asked.
    fn held_up(&self, id: RequestId) -> bool {
        let blob = self.flights.get(&id).and_then(|flight| self.blobs.get(&flight.blob));
        blob.is_none_or(|blob| self.in_flight >= self.budget(blob.cell_bytes()))
    }

    /// Ends the fetches that have everything; true if there was one.
    fn end_fetches(&mut self, now: Time) -> bool {
        let done = |fetch: &Fetch| fetch.missing.count() == 0;
        let whole = |id: &&BlobId| self.blobs.get(id).and_then(|blob| blob.fetch.as_ref()).is_none_or(done);
        let complete: Vec<BlobId> = self.fetches.values().filter(whole).copied().collect();
        for &id in &complete {
            self.drop_flights_for(id);
            self.fetches.retain(|_, other| *other != id);
            if let Some(blob) = self.blobs.get_mut(&id) {
                blob.fetch = None;
            }
            if self.complete(&id) {
                self.event(ExchangeEvent::BlobComplete { blob: id });
            }
            self.spread(now, id);
        }
        !complete.is_empty()
    }

    fn delivered(&mut self, now: Time, flight: &Flight) {
        self.rate.received(now, flight.bytes);
        let Some(peer) = self.peers.get_mut(&flight.slot) else { return };
        peer.delivered(now, flight.bytes);
        if let Some(blob) = self.blobs.get_mut(&flight.blob) {
            blob.regard(flight.slot, |view| view.failing = false);
        }
        let (peer, blob, run, bytes) = (peer.key, flight.blob, flight.run, flight.bytes);
        self.event(ExchangeEvent::RunDone { blob, peer, run, bytes });
    }

    fn failed(&mut self, now: Time, id: RequestId, flight: &Flight, failure: Failure) {
        let Some(peer) = self.peers.get_mut(&flight.slot) else { return };
        let (key, slot, blob) = (peer.key, flight.slot, flight.blob);
        let why = match failure {
            Failure::NotHeld => {
                // Who drops a blob denies all that is asked of it at that moment: one broken promise, not many.
                let news = id.0 >= peer.denied;
                if news {
                    peer.denied = self.next_id;
                }
                if let Some(blob) = self.blobs.get_mut(&blob) {
                    blob.unlearn(slot, flight.run.chunks());
                }
                if news {
                    self.offence(slot, "chunks that it said it holds");
                }
                "it does not hold the run".to_owned()
            }
            Failure::Refused { retry_after } => {
                self.rest(now, slot, Some(u64::try_from(retry_after.as_micros()).unwrap_or(u64::MAX)));
                "it is busy".to_owned()
            }
            Failure::Transport(why) => {
                self.rest(now, slot, None);
                why
            }
            Failure::Protocol(why) => {
                self.rest(now, slot, None);
                self.offence(slot, &why);
                why
            }
            Failure::BadChunk(proof) => {
                let BadChunk { chunk, expected, got, .. } = proof;
                self.event(ExchangeEvent::BadChunk { blob, peer: key, chunk, expected, got });
                let why = format!("chunk {chunk} of blob {blob} had the wrong hash");
                self.ban(slot, Ban { why, proof: Some(proof) });
                format!("chunk {chunk} had the wrong hash")
            }
            Failure::Local(why) => why,
        };
        self.event(ExchangeEvent::RequestFailed { blob, peer: key, why });
    }

    /// `slot` has failed and is left alone for a while.
    fn rest(&mut self, now: Time, slot: Slot, rest: Option<u64>) {
        let Some(peer) = self.peers.get_mut(&slot) else { return };
        peer.failed(now, rest);
        if let Standing::Resting(until) = peer.standing {
            self.resting = self.resting.max(until);
        }
        // Others in its rack must not wait for what it says it holds.
        self.blobs.values_mut().for_each(|blob| blob.regard(slot, |view| view.failing = true));
    }

    /// Takes a request off the books.
    fn land(&mut self, id: RequestId) -> Option<Flight> {
        let flight = self.flights.remove(&id)?;
        self.expiries.remove(&(flight.deadline, id));
        self.in_flight = self.in_flight.saturating_sub(flight.bytes);
        if let Some(peer) = self.peers.get_mut(&flight.slot) {
            peer.over(flight.bytes);
        }
        if let Some(blob) = self.blobs.get_mut(&flight.blob) {
            if let Some(fetch) = &mut blob.fetch {
                fetch.over(flight.cells.clone());
            }
            blob.import_over(flight.slot, flight.cells.clone());
        }
        Some(flight)
    }

    /// Gives up what else was asked for the same cells, where nothing of them is missing any more; true if there may be such.
    fn cancel_losers(&mut self, won: &Flight) -> bool {
        let fetch = self.blobs.get(&won.blob).and_then(|blob| blob.fetch.as_ref());
        let Some(fetch) = fetch.filter(|fetch| won.cells.clone().any(|cell| fetch.busy.has(cell))) else {
            return false;
        };
        let settled = |flight: &Flight| {
            flight.blob == won.blob
                && flight.cells.start < won.cells.end
                && won.cells.start < flight.cells.end
                && !flight.cells.clone().any(|cell| fetch.missing.has(cell))
        };
        let losers: Vec<RequestId> =
            self.flights.iter().filter(|(_, flight)| settled(flight)).map(|(&id, _)| id).collect();
        self.cancel(losers);
        true
    }

    /// Gives up everything asked of `slot`.
    pub(super) fn drop_flights_of(&mut self, slot: Slot) {
        let ids = self.flights.iter().filter(|(_, flight)| flight.slot == slot).map(|(&id, _)| id).collect();
        self.cancel(ids);
    }

    /// Gives up everything asked for `blob`.
    pub(super) fn drop_flights_for(&mut self, blob: BlobId) {
        let ids = self.flights.iter().filter(|(_, flight)| flight.blob == blob).map(|(&id, _)| id).collect();
        self.cancel(ids);
    }

    pub(super) fn cancel(&mut self, ids: Vec<RequestId>) {
        for id in ids {
            if let Some(flight) = self.land(id) {
                self.outputs.push_back(Output::Cancel(id));
                if let Some(blob) = self.blobs.get_mut(&flight.blob) {
                    blob.views.values_mut().for_each(|view| view.exhausted = false);
                }
            }
        }
    }

    /// Gives up requests past their deadline; their peers rest.
    pub(super) fn expire(&mut self, now: Time) {
        let late: BTreeSet<RequestId> =
            self.expiries.iter().take_while(|(deadline, _)| *deadline <= now).map(|&(_, id)| id).collect();
        for id in late {
            let Some(flight) = self.flights.get(&id) else { continue };
            let (blob, slot) = (flight.blob, flight.slot);
            self.rest(now, slot, None);
            if let Some(peer) = self.peers.get(&slot) {
                let (peer, why) = (peer.key, "nothing came in the time it should have taken".to_owned());
                self.event(ExchangeEvent::RequestFailed { blob, peer, why });
            }
            self.cancel(vec![id]);
        }
    }

    /// When something about requests is due: a deadline, a race, the end of a rest, starvation.
    pub(super) fn request_deadline(&self) -> Option<Time> {
        let flights = self.expiries.first().map(|&(deadline, _)| deadline);
        let racing = |fetch: &&Fetch| fetch.all_asked();
        let races = self
            .fetches
            .values()
            .filter_map(|id| self.blobs.get(id)?.fetch.as_ref())
            .any(|fetch| racing(&fetch))
            .then(|| self.flights.values().map(|flight| flight.expected).filter(|&at| at > self.seen).min())
            .flatten();
        let rest = |peer: &Peer| match peer.standing {
            Standing::Resting(until) if until > self.seen => Some(until),
            _ => None,
        };
        let anybody_rests = self.resting > self.seen;
        let rests = anybody_rests.then(|| self.peers.values().filter_map(rest).min()).flatten();
        let starving = self
            .fetches
            .values()
            .filter_map(|id| self.blobs.get(id)?.fetch.as_ref())
            .map(|fetch| fetch.progress.after(STARVING))
            .filter(|&at| at > self.seen);
        [flights, races, rests, starving.min()].into_iter().flatten().min()
    }
}
