//! What a store keeps, and what can lead to it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{BlobId, ObjectId};

/// Something that a store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "lowercase")]
pub enum Item {
    /// A blob.
    Blob(BlobId),
    /// An object.
    Object(ObjectId),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(blob) => write!(f, "blob {blob}"),
            Self::Object(object) => write!(f, "object {object}"),
        }
    }
}

/// Why something is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Root {
    /// The head of this name leads to it.
    Head(String),
    /// The pin of this name leads to it.
    Pin(String),
    /// This process added it, and no head or pin has named it yet.
    Recent,
    /// This process is fetching it.
    Fetched,
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head(name) => write!(f, "head `{name}`"),
            Self::Pin(name) => write!(f, "pin `{name}`"),
            Self::Recent => f.write_str("just added"),
            Self::Fetched => f.write_str("being fetched"),
        }
    }
}
