//! An operator's directory: the keys, and the store with images and settings.
//!
//! | path | what |
//! |---|---|
//! | `keys/` | root key, operator key, trust root |
//! | `store/` | blobs, signed releases, signed settings |
//!
//! Nodes that were booted have neither keys nor this directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use fabric::id::ObjectId;
use fabric::store::{Store, StoreOptions};
use fabric::trust::{KeyDir, Operator, Settings, SignedSettings, TrustRoot, decode_machines};

/// Name of the store's head that points to the signed settings.
pub const SETTINGS_HEAD: &str = "settings";
/// Name of the store's head that points to the release bare machines are booted with.
pub const RELEASE_HEAD: &str = "release";

/// Name of the store's head that points to the memberships of a private fabric.
pub const MEMBERS_HEAD: &str = "members";
/// Name of the store's head that points to what the settings say of machines.
pub const MACHINES_HEAD: &str = "machines";

/// The settings in `store`, verified.
///
/// # Errors
/// If the store has lost them, or `trust_root` did not sign them.
pub fn settings(store: &Store, trust_root: &TrustRoot) -> anyhow::Result<Option<Settings>> {
    let Some(id) = store.head(SETTINGS_HEAD)? else { return Ok(None) };
    let bytes = store.object(&id).context("the store has lost the fabric's settings")?;
    Ok(Some(SignedSettings::decode(&bytes)?.verify(trust_root)?))
}

/// The text about machines that `settings` name; empty if they name none.
///
/// # Errors
/// If the store has lost it.
pub(crate) fn machines_text(store: &Store, settings: &Settings) -> anyhow::Result<String> {
    let Some(id) = settings.machines else { return Ok(String::new()) };
    let object = store.object(&id).context("the store has lost what the settings say of machines")?;
    Ok(decode_machines(&object)?.to_owned())
}

/// Makes the signed settings `id` those that hold in `store`, where they and what they name are already.
///
/// # Errors
/// If the store cannot be written.
pub(crate) fn keep_settings(store: &Store, id: ObjectId, settings: &Settings) -> anyhow::Result<()> {
    // The text first: settings that name what is gone could not be used.
    if let Some(machines) = settings.machines {
        store.set_head(MACHINES_HEAD, &machines)?;
    }
    store.set_head(SETTINGS_HEAD, &id)?;
    if settings.machines.is_none() {
        store.remove_head(MACHINES_HEAD)?;
    }
    Ok(())
}

/// An operator's directory.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// The directory at `path`, or the usual one: `/var/lib/bootfabric` for root, else below the user's data directory.
    ///
    /// # Errors
    /// If neither `path` nor `HOME` is given.
    pub fn at(path: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(path) = path {
            return Ok(Self(path.to_owned()));
        }
        if nix::unistd::geteuid().is_root() {
            return Ok(Self("/var/lib/bootfabric".into()));
        }
        let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
        let data = data.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/share")));
        let data = data.context("no HOME in the environment: name the directory with --fabric DIR")?;
        Ok(Self(data.join("bootfabric")))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its keys.
    #[must_use]
    pub fn keys(&self) -> KeyDir {
        KeyDir::new(self.0.join("keys"))
    }

    /// Directory of its store.
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        self.0.join("store")
    }

    /// Opens its store.
    ///
    /// # Errors
    /// If there is no fabric here, or the store is in use or damaged.
    pub fn store(&self) -> anyhow::Result<Store> {
        self.require()?;
        Ok(Store::open(&self.store_path(), StoreOptions::default())?)
    }

    /// The public key of its fabric.
    ///
    /// # Errors
    /// If there is no fabric here.
    pub fn trust_root(&self) -> anyhow::Result<TrustRoot> {
        self.require()?;
        Ok(self.keys().trust_root()?)
    }

    /// The operator's key.
    ///
    /// # Errors
    /// If there is none here.
    pub fn operator(&self) -> anyhow::Result<Operator> {
        self.require()?;
        Ok(self.keys().operator()?)
    }

    fn require(&self) -> anyhow::Result<()> {
        if self.keys().path().is_dir() {
            return Ok(());
        }
        bail!(
            "there is no fabric in {}: make one with `bootfabric init`, or name another with --fabric DIR",
            self.0.display()
        )
    }

    /// Makes a new fabric here: keys, store, signed settings.
    ///
    /// # Errors
    /// If there is one already (it is never overwritten), or writing fails.
    pub fn init(&self, settings: &Settings) -> anyhow::Result<TrustRoot> {
        settings.check()?;
        std::fs::create_dir_all(&self.0).with_context(|| format!("cannot make {}", self.0.display()))?;
        let operator = self.keys().init("operator")?;
        let store = self.store()?;
        let signed = SignedSettings::sign(&operator, settings)?;
        let id = store.put_object(signed.bytes())?;
        store.set_head(SETTINGS_HEAD, &id)?;
        Ok(operator.trust_root())
    }
}
