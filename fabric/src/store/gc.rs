//! Mark and sweep: what nothing names any more is removed.
//!
//! Roots are heads, pins, what this process added and nothing has named yet, and blobs that it is fetching. Marks go from
//! objects to the blobs and indexes that they name ([`References`](super::References)), and from blobs to the index they
//! are held under. All else in the store is garbage, files that an earlier process left without an index included. Where a
//! head or a pin names something that cannot be read, nothing at all is removed: what it names could not be told
//! from garbage.
//!
//! Marking and sweeping happen under the lock of all changes, so that nothing is named in between. A crash in the middle
//! leaves some garbage and is harmless: what is removed is named by nothing that stays.

mod inventory;
mod mark;
mod recent;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Store;
use super::blob::Blob;
use super::error::StoreError;
use super::heads::REMOVED;
use super::item::{Item, Root};
use super::objects;
use crate::content::{BlobIndex, BlobRef, IndexError};
use crate::id::{BlobId, ObjectId};
use inventory::{Inventory, is_fetched};
use mark::{Graph, Marks, Reach, Start};
pub(super) use recent::Recent;

/// Something that is kept, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// What.
    #[serde(flatten)]
    pub item: Item,
    /// Bytes of it that are held.
    pub bytes: u64,
    /// All that leads to it.
    pub why: Vec<Root>,
}

/// Something that nothing names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    /// What.
    #[serde(flatten)]
    pub item: Item,
    /// Bytes of it that are held.
    pub bytes: u64,
}

/// What [`Store::gc`] did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// What is kept.
    pub kept: Vec<Kept>,
    /// The garbage.
    pub freed: Vec<Freed>,
    /// Bytes of all that is kept.
    pub kept_bytes: u64,
    /// Bytes of the garbage.
    pub freed_bytes: u64,
}

impl GcReport {
    /// The blobs among the garbage.
    pub fn freed_blobs(&self) -> impl Iterator<Item = BlobId> + '_ {
        self.freed.iter().filter_map(|freed| match freed.item {
            Item::Blob(blob) => Some(blob),
            Item::Object(_) => None,
        })
    }
}

/// What is to go, with the inventory that it was decided from.
pub(super) struct Plan {
    inventory: Inventory,
    marks: Marks,
}

impl Store {
    /// What [`Store::gc`] would do now. Changes nothing; a reader may ask too, and does not know what the writer is adding or
    /// fetching.
    ///
    /// # Errors
    /// As [`Store::gc`].
    pub fn garbage(&self) -> Result<GcReport, StoreError> {
        let _changes = self.change();
        Ok(self.plan()?.report())
    }

    /// Removes all that neither a head nor a pin leads to, and that this process is neither adding nor fetching. Files that
    /// others have open or mounted stay readable for them; who serves removed blobs should
    /// [stop](crate::exchange::ExchangeHandle::forget).
    ///
    /// # Errors
    /// [`StoreError::CannotCollect`] if a head or pin names what cannot be read, [`StoreError::Damaged`],
    /// [`StoreError::Io`].
    pub fn gc(&self) -> Result<GcReport, StoreError> {
        let _changes = self.change();
        self.dir().check_lock()?;
        self.sweep()
    }

    /// Removes garbage; the lock of all changes is held.
    pub(super) fn sweep(&self) -> Result<GcReport, StoreError> {
        loop {
            let plan = self.plan()?;
            // A partial blob that somebody has got hold of since is kept, and its index with it.
            if self.claim(&plan) {
                self.remove(&plan)?;
                return Ok(plan.report());
            }
        }
    }

    pub(super) fn plan(&self) -> Result<Plan, StoreError> {
        let inventory = self.inventory()?;
        let recent = self.recent().items();
        let mut starts: Vec<_> =
            recent.into_iter().map(|item| Start { item, root: Root::Recent, reach: Reach::Known }).collect();
        starts.extend(inventory.fetched().map(|blob| Start {
            item: Item::Blob(blob),
            root: Root::Fetched,
            reach: Reach::All,
        }));
        starts.extend(self.heads()?.into_iter().map(|(name, object)| {
            let reach = if name.starts_with(REMOVED) { Reach::Itself } else { Reach::All };
            Start { item: Item::Object(object), root: Root::Head(name), reach }
        }));
        starts.extend(self.pins()?.into_iter().map(|pin| Start {
            item: pin.item,
            root: Root::Pin(pin.name),
            reach: Reach::All,
        }));
        let marks = mark::mark(starts, &Contents { store: self, inventory: &inventory })?;
        Ok(Plan { inventory, marks })
    }

    /// Takes the garbage's blobs out of use; false if some are being fetched by now.
    fn claim(&self, plan: &Plan) -> bool {
        let mut blobs = self.blobs_locked();
        let garbage: Vec<BlobId> = plan.garbage_blobs().filter(|id| blobs.contains_key(id)).collect();
        if garbage.iter().any(|id| blobs.get(id).is_some_and(is_fetched)) {
            return false;
        }
        let claimed: Vec<Arc<Blob>> = garbage.iter().filter_map(|id| blobs.remove(id)).collect();
        drop(blobs);
        claimed.iter().for_each(|blob| blob.retire());
        true
    }

    fn remove(&self, plan: &Plan) -> Result<(), StoreError> {
        for blob in plan.garbage_blobs() {
            self.dir().remove_blob(&blob)?;
            self.recent().remove(&Item::Blob(blob));
        }
        for object in plan.garbage_objects() {
            self.dir().remove(&self.dir().object(&object))?;
        }
        Ok(())
    }

    /// The blobs that an object names.
    pub(super) fn references(&self, object: &ObjectId) -> Result<Vec<BlobRef>, StoreError> {
        let bytes =
            objects::get(self.dir(), object).ok_or(StoreError::NotHere { item: Item::Object(*object) })?;
        let unreadable = |why| StoreError::Unreadable { object: *object, why };
        match BlobIndex::decode(&bytes) {
            Ok(index) => Ok(vec![index.reference()]),
            Err(IndexError::NotAnIndex) => (self.shared.references)(&bytes).map_err(unreadable),
            Err(error) => Err(unreadable(error.into())),
        }
    }

    /// A head or a pin names these, or did until now: what leads to them decides from now on.
    pub(super) fn was_named(&self, items: impl IntoIterator<Item = Item>) {
        for item in items {
            let mut named = vec![item];
            match item {
                Item::Object(object) => {
                    let references = self.references(&object).unwrap_or_default();
                    named.extend(
                        references.iter().flat_map(|one| [Item::Blob(one.blob), Item::Object(one.index)]),
                    );
                }
                Item::Blob(blob) => {
                    named.extend(self.blob(&blob).map(|blob| Item::Object(blob.index().object_id())));
                }
            }
            let mut recent = self.recent();
            named.iter().for_each(|item| recent.remove(item));
        }
    }
}

/// The store's contents as the marks follow them.
struct Contents<'a> {
    store: &'a Store,
    inventory: &'a Inventory,
}

impl Graph for Contents<'_> {
    fn names(&self, object: &ObjectId) -> Result<Vec<BlobRef>, StoreError> {
        self.store.references(object)
    }

    fn index(&self, blob: &BlobId) -> Option<ObjectId> {
        self.inventory.blobs.get(blob)?.index
    }
}

impl Plan {
    /// Bytes that what is kept will have when its partial blobs are complete.
    pub(super) fn kept_reserved(&self) -> u64 {
        let kept = |item| self.marks.contains_key(&item);
        let blobs = self.inventory.blobs.iter().filter(|(id, _)| kept(Item::Blob(**id)));
        let objects = self.inventory.objects.iter().filter(|(id, _)| kept(Item::Object(**id)));
        blobs.map(|(_, held)| held.reserved).sum::<u64>() + objects.map(|(_, bytes)| bytes).sum::<u64>()
    }

    fn garbage_blobs(&self) -> impl Iterator<Item = BlobId> + '_ {
        self.inventory.blobs.keys().copied().filter(|id| !self.marks.contains_key(&Item::Blob(*id)))
    }

    fn garbage_objects(&self) -> impl Iterator<Item = ObjectId> + '_ {
        self.inventory.objects.keys().copied().filter(|id| !self.marks.contains_key(&Item::Object(*id)))
    }

    fn report(&self) -> GcReport {
        let mut report = GcReport::default();
        for (item, bytes) in self.inventory.items() {
            match self.marks.get(&item) {
                Some(why) => {
                    report.kept_bytes += bytes;
                    report.kept.push(Kept { item, bytes, why: why.iter().cloned().collect() });
                }
                None => {
                    report.freed_bytes += bytes;
                    report.freed.push(Freed { item, bytes });
                }
            }
        }
        report
    }
}
