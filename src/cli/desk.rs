//! Where a fabric's signed statements are read and changed: at this machine's running node, or in the fabric's own store.

use std::path::PathBuf;

use anyhow::{Context, bail};
use fabric::store::Store;
use serde::de::DeserializeOwned;

use super::status::{DEFAULT_STATE, runtime};
use crate::home::Home;
use crate::node::control::{Request, ask_line, socket_path};
use crate::node::members::Taken;

/// Which fabric, and which node.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// The fabric's directory [default: /var/lib/bootfabric for root, else ~/.local/share/bootfabric]
    #[arg(long, value_name = "DIR")]
    fabric: Option<PathBuf>,
    /// The state directory of this machine's node
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE)]
    state: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Place {
    pub(super) fn home(&self) -> anyhow::Result<Home> {
        Home::at(self.fabric.as_deref())
    }
}

/// The one of the two that there is.
pub(super) enum Desk {
    Running(RunningNode),
    /// The fabric's store, which no node uses.
    Store(Box<Store>),
}

impl Desk {
    pub(super) fn open(place: &Place) -> anyhow::Result<Self> {
        if std::os::unix::net::UnixStream::connect(socket_path(&place.state)).is_ok() {
            return Ok(Self::Running(RunningNode(place.state.clone())));
        }
        let store = place.home()?.store().context("no node runs here, so the fabric's own store is used")?;
        Ok(Self::Store(Box::new(store)))
    }
}

/// The node of this machine, by its state directory.
pub(super) struct RunningNode(PathBuf);

impl RunningNode {
    /// Its answer to a request.
    pub(super) fn ask<T: DeserializeOwned>(&self, request: &Request) -> anyhow::Result<T> {
        let line = runtime()?.block_on(ask_line(&socket_path(&self.0), request))?;
        serde_json::from_str(&line).context("the node is of another version than this command")
    }

    /// Hands something signed over.
    pub(super) fn give(&self, request: &Request) -> anyhow::Result<()> {
        let taken: Taken = self.ask(request)?;
        taken.error.map_or(Ok(()), |error| bail!("the node does not take it: {error}"))
    }
}
