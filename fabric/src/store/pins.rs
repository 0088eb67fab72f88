//! Pins: what a person wants kept, whatever heads say. A pin names a blob, or an object with all that it names.
//!
//! A pin's file holds a line with what it names (`blob HASH` or `object HASH`) and a line with the reason.

use serde::{Deserialize, Serialize};

use super::Store;
use super::error::StoreError;
use super::item::Item;
use super::named::Names;

/// Most pins of a store: as many as heads, and each is set by hand.
const MAX_PINS: usize = 1024;

/// Longest reason (bytes): a line of a listing or two.
const MAX_REASON: usize = 200;

/// Longest file of a pin (bytes): a kind, a hash, a reason, two newlines.
const MAX_LEN: u64 = 80 + MAX_REASON as u64;

/// Something that is kept because somebody said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Its name.
    pub name: String,
    /// What it keeps, with all that this names.
    pub item: Item,
    /// Why, in a line for people; may be empty.
    pub reason: String,
}

impl Store {
    /// Keeps `pin.item`, and all that it names, until the pin is removed. Said again, it changes the reason.
    ///
    /// # Errors
    /// [`StoreError::Name`], [`StoreError::Reason`], [`StoreError::PinExists`] if the pin keeps something else,
    /// [`StoreError::NotHere`] if there is nothing to keep, [`StoreError::Unreadable`] for an object that this program does not
    /// understand, [`StoreError::TooManyNames`], [`StoreError::Full`], [`StoreError::Io`].
    pub fn pin(&self, pin: &Pin) -> Result<(), StoreError> {
        if pin.reason.len() > MAX_REASON || pin.reason.chars().any(char::is_control) {
            return Err(StoreError::Reason { max: MAX_REASON });
        }
        let _changes = self.change();
        if let Some(other) = self.read_pin(&pin.name)?.filter(|other| other.item != pin.item) {
            return Err(StoreError::PinExists { name: other.name, item: other.item });
        }
        self.check_pinnable(pin)?;
        let text = match pin.item {
            Item::Blob(blob) => format!("blob {blob}\n{}\n", pin.reason),
            Item::Object(object) => format!("object {object}\n{}\n", pin.reason),
        };
        self.pins_dir().write(&pin.name, &text)?;
        self.was_named([pin.item]);
        Ok(())
    }

    /// Removes a pin; true if it was there. What it kept stays until garbage is [collected](Store::gc).
    ///
    /// # Errors
    /// [`StoreError::Name`], [`StoreError::Io`].
    pub fn unpin(&self, name: &str) -> Result<bool, StoreError> {
        let _changes = self.change();
        let before = self.read_pin(name).ok().flatten();
        let existed = self.pins_dir().remove(name)?;
        self.was_named(before.map(|pin| pin.item));
        Ok(existed)
    }

    /// All pins, in the order of their names.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        let names = self.pins_dir().list()?;
        names.iter().filter_map(|name| self.read_pin(name).transpose()).collect()
    }

    fn check_pinnable(&self, pin: &Pin) -> Result<(), StoreError> {
        match pin.item {
            Item::Blob(blob) if self.blob(&blob).is_none_or(|blob| blob.is_lent()) => {
                Err(StoreError::NotHere { item: pin.item })
            }
            Item::Blob(_) => Ok(()),
            Item::Object(object) => self.references(&object).map(drop),
        }
    }

    fn read_pin(&self, name: &str) -> Result<Option<Pin>, StoreError> {
        let parse = |text: &str| {
            let (item, reason) = text.split_once('\n').unwrap_or((text, ""));
            let item = match item.split_once(' ')? {
                ("blob", hash) => Item::Blob(hash.parse().ok()?),
                ("object", hash) => Item::Object(hash.parse().ok()?),
                _ => return None,
            };
            Some(Pin { name: name.to_owned(), item, reason: reason.trim_end().to_owned() })
        };
        self.pins_dir().read(name, parse)
    }

    fn pins_dir(&self) -> Names<'_> {
        Names {
            dir: self.dir(),
            path: self.dir().pins(),
            what: "pin",
            max: MAX_PINS,
            max_len: MAX_LEN,
            remedy: "pin it again",
        }
    }
}
