//! Announcements: which signed object is the newest of its kind, told by gossip and to every new peer.
//!
//! The swarm does not judge them. What an announcement points to is signed and checked by whoever fetches it, so a lie
//! costs its victims one small fetch. A node tells new peers only what it announced itself, that is, what it verified.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::ObjectId;

/// Bytes in the name of what is announced.
pub const MAX_ANNOUNCED_NAME: usize = 64;
/// Releases and settings that one node announces: a fabric has a handful of images.
pub const MAX_HEADS: usize = 256;

/// What kind of object is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AnnouncedKind {
    /// A signed release of the image with that name.
    Release,
    /// The fabric's signed settings.
    Settings,
}

/// "The newest signed object of this kind and name that I know is this one."
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Announcement {
    /// What it is.
    pub kind: AnnouncedKind,
    /// Its name: of the image, or of the fabric; at most [`MAX_ANNOUNCED_NAME`] bytes.
    pub name: String,
    /// Its generation; a higher one replaces a lower one.
    pub generation: u64,
    /// The signed object, to be fetched from the swarm and verified.
    pub object: ObjectId,
}

/// Why something cannot be announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// The name is too long.
    #[error("the name of an announced object is at most {MAX_ANNOUNCED_NAME} bytes")]
    Name,
    /// A higher generation was announced before.
    #[error("generation {newest} was announced before")]
    Older {
        /// The generation announced before.
        newest: u64,
    },
    /// Too many names.
    #[error("a node announces at most {MAX_HEADS} names")]
    TooMany,
    /// The swarm has shut down.
    #[error("the swarm has shut down")]
    Closed,
}

impl Announcement {
    pub(crate) fn check(&self) -> Result<(), AnnounceError> {
        if self.name.len() > MAX_ANNOUNCED_NAME { Err(AnnounceError::Name) } else { Ok(()) }
    }
}

/// What this node announced: the newest of each kind and name.
#[derive(Debug, Default)]
pub(crate) struct Heads(BTreeMap<(AnnouncedKind, String), Announcement>);

impl Heads {
    /// Keeps `new` if no newer one is known; true if it was not known before.
    pub(crate) fn insert(&mut self, new: Announcement) -> Result<bool, AnnounceError> {
        new.check()?;
        let key = (new.kind, new.name.clone());
        match self.0.get(&key) {
            Some(known) if known.generation > new.generation => {
                Err(AnnounceError::Older { newest: known.generation })
            }
            Some(known) if *known == new => Ok(false),
            None if self.0.len() >= MAX_HEADS => Err(AnnounceError::TooMany),
            _ => {
                self.0.insert(key, new);
                Ok(true)
            }
        }
    }

    /// Whether this node announced something newer.
    pub(crate) fn is_older(&self, other: &Announcement) -> bool {
        self.known(other).is_some_and(|known| known.generation > other.generation)
    }

    /// Whether this node announced neither this nor something newer.
    pub(crate) fn is_news(&self, other: &Announcement) -> bool {
        self.known(other).is_none_or(|known| known.generation <= other.generation && known != other)
    }

    fn known(&self, other: &Announcement) -> Option<&Announcement> {
        self.0.get(&(other.kind, other.name.clone()))
    }

    pub(crate) fn all(&self) -> Vec<Announcement> {
        self.0.values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Hash;

    #[test]
    fn only_the_newest_of_each_name_is_kept() {
        let head = |name: &str, generation| Announcement {
            kind: AnnouncedKind::Release,
            name: name.into(),
            generation,
            object: ObjectId(Hash::of(&[u8::try_from(generation).unwrap()])),
        };
        let mut heads = Heads::default();
        assert_eq!(heads.insert(head("a", 2)), Ok(true));
        assert_eq!(heads.insert(head("a", 2)), Ok(false));
        assert_eq!(heads.insert(head("a", 1)), Err(AnnounceError::Older { newest: 2 }));
        assert_eq!(heads.insert(head("b", 1)), Ok(true));
        assert_eq!(heads.insert(head("a", 3)), Ok(true));
        assert_eq!(heads.all(), [head("a", 3), head("b", 1)]);
        assert_eq!(heads.insert(head(&"x".repeat(65), 1)), Err(AnnounceError::Name));
    }
}
