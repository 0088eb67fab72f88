//! What the connections of a service share.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use super::HttpConfig;
use super::admission::Downloads;
use super::counters::HttpCounters;
use super::limits::Connections;
use super::turns::Turns;
use crate::files::BootFiles;

/// What all connections share.
pub(super) struct Shared {
    pub(super) files: Arc<dyn BootFiles>,
    pub(super) config: HttpConfig,
    pub(super) counters: Arc<HttpCounters>,
    pub(super) downloads: Arc<Downloads>,
    pub(super) turns: Turns,
    pub(super) connections: Mutex<Connections>,
}

impl Shared {
    /// Counts an answer as under way until dropped.
    pub(super) fn active(&self) -> impl Drop + use<> {
        self.counters.active.fetch_add(1, Relaxed);
        ActiveGuard(Arc::clone(&self.counters))
    }
}

struct ActiveGuard(Arc<HttpCounters>);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}
