//! Keeping a share of the root's blob on a node that has unpacked it.
//!
//! The exchange knows the rule; this is its clock, its bound and its voice. One task, which ends with the exchange, or when the blob
//! leaves the store.

use std::time::Duration;

use anyhow::Context;
use fabric::exchange::{FetchError, ShareReport};
use fabric::id::BlobId;
use tokio::time::MissedTickBehavior;

use super::given_back::note_given_back;
use super::join::Join;
use super::unpack;
use crate::event::Event;
use crate::memory;

/// How often it is looked who else shares: what others hold by then may go.
const LOOK: Duration = Duration::from_secs(5);
/// Memory that is never filled with what others had: programs may need it.
const SPARE: u64 = memory::BESIDE_BLOBS_MIB << 20;

impl Join {
    /// Keeps a share of the root's blob for as long as this node lives. Does nothing if another task does.
    pub(crate) async fn share_root(self) {
        let Ok(_only) = self.sharing.try_lock() else { return };
        if let Err(error) = self.try_share_root().await {
            self.events.emit(unpack::failed(&error, unpack::STAYS));
        }
    }

    async fn try_share_root(&self) -> anyhow::Result<()> {
        let release = self.view.release().context("no release is known")?;
        let (root, mode) = (release.release.root, release.release.root_mode);
        let copies = self.view.config().shares_root(mode).context("this node keeps all of it")?;
        note_given_back(&self.view.config().state, &root.blob)?;
        if !self.exchange.share(&root.blob, self.swarm.node(), copies).await? {
            anyhow::bail!("the store does not hold the blob");
        }
        let held = self.store.blob(&root.blob).map_or(0, |blob| blob.held_bytes());
        let mut last = ShareReport { sharers: 1, copies, held, wanted: held, ..ShareReport::default() };
        self.tell_share(root.blob, root.size, last);
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let room = memory::available().unwrap_or(0).saturating_sub(SPARE);
            let report = match self.exchange.review_share(&root.blob, room).await {
                Ok(Some(report)) => report,
                Ok(None) | Err(FetchError::Stopped) => return Ok(()),
                Err(error) => {
                    tracing::warn!(%error, "the share of the root's blob is as it was; `bootfabric store verify` checks the store");
                    continue;
                }
            };
            if report != last {
                last = report;
                self.tell_share(root.blob, root.size, report);
            }
        }
    }

    fn tell_share(&self, blob: BlobId, bytes: u64, report: ShareReport) {
        self.view.set_share(blob, report);
        let ShareReport { sharers, copies, held, lacking, no_room, .. } = report;
        self.events.emit(Event::RootShared {
            blob: blob.to_string(),
            bytes,
            held,
            sharers,
            copies,
            lacking,
            no_room,
        });
    }
}
