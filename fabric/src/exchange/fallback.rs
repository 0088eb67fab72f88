//! Two ways to one peer: the cheap one while it works, the other one meanwhile.
//!
//! Owns two sources of the same peer and the [choice] between them. The caller sees a failure only when both ways fail: what the
//! first could not bring, the second does within the same request, from the byte where the first broke off. Never verifies
//! content: bad bytes are no reason to take another way.
//!
//! Task: at most one for each source, which tries the first way on the side with a request for one byte; it ends when that is
//! answered or timed out, or with the source. No channels. Cancel safety: a dropped `fetch` gives the request up on whichever
//! way it is, and after a second of silence it is a hint that the way does not work.

mod choice;

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::core::{PeerKey, Time};
use super::event::ExchangeEvent;
use super::source::{ChunkSource, Route, SourceError};
use crate::id::BlobId;
use choice::{Ask, Choice, Ending, Way};

/// Fetches from one peer over the first of two ways, or over the second while the first does not work.
pub struct FallbackSource {
    shared: Arc<Shared>,
    trial: Mutex<Option<AbortHandle>>,
}

struct Shared {
    peer: PeerKey,
    first: Arc<dyn ChunkSource>,
    second: Arc<dyn ChunkSource>,
    choice: Mutex<Choice>,
    /// What last went wrong on the first way.
    trouble: Mutex<String>,
    start: Instant,
    tell: Box<dyn Fn(ExchangeEvent) + Send + Sync>,
}

impl FallbackSource {
    /// A source for `peer` that prefers `first`. `tell` hears of each change of way ([`ExchangeEvent::RouteChanged`]); it must not
    /// block.
    #[must_use]
    pub fn new(
        peer: PeerKey,
        first: Arc<dyn ChunkSource>,
        second: Arc<dyn ChunkSource>,
        tell: impl Fn(ExchangeEvent) + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            peer,
            first,
            second,
            choice: Mutex::new(Choice::new(Time::default())),
            trouble: Mutex::default(),
            start: Instant::now(),
            tell: Box::new(tell),
        };
        Self { shared: Arc::new(shared), trial: Mutex::default() }
    }

    /// Tries the first way on the side if it is time, with one byte of what is asked for anyway.
    fn try_first(&self, blob: &BlobId, at: u64) {
        let shared = Arc::clone(&self.shared);
        if !shared.choice().try_first(shared.now()) {
            return;
        }
        let blob = *blob;
        let trial = tokio::spawn(async move {
            let result = shared.first.fetch(&blob, at..at.saturating_add(1), &mut Vec::new()).await;
            shared.settle(|choice| choice.tried(shared.now(), ending(&result)));
        });
        *self.trial.lock().unwrap_or_else(PoisonError::into_inner) = Some(trial.abort_handle());
    }
}

impl Drop for FallbackSource {
    fn drop(&mut self) {
        let trial = self.trial.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(trial) = trial.take() {
            trial.abort();
        }
    }
}

impl std::fmt::Debug for FallbackSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FallbackSource")
            .field("peer", &self.shared.peer)
            .field("route", &self.route())
            .finish()
    }
}

#[async_trait]
impl ChunkSource for FallbackSource {
    async fn fetch(&self, blob: &BlobId, bytes: Range<u64>, sink: &mut Vec<u8>) -> Result<(), SourceError> {
        let shared = &self.shared;
        self.try_first(blob, bytes.start);
        // Whoever drops this future finds the sink empty.
        let mut buffer = std::mem::take(sink);
        let mut waiting = Waiting { shared, ask: shared.choice().begin(shared.now()), over: false };
        loop {
            let came = buffer.len() as u64;
            let rest = bytes.start.saturating_add(came)..bytes.end;
            let source = shared.source(waiting.ask.way);
            let result = if came == 0 {
                source.fetch(blob, rest, &mut buffer).await
            } else {
                let mut more = Vec::new();
                let result = source.fetch(blob, rest, &mut more).await;
                buffer.append(&mut more);
                result
            };
            shared.note(waiting.ask.way, &result);
            let ask = &mut waiting.ask;
            if !shared.settle(|choice| choice.ended(shared.now(), ask, ending(&result))) {
                waiting.over = true;
                *sink = buffer;
                return result;
            }
        }
    }

    fn route(&self) -> Route {
        let way = self.shared.choice().way();
        self.shared.source(way).route()
    }
}

impl Shared {
    fn source(&self, way: Way) -> &Arc<dyn ChunkSource> {
        match way {
            Way::First => &self.first,
            Way::Second => &self.second,
        }
    }

    fn choice(&self) -> MutexGuard<'_, Choice> {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Time {
        self.start.elapsed().into()
    }

    fn note(&self, way: Way, result: &Result<(), SourceError>) {
        if let (Way::First, Err(error)) = (way, result)
            && ending(result) != Ending::Answered
        {
            self.set_trouble(error.to_string());
        }
    }

    fn set_trouble(&self, words: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }

    /// Tells the choice something, and the world what is news.
    fn settle<T>(&self, step: impl FnOnce(&mut Choice) -> T) -> T {
        let (outcome, news) = {
            let mut choice = self.choice();
            (step(&mut choice), choice.news())
        };
        if let Some(way) = news {
            let (peer, route) = (self.peer, self.source(way).route());
            let why = match way {
                Way::First => "it answers there again".to_owned(),
                Way::Second => self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            };
            (self.tell)(ExchangeEvent::RouteChanged { peer, route, why });
        }
        outcome
    }
}

/// A request under way; dropped before its end it was given up.
struct Waiting<'a> {
    shared: &'a Shared,
    ask: Ask,
    over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.over && self.shared.choice().given_up(self.shared.now(), &self.ask) {
            self.shared.set_trouble("nothing came in the time that was waited for it".to_owned());
        }
    }
}

/// What a result says about the way it came on.
fn ending(result: &Result<(), SourceError>) -> Ending {
    match result {
        Err(SourceError::Unreachable(_)) => Ending::Unreachable,
        Err(SourceError::Stalled { .. }) => Ending::Stalled,
        Ok(()) | Err(SourceError::NotHeld | SourceError::Refused { .. } | SourceError::Protocol(_)) => {
            Ending::Answered
        }
    }
}
