//! The live timeline: what the nodes of a lab say, for people, as they say it.
//!
//! Owns one thread that reads the lab's timeline until it is stopped. Decides nothing.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use netlab::{Source, Timeline};

use crate::event::Event;
use crate::human::human_bytes;

/// How long the thread waits for an event before it looks whether it should end.
const LOOK: Duration = Duration::from_millis(200);
/// Percent between two progress lines of one download.
const PROGRESS_STEP: u64 = 25;

/// Shows a timeline until it is dropped.
pub struct Show {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Show {
    /// Starts to show `timeline` on standard error.
    #[must_use]
    pub fn start(timeline: &Timeline) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut events = timeline.subscribe();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut shown = Shown::default();
            while let Some(event) = next(&mut events, &stopped) {
                if let Some(text) = shown.line(&event) {
                    // A closed terminal is no reason to end the demo.
                    let at = event.at.as_secs_f64();
                    let _ = writeln!(std::io::stderr(), "{at:7.1} s  {:<7} {text}", event.node);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

fn next(events: &mut netlab::Subscription, stopped: &AtomicBool) -> Option<Arc<netlab::Event>> {
    loop {
        if let Some(event) = events.next_within(LOOK) {
            return Some(event);
        }
        if stopped.load(Ordering::Relaxed) {
            return None;
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}

/// What has been shown, so that progress is shown in steps.
#[derive(Default)]
struct Shown {
    last: std::collections::BTreeMap<(String, String), u64>,
}

impl Shown {
    /// The line for `event`, if people want to see it.
    fn line(&mut self, event: &netlab::Event) -> Option<String> {
        if event.source == Source::Lab {
            return Some(match event.name()? {
                "power-on" => "powered on".into(),
                "kill" => "KILLED".into(),
                "delete" => "namespace DELETED".into(),
                _ => return None,
            });
        }
        match serde_json::from_value(event.value.clone()).ok()? {
            Event::AddressTaken { address } => {
                Some(format!("nobody here: takes address {address} for itself"))
            }
            Event::MachinesSet { generation, nodes } => {
                Some(format!("obeys settings {generation}, which name {nodes} machines"))
            }
            Event::NodeStarted { node, address, .. } => {
                Some(format!("is a node: {address}, {}", node.get(..10)?))
            }
            Event::Dhcp { mac, class, stage, address: Some(address) } if stage == "ack" => {
                Some(format!("DHCP: {mac} ({class}) gets {address}"))
            }
            Event::FileServed { service, name, client, bytes, status, .. }
                if bytes > 0 && !name.starts_with("blob/") =>
            {
                let name = name.rsplit('/').next().unwrap_or_default().to_owned();
                Some(format!("{service}: {name} to {client}, {} ({status})", human_bytes(bytes)))
            }
            Event::ReleaseVerified { name, version, generation, .. } => {
                Some(format!("signature of {name} {version}, generation {generation}: good"))
            }
            Event::BootBlobsHeld { bytes } => {
                Some(format!("holds the boot blobs ({}): BOOTS OTHERS NOW", human_bytes(bytes)))
            }
            Event::Progress { role, bytes, total, peers } if role == "root" => {
                self.progress(&event.node, &role, bytes, total, peers)
            }
            Event::BlobComplete { role, bytes, sources, reused, .. } if role == "root" => {
                let held = (reused > 0).then(|| format!("{} from blobs it held", human_bytes(reused)));
                let sent = sources
                    .iter()
                    .map(|source| format!("{} from {}", human_bytes(source.bytes), source.address));
                let from: Vec<_> = sent.chain(held).collect();
                Some(format!("root complete, {}: {}", human_bytes(bytes), from.join(", ")))
            }
            Event::BadChunk { address, chunk, .. } => {
                Some(format!("BAD CHUNK {chunk} from {address}: dropped"))
            }
            Event::RootMounted { mode, .. } => Some(format!("root mounted ({mode})")),
            Event::RootHashed { computed, matches, .. } => {
                let verdict = if matches { "is the release's" } else { "IS NOT THE RELEASE'S" };
                Some(format!("hash of the device {}… {verdict}", computed.get(..10)?))
            }
            Event::HandedOver { init } => Some(format!("hands over to {init}")),
            Event::TookOver { fetched } => Some(format!("runs as a service, fetched again: {fetched} bytes")),
            Event::PhaseFailed { phase, error, .. } => Some(format!("phase {phase} FAILED: {error}")),
            _ => None,
        }
    }

    fn progress(&mut self, node: &str, role: &str, bytes: u64, total: u64, peers: usize) -> Option<String> {
        let step = bytes * 100 / total.max(1) / PROGRESS_STEP;
        let last = self.last.entry((node.to_owned(), role.to_owned())).or_insert(0);
        if step <= *last || bytes == total {
            return None;
        }
        *last = step;
        let plural = if peers == 1 { "" } else { "s" };
        Some(format!("{role} {} % from {peers} peer{plural}", step * PROGRESS_STEP))
    }
}
