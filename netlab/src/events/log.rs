//! The events of one node.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::event::{Event, Source};
use super::tail::Tailer;
use super::timeline::Timeline;
use crate::{Error, Result};

/// Between two questions whether the node can still say anything.
const HEALTH_POLL: Duration = Duration::from_millis(100);

/// Whether a node can still say anything: waiting for the events of a dead machine ends at once.
pub(crate) trait Health: Send + Sync {
    /// # Errors
    /// Why no more events can come.
    fn check(&self) -> std::result::Result<(), String>;
}

/// A view of the timeline: what one node itself said. What the lab did to it is in the timeline only.
#[derive(Clone)]
pub struct EventLog {
    timeline: Timeline,
    /// Gone with the lab.
    tailer: Weak<Tailer>,
    node: String,
    from: u64,
    health: Option<Arc<dyn Health>>,
}

impl EventLog {
    pub(crate) fn new(
        timeline: &Timeline,
        tailer: &Arc<Tailer>,
        node: &str,
        health: Option<Arc<dyn Health>>,
    ) -> EventLog {
        let from = timeline.next_index();
        EventLog {
            timeline: timeline.clone(),
            tailer: Arc::downgrade(tailer),
            node: node.into(),
            from,
            health,
        }
    }

    /// The same log without what has been said so far.
    #[must_use]
    pub fn from_now(&self) -> EventLog {
        self.poll();
        EventLog { from: self.timeline.next_index(), ..self.clone() }
    }

    /// All events of the node so far.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Event>> {
        self.poll();
        self.timeline.since(self.from).into_iter().filter(|event| self.is_mine(event)).collect()
    }

    /// Waits for an event, past or to come, for which `wanted` holds.
    ///
    /// # Errors
    /// [`Error::Timeout`] with the node's last events, or [`Error::InVain`] as soon as a machine has stopped or its
    /// console showed a failure.
    pub fn wait_for(
        &self,
        what: &str,
        within: Duration,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Result<Arc<Event>> {
        let deadline = Instant::now() + within;
        let mut next = self.from;
        loop {
            // Asked before the events are read: what a node said before it died still counts.
            let health = self.health.as_ref().map_or(Ok(()), |health| health.check());
            if health.is_err() || Instant::now() >= deadline {
                self.poll();
            }
            let look_until = deadline.min(Instant::now() + HEALTH_POLL);
            while let Some(event) = self.timeline.wait_past(next, look_until) {
                next = event.index + 1;
                if self.is_mine(&event) && wanted(&event) {
                    return Ok(event);
                }
            }
            let state = || self.timeline.describe_tail(|event| self.is_mine(event));
            let what = || format!("{what} of {}", self.node);
            match health {
                Err(problem) => {
                    return Err(Error::InVain { what: what(), state: format!("{problem}; {}", state()) });
                }
                Ok(()) if Instant::now() >= deadline => {
                    return Err(Error::Timeout { what: what(), within, state: state() });
                }
                Ok(()) => {}
            }
        }
    }

    /// Waits for the event whose field `event` is `name`.
    ///
    /// # Errors
    /// As [`EventLog::wait_for`].
    pub fn wait_for_name(&self, name: &str, within: Duration) -> Result<Arc<Event>> {
        self.wait_for(&format!("event {name}"), within, |event| event.is(name))
    }

    fn is_mine(&self, event: &Event) -> bool {
        event.source == Source::Node && event.node == self.node
    }

    fn poll(&self) {
        if let Some(tailer) = self.tailer.upgrade() {
            tailer.poll();
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Dead;

    impl Health for Dead {
        fn check(&self) -> std::result::Result<(), String> {
            Err("it is dead".into())
        }
    }

    #[test]
    fn only_the_node_itself_counts() {
        let timeline = Timeline::new(None);
        let tailer = Arc::new(Tailer::start(timeline.clone()).unwrap());
        let log = EventLog::new(&timeline, &tailer, "a", None);
        timeline.push("b", Source::Node, json!({"event": "up"}));
        timeline.note("a", json!({"event": "up"}));
        timeline.push("a", Source::Node, json!({"event": "up", "mine": true}));
        let event = log.wait_for_name("up", Duration::from_secs(60)).unwrap();
        assert_eq!(event.field("mine"), Some(&json!(true)));
        assert_eq!(log.all().len(), 1);
        assert!(log.from_now().all().is_empty());
    }

    #[test]
    fn the_dead_say_nothing_new_but_are_heard() {
        let timeline = Timeline::new(None);
        let tailer = Arc::new(Tailer::start(timeline.clone()).unwrap());
        let log = EventLog::new(&timeline, &tailer, "a", Some(Arc::new(Dead)));
        timeline.push("a", Source::Node, json!({"event": "last words"}));
        log.wait_for_name("last words", Duration::from_secs(3600)).unwrap();
        let error = log.wait_for_name("more", Duration::from_secs(3600)).unwrap_err().to_string();
        assert!(error.contains("it is dead") && error.contains("last words"), "{error}");
    }
}
