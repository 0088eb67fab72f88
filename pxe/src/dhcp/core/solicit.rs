//! Which router solicitations this node answers: those of machines it is the one to boot.
//!
//! iPXE waits 13 s for IPv6 autoconfiguration unless somebody says that there is no router. Only booting clients are
//! told, so that nothing else on the link is touched, and never next to a site's own servers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::client::ClientKey;
use super::super::config::Mode;
use super::super::lease::Holder;
use super::super::time::Time;
use super::{Core, Request};

/// How long after its last boot packet a client counts as booting.
const BOOT_WINDOW: Duration = Duration::from_secs(180);
/// Booting clients remembered; the oldest are forgotten first and only wait longer.
const MAX_BOOTING: usize = 4096;

/// Clients seen booting, and how often each has solicited since.
#[derive(Debug, Default)]
pub(super) struct Booting {
    clients: BTreeMap<ClientKey, (Time, usize)>,
    by_age: BTreeSet<(Time, ClientKey)>,
}

impl Booting {
    fn note(&mut self, now: Time, key: ClientKey) {
        if let Some((seen, _)) = self.clients.insert(key, (now, 0)) {
            self.by_age.remove(&(seen, key));
        }
        self.by_age.insert((now, key));
        if self.clients.len() > MAX_BOOTING
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.clients.remove(&oldest);
        }
    }

    /// How often this client has solicited before, if it is booting.
    fn count(&mut self, now: Time, key: &ClientKey) -> Option<usize> {
        let (seen, count) = self.clients.get_mut(key)?;
        if now.since(*seen) > BOOT_WINDOW {
            return None;
        }
        let before = *count;
        *count += 1;
        Some(before)
    }
}

impl Core {
    pub(super) fn note_boot(&mut self, request: &Request) {
        if request.client.class.boots() {
            self.booting.note(self.now, request.key());
        }
    }

    /// A router solicitation came from this Ethernet address: whether this node answers it. The node that gave the
    /// client its lease does at once; each other rank only after as many more solicitations, should that node be gone.
    pub fn answers_solicitation(&mut self, now: Time, mac: [u8; 6]) -> bool {
        self.advance(now);
        if self.acting() != Mode::Full {
            return false;
        }
        let Some(key) = Self::ethernet(mac) else { return false };
        let Some(earlier) = self.booting.count(self.now, &key) else { return false };
        earlier >= self.turns_before(&key)
    }

    fn turns_before(&self, key: &ClientKey) -> usize {
        let lease = self.table.get(&Holder::Client(*key)).filter(|lease| lease.is_live(self.now));
        let author = lease.map(|lease| lease.version.author).filter(|author| self.members.contains(author));
        let rank = self.rank_for(key, std::net::Ipv4Addr::UNSPECIFIED);
        match author {
            Some(author) if author == self.me => 0,
            Some(_) => rank + 1,
            None => rank,
        }
    }
}
