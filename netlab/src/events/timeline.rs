//! All events of a lab in the order in which the lab learned of them.
//!
//! Readers keep a position and wait for the timeline to grow, so a slow reader costs nothing and no channel can fill.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::event::{Event, Source};
use crate::{Error, Result};

/// Events kept in memory. A long demo makes some thousands; beyond this the oldest go, and the file still has them.
const KEPT_EVENTS: usize = 1 << 16;

/// Lines that were no events, kept of each node to show what they look like; the others are only counted.
const KEPT_UNREADABLE: usize = 16;

/// Lines of a node that were not JSON objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unreadable {
    /// How many there were.
    pub count: u64,
    /// The first of them.
    pub samples: Vec<String>,
}

/// The events of a lab. Clones are handles to the same timeline.
#[derive(Clone)]
pub struct Timeline(Arc<Inner>);

struct Inner {
    started: Instant,
    state: Mutex<State>,
    grown: Condvar,
}

#[derive(Default)]
struct State {
    events: VecDeque<Arc<Event>>,
    /// Index of the next event.
    next: u64,
    unreadable: BTreeMap<String, Unreadable>,
    file: Option<File>,
}

impl Timeline {
    /// A timeline that starts now and writes each event as a line of JSON to `file`, if there is one.
    pub(crate) fn new(file: Option<File>) -> Timeline {
        let state = Mutex::new(State { file, ..State::default() });
        Timeline(Arc::new(Inner { started: Instant::now(), state, grown: Condvar::new() }))
    }

    /// Time since the lab started: the clock of all events.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.started.elapsed()
    }

    /// All events so far (the newest 65,536 if there were more).
    #[must_use]
    pub fn events(&self) -> Vec<Arc<Event>> {
        self.since(0)
    }

    /// The events from index `from` on.
    #[must_use]
    pub fn since(&self, from: u64) -> Vec<Arc<Event>> {
        self.lock().since(from).cloned().collect()
    }

    /// The index that the next event will have.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.lock().next
    }

    /// Lines that were not JSON objects, by node.
    #[must_use]
    pub fn unreadable(&self) -> BTreeMap<String, Unreadable> {
        self.lock().unreadable.clone()
    }

    /// Follows the timeline from its beginning: what has happened comes first, then what happens.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        Subscription { timeline: self.clone(), next: 0 }
    }

    /// Waits for an event, past or to come, for which `wanted` holds.
    ///
    /// # Errors
    /// [`Error::Timeout`] with the last events.
    pub fn wait_for(
        &self,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Result<Arc<Event>> {
        let deadline = Instant::now() + within;
        let mut next = 0;
        loop {
            match self.wait_past(next, deadline) {
                Some(event) if wanted(&event) => return Ok(event),
                Some(event) => next = event.index + 1,
                None => {
                    return Err(Error::Timeout {
                        what: what.into(),
                        within,
                        state: self.describe_tail(|_| true),
                    });
                }
            }
        }
    }

    /// Adds what the lab itself did to a node; `value` is an object whose field `event` names it.
    pub fn note(&self, node: &str, value: Value) {
        self.push(node, Source::Lab, value);
    }

    pub(crate) fn push(&self, node: &str, source: Source, value: Value) {
        let mut state = self.lock();
        let event =
            Arc::new(Event { index: state.next, at: self.elapsed(), node: node.into(), source, value });
        state.write(&event);
        state.next += 1;
        if state.events.len() == KEPT_EVENTS {
            state.events.pop_front();
        }
        state.events.push_back(event);
        drop(state);
        self.0.grown.notify_all();
    }

    pub(crate) fn push_unreadable(&self, node: &str, line: &str) {
        let mut state = self.lock();
        let unreadable = state.unreadable.entry(node.into()).or_default();
        unreadable.count += 1;
        if unreadable.samples.len() < KEPT_UNREADABLE {
            unreadable.samples.push(line.into());
        }
    }

    /// The first event at or after index `from`; waits for one until `deadline`.
    pub(crate) fn wait_past(&self, from: u64, deadline: Instant) -> Option<Arc<Event>> {
        let mut state = self.lock();
        loop {
            if let Some(event) = state.since(from).next() {
                return Some(event.clone());
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            state = self.0.grown.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The last events of some nodes, for error messages.
    pub(crate) fn describe_tail(&self, of: impl Fn(&Event) -> bool) -> String {
        const SHOWN: usize = 8;
        let state = self.lock();
        let mut last: Vec<_> = state.events.iter().rev().filter(|event| of(event)).take(SHOWN).collect();
        last.reverse();
        if last.is_empty() {
            return "there is no event at all".into();
        }
        let lines: Vec<_> = last.iter().map(|event| format!("  {event}")).collect();
        format!("the last events are\n{}", lines.join("\n"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after each statement, so a panic elsewhere does not spoil it.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn since(&self, from: u64) -> impl Iterator<Item = &Arc<Event>> {
        let first = self.events.front().map_or(self.next, |event| event.index);
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        self.events.iter().skip(skip)
    }

    fn write(&mut self, event: &Event) {
        let Some(file) = &mut self.file else { return };
        let written = serde_json::to_vec(event).map_err(std::io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            file.write_all(&line)
        });
        if let Err(error) = written {
            tracing::warn!(%error, "the timeline's file cannot be written any more");
            self.file = None;
        }
    }
}

/// A reader's position in a [`Timeline`].
pub struct Subscription {
    timeline: Timeline,
    next: u64,
}

impl Subscription {
    /// The next event; waits for it at most `within`.
    pub fn next_within(&mut self, within: Duration) -> Option<Arc<Event>> {
        let event = self.timeline.wait_past(self.next, Instant::now() + within)?;
        self.next = event.index + 1;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_subscriber_sees_past_and_future() {
        let timeline = Timeline::new(None);
        timeline.note("a", json!({"event": "one"}));
        let mut subscription = timeline.subscribe();
        assert!(subscription.next_within(LONG).unwrap().is("one"));
        assert!(subscription.next_within(Duration::ZERO).is_none());
        std::thread::scope(|scope| {
            scope.spawn(|| timeline.note("b", json!({"event": "two"})));
            assert!(subscription.next_within(LONG).unwrap().is("two"));
        });
    }

    #[test]
    fn waiting_finds_what_already_happened_and_names_what_did_not() {
        let timeline = Timeline::new(None);
        timeline.note("a", json!({"event": "one"}));
        assert_eq!(timeline.wait_for("one", LONG, |event| event.is("one")).unwrap().index, 0);
        let error =
            timeline.wait_for("event two", Duration::ZERO, |event| event.is("two")).unwrap_err().to_string();
        assert!(error.contains("event two") && error.contains("one"), "{error}");
    }

    #[test]
    fn memory_is_bounded_and_indexes_go_on() {
        let timeline = Timeline::new(None);
        for _ in 0..KEPT_EVENTS + 3 {
            timeline.note("a", json!({}));
        }
        let events = timeline.events();
        assert_eq!(events.len(), KEPT_EVENTS);
        assert_eq!(events.first().unwrap().index, 3);
        assert_eq!(timeline.since(timeline.next_index() - 1).len(), 1);
        for _ in 0..100 {
            timeline.push_unreadable("a", "noise");
        }
        let unreadable = &timeline.unreadable()["a"];
        assert_eq!((unreadable.count, unreadable.samples.len()), (100, KEPT_UNREADABLE));
    }

    #[test]
    fn the_file_holds_one_object_per_line() {
        let mut file = tempfile::tempfile().unwrap();
        let timeline = Timeline::new(Some(file.try_clone().unwrap()));
        timeline.note("a", json!({"event": "one"}));
        timeline.note("a", json!({"event": "two"}));
        std::io::Seek::rewind(&mut file).unwrap();
        let text = std::io::read_to_string(file).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[1]["value"]["event"], "two");
        assert_eq!(lines[1]["source"], "lab");
    }
}
