//! The tar format, as far as passing a root on takes.
//!
//! [`reader`] goes through an archive member by member, refuses what does not belong into one, and hands out each
//! member's headers as they are, so that nothing of a member's attributes is lost. [`writer`] makes members. Neither
//! touches the file system. [`sparse`] knows the files that are stored without their holes.
//!
//! Formats: POSIX.1-1988 (ustar), POSIX.1-2001 (pax), and GNU's long names and sparse files.

mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub(super) use header::Kind;
pub use reader::TarError;
pub(super) use reader::{Member, TarReader};
pub(super) use writer::{END, NewMember, padding};

/// Everything in a tar comes in blocks of this many bytes.
pub(super) const BLOCK: usize = 512;
