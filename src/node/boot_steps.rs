//! The task that follows the node's own events, and tells each step of a machine's boot. It ends with the node.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::view::View;
use crate::event::{Event, Events, Record};

/// The class of a machine that another node gave its address.
const ELSEWHERE: &str = "elsewhere";

/// Follows the node's events and tells each machine's steps as events of their own.
pub(crate) async fn follow(view: Arc<View>, mut seen: Receiver<Record>, events: Events) {
    let boots = Arc::clone(view.boots());
    loop {
        match seen.recv().await {
            Ok(record) => {
                if let Some(address) = boots.stranger(&record.event)
                    && let Some(mac) = view.holder_of(address).await
                {
                    let (class, stage) = (ELSEWHERE.into(), "ack".into());
                    boots.take(&Event::Dhcp { mac, class, stage, address: Some(address) }, Instant::now());
                }
                if let Some(step) = boots.take(&record.event, Instant::now()) {
                    events.emit(step);
                }
            }
            // Machines whose steps were missed show the next one.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}
