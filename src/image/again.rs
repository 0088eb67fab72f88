//! An image released again: the same blobs, booted another way. Nodes that hold them fetch nothing.

use fabric::id::ObjectId;
use fabric::store::Store;
use fabric::trust::{Operator, Release, RootMode, SignedRelease};

use super::build::BuildError;
use super::heads;
use crate::memory;

/// What is to be different. What is not named stays.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// How nodes hold the root.
    pub root_mode: Option<RootMode>,
    /// Kernel arguments.
    pub cmdline: Option<String>,
}

/// Signs the image that `selector` names anew with `changes`, as the next generation of its name, and makes it the one that
/// bare machines are booted with.
///
/// # Errors
/// [`BuildError`] if there is no such image or the arguments cannot be used.
pub fn release_again(
    store: &Store,
    operator: &Operator,
    selector: &str,
    changes: Changes,
) -> Result<(ObjectId, Release), BuildError> {
    let trust_root = operator.trust_root();
    let mut release = heads::find(store, &trust_root, selector)?.release;
    release.generation = heads::next_generation(store, &trust_root, &release.name)?;
    if let Some(cmdline) = changes.cmdline {
        let unpacked = memory::unpacked_word_of(&release).map(str::to_owned);
        release.cmdline = [Some(cmdline), unpacked].into_iter().flatten().collect::<Vec<_>>().join(" ");
    }
    if let Some(mode) = changes.root_mode {
        release.root_mode = mode;
        release.memory_needed_mib = 0;
        release.memory_needed_mib = u32::try_from(memory::needed_mib(&release, mode)).unwrap_or(u32::MAX);
    }
    let signed = SignedRelease::sign(operator, &release)?;
    let id = heads::publish(store, &trust_root, &release.name, &signed)?;
    Ok((id, release))
}
