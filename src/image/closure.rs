//! Which files a tool needs to run on its own: itself, its dynamic loader, its libraries and theirs.
//!
//! Owns the search order of the dynamic loader (ld.so(8), without its cache). Names files only; [`super::first_stage`]
//! copies them.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::elf::{Elf, ElfError};

/// Most libraries of one tool: beyond this something goes in circles.
const MAX_LIBRARIES: usize = 256;

/// Where a loader looks when a file does not say it: multiarch first, as Debian's does, then the others' places.
const LIBRARY_DIRS: [&str; 6] =
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// Why a tool cannot go into the first stage.
#[derive(Debug, thiserror::Error)]
pub enum ClosureError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no program for this machine.
    #[error("`{}` cannot go into the first stage (a script needs its interpreter: name that instead)", path.display())]
    Program {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ElfError,
    },
    /// A tool must be named by its absolute path, as that is where it will be.
    #[error("`{}` is not an absolute path without `..`: give the tool's full path", .0.display())]
    Relative(PathBuf),
    /// A library is not installed.
    #[error("`{}` needs the library `{library}`, which is in none of {searched}: install its package", path.display())]
    NoLibrary {
        /// The file that needs it.
        path: PathBuf,
        /// Name of the library.
        library: String,
        /// The directories looked in.
        searched: String,
    },
    /// Too many libraries.
    #[error("`{}` needs more than {MAX_LIBRARIES} libraries", .0.display())]
    TooMany(PathBuf),
}

/// The files that `tool` needs, itself first. Each is to be at the same path in the first stage.
///
/// # Errors
/// [`ClosureError`]: not an absolute path, not a program, a library missing.
pub(super) fn closure(tool: &Path) -> Result<Vec<PathBuf>, ClosureError> {
    if !tool.is_absolute() || tool.components().any(|part| part == Component::ParentDir) {
        return Err(ClosureError::Relative(tool.to_owned()));
    }
    let mut files = vec![tool.to_owned()];
    let mut known: BTreeSet<PathBuf> = files.iter().cloned().collect();
    let mut next = 0;
    while let Some(path) = files.get(next).cloned() {
        next += 1;
        if files.len() > MAX_LIBRARIES {
            return Err(ClosureError::TooMany(tool.to_owned()));
        }
        for found in direct(&path)? {
            if known.insert(found.clone()) {
                files.push(found);
            }
        }
    }
    Ok(files)
}

fn direct(path: &Path) -> Result<Vec<PathBuf>, ClosureError> {
    let file = std::fs::read(path).map_err(|source| ClosureError::Read { path: path.to_owned(), source })?;
    let elf = Elf::parse(&file).map_err(|source| ClosureError::Program { path: path.to_owned(), source })?;
    let mut found: Vec<PathBuf> = elf.interpreter.iter().map(PathBuf::from).collect();
    let dirs = search_dirs(path, &elf.search);
    for library in &elf.needed {
        let candidates: Vec<PathBuf> = if library.contains('/') {
            vec![PathBuf::from(library)]
        } else {
            dirs.iter().map(|dir| dir.join(library)).collect()
        };
        let hit = candidates.into_iter().find(|candidate| is_library(candidate));
        found.push(hit.ok_or_else(|| ClosureError::NoLibrary {
            path: path.to_owned(),
            library: library.clone(),
            searched: dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", "),
        })?);
    }
    Ok(found)
}

fn search_dirs(path: &Path, own: &[String]) -> Vec<PathBuf> {
    let origin = path.parent().unwrap_or(Path::new("/")).display().to_string();
    own.iter()
        .map(|dir| lexical(Path::new(&dir.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin))))
        .filter(|dir| dir.is_absolute())
        .chain(LIBRARY_DIRS.iter().map(PathBuf::from))
        .collect()
}

/// `path` without `.` and `..`, by its text alone.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => out.push(part),
        }
    }
    out
}

/// A loader skips libraries of other machines and goes on looking; so does this.
fn is_library(path: &Path) -> bool {
    use std::io::Read;
    let mut head = [0; 20];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head.starts_with(b"\x7fELF\x02\x01") && head[18..] == [62, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_tool_comes_with_its_loader_and_libraries() {
        let shell = std::fs::canonicalize("/bin/sh").unwrap();
        let files = closure(&shell).unwrap();
        assert_eq!(files[0], shell);
        let names: Vec<_> = files.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert!(
            names.contains(&"libc.so.6") && names.iter().any(|name| name.starts_with("ld-linux")),
            "{names:?}"
        );
    }

    #[test]
    fn scripts_relative_paths_and_missing_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        assert!(matches!(closure(&script), Err(ClosureError::Program { .. })));
        assert!(matches!(closure(Path::new("bin/sh")), Err(ClosureError::Relative(_))));
        assert!(matches!(closure(Path::new("/bin/../bin/sh")), Err(ClosureError::Relative(_))));
        assert!(matches!(closure(Path::new("/no/such/tool")), Err(ClosureError::Read { .. })));
    }

    #[test]
    fn origin_is_replaced() {
        let own = ["$ORIGIN/../lib".to_owned(), "relative".to_owned()];
        assert_eq!(search_dirs(Path::new("/opt/x/bin/tool"), &own)[0], Path::new("/opt/x/lib"));
    }
}
