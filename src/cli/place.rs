//! Which fabric and which store a command is about.

use std::path::PathBuf;

use fabric::store::{Store, StoreOptions};

use crate::home::Home;

/// Which fabric, and which store.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// Directory of the fabric, with its keys [default: as `bootfabric init`]
    #[arg(long, value_name = "DIR")]
    pub(super) fabric: Option<PathBuf>,
    /// Directory of the store [default: the fabric's own]
    #[arg(long, value_name = "DIR")]
    pub(super) store: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Place {
    pub(super) fn home(&self) -> anyhow::Result<Home> {
        Home::at(self.fabric.as_deref())
    }

    /// Where the store is.
    pub(super) fn path(&self) -> anyhow::Result<PathBuf> {
        Ok(match &self.store {
            Some(path) => path.clone(),
            None => self.home()?.store_path(),
        })
    }

    /// The store, to be changed.
    pub(super) fn open(&self, home: &Home) -> anyhow::Result<Store> {
        match &self.store {
            Some(path) => Ok(Store::open(path, StoreOptions::default())?),
            None => home.store(),
        }
    }

    /// The store, to be read, whoever has it open.
    pub(super) fn read(&self) -> anyhow::Result<Store> {
        Ok(Store::open_reader(&self.path()?, StoreOptions::default())?)
    }
}
