//! Noticing that the neighbours are not enough.
//!
//! Where everybody holds a part, a node may have neighbours that all hold other parts. It is told then that others should be looked
//! for. While anything comes it is not: in a flash crowd what nobody around has yet is on its way.

use super::super::event::ExchangeEvent;
use super::time::{SECOND, Time};
use super::{Core, Output};
use crate::id::BlobId;

/// How long nothing has come before others are looked for, and from then on between two times: new neighbours are greeted and say
/// what they hold well within it.
const PATIENCE: u64 = 2 * SECOND;

impl Core {
    /// Says of which blobs nothing comes any more while neighbours hold nothing of what is missing.
    pub(super) fn seek(&mut self, now: Time) {
        for id in self.fetches.values() {
            let Some(blob) = self.blobs.get_mut(id) else { continue };
            let (holders, Some(fetch)) = (&blob.holders, &mut blob.fetch) else { continue };
            if now.since(fetch.progress) < PATIENCE || now.since(fetch.sought) < PATIENCE {
                continue;
            }
            if self.flights.values().any(|flight| flight.blob == *id) {
                continue;
            }
            fetch.sought = now;
            let unheld = fetch.missing.iter().filter(|&cell| holders.get(cell as usize) == Some(&0));
            let chunks = unheld.flat_map(|cell| blob.grid.chunks_of(cell..cell + 1)).count();
            if chunks > 0 {
                let chunks = u32::try_from(chunks).unwrap_or(u32::MAX);
                self.outputs.push_back(Output::Event(ExchangeEvent::Unheld { blob: *id, chunks }));
            }
        }
    }

    /// When to look again.
    pub(super) fn seek_deadline(&self) -> Option<Time> {
        let due = |id: &BlobId| {
            let blob = self.blobs.get(id).filter(|blob| blob.unheld > 0)?;
            let fetch = blob.fetch.as_ref()?;
            Some(fetch.progress.max(fetch.sought).after(PATIENCE))
        };
        self.fetches.values().filter_map(due).filter(|&at| at > self.seen).min()
    }
}
