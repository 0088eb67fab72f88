//! The check against replay: an old statement stays correctly signed for ever, so age needs its own check.
//!
//! Generations count per kind and name: two images of one fabric do not compete. There are no dates, because machines
//! boot with dead clocks.

use std::collections::BTreeMap;

use super::error::TrustError;
use super::release::Release;
use super::settings::Settings;
use super::signed::Statement;

/// Most names remembered. Only verified statements are, so only an operator can come near.
const MAX_NAMES: usize = 1024;

/// The newest generations known, from verified statements and from the minimum that the signed first stage names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Freshness {
    newest: BTreeMap<(u8, String), u64>,
}

impl Freshness {
    /// Nothing is known: everything is fresh.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a verified `release` as known, or refuses it if a newer one of its name is. True if it is newer than all
    /// before; false if it has the newest generation known.
    ///
    /// # Errors
    /// [`TrustError::Replayed`] if a newer generation is known.
    pub fn release(&mut self, release: &Release) -> Result<bool, TrustError> {
        self.admit::<Release>(&release.name, release.generation)
    }

    /// The same for verified `settings`, of which a fabric has one line.
    ///
    /// # Errors
    /// [`TrustError::Replayed`] if a newer generation is known.
    pub fn settings(&mut self, settings: &Settings) -> Result<bool, TrustError> {
        self.admit::<Settings>("", settings.generation)
    }

    /// From now on refuses releases of `name` below `generation`.
    pub fn require_release(&mut self, name: &str, generation: u64) {
        // An older minimum changes nothing.
        let _ = self.admit::<Release>(name, generation);
    }

    /// The newest generation known of releases of `name`; 0 if none.
    #[must_use]
    pub fn newest_release(&self, name: &str) -> u64 {
        self.newest.get(&(Release::KIND, name.to_owned())).copied().unwrap_or(0)
    }

    fn admit<S: Statement>(&mut self, name: &str, generation: u64) -> Result<bool, TrustError> {
        let key = (S::KIND, name.to_owned());
        let newest = self.newest.get(&key).copied().unwrap_or(0);
        if generation < newest {
            return Err(TrustError::Replayed { what: S::NAME, name: name.to_owned(), generation, newest });
        }
        if newest > 0 || self.newest.len() < MAX_NAMES {
            self.newest.insert(key, generation);
        }
        Ok(generation > newest)
    }
}
