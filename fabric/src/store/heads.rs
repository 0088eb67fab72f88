//! Heads: names given to objects. What a head names, and what that names in turn, is kept.

use super::Store;
use super::error::StoreError;
use super::item::Item;
use super::named::Names;
use crate::id::ObjectId;

/// What the name of a head begins with if it keeps its object alone, not what that names: a trace of something that was
/// removed.
pub const REMOVED: &str = "removed.";

/// Most heads of a store: one for each image and a few for the fabric.
const MAX_HEADS: usize = 1024;

/// A hash in hexadecimal and its newline (bytes).
const LINE: u64 = 65;

impl Store {
    /// Lets `name` name `object`, in place of what it named before. The object need not be here yet, but nothing can be
    /// [collected](Store::gc) while it is not.
    ///
    /// # Errors
    /// [`StoreError::Name`], [`StoreError::TooManyNames`], [`StoreError::Full`], [`StoreError::Io`].
    pub fn set_head(&self, name: &str, object: &ObjectId) -> Result<(), StoreError> {
        let _changes = self.change();
        let before = self.head(name).ok().flatten();
        self.heads_dir().write(name, &format!("{object}\n"))?;
        // A name that keeps nothing of what its object leads to does not take over from whoever is adding that.
        if !name.starts_with(REMOVED) {
            self.was_named(before.iter().chain([object]).map(|&object| Item::Object(object)));
        }
        Ok(())
    }

    /// What `name` names.
    ///
    /// # Errors
    /// [`StoreError::Name`], [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn head(&self, name: &str) -> Result<Option<ObjectId>, StoreError> {
        self.heads_dir().read(name, |text| text.trim_end().parse().ok())
    }

    /// All heads, in the order of their names.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn heads(&self) -> Result<Vec<(String, ObjectId)>, StoreError> {
        let names = self.heads_dir().list()?;
        let heads = names.into_iter().map(|name| Ok(self.head(&name)?.map(|object| (name, object))));
        heads.filter_map(Result::transpose).collect()
    }

    /// Removes a head; true if it was there. The object stays until garbage is [collected](Store::gc).
    ///
    /// # Errors
    /// [`StoreError::Name`], [`StoreError::Io`].
    pub fn remove_head(&self, name: &str) -> Result<bool, StoreError> {
        let _changes = self.change();
        let before = self.head(name).ok().flatten();
        let existed = self.heads_dir().remove(name)?;
        self.was_named(before.map(Item::Object));
        Ok(existed)
    }

    fn heads_dir(&self) -> Names<'_> {
        Names {
            dir: self.dir(),
            path: self.dir().heads(),
            what: "head",
            max: MAX_HEADS,
            max_len: LINE,
            remedy: "set the head again",
        }
    }
}
