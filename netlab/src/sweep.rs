//! Takes away what labs left whose process is gone: killed, or crashed before it could clean up.

use std::fs;

use crate::manifest::Manifest;
use crate::netns::Namespace;
use crate::{Error, Result, state};

/// What [`sweep_stale`] took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Ids of the labs that were left over.
    pub labs: Vec<String>,
    /// How many namespaces were deleted.
    pub namespaces: usize,
    /// How many processes were still running in them.
    pub processes: usize,
}

/// Removes the namespaces, the processes in them and the directories of labs whose owner does not run any more. Labs of
/// living processes are not touched. [`crate::Lab::new`] does this too.
///
/// # Errors
/// When the list of labs cannot be read. What cannot be removed is logged, kept on its list, and tried again next time.
pub fn sweep_stale() -> Result<Swept> {
    let directory = state::directory()?;
    let mut swept = Swept::default();
    for entry in fs::read_dir(directory).map_err(Error::file("read", directory))? {
        let path = entry.map_err(Error::file("read", directory))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        match Manifest::load(&path) {
            Ok(manifest) if manifest.owner.is_alive() => {}
            Ok(manifest) => match remove(&manifest, &mut swept) {
                Ok(()) => swept.labs.push(manifest.id),
                Err(error) => {
                    tracing::warn!(lab = manifest.id, ?error, "a stale lab could not be removed wholly");
                }
            },
            // Perhaps another process has just swept it.
            Err(_) if !path.exists() => {}
            Err(error) => tracing::warn!(
                ?error,
                "a lab's manifest is damaged: look at `ip netns` and remove it by hand"
            ),
        }
    }
    Ok(swept)
}

fn remove(manifest: &Manifest, swept: &mut Swept) -> Result<()> {
    for name in &manifest.namespaces {
        let namespace = Namespace::named(name);
        if namespace.exists() {
            swept.processes += namespace.delete()?;
            swept.namespaces += 1;
        }
    }
    for directory in &manifest.directories {
        remove_directory(directory)?;
    }
    manifest.remove()
}

/// Removes a directory with all it holds; one that is gone already is fine.
pub(crate) fn remove_directory(directory: &std::path::Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", directory)(error))
        }
        _ => Ok(()),
    }
}
