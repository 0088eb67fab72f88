//! A new version of an image whose root was changed, and what was changed: all else stays as it is.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use fabric::id::ObjectId;
use fabric::store::Store;
use fabric::trust::{Operator, Release, SignedRelease, Statement};
use serde::Serialize;

use super::build::{BuildError, Scratch};
use super::heads;
use super::progress::{Progress, Step};
use super::root::{Root, RootSource, is_left_out};
use crate::memory;

/// Makes the directory `root` the root of a new version, `version`, of the image of `release`, signs it as `operator` and
/// puts it into `store`, where it becomes the one that bare machines are booted with.
///
/// # Errors
/// [`BuildError`]; the images in the store are then as they were.
pub fn release_with_root(
    store: &Store,
    operator: &Operator,
    release: &Release,
    version: String,
    root: &Path,
    progress: &dyn Progress,
) -> Result<(ObjectId, Release), BuildError> {
    let trust_root = operator.trust_root();
    let mut changed = Release { version, ..release.clone() };
    // The words are checked before the long work.
    changed.to_payload()?;
    let root = Root::survey(&RootSource::Directory(root.to_owned()), false, store.path(), progress)?;
    let scratch = Scratch::new(store)?;
    let squashfs = scratch.path().join("root.squashfs");
    let content = root.pack(None, &squashfs, progress)?;
    progress.begin(Step::Store, None);
    changed.root = store.adopt_file(&squashfs, &|_| {})?;
    progress.end();
    scratch.remove()?;
    let before = memory::unpacked_word_of(release);
    let words = release.cmdline.split_whitespace().filter(|word| Some(*word) != before);
    let unpacked = memory::unpacked_word(content.bytes, content.inodes);
    changed.cmdline = words.chain([unpacked.as_str()]).collect::<Vec<_>>().join(" ");
    changed.memory_needed_mib = 0;
    let needed = memory::needed_mib(&changed, changed.root_mode);
    changed.memory_needed_mib = u32::try_from(needed).unwrap_or(u32::MAX);
    changed.generation = heads::next_generation(store, &trust_root, &release.name)?;
    let signed = SignedRelease::sign(operator, &changed)?;
    let id = heads::publish(store, &trust_root, &release.name, &signed)?;
    Ok((id, changed))
}

/// How many files, directories and all else differ from an image. A directory that came or went with what is in it counts as one
/// where it went, and by all that is in it where it came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// New.
    pub added: u64,
    /// With another content, owner or mode.
    pub changed: u64,
    /// Gone.
    pub removed: u64,
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} added, {} changed, {} removed", self.added, self.changed, self.removed)
    }
}

/// What the layer `upper` of an overlay changes of what is in `lower`; what goes into no image does not count. Whiteouts are
/// devices 0/0, and a directory that replaces another is marked opaque (Linux, Documentation/filesystems/overlayfs.rst).
///
/// # Errors
/// Those of reading the two.
pub fn changes(upper: &Path, lower: &Path) -> io::Result<Changes> {
    let mut changes = Changes::default();
    changes.directory(upper, lower, Path::new(""))?;
    Ok(changes)
}

impl Changes {
    fn directory(&mut self, upper: &Path, lower: &Path, path: &Path) -> io::Result<()> {
        let here = upper.join(path);
        let names = names(&here)?;
        for name in &names {
            let path = path.join(name);
            if is_left_out(path.as_os_str().as_bytes()) {
                continue;
            }
            let new = upper.join(&path).symlink_metadata()?;
            let old = lower.join(&path).symlink_metadata().ok();
            if new.file_type().is_char_device() && new.rdev() == 0 {
                self.removed += 1;
                continue;
            }
            match &old {
                None => self.added += 1,
                Some(old) if new.is_dir() && old.is_dir() && same_rights(&new, old) => {}
                Some(_) => self.changed += 1,
            }
            if new.is_dir() {
                self.directory(upper, lower, &path)?;
            }
        }
        let opaque = xattr::get(&here, "trusted.overlay.opaque")?.is_some_and(|value| value == b"y");
        let below = lower.join(path);
        if opaque && below.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            self.removed += self::names(&below)?.difference(&names).count() as u64;
        }
        Ok(())
    }
}

fn names(directory: &Path) -> io::Result<BTreeSet<OsString>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
}

fn same_rights(one: &Metadata, other: &Metadata) -> bool {
    (one.mode(), one.uid(), one.gid()) == (other.mode(), other.uid(), other.gid())
}

/// The version after `version`: its last number one higher, or `.1` behind it.
#[must_use]
pub fn next_version(version: &str) -> String {
    let words = version.trim_end_matches(|letter: char| letter.is_ascii_digit());
    let number = version.strip_prefix(words).and_then(|digits| digits.parse::<u64>().ok());
    match number.and_then(|number| number.checked_add(1)) {
        Some(next) => format!("{words}{next}"),
        None => format!("{version}.1"),
    }
}

#[cfg(test)]
mod tests {
    use super::next_version;

    #[test]
    fn versions_go_on() {
        for (before, after) in [
            ("1", "2"),
            ("9", "10"),
            ("12.9", "12.10"),
            ("rc", "rc.1"),
            ("", ".1"),
            ("v99999999999999999999", "v99999999999999999999.1"),
        ] {
            assert_eq!(next_version(before), after);
        }
    }
}
