//! Marking: which items the roots lead to. No I/O of its own: what an item names is asked of a [`Graph`].

use std::collections::{BTreeMap, BTreeSet};

use crate::content::BlobRef;
use crate::id::{BlobId, ObjectId};
use crate::store::error::StoreError;
use crate::store::item::{Item, Root};

/// What items name.
pub(super) trait Graph {
    /// The blobs that an object names.
    fn names(&self, object: &ObjectId) -> Result<Vec<BlobRef>, StoreError>;

    /// The index that a blob is held under.
    fn index(&self, blob: &BlobId) -> Option<ObjectId>;
}

/// Where marking starts.
pub(super) struct Start {
    pub(super) item: Item,
    pub(super) root: Root,
    pub(super) reach: Reach,
}

/// How far a root reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// To all that the item names, which must be known.
    All,
    /// To all that is known to be named.
    Known,
    /// To the item alone.
    Itself,
}

/// What is kept, and why.
pub(super) type Marks = BTreeMap<Item, BTreeSet<Root>>;

/// Follows all roots.
///
/// # Errors
/// [`StoreError::CannotCollect`] if what a root names cannot be told.
pub(super) fn mark(starts: Vec<Start>, graph: &dyn Graph) -> Result<Marks, StoreError> {
    let mut marks = Marks::new();
    for Start { item, root, reach } in starts {
        let mut reached = vec![item];
        if let (Item::Object(object), Reach::All | Reach::Known) = (item, reach) {
            match graph.names(&object) {
                Ok(blobs) => {
                    reached
                        .extend(blobs.iter().flat_map(|one| [Item::Blob(one.blob), Item::Object(one.index)]));
                }
                Err(_) if reach == Reach::Known => {}
                Err(source) => return Err(StoreError::CannotCollect { root, source: source.into() }),
            }
        }
        let blobs = reached.iter().filter_map(|item| match item {
            Item::Blob(blob) => graph.index(blob).map(Item::Object),
            Item::Object(_) => None,
        });
        let indexes: Vec<Item> = blobs.collect();
        for item in reached.into_iter().chain(indexes) {
            marks.entry(item).or_default().insert(root.clone());
        }
    }
    Ok(marks)
}
