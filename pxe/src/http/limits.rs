//! Which connections are served, which are told to come back, which are dropped. Pure bookkeeping.

use std::collections::HashMap;
use std::net::IpAddr;

/// Connections above the bound that still get a polite 503 at once; beyond them a connection is dropped unanswered.
const POLITE_REFUSALS: usize = 64;

/// What to do with a new connection. Serve and Refuse count until [`Connections::closed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Answer its requests.
    Serve,
    /// Answer its first request with 503 and close.
    Refuse,
    /// Close it.
    Drop,
}

/// Open connections, in total and by client address.
#[derive(Debug)]
pub(super) struct Connections {
    per_client: HashMap<IpAddr, usize>,
    serving: usize,
    refusing: usize,
    max_total: usize,
    max_per_client: usize,
}

impl Connections {
    pub(super) fn new(max_total: usize, max_per_client: usize) -> Self {
        Self { per_client: HashMap::new(), serving: 0, refusing: 0, max_total, max_per_client }
    }

    pub(super) fn opened(&mut self, client: IpAddr) -> Admission {
        let of_client = self.per_client.get(&client).copied().unwrap_or(0);
        if self.serving < self.max_total && of_client < self.max_per_client {
            self.serving += 1;
            *self.per_client.entry(client).or_default() += 1;
            Admission::Serve
        } else if self.refusing < POLITE_REFUSALS {
            self.refusing += 1;
            Admission::Refuse
        } else {
            Admission::Drop
        }
    }

    pub(super) fn closed(&mut self, client: IpAddr, admission: Admission) {
        match admission {
            Admission::Serve => {
                self.serving = self.serving.saturating_sub(1);
                if let Some(count) = self.per_client.get_mut(&client) {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.per_client.remove(&client);
                    }
                }
            }
            Admission::Refuse => self.refusing = self.refusing.saturating_sub(1),
            Admission::Drop => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_and_are_given_back() {
        let (a, b, c) =
            (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]), IpAddr::from([192, 0, 2, 3]));
        let mut connections = Connections::new(3, 2);
        assert_eq!(connections.opened(a), Admission::Serve);
        assert_eq!(connections.opened(a), Admission::Serve);
        assert_eq!(connections.opened(a), Admission::Refuse);
        assert_eq!(connections.opened(b), Admission::Serve);
        assert_eq!(connections.opened(c), Admission::Refuse);
        connections.closed(a, Admission::Serve);
        connections.closed(a, Admission::Refuse);
        assert_eq!(connections.opened(c), Admission::Serve);
        for _ in 0..POLITE_REFUSALS - 1 {
            assert_eq!(connections.opened(b), Admission::Refuse);
        }
        assert_eq!(connections.opened(b), Admission::Drop);
        assert_eq!(connections.per_client.len(), 3);
    }
}
