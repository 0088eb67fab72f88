//! Heads: names given to objects. What a head names, and what that names in turn, is worth keeping.

use std::fs::{self, File};
use std::io::{self, Read};

use super::Store;
use super::error::StoreError;
use crate::id::ObjectId;

/// Longest name of a head (bytes): far below a file name's limit.
const MAX_NAME: usize = 128;

/// Most heads of a store: one for each image and a few for the fabric.
const MAX_HEADS: usize = 1024;

/// A hash in hexadecimal and its newline (bytes).
const LINE: u64 = 65;

const REMEDY: &str = "set the head again";

impl Store {
    /// Lets `name` name `object`, in place of what it named before. The object need not be here yet.
    ///
    /// # Errors
    /// [`StoreError::HeadName`], [`StoreError::TooManyHeads`], [`StoreError::Full`], [`StoreError::Io`].
    pub fn set_head(&self, name: &str, object: &ObjectId) -> Result<(), StoreError> {
        check_name(name)?;
        let _changes = self.change();
        let path = self.dir().heads().join(name);
        if !path.exists() && self.head_names()?.len() >= MAX_HEADS {
            return Err(StoreError::TooManyHeads { dir: self.path().into(), max: MAX_HEADS });
        }
        self.dir().write_whole(&path, format!("{object}\n").as_bytes())
    }

    /// What `name` names.
    ///
    /// # Errors
    /// [`StoreError::HeadName`], [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn head(&self, name: &str) -> Result<Option<ObjectId>, StoreError> {
        check_name(name)?;
        let path = self.dir().heads().join(name);
        let read = File::open(&path).and_then(|file| io::read_to_string(file.take(LINE)));
        match read {
            Ok(text) => match text.trim_end().parse() {
                Ok(object) => Ok(Some(object)),
                Err(_) => Err(StoreError::Damaged { path, remedy: REMEDY }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(StoreError::Damaged { path, remedy: REMEDY })
            }
            Err(error) => Err(self.dir().error("read", &path, error)),
        }
    }

    /// All heads, in the order of their names.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn heads(&self) -> Result<Vec<(String, ObjectId)>, StoreError> {
        let names = self.head_names()?;
        let heads = names.into_iter().map(|name| Ok(self.head(&name)?.map(|object| (name, object))));
        heads.filter_map(Result::transpose).collect()
    }

    /// Removes a head; true if it was there. The object stays.
    ///
    /// # Errors
    /// [`StoreError::HeadName`], [`StoreError::Io`].
    pub fn remove_head(&self, name: &str) -> Result<bool, StoreError> {
        check_name(name)?;
        let _changes = self.change();
        let path = self.dir().heads().join(name);
        let existed = path.exists();
        self.dir().remove(&path)?;
        Ok(existed)
    }

    fn head_names(&self) -> Result<Vec<String>, StoreError> {
        let path = self.dir().heads();
        let list = || -> io::Result<Vec<String>> {
            let names = fs::read_dir(&path)?.map(|entry| entry.map(|entry| entry.file_name().into_string()));
            let names = names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten();
            Ok(names.filter(|name| check_name(name).is_ok()).collect())
        };
        let mut names = list().map_err(|error| self.dir().error("list", &path, error))?;
        names.sort_unstable();
        Ok(names)
    }
}

fn check_name(name: &str) -> Result<(), StoreError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let valid = name.len() <= MAX_NAME
        && name.starts_with(plain)
        && name.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-'));
    if valid {
        return Ok(());
    }
    Err(StoreError::HeadName { name: name.chars().take(MAX_NAME).collect(), max: MAX_NAME })
}
