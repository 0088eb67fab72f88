//! The root while it arrives, for those who wait for it.

use std::sync::Arc;

use anyhow::Context;
use fabric::store::Blob;
use tokio::sync::{Mutex, watch};

use crate::squashfs::Tree;

/// The root of which more and more is here.
#[derive(Default)]
pub(crate) struct ArrivingRoot {
    blob: watch::Sender<Option<Arc<Blob>>>,
    /// All names in it: read for [`list`](super::unpack::list), used up by [`fill`](super::unpack::fill).
    pub(super) tree: Mutex<Option<Tree>>,
}

impl ArrivingRoot {
    /// It begins to arrive, as `blob`.
    pub(super) fn begin(&self, blob: &Arc<Blob>) {
        self.blob.send_replace(Some(Arc::clone(blob)));
    }

    /// Its blob, from when it begins to arrive.
    pub(super) async fn blob(&self) -> anyhow::Result<Arc<Blob>> {
        let mut arriving = self.blob.subscribe();
        let blob = arriving.wait_for(Option::is_some).await.context("the agent ends")?.clone();
        blob.context("no root")
    }
}
