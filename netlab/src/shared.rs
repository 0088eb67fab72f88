//! What a lab is made of, and the order in which it goes away.
//!
//! Teardown order: machines and hosts are killed (newest first), captures are stopped (so that they have seen the last
//! frame), then the namespaces are deleted (newest first, so switches last), the event reader ends, and at the very end
//! the directories and the manifest go.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;

use crate::events::tail::Tailer;
use crate::events::{EventLog, Health, Timeline};
use crate::manifest::Manifest;
use crate::netns::Namespace;
use crate::sweep::remove_directory;
use crate::{Error, Mac, Result, state};

/// Room for the lab's id and a file ending within the limits of names (255) and socket paths (108).
const MAX_NAME: usize = 32;

/// Numbers the labs of this process.
static NEXT_LAB: AtomicU32 = AtomicU32::new(0);

/// When a part of the lab is shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Node,
    Capture,
}

/// A part that has more to it than its namespace.
pub(crate) trait Owned: Send + Sync {
    /// Ends it. May be called again.
    fn shut_down(&self) -> Result<()>;
}

/// What the handles of a lab share. It outlives the lab as long as a handle does, and then refuses all work.
pub(crate) struct Shared {
    id: String,
    directory: PathBuf,
    /// A short path, for sockets.
    run_directory: PathBuf,
    timeline: Timeline,
    /// `None` once the lab is gone.
    tailer: Mutex<Option<Arc<Tailer>>>,
    manifest: Mutex<Manifest>,
    /// How often each name has been used, and whether it is in use.
    names: Mutex<HashMap<String, (u32, bool)>>,
    next_port: AtomicU32,
    next_mac: AtomicU16,
    owned: Mutex<Vec<(Stage, Arc<dyn Owned>)>>,
}

impl Shared {
    /// Makes the directories of a new lab and follows its events; the files are kept in `keep`, if given.
    pub(crate) fn create(name: &str, keep: Option<&Path>) -> Result<Arc<Shared>> {
        let number = NEXT_LAB.fetch_add(1, Ordering::Relaxed);
        let id = format!("nl-{name}-{}-{number}", std::process::id());
        let mut manifest = Manifest::new(&id)?;
        let run_directory = state::directory()?.join(&id);
        manifest.directories.push(run_directory.clone());
        let directory = match keep {
            None => {
                let directory = std::env::temp_dir().join(&id);
                manifest.directories.push(directory.clone());
                manifest.save()?;
                remove_directory(&directory)?;
                make_directory(&directory)?;
                directory
            }
            Some(keep) => {
                manifest.save()?;
                make_kept_directory(keep, name)?
            }
        };
        make_directory(&run_directory)?;
        let path = directory.join("timeline.jsonl");
        let timeline = Timeline::new(Some(File::create(&path).map_err(Error::file("create", &path))?));
        let tailer = Tailer::start(timeline.clone())?;
        Ok(Arc::new(Shared {
            id,
            directory,
            run_directory,
            timeline,
            tailer: Mutex::new(Some(Arc::new(tailer))),
            manifest: Mutex::new(manifest),
            names: Mutex::default(),
            next_port: AtomicU32::new(1),
            next_mac: AtomicU16::new(1),
            owned: Mutex::default(),
        }))
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn run_directory(&self) -> &Path {
        &self.run_directory
    }

    /// Takes a name for a switch, node or capture. Returns the stem of its files: the name itself, or with a number when
    /// an earlier owner of the name has been deleted.
    pub(crate) fn claim_name(&self, name: &str) -> Result<String> {
        check_name(name)?;
        let mut names = lock(&self.names);
        let (uses, in_use) = names.entry(name.into()).or_default();
        if *in_use {
            return Err(Error::Name {
                name: name.into(),
                problem: "it is in use in this lab: delete its owner first",
            });
        }
        *in_use = true;
        *uses += 1;
        Ok(if *uses == 1 { name.into() } else { format!("{name}-{uses}") })
    }

    pub(crate) fn release_name(&self, name: &str) {
        if let Some((_, in_use)) = lock(&self.names).get_mut(name) {
            *in_use = false;
        }
    }

    /// Makes a namespace that is on the list before it exists.
    pub(crate) fn create_namespace(&self, stem: &str) -> Result<Namespace> {
        let name = format!("{}-{stem}", self.id);
        {
            let mut manifest = lock(&self.manifest);
            manifest.namespaces.push(name.clone());
            manifest.save()?;
        }
        Namespace::create(&name)
    }

    pub(crate) fn delete_namespace(&self, namespace: &Namespace) -> Result<()> {
        namespace.delete()?;
        let mut manifest = lock(&self.manifest);
        manifest.namespaces.retain(|name| name != namespace.name());
        manifest.save()
    }

    pub(crate) fn next_port(&self) -> String {
        format!("p{}", self.next_port.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn next_mac(&self) -> Mac {
        Mac::numbered(self.next_mac.fetch_add(1, Ordering::Relaxed))
    }

    /// Registers a part that must be shut down with the lab.
    pub(crate) fn own(&self, stage: Stage, part: Arc<dyn Owned>) {
        lock(&self.owned).push((stage, part));
    }

    /// Creates the node's event file, and follows it.
    pub(crate) fn follow_events(
        &self,
        node: &str,
        path: &Path,
        health: Option<Arc<dyn Health>>,
    ) -> Result<EventLog> {
        let tailer = lock(&self.tailer).clone().ok_or_else(|| self.gone())?;
        tailer.follow(node, path)?;
        Ok(EventLog::new(&self.timeline, &tailer, node, health))
    }

    fn gone(&self) -> Error {
        Error::Name { name: self.id.clone(), problem: "the lab has been torn down" }
    }

    /// Takes everything away; nothing is left to do when it is called again.
    pub(crate) fn tear_down(&self) -> Result<()> {
        let Some(tailer) = lock(&self.tailer).take() else { return Ok(()) };
        self.timeline.note("lab", json!({"event": "tear-down"}));
        let mut errors = Vec::new();
        let mut owned = std::mem::take(&mut *lock(&self.owned));
        owned.reverse();
        owned.sort_by_key(|&(stage, _)| stage);
        errors.extend(owned.iter().filter_map(|(_, part)| part.shut_down().err()));
        // Whatever is on the list still: switches, and nodes that were only half made.
        let namespaces: Vec<_> = lock(&self.manifest).namespaces.iter().rev().cloned().collect();
        errors.extend(
            namespaces.iter().filter_map(|name| self.delete_namespace(&Namespace::named(name)).err()),
        );
        drop(tailer);
        let manifest = lock(&self.manifest);
        errors.extend(manifest.directories.iter().filter_map(|directory| remove_directory(directory).err()));
        let mut errors = errors.into_iter();
        match errors.next() {
            None => manifest.remove(),
            // The manifest stays, for the next sweep.
            Some(first) => {
                errors.for_each(|error| tracing::warn!(lab = self.id, ?error, "left behind"));
                Err(first)
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these hold is whole after each statement, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names become parts of file, namespace and interface names.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let bad = |problem| Err(Error::Name { name: name.into(), problem });
    if name.is_empty() || name.len() > MAX_NAME {
        return bad("it must have 1 to 32 characters");
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        return bad("it may only have letters, digits, `-` and `_`");
    }
    if name.starts_with('-') { bad("it may not start with `-`") } else { Ok(()) }
}

fn make_directory(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::file("create", path))
}

/// `KEEP/NAME`, or with the first number that makes it new: what an earlier run kept is never touched.
fn make_kept_directory(keep: &Path, name: &str) -> Result<PathBuf> {
    fs::create_dir_all(keep).map_err(Error::file("create", keep))?;
    let keep = keep.canonicalize().map_err(Error::file("find", keep))?;
    let numbered = (2_u32..).map(|number| format!("{name}-{number}"));
    for candidate in std::iter::once(name.to_owned()).chain(numbered) {
        let path = keep.join(candidate);
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::file("create", path)(error)),
        }
    }
    Err(Error::Name { name: name.into(), problem: "no directory of that name can be made" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_to_use_in_paths() {
        for good in ["a", "origin", "sw0", "node-1_x"] {
            check_name(good).unwrap();
        }
        for bad in ["", "-a", "a/b", "..", "a b", "ä", &"x".repeat(33)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn kept_directories_are_never_reused() {
        let keep = tempfile::tempdir().unwrap();
        let first = make_kept_directory(keep.path(), "lab").unwrap();
        let second = make_kept_directory(keep.path(), "lab").unwrap();
        assert!(first.ends_with("lab") && second.ends_with("lab-2"));
    }
}
