//! Settings that change while the server runs, and clients that they know by more than a hardware address.

use std::net::Ipv4Addr;

use super::super::class::Client;
use super::super::client::ClientKey;
use super::super::config::{ClientMatch, Config, ConfigError, Settings, Who};
use super::super::lease::{Holder, Lease};
use super::super::time::Time;
use super::Core;

/// Clients remembered that were recognised by client identifier or UUID. A machine is several such clients at most; a flood
/// that makes this forget some costs them their reservation until their firmware speaks again.
const MAX_RECOGNISED: usize = 8192;

/// A client that has a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownClient {
    /// Its hardware address.
    pub key: ClientKey,
    /// The name in its reservation.
    pub name: Option<String>,
}

impl Core {
    /// Goes on with other settings: subnets, reservations, loaders, options, times, strangers. This node's own address, mode
    /// and fabric stay as they were. Leases outside of all subnets are forgotten; a client that holds what is reserved for
    /// another now is refused when it asks next.
    ///
    /// # Errors
    /// [`ConfigError`] if they contradict themselves; nothing is changed then.
    pub fn configure(&mut self, now: Time, config: Config) -> Result<(), ConfigError> {
        self.advance(now);
        let old = &self.settings.config;
        let (mode, server, own, fabric) = (old.mode, old.server, old.own, old.fabric);
        let settings = Settings::new(Config { mode, server, own, fabric, ..config })?;
        let link = |settings: &Settings| settings.subnets.first().map(|served| served.pool.clone());
        if link(&self.settings) != link(&settings) {
            self.sweep.restart();
        }
        let is_lost = |lease: &&Lease| settings.subnet_of(lease.address).is_none();
        let lost: Vec<Holder> = self.table.iter().filter(is_lost).map(|lease| lease.holder).collect();
        for holder in lost {
            self.table.remove(&holder);
        }
        self.table.set_pools(settings.subnets.iter().map(|served| served.pool.clone()));
        self.settings = settings;
        self.recognised.clear();
        self.choose_leaders();
        Ok(())
    }

    /// Remembers how a client is known, and knows it again where it shows less of itself: firmware sends the UUID of its
    /// machine, the system that it boots does not.
    pub(super) fn recognise(&mut self, client: &mut Client) {
        let who = client.who();
        match self.settings.reservation(&who).map(|known| &known.client) {
            Some(ClientMatch::Hardware(_)) => {}
            Some(by) => {
                if self.recognised.len() >= MAX_RECOGNISED && !self.recognised.contains_key(&who.key) {
                    self.recognised.pop_first();
                }
                self.recognised.insert(who.key, by.clone());
            }
            None => {
                if let Some(ClientMatch::Machine(id)) = self.recognised.get(&who.key) {
                    client.machine = Some(*id);
                }
            }
        }
    }

    /// The client that has a lease of this address.
    #[must_use]
    pub fn client_at(&self, now: Time, address: Ipv4Addr) -> Option<KnownClient> {
        let lease = self.table.keeper(address, now)?;
        let Holder::Client(key) = lease.holder else { return None };
        let who = match self.recognised.get(&key) {
            Some(ClientMatch::Id(id)) => Who { id: Some(id), ..Who::of_key(key) },
            Some(ClientMatch::Machine(id)) => Who { machine: Some(*id), ..Who::of_key(key) },
            _ => Who::of_key(key),
        };
        let name = self.settings.reservation(&who).and_then(|known| known.name.clone());
        Some(KnownClient { key, name })
    }
}
