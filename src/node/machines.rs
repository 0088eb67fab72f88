//! The fabric's settings while the node runs: newer ones are fetched, checked, kept, obeyed and passed on.
//!
//! Which settings are newer: the higher generation, and of two that operators made at once the greater hash, so that all nodes
//! come to the same ones. What the settings say of machines ([`Machines`]) is checked before they count. A node whose program
//! does not understand it goes on with what it had; if it had nothing, it leaves all machines to others.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use fabric::id::{NodeId, ObjectId};
use fabric::swarm::{AnnouncedKind, Announcement};
use fabric::trust::{Settings, SignedSettings, decode_machines, encode_machines};
use serde::{Deserialize, Serialize};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::join::Join;
use super::members::Taken;
use crate::event::Event;
use crate::home::{self, SETTINGS_HEAD};
use crate::machines::Machines;

/// First pause before announced settings are asked for again, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What holds, for the command line.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Held {
    /// The signed settings.
    pub(crate) settings: Vec<u8>,
    /// The text about machines; empty if nothing is said.
    pub(crate) machines: String,
}

impl Join {
    /// Comes to obey announced settings, unless newer ones come meanwhile. Returns when they hold or are of no use; where nobody gives
    /// them they are asked for again and again.
    async fn follow(&self, announced: &Announcement, gone: &CancellationToken) -> anyhow::Result<()> {
        let wanted = || announced.generation >= self.view.settings().map_or(0, |known| known.generation);
        let fetch = async |id| again(gone, FIRST_PAUSE, wanted, || self.object(id)).await;
        let Some(bytes) = fetch(announced.object).await else { return Ok(()) };
        let settings = SignedSettings::decode(&bytes)?.verify(&self.trust_root)?;
        let text = match settings.machines {
            Some(id) => {
                let Some(bytes) = fetch(id).await else { return Ok(()) };
                decode_machines(&bytes)?.to_owned()
            }
            None => String::new(),
        };
        self.obey(announced.object, settings, &text).await
    }

    /// Takes settings that an operator hands over, and tells the fabric.
    pub(super) async fn take_settings(&self, settings: &[u8], text: &str) -> Taken {
        Taken { error: self.try_take(settings, text).await.err().map(|error| format!("{error:#}")) }
    }

    async fn try_take(&self, bytes: &[u8], text: &str) -> anyhow::Result<()> {
        let settings = SignedSettings::decode(bytes)?.verify(&self.trust_root)?;
        let machines = self.store.put_object(&encode_machines(text)?)?;
        ensure!(settings.machines.is_none_or(|named| named == machines), "the settings name another text");
        Machines::read(text, &settings)?;
        let known = self.view.settings().map_or(0, |known| known.generation);
        ensure!(
            settings.generation > known,
            "another operator was quicker: see `bootfabric machines show`, then try again"
        );
        let id = self.store.put_object(bytes)?;
        self.obey(id, settings, text).await
    }

    /// What holds now.
    pub(super) fn held(&self) -> anyhow::Result<Held> {
        let id = self.store.head(SETTINGS_HEAD)?.context("this node knows no settings yet")?;
        let settings = self.store.object(&id).context("the store has lost the fabric's settings")?;
        let known = SignedSettings::decode(&settings)?.verify(&self.trust_root)?;
        Ok(Held { settings: settings.to_vec(), machines: home::machines_text(&self.store, &known)? })
    }

    /// Obeys verified settings if they are newer: keeps them, answers by them, passes them on.
    async fn obey(&self, id: ObjectId, settings: Settings, text: &str) -> anyhow::Result<()> {
        ensure!(
            settings.private == self.view.config().private,
            "whether a fabric is private never changes: make another fabric"
        );
        let _changes = self.view.changing_settings().await;
        let kept = self.store.head(SETTINGS_HEAD)?;
        let known = self.view.settings();
        if known.as_ref().is_some_and(|known| (known.generation, kept) >= (settings.generation, Some(id))) {
            return Ok(());
        }
        let generation = settings.generation;
        let machines = match Machines::read(text, &settings) {
            Ok(machines) => machines,
            Err(error) => {
                self.events.emit(Event::MachinesRefused { generation, error: error.to_string() });
                ensure!(
                    known.is_none(),
                    "settings {generation} say of machines what this program does not understand"
                );
                Machines::left_to_others(&settings)?
            }
        };
        home::keep_settings(&self.store, id, &settings)?;
        let nodes = machines.len();
        let machines = Arc::new(machines);
        self.view.set_settings(settings.clone(), Arc::clone(&machines));
        if let Some((dhcp, identity)) = self.view.dhcp_identity() {
            // A service that has ended answers nobody any more.
            if let Ok(done) = dhcp.configure(identity.config(&machines)).await {
                done.context("the DHCP service refuses what the settings say")?;
            }
        }
        self.events.emit(Event::MachinesSet { generation, nodes });
        self.announce_settings(&settings).await;
        Ok(())
    }

    /// Tells the fabric of the settings that hold here.
    pub(super) async fn announce_settings(&self, settings: &Settings) {
        let Ok(Some(object)) = self.store.head(SETTINGS_HEAD) else { return };
        let (name, generation) = (settings.name.clone(), settings.generation);
        let head = Announcement { kind: AnnouncedKind::Settings, name, generation, object };
        if let Err(error) = self.swarm.announce(head).await {
            tracing::warn!(%error, "an announcement was not made");
        }
    }
}

/// What peers announced and this node asks for: of each peer the last, for as long as it is one.
#[derive(Default)]
pub(super) struct Asking(HashMap<NodeId, (ObjectId, DropGuard)>);

impl Asking {
    /// A connected peer announced settings.
    pub(super) fn announced(&mut self, node: &Join, from: NodeId, announcement: Announcement) {
        let known = node.view.settings().map_or(0, |settings| settings.generation);
        let asked = self.0.get(&from).is_some_and(|(object, _)| *object == announcement.object);
        if asked || announcement.generation < known {
            return;
        }
        let gone = CancellationToken::new();
        self.0.insert(from, (announcement.object, gone.clone().drop_guard()));
        let node = node.clone();
        tokio::spawn(async move {
            if let Err(error) = node.follow(&announcement, &gone).await {
                tracing::warn!("announced settings are not usable: {error:#}");
            }
        });
    }

    /// A peer is gone; what it announced, others announce too.
    pub(super) fn gone(&mut self, peer: NodeId) {
        self.0.remove(&peer);
    }
}

/// Tries until it succeeds, after pauses that grow from the `first`; `None` when it is not wanted any more, or `gone`.
async fn again<T, F: Future<Output = anyhow::Result<T>>>(
    gone: &CancellationToken,
    first: Duration,
    wanted: impl Fn() -> bool,
    mut attempt: impl FnMut() -> F,
) -> Option<T> {
    let mut pause = first;
    let trying = async {
        while wanted() {
            match attempt().await {
                Ok(done) => return Some(done),
                Err(error) => tracing::warn!("announced settings cannot be had yet: {error:#}"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        None
    };
    gone.run_until_cancelled(trying).await.flatten()
}

/// The machines of the settings that a store holds, for a node that starts; what cannot be understood is left to others.
pub(super) fn stored(
    store: &fabric::store::Store,
    settings: &Settings,
    events: &crate::event::Events,
) -> anyhow::Result<Arc<Machines>> {
    let read = home::machines_text(store, settings).and_then(|text| Machines::read(&text, settings));
    let machines = read.or_else(|error| {
        let generation = settings.generation;
        events.emit(Event::MachinesRefused { generation, error: format!("{error:#}") });
        Machines::left_to_others(settings)
    })?;
    Ok(Arc::new(machines))
}

/// Keeps settings and text in a store that no node uses.
pub(crate) fn keep(
    store: &fabric::store::Store,
    bytes: &Bytes,
    settings: &Settings,
    text: &str,
) -> anyhow::Result<()> {
    store.put_object(&encode_machines(text)?)?;
    let id = store.put_object(bytes)?;
    home::keep_settings(store, id, settings)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::bail;

    use super::*;

    #[tokio::test]
    async fn what_nobody_gives_is_asked_for_again_while_it_is_wanted_and_its_peer_is_there() {
        let (gone, asked) = (CancellationToken::new(), Cell::new(0));
        let (first, begun) = (Duration::from_millis(5), tokio::time::Instant::now());
        let attempt = async || {
            asked.set(asked.get() + 1);
            if asked.get() % 4 == 0 { Ok(asked.get()) } else { bail!("nobody has it") }
        };
        assert_eq!(again(&gone, first, || true, attempt).await, Some(4));
        assert!(begun.elapsed() >= first * (1 + 2 + 4));
        assert_eq!(again(&gone, first, || asked.get() < 6, attempt).await, None);
        assert_eq!(asked.get(), 6);
        let last = async || {
            gone.cancel();
            std::future::pending::<anyhow::Result<()>>().await
        };
        assert_eq!(again(&gone, first, || true, last).await, None);
    }
}
