//! What can go wrong in a store.

use std::io;
use std::path::PathBuf;

use super::item::{Item, Root};
use crate::content::IndexError;
use crate::id::{BlobId, ObjectId};

/// Why the store cannot do something. Nothing verified is lost by any of these.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error(
        "the store {} is in use by {}: stop it first, or use another directory", dir.display(),
        holder.map_or("another process".into(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The store.
        dir: PathBuf,
        /// The process that has it open, as far as it can be known.
        holder: Option<u32>,
    },
    /// The store was made by another version of the program.
    #[error(
        "the store {} has format `{found}`, this program uses `{known}`: use that version of the program, or an empty directory",
        dir.display()
    )]
    Format {
        /// The store.
        dir: PathBuf,
        /// What its format file says.
        found: String,
        /// What this program writes.
        known: &'static str,
    },
    /// The filesystem is full, or what is asked for would not fit.
    #[error(
        "{} is full: {needed} bytes are needed, {available} are free. Free some space, forget images that are not used, or \
         put the store on a larger filesystem; what is verified is kept",
        dir.display()
    )]
    Full {
        /// The store.
        dir: PathBuf,
        /// How many more bytes are needed.
        needed: u64,
        /// How many bytes are free.
        available: u64,
    },
    /// The system refused something.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A small file of the store does not hold what it should.
    #[error("{} is damaged: remove it, then {remedy}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// How to get its content back.
        remedy: &'static str,
    },
    /// An object larger than objects may be.
    #[error("an object of {len} bytes cannot be kept, at most {max} are allowed: add it as a blob")]
    ObjectTooLarge {
        /// Its length in bytes.
        len: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// A name that cannot be a head's or a pin's.
    #[error("`{}` cannot name a {what}: 1 to {max} of a-z 0-9 . _ - are allowed, a letter or digit first", name.escape_default())]
    Name {
        /// What it should name.
        what: &'static str,
        /// The name, shortened.
        name: String,
        /// The longest name in bytes.
        max: usize,
    },
    /// More heads or pins than a store may have.
    #[error("the store {} has {max} {what}s, which is the most: remove some", dir.display())]
    TooManyNames {
        /// The store.
        dir: PathBuf,
        /// What there are too many of.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// The reason of a pin is not a short line.
    #[error("the reason of a pin is one line of at most {max} bytes: shorten it")]
    Reason {
        /// The bound in bytes.
        max: usize,
    },
    /// A pin of that name keeps something else.
    #[error("the pin `{name}` keeps the {item}: remove it first, or give this one another name")]
    PinExists {
        /// Its name.
        name: String,
        /// What it keeps.
        item: Item,
    },
    /// A blob or an object that is not in the store.
    #[error("the {item} is not in the store: fetch or build it first")]
    NotHere {
        /// What was asked for.
        item: Item,
    },
    /// An object whose content this program does not understand.
    #[error(
        "what the object {object} names cannot be told: use the version of the program that made it, or a newer one"
    )]
    Unreadable {
        /// The object.
        object: ObjectId,
        /// What is not understood.
        #[source]
        why: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Garbage cannot be told from what is to be kept.
    #[error(
        "nothing in the store was removed: the {root} leads to something that cannot be read, so what it keeps is unknown. Fetch \
         or build that again, or remove the {root}"
    )]
    CannotCollect {
        /// What leads to it.
        root: Root,
        /// Why it cannot be read.
        source: Box<StoreError>,
    },
    /// The store may not hold so much.
    #[error(
        "the store {} may hold {limit} bytes: {used} are in use, {needed} more are needed. Remove images and pins that are not \
         needed any more, or raise the limit (`bootfabric store limit`)",
        dir.display()
    )]
    Limit {
        /// The store.
        dir: PathBuf,
        /// How many bytes it may hold.
        limit: u64,
        /// How many bytes it holds that are no garbage, partial blobs counted as a whole.
        used: u64,
        /// How many bytes should be added.
        needed: u64,
        /// Why garbage could not be told, if so.
        #[source]
        blocked: Option<Box<StoreError>>,
    },
    /// There is no store to read.
    #[error("there is no store in {}: name another directory, or make one with `bootfabric init`", dir.display())]
    NoStore {
        /// The directory.
        dir: PathBuf,
    },
    /// The store was opened for reading alone.
    #[error("the store {} was opened for reading alone: nothing in it can be changed", dir.display())]
    ReadOnly {
        /// The store.
        dir: PathBuf,
    },
    /// More blobs than a store may have.
    #[error("the store {} has {} blobs, which is the most: forget images that are not used", dir.display(), super::MAX_BLOBS)]
    TooManyBlobs {
        /// The store.
        dir: PathBuf,
    },
    /// Two indexes say different things of one blob, and the blob matches the one that the store has.
    #[error(
        "the index {given:?} does not describe the blob {blob}, which is complete under the index {held:?}: sign the release anew"
    )]
    IndexConflict {
        /// The blob.
        blob: BlobId,
        /// The index in the store.
        held: ObjectId,
        /// The index that was given.
        given: ObjectId,
    },
    /// The blob was forgotten while somebody still wrote to it.
    #[error("the blob {blob} was removed from the store: begin it again")]
    Forgotten {
        /// The blob.
        blob: BlobId,
    },
    /// This process handed the store over and may only read on.
    #[error("the store {} was handed over to another process: ask that one", dir.display())]
    HandedOver {
        /// The store.
        dir: PathBuf,
    },
    /// The blob is not here as a whole.
    #[error("the blob {blob} is not complete in the store: fetch it first")]
    Incomplete {
        /// The blob.
        blob: BlobId,
    },
    /// Something else than a regular file.
    #[error("{} is no regular file, so it cannot be served in place: copy its content to a file first", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// A file that cannot be a blob.
    #[error("{} cannot be a blob", path.display())]
    NotABlob {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: IndexError,
    },
}

impl StoreError {
    /// Whether more space would help, on the filesystem or below the limit.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Limit { .. })
    }
}

/// Why a run was not written as a whole. All good chunks in it are kept nevertheless.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A chunk does not have the hash that the index gives: its sender is at fault.
    #[error("chunk {chunk} of blob {blob} is damaged or forged: drop the peer that sent it")]
    BadChunk {
        /// The blob.
        blob: BlobId,
        /// The first bad chunk.
        chunk: u32,
        /// How many chunks of the run are bad.
        bad: u32,
    },
    /// The bytes do not end where a chunk does: their sender is at fault.
    #[error(
        "{len} bytes from chunk {first} of blob {blob} on are no run of whole chunks: drop the peer that sent them"
    )]
    Length {
        /// The blob.
        blob: BlobId,
        /// Where the run begins.
        first: u32,
        /// How many bytes were given.
        len: usize,
    },
    /// The store is at fault.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WriteError {
    /// Whether whoever sent the bytes is to blame, rather than this node.
    #[must_use]
    pub fn blames_sender(&self) -> bool {
        !matches!(self, Self::Store(_))
    }
}
