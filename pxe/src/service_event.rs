//! What TFTP and HTTP tell about each answer, and the one trait through which they tell it.
//!
//! Owns the event vocabulary of the file services: fixed names and fields that the status page, the lab and the tests
//! read. Never blocks a transfer: a sink must return at once, and events are not even built while nobody listens.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast;

use crate::files::{FileRequest, Service};

/// Events a slow listener may lag behind before it loses the oldest: at 1,000 range requests a second, four seconds.
const BROADCAST_CAPACITY: usize = 4096;

/// Something a file service did for a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ServiceEvent {
    /// The file was found and its bytes begin to leave.
    Started(Transfer),
    /// The answer is over, well or badly.
    Finished(Finished),
}

/// Which bytes of which file go to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transfer {
    /// The service that answers.
    pub service: Service,
    /// The client's address.
    pub client: SocketAddr,
    /// The address the client asked.
    pub local: SocketAddr,
    /// The name asked for; empty where the request did not get as far as a name.
    pub name: String,
    /// First byte of the range to send.
    pub offset: u64,
    /// Number of bytes to send.
    pub length: u64,
}

impl Transfer {
    /// The transfer of `range` that answers `request`.
    #[must_use]
    pub fn of(request: &FileRequest, range: Range<u64>) -> Self {
        Self {
            service: request.service,
            client: request.client,
            local: request.local,
            name: request.name.clone(),
            offset: range.start,
            length: range.end.saturating_sub(range.start),
        }
    }
}

/// How one answer ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finished {
    /// What was to be sent.
    #[serde(flatten)]
    pub transfer: Transfer,
    /// The HTTP status, or the TFTP error code that was sent; `None` for a TFTP transfer without an error.
    pub status: Option<u16>,
    /// Payload bytes that left (HTTP: accepted by the socket; TFTP: acknowledged by the client).
    pub bytes: u64,
    /// From the request to the end, in microseconds.
    pub micros: u64,
    /// The verdict.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The verdict on one answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", content = "reason", rename_all = "snake_case")]
pub enum Outcome {
    /// Everything asked for was sent.
    Complete,
    /// The client only wanted to know the size (TFTP: ERROR after our OACK; normal, every EDK2 boot begins so).
    Probe,
    /// The client went away before the end.
    ClientLeft(String),
    /// The request was refused: no such file, bad name, above a bound.
    Refused(String),
    /// We could not deliver: reading failed, the relayed bytes ended short.
    Failed(String),
}

/// Whole microseconds of `duration`, saturating.
#[must_use]
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Takes the events of both services. Called from the transfer itself: must not block.
pub trait EventSink: Send + Sync + 'static {
    /// Whether anybody listens; where not, the event is not built.
    fn listening(&self) -> bool;

    /// Takes one event.
    fn record(&self, event: ServiceEvent);
}

/// A sink for those who do not want events.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;

impl EventSink for NoEvents {
    fn listening(&self) -> bool {
        false
    }

    fn record(&self, _event: ServiceEvent) {}
}

/// A sink that hands every event to all current subscribers and costs one load while there are none. A subscriber
/// that falls behind by more than 4,096 events loses the oldest and is told how many.
#[derive(Debug, Clone)]
pub struct EventBroadcast {
    sender: broadcast::Sender<Arc<ServiceEvent>>,
}

impl EventBroadcast {
    /// A broadcast without subscribers.
    #[must_use]
    pub fn new() -> Self {
        Self { sender: broadcast::Sender::new(BROADCAST_CAPACITY) }
    }

    /// Receives all events from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<ServiceEvent>> {
        self.sender.subscribe()
    }
}

impl Default for EventBroadcast {
    fn default() -> Self {
        Self::new()
    }
}

impl EventSink for EventBroadcast {
    fn listening(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    fn record(&self, event: ServiceEvent) {
        // An error means that the last subscriber left just now.
        let _ = self.sender.send(Arc::new(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_flat_named_fields() {
        let event = ServiceEvent::Finished(Finished {
            transfer: Transfer {
                service: Service::Http,
                client: "192.0.2.7:1024".parse().unwrap(),
                local: "192.0.2.1:80".parse().unwrap(),
                name: "vmlinuz".into(),
                offset: 0,
                length: 10,
            },
            status: Some(200),
            bytes: 4,
            micros: 17,
            outcome: Outcome::ClientLeft("connection reset".into()),
        });
        assert_eq!(
            serde_json::to_value(&event).unwrap(),
            serde_json::json!({
                "event": "finished", "service": "http", "client": "192.0.2.7:1024", "local": "192.0.2.1:80",
                "name": "vmlinuz", "offset": 0, "length": 10, "status": 200, "bytes": 4, "micros": 17,
                "outcome": "client_left", "reason": "connection reset",
            })
        );
    }

    #[test]
    fn broadcast_costs_nothing_without_subscribers() {
        let events = EventBroadcast::new();
        assert!(!events.listening());
        let receiver = events.subscribe();
        assert!(events.listening());
        drop(receiver);
        assert!(!events.listening());
    }
}
