//! What the agent has said so far: which of the things that the phases wait for have happened.
//!
//! Pure: events in, questions out.

use std::collections::BTreeMap;
use std::time::Duration;

use fabric::trust::RootMode;

use super::progress::Progress;
use super::value::is_hash;
use crate::event::Event;

/// Downloads that are shown; a release has four or five blobs.
const MAX_ROLES: usize = 16;

/// The role of the root's blob.
pub(super) const ROOT: &str = "root";

/// The role of what is unpacked of it, and what the agent's failures at that are failures of.
pub(super) const UNPACK: &str = "unpack";

/// A blob that is complete and verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    /// Its hash: 64 hexadecimal digits.
    pub(super) id: String,
    /// Its size in bytes.
    pub(super) bytes: u64,
    /// Number of peers it came from.
    pub(super) sources: usize,
}

/// Something the agent could not do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// The phase it is a failure of, as the agent sees it.
    pub(super) phase: String,
    /// What went wrong.
    pub(super) error: String,
    /// What to do.
    pub(super) remedy: String,
}

/// MiB needed for the root, and there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    /// Needed.
    pub(super) needed_mib: u64,
    /// There.
    pub(super) available_mib: u64,
}

/// What a root holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    /// Bytes of its files, in whole pages.
    pub(super) bytes: u64,
    /// Files, directories and all else.
    pub(super) files: u64,
}

/// A download.
#[derive(Debug, Default)]
struct Download {
    progress: Progress,
    /// The most bytes it ever had.
    most: u64,
    /// Peers that are sending.
    peers: usize,
}

/// All that is known from the agent's events.
#[derive(Debug, Default)]
pub(super) struct AgentView {
    /// Name, version and generation of the verified release.
    pub(super) release: Option<String>,
    /// Its object id.
    pub(super) release_id: Option<String>,
    /// How the release says that its root is held.
    pub(super) root_mode: Option<RootMode>,
    /// The memory check.
    pub(super) memory: Option<Memory>,
    /// Bytes of the boot blobs, once all are held.
    pub(super) boot_blobs: Option<u64>,
    /// The root, once it is complete.
    pub(super) root: Option<Blob>,
    /// What the arriving root holds, once that is known.
    pub(super) listed: Option<Listed>,
    /// The agent filled the empty root.
    pub(super) filled: bool,
    /// Why it cannot list or fill the root: that is done without it then.
    pub(super) unfilled: Option<String>,
    /// The agent gave the root's blob back.
    pub(super) root_dropped: bool,
    /// The agent keeps a share of the root's blob.
    pub(super) root_shared: bool,
    /// The agent moved into the new root.
    pub(super) entered: bool,
    /// Grows whenever the agent got further: what does not grow stalls.
    pub(super) steps: u64,
    failure: Option<Failure>,
    downloads: BTreeMap<String, Download>,
}

impl AgentView {
    /// Takes an event at `now`.
    pub(super) fn take(&mut self, now: Duration, event: &Event) {
        match event {
            Event::ReleaseVerified { release, name, version, generation, root_mode } => {
                self.release_id = Some(release.clone());
                self.root_mode = root_mode.parse().ok();
                self.release = Some(format!("{name} {version}, generation {generation}"));
            }
            Event::MemoryChecked { needed_mib, available_mib } => {
                self.memory = Some(Memory { needed_mib: *needed_mib, available_mib: *available_mib });
            }
            Event::BootBlobsHeld { bytes } => self.boot_blobs = Some(*bytes),
            Event::BlobComplete { role, blob, bytes, sources, .. } => {
                // The id becomes part of a path.
                if role == ROOT && is_hash(blob) {
                    self.root = Some(Blob { id: blob.clone(), bytes: *bytes, sources: sources.len() });
                }
            }
            Event::Progress { role, bytes, total, peers } => {
                return self.progress(now, role, *bytes, *total, *peers);
            }
            Event::RootListed { bytes, files } => self.listed = Some(Listed { bytes: *bytes, files: *files }),
            Event::RootFilled { .. } => self.filled = true,
            Event::RootDropped { .. } => self.root_dropped = true,
            Event::RootShared { .. } => self.root_shared = true,
            Event::Entered { .. } => self.entered = true,
            Event::PhaseFailed { phase, error, .. } if phase == UNPACK => self.unfilled = Some(error.clone()),
            Event::PhaseFailed { phase, error, remedy } => {
                return self.fail(phase, error.clone(), remedy);
            }
            _ => return,
        }
        self.steps += 1;
    }

    fn progress(&mut self, now: Duration, role: &str, bytes: u64, total: u64, peers: usize) {
        if !self.downloads.contains_key(role) && self.downloads.len() >= MAX_ROLES {
            return;
        }
        let download = self.downloads.entry(role.to_owned()).or_default();
        download.progress.update(now, bytes, total);
        download.peers = peers;
        if bytes > download.most {
            download.most = bytes;
            self.steps += 1;
        }
    }

    /// Notes a failure.
    pub(super) fn fail(&mut self, phase: &str, error: String, remedy: &str) {
        self.failure = Some(Failure { phase: phase.to_owned(), error, remedy: remedy.to_owned() });
    }

    /// The last failure that was not looked at yet.
    pub(super) fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// Bytes of what has the role `role` that are still to come, as far as that is known.
    pub(super) fn missing(&self, role: &str) -> u64 {
        self.downloads.get(role).map_or(0, |download| download.progress.left())
    }

    /// Whether some of what has the role `role` has come.
    pub(super) fn has_begun(&self, role: &str) -> bool {
        self.downloads.get(role).is_some_and(|download| download.most > 0)
    }

    /// How the download of what has the role `role` goes, for a person.
    pub(super) fn download_text(&self, role: &str) -> Option<String> {
        let Download { progress, peers, .. } = self.downloads.get(role)?;
        Some(format!("{}  {peers} peer{}", progress.text(), if *peers == 1 { "" } else { "s" }))
    }

    /// Forgets all but a failure and how the root is held: a new agent says everything again, but goes on with no root that the
    /// one before had half filled.
    pub(super) fn restart(&mut self) {
        *self = Self {
            failure: self.failure.take(),
            steps: self.steps,
            root_mode: self.root_mode,
            unfilled: Some("the agent ended".to_owned()),
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(bytes: u64) -> Event {
        Event::Progress { role: "root".into(), bytes, total: 100, peers: 2 }
    }

    fn complete(role: &str, blob: &str) -> Event {
        Event::BlobComplete { role: role.into(), blob: blob.into(), bytes: 5, sources: Vec::new(), reused: 0 }
    }

    #[test]
    fn only_more_bytes_are_a_step() {
        let mut view = AgentView::default();
        for (bytes, steps) in [(0, 0), (10, 1), (10, 1), (5, 1), (11, 2)] {
            view.take(Duration::ZERO, &progress(bytes));
            assert_eq!((view.steps, view.has_begun("root")), (steps, steps > 0), "{bytes}");
        }
        assert!(view.download_text("root").unwrap().ends_with("  2 peers"));
        assert!(view.download_text("kernel").is_none());
    }

    #[test]
    fn the_root_has_an_id_that_can_be_part_of_a_path() {
        let mut view = AgentView::default();
        view.take(Duration::ZERO, &complete("kernel", &"a".repeat(64)));
        view.take(Duration::ZERO, &complete("root", "../../etc/passwd"));
        assert_eq!(view.root, None);
        view.take(Duration::ZERO, &complete("root", &"a".repeat(64)));
        assert_eq!(view.root.unwrap().bytes, 5);
    }

    #[test]
    fn a_new_agent_starts_from_nothing_but_why_the_last_one_died() {
        let mut view = AgentView::default();
        view.take(Duration::ZERO, &Event::BootBlobsHeld { bytes: 1 });
        view.take(Duration::ZERO, &progress(50));
        view.fail("agent", "gone".into(), "wait");
        let steps = view.steps;
        view.restart();
        assert_eq!((view.boot_blobs, view.steps), (None, steps));
        assert!(view.download_text("root").is_none());
        assert_eq!(view.take_failure().unwrap().error, "gone");
        assert_eq!(view.take_failure(), None);
    }

    #[test]
    fn a_root_that_its_agent_cannot_fill_is_no_failure_of_another_phase() {
        let mut view = AgentView::default();
        view.take(Duration::ZERO, &progress(40));
        assert_eq!((view.missing(ROOT), view.missing(UNPACK)), (60, 0));
        view.take(Duration::ZERO, &Event::RootListed { bytes: 8192, files: 3 });
        view.take(
            Duration::ZERO,
            &Event::PhaseFailed { phase: UNPACK.into(), error: "damaged".into(), remedy: "".into() },
        );
        assert_eq!(view.unfilled.as_deref(), Some("damaged"));
        assert_eq!(view.take_failure(), None);
        // Nor does a new agent go on with what the last one left, and it is the same root to PID 1.
        view.root_mode = Some(RootMode::Zram);
        (view.unfilled, view.filled) = (None, true);
        view.restart();
        assert_eq!(
            (view.filled, view.unfilled.is_some(), view.root_mode),
            (false, true, Some(RootMode::Zram))
        );
    }

    #[test]
    fn roles_are_bounded() {
        let mut view = AgentView::default();
        for n in 0..1000 {
            view.take(
                Duration::ZERO,
                &Event::Progress { role: format!("r{n}"), bytes: 1, total: 1, peers: 0 },
            );
        }
        assert_eq!(view.downloads.len(), MAX_ROLES);
    }
}
