//! The list, on disk, of what one lab made: the memory that survives when its process is killed.
//!
//! Everything a lab makes in the kernel lives in its namespaces, so namespaces and directories are all there is to list.
//! An entry is written before the thing is made and stays until it is gone.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Result, state};

/// A process that cannot be confused with a later one of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pid: u32,
    /// Clock ticks after boot at which the process started, field 22 of `/proc/PID/stat` (proc(5)).
    start_time: u64,
}

impl Owner {
    /// This process.
    pub(crate) fn this() -> Result<Owner> {
        let pid = std::process::id();
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let start_time = start_time(&stat)
            .ok_or_else(|| Error::Output { command: path, problem: "no start time in it".into() })?;
        Ok(Owner { pid, start_time })
    }

    /// Whether the process still runs: its number exists and started at the same time.
    pub(crate) fn is_alive(self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .is_ok_and(|stat| start_time(&stat) == Some(self.start_time) && !is_dead(&stat))
    }
}

/// Fields after the program name, which is in parentheses and may itself hold spaces and parentheses.
fn fields(stat: &str) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    Some(stat.rsplit_once(')')?.1.split_ascii_whitespace())
}

fn start_time(stat: &str) -> Option<u64> {
    fields(stat)?.nth(19)?.parse().ok()
}

/// A killed process that its parent has not yet waited for is as good as gone.
fn is_dead(stat: &str) -> bool {
    fields(stat).and_then(|mut fields| fields.next()).is_none_or(|state| matches!(state, "Z" | "X"))
}

/// What one lab made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The lab's unique name, also the name of the manifest's file.
    pub(crate) id: String,
    pub(crate) owner: Owner,
    /// Names under `/run/netns`.
    pub(crate) namespaces: Vec<String>,
    /// Directories to remove with the lab.
    pub(crate) directories: Vec<PathBuf>,
}

impl Manifest {
    pub(crate) fn new(id: &str) -> Result<Manifest> {
        Ok(Manifest { id: id.into(), owner: Owner::this()?, namespaces: Vec::new(), directories: Vec::new() })
    }

    pub(crate) fn save(&self) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(|error| Error::System {
            action: format!("write the manifest of {}", self.id),
            source: error.into(),
        })?;
        state::write_whole(&Self::path(&self.id)?, &json)
    }

    pub(crate) fn load(path: &Path) -> Result<Manifest> {
        let json = fs::read(path).map_err(Error::file("read", path))?;
        serde_json::from_slice(&json).map_err(|error| Error::File {
            action: "understand",
            path: path.into(),
            source: error.into(),
        })
    }

    /// Forgets the lab. Everything on the list must be gone.
    pub(crate) fn remove(&self) -> Result<()> {
        let path = Self::path(&self.id)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    fn path(id: &str) -> Result<PathBuf> {
        Ok(state::directory()?.join(format!("{id}.json")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "7 (a (b) c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";

    #[test]
    fn start_time_is_found_behind_any_program_name() {
        assert_eq!(start_time(STAT), Some(4711));
        assert!(!is_dead(STAT));
        assert!(is_dead(&STAT.replace(" S ", " Z ")));
        assert_eq!(start_time("garbage"), None);
        assert!(is_dead("garbage"));
    }

    #[test]
    fn a_process_is_itself_and_no_other() {
        let this = Owner::this().unwrap();
        assert!(this.is_alive());
        assert!(!Owner { start_time: this.start_time + 1, ..this }.is_alive());
        assert!(!Owner { pid: u32::MAX, ..this }.is_alive());
    }
}
