//! What a root holds, learnt by going through it once.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;

use super::{Content, rules};
use crate::image::elf;
use crate::image::kernel::is_part_of_kernel;
use crate::image::tar::{Kind, Member, TarError, TarReader};

/// Directories that modules are in, and what leads there.
const MODULE_PARENTS: [&str; 5] = ["lib", "usr", "usr/lib", "lib/modules", "usr/lib/modules"];

/// What is known of a root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// The newest time in it, in seconds since 1970: what the image is dated.
    pub(super) newest: u32,
    /// Bytes of all files.
    pub(super) bytes: u64,
    /// How much it is unpacked.
    pub(super) content: Content,
    pub(super) has_init: bool,
    /// Kernel versions that it has modules for.
    pub(super) module_versions: BTreeSet<String>,
    /// Those of the directories that matter here which it has.
    pub(super) directories: BTreeSet<String>,
    /// A program of the root for another machine than the image is for: its path, and the machine.
    pub(super) foreign: Option<(String, String)>,
    /// Whether `lib` is a link (to `usr/lib`).
    pub(super) lib_is_link: bool,
}

impl Survey {
    /// Takes note of a member.
    pub(super) fn observe(&mut self, member: &Member) {
        self.newest = self.newest.max(u32::try_from(member.mtime).unwrap_or(if member.mtime < 0 {
            0
        } else {
            u32::MAX
        }));
        self.bytes += member.size;
        self.content.add(member.size);
        let Ok(path) = std::str::from_utf8(&member.path) else { return };
        let is_directory = member.kind == Kind::Directory;
        self.has_init |= !is_directory && rules::INITS.contains(&path);
        self.lib_is_link |= path == "lib" && member.kind == Kind::Symlink;
        let matters = MODULE_PARENTS.contains(&path) || rules::NEEDED.iter().any(|(name, _)| *name == path);
        // A link to a directory will do as well.
        if matters && (is_directory || member.kind == Kind::Symlink) {
            self.directories.insert(path.to_owned());
        }
        if let Some(rest) = path.strip_prefix("usr/").unwrap_or(path).strip_prefix("lib/modules/") {
            let version = rest.split_once('/').filter(|(_, file)| file.starts_with("kernel/"));
            self.module_versions.extend(version.map(|(version, _)| version.to_owned()));
        }
    }

    /// Takes note of the first bytes of the program `path`.
    pub(super) fn observe_program(&mut self, path: &[u8], head: &[u8]) {
        let foreign =
            elf::foreign_machine(head).map(|machine| (String::from_utf8_lossy(path).into(), machine));
        self.foreign = self.foreign.take().or(foreign);
    }

    /// The directory that kernel modules are in.
    pub(super) fn module_parent(&self) -> &'static str {
        if self.lib_is_link || !self.directories.contains("lib") { "usr/lib/modules" } else { "lib/modules" }
    }
}

/// Writes the current member of `reader`, which is at `path` of the root, below `dir` if it is a part of a kernel. Returns
/// whether it is.
pub(super) fn keep_kernel_part(
    dir: &Path,
    path: &[u8],
    member: &Member,
    reader: &mut TarReader<impl Read>,
) -> Result<bool, TarError> {
    let Ok(path) = std::str::from_utf8(path) else { return Ok(false) };
    if member.kind != Kind::File || !is_part_of_kernel(path) {
        return Ok(false);
    }
    let target = dir.join(path);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    reader.copy(&mut fs::File::create(target)?)?;
    Ok(true)
}
