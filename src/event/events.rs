//! Where events go: to files, devices and pipes as lines, and to whoever subscribed.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::Event;

/// An event as it is written: with the time since the writer started and the writer's name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Milliseconds on the writer's own clock. No event may have a field of this name, nor one called `from`.
    pub at: u64,
    /// Name of the writing node; empty until it is known.
    pub from: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Where events go. Cheap to clone; every clone writes to the same sinks.
#[derive(Clone)]
pub struct Events {
    inner: Arc<Inner>,
}

struct Inner {
    started: Instant,
    state: Mutex<State>,
    recent: tokio::sync::broadcast::Sender<Record>,
}

#[derive(Default)]
struct State {
    from: String,
    sinks: Vec<Box<dyn Write + Send>>,
}

/// Events a slow subscriber may lag behind before it loses the oldest: several boots' worth.
const SUBSCRIBER_BACKLOG: usize = 4096;

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// Events without a sink.
    #[must_use]
    pub fn new() -> Self {
        let (recent, _) = tokio::sync::broadcast::channel(SUBSCRIBER_BACKLOG);
        Self { inner: Arc::new(Inner { started: Instant::now(), state: Mutex::default(), recent }) }
    }

    /// Adds a sink. A sink that fails to take a line is dropped: events never stop the node.
    pub fn add_sink(&self, sink: Box<dyn Write + Send>) {
        self.lock().sinks.push(sink);
    }

    /// Adds the file or device at `path` as a sink; lines are appended.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn add_file(&self, path: &Path) -> anyhow::Result<()> {
        // A terminal given here must not become the process's own: its hang-up would end the node.
        let file =
            std::fs::File::options().create(true).append(true).custom_flags(nix::libc::O_NOCTTY).open(path);
        self.add_sink(Box::new(file.with_context(|| format!("cannot write events to {}", path.display()))?));
        Ok(())
    }

    /// Names the writer in the events from now on.
    pub fn set_from(&self, name: &str) {
        name.clone_into(&mut self.lock().from);
    }

    /// Every event from now on.
    #[must_use]
    pub fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Record> {
        self.inner.recent.subscribe()
    }

    /// Says that `event` happened.
    pub fn emit(&self, event: Event) {
        let at = u64::try_from(self.inner.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut state = self.lock();
        let record = Record { at, from: state.from.clone(), event };
        // Thousands of stages a second in a storm: nothing is written where nobody reads.
        if !state.sinks.is_empty()
            && let Ok(mut line) = serde_json::to_vec(&record)
        {
            line.push(b'\n');
            state.sinks.retain_mut(|sink| sink.write_all(&line).and_then(|()| sink.flush()).is_ok());
        }
        drop(state);
        // Nobody listening is not an error.
        let _ = self.inner.recent.send(record);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_flat_object() {
        let record = Record {
            at: 12,
            from: "a".into(),
            event: Event::RootHashed { computed: "x".into(), expected: "x".into(), matches: true },
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(
            text,
            r#"{"at":12,"from":"a","event":"root-hashed","computed":"x","expected":"x","matches":true}"#
        );
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }

    #[test]
    fn no_field_is_written_twice() {
        let served = Event::FileServed {
            service: "http".into(),
            name: "boot.ipxe".into(),
            client: "10.77.0.30:1024".into(),
            bytes: 9,
            status: "200".into(),
            millis: 3,
        };
        for event in [served, Event::PhaseDone { phase: "link".into(), millis: 8 }] {
            let record = Record { at: 1, from: "a".into(), event };
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record, "{text}");
        }
    }
}
