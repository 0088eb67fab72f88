//! What this process added and nothing has named yet: an image whose blobs are added one by one before its release is
//! signed must not be swept in between.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};

use crate::store::Store;
use crate::store::item::Item;

/// Items that no head and no pin has named since they were added. Bounded by what the store holds.
#[derive(Debug, Default)]
pub(in crate::store) struct Recent(BTreeSet<Item>);

impl Recent {
    /// True if it is new.
    pub(in crate::store) fn add(&mut self, item: Item) -> bool {
        self.0.insert(item)
    }

    pub(in crate::store) fn remove(&mut self, item: &Item) {
        self.0.remove(item);
    }

    pub(super) fn items(&self) -> Vec<Item> {
        self.0.iter().copied().collect()
    }
}

impl Store {
    pub(in crate::store) fn recent(&self) -> MutexGuard<'_, Recent> {
        self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
