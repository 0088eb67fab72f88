//! Which kernel modules go into the first stage.
//!
//! Owns the sets of modules as data ([`sets`]), the reading of what `depmod` wrote ([`index`]) and the choice, with
//! everything that a chosen module depends on ([`select`]). Never runs on the machine that boots: loading is the first
//! stage's.

mod index;
mod pack;
mod select;
mod sets;

pub use index::IndexError;
pub(super) use index::ModuleIndex;
pub use pack::PackError;
pub(super) use pack::{Packed, add_to, class};
pub(super) use select::select;
pub use select::{Absent, SelectError};
pub use sets::{ModuleSet, SETS};
