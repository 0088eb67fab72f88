//! Small files known by a name: what heads and pins have in common.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::dir::Dir;
use super::error::StoreError;

/// Longest name (bytes): far below a file name's limit.
const MAX_NAME: usize = 128;

/// The names of one kind: a directory with a file for each.
pub(super) struct Names<'a> {
    pub(super) dir: &'a Dir,
    /// The directory in the store.
    pub(super) path: PathBuf,
    /// What one of them is called.
    pub(super) what: &'static str,
    /// How many there may be.
    pub(super) max: usize,
    /// Longest content (bytes).
    pub(super) max_len: u64,
    /// How a damaged one is replaced.
    pub(super) remedy: &'static str,
}

impl Names<'_> {
    /// All names, sorted. Files that cannot be one are not ours.
    pub(super) fn list(&self) -> Result<Vec<String>, StoreError> {
        let list = || -> io::Result<Vec<String>> {
            let names =
                fs::read_dir(&self.path)?.map(|entry| entry.map(|entry| entry.file_name().into_string()));
            let names = names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten();
            Ok(names.filter(|name| is_name(name)).collect())
        };
        let mut names = match list() {
            // A store that a version before this one made; a reader makes no directories.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(|error| self.dir.error("list", &self.path, error))?,
        };
        names.sort_unstable();
        Ok(names)
    }

    /// What `parse` makes of the content of `name`, if there is such a file.
    pub(super) fn read<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let path = self.file(name)?;
        let read = File::open(&path).and_then(|file| io::read_to_string(file.take(self.max_len)));
        match read {
            Ok(text) => parse(&text).map(Some).ok_or(StoreError::Damaged { path, remedy: self.remedy }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(StoreError::Damaged { path, remedy: self.remedy })
            }
            Err(error) => Err(self.dir.error("read", &path, error)),
        }
    }

    /// Gives `name` its content; a crash leaves the old one or the new one.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), StoreError> {
        let path = self.file(name)?;
        if !path.exists() && self.list()?.len() >= self.max {
            let (dir, what) = (self.dir.root().into(), self.what);
            return Err(StoreError::TooManyNames { dir, what, max: self.max });
        }
        self.dir.write_whole(&path, text.as_bytes())
    }

    /// Removes `name`, for good before what it kept goes; true if it was there.
    pub(super) fn remove(&self, name: &str) -> Result<bool, StoreError> {
        let path = self.file(name)?;
        let existed = path.exists();
        self.dir.remove(&path)?;
        self.dir.sync_directory(&self.path).map_err(|error| self.dir.error("flush", &self.path, error))?;
        Ok(existed)
    }

    fn file(&self, name: &str) -> Result<PathBuf, StoreError> {
        if is_name(name) {
            return Ok(Path::new(&self.path).join(name));
        }
        let name = name.chars().take(MAX_NAME).collect();
        Err(StoreError::Name { what: self.what, name, max: MAX_NAME })
    }
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= MAX_NAME
        && name.starts_with(plain)
        && name.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-'))
}
