//! Which transfers are under way, and whether one more may begin. Pure bookkeeping.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

/// What the table and a running transfer share.
#[derive(Debug, Clone, Default)]
pub(super) struct TransferState {
    /// Set once the client answered: from then on the same request again means that the client began anew.
    pub(super) answered: Arc<AtomicBool>,
    /// Ends the transfer.
    pub(super) abort: CancellationToken,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    request: Bytes,
    state: TransferState,
}

/// What to do with a request.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Begin a transfer with this id and state.
    Begin(u64, TransferState),
    /// The client repeated its request; the transfer under way answers it.
    Repeated,
    /// Above a bound. Nothing is answered: firmware asks again after some seconds, while an ERROR would end its boot.
    Full,
}

/// The transfers under way, by the client's address and port.
#[derive(Debug)]
pub(super) struct Table {
    entries: HashMap<SocketAddr, Entry>,
    per_client: HashMap<IpAddr, usize>,
    max_total: usize,
    max_per_client: usize,
    next_id: u64,
}

impl Table {
    pub(super) fn new(max_total: usize, max_per_client: usize) -> Self {
        Self { entries: HashMap::new(), per_client: HashMap::new(), max_total, max_per_client, next_id: 0 }
    }

    pub(super) fn request(&mut self, client: SocketAddr, request: &[u8]) -> Verdict {
        if let Some(entry) = self.entries.get(&client) {
            if entry.request == request && !entry.state.answered.load(Ordering::Relaxed) {
                return Verdict::Repeated;
            }
            // Boot ROMs with a fixed port begin their next file so.
            entry.state.abort.cancel();
            let id = entry.id;
            self.finished(client, id);
        }
        let of_client = self.per_client.get(&client.ip()).copied().unwrap_or(0);
        if self.entries.len() >= self.max_total || of_client >= self.max_per_client {
            return Verdict::Full;
        }
        let id = self.next_id;
        self.next_id += 1;
        let state = TransferState::default();
        let request = Bytes::copy_from_slice(request);
        self.entries.insert(client, Entry { id, request, state: state.clone() });
        *self.per_client.entry(client.ip()).or_default() += 1;
        Verdict::Begin(id, state)
    }

    /// The transfer `id` of `client` is over. A transfer that was replaced in between stays.
    pub(super) fn finished(&mut self, client: SocketAddr, id: u64) {
        if self.entries.get(&client).is_none_or(|entry| entry.id != id) {
            return;
        }
        self.entries.remove(&client);
        if let Some(count) = self.per_client.get_mut(&client.ip()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.per_client.remove(&client.ip());
            }
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn begin(table: &mut Table, port: u16, request: &[u8]) -> (u64, TransferState) {
        match table.request(client(port), request) {
            Verdict::Begin(id, state) => (id, state),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_repeated_request_begins_nothing() {
        let mut table = Table::new(9, 9);
        let (_, first) = begin(&mut table, 1, b"a");
        assert!(matches!(table.request(client(1), b"a"), Verdict::Repeated));
        assert!(!first.abort.is_cancelled());
    }

    #[test]
    fn the_same_port_may_begin_anew() {
        let mut table = Table::new(9, 9);
        let (old, first) = begin(&mut table, 1, b"a");
        let (id, second) = begin(&mut table, 1, b"b");
        assert!(first.abort.is_cancelled());
        second.answered.store(true, Ordering::Relaxed);
        begin(&mut table, 1, b"b");
        assert!(second.abort.is_cancelled());
        table.finished(client(1), old);
        table.finished(client(1), id);
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn bounds_hold_and_are_given_back() {
        let mut table = Table::new(3, 2);
        let (id, _) = begin(&mut table, 1, b"a");
        begin(&mut table, 2, b"a");
        assert!(matches!(table.request(client(3), b"a"), Verdict::Full));
        let other = SocketAddr::from(([192, 0, 2, 2], 1));
        assert!(matches!(table.request(other, b"a"), Verdict::Begin(..)));
        table.finished(client(1), id);
        begin(&mut table, 3, b"a");
        let third = SocketAddr::from(([192, 0, 2, 3], 1));
        assert!(matches!(table.request(third, b"a"), Verdict::Full));
    }
}
