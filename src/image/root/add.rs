//! What an image adds to a root: directories to mount on, and the modules of a kernel that came from elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::pack::Stream;
use super::survey::Survey;
use super::{RootError, rules, walk};
use crate::image::kernel::Kernel;
use crate::image::progress::Progress;
use crate::image::tar::{Kind, NewMember};

/// Something added, owned by root and dated 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Added {
    Directory { path: String, mode: u32 },
    File { path: String, from: PathBuf, size: u64 },
}

impl Added {
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Directory { .. } => 0,
            Self::File { size, .. } => *size,
        }
    }
}

/// What has to be added to a root of which `survey` tells, parents first.
pub(super) fn added(survey: &Survey, modules: Option<&Kernel>) -> Result<Vec<Added>, RootError> {
    let mut added = Vec::new();
    for (name, mode) in rules::NEEDED {
        if !survey.directories.contains(name) {
            added.push(Added::Directory { path: name.to_owned(), mode });
        }
    }
    if let Some(kernel) = modules {
        let parent = survey.module_parent();
        for (end, _) in parent.match_indices('/').chain([(parent.len(), "")]) {
            let part = parent.get(..end).unwrap_or(parent);
            if !survey.directories.contains(part) {
                added.push(Added::Directory { path: part.to_owned(), mode: 0o755 });
            }
        }
        added.extend(module_files(kernel, &format!("{parent}/{}", kernel.version))?);
    }
    Ok(added)
}

/// The files of a kernel's module directory, as they are to be in `target`.
fn module_files(kernel: &Kernel, target: &str) -> Result<Vec<Added>, RootError> {
    // By path, so that parents come first and the index, wherever it is, has its place among the rest.
    let mut entries = BTreeMap::new();
    collect(&kernel.modules, target, &mut entries)
        .map_err(|(path, source)| RootError::Read { path, source })?;
    collect(&kernel.index, target, &mut entries)
        .map_err(|(path, source)| RootError::Read { path, source })?;
    Ok(entries.into_values().collect())
}

type At = (PathBuf, io::Error);

fn collect(from: &Path, target: &str, entries: &mut BTreeMap<String, Added>) -> Result<(), At> {
    let at = |source| (from.to_owned(), source);
    entries.insert(target.to_owned(), Added::Directory { path: target.to_owned(), mode: 0o755 });
    for entry in fs::read_dir(from).map_err(at)? {
        let entry = entry.map_err(at)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{target}/{name}");
        // Not followed: `build` and `source` lead to where the kernel was made.
        let metadata = entry.metadata().map_err(at)?;
        if metadata.is_dir() {
            collect(&entry.path(), &path, entries)?;
        } else if metadata.is_file() && name != "vmlinuz" {
            let added = Added::File { path: path.clone(), from: entry.path(), size: metadata.len() };
            entries.insert(path, added);
        }
    }
    Ok(())
}

/// Writes what is added.
pub(super) fn write(added: &[Added], stream: &mut Stream, progress: &dyn Progress) -> Result<(), RootError> {
    for entry in added {
        match entry {
            Added::Directory { path, mode } => {
                stream.begin(&NewMember::plain(path.as_bytes(), Kind::Directory, *mode).header())?;
            }
            Added::File { path, from, size } => {
                let member =
                    NewMember { size: *size, ..NewMember::plain(path.as_bytes(), Kind::File, 0o644) };
                stream.begin(&member.header())?;
                walk::copy_exactly(from, *size, stream)?;
                stream.end(*size)?;
            }
        }
        progress.advance(entry.size());
    }
    Ok(())
}
