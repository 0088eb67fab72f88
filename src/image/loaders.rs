//! The programs that firmware loads first: iPXE, as Debian builds it.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

/// The loaders of an image unless the operator names others: for PXE on BIOS, and for UEFI.
const DEFAULTS: [(&str, &str); 2] =
    [("undionly.kpxe", "/usr/lib/ipxe/undionly.kpxe"), ("snponly.efi", "/usr/lib/ipxe/snponly.efi")];

/// Largest loader, in bytes: firmware loads it by TFTP into little memory.
const MAX_LOADER: u64 = 16 << 20;

/// A loader as the operator names it: `NAME=PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderFile {
    /// The name under which firmware asks for it.
    pub name: String,
    /// The file.
    pub path: PathBuf,
}

impl FromStr for LoaderFile {
    type Err = LoaderError;

    fn from_str(text: &str) -> Result<Self, LoaderError> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => {
                Ok(Self { name: name.to_owned(), path: path.into() })
            }
            _ => Err(LoaderError::Form(text.to_owned())),
        }
    }
}

/// Why a loader cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// Not `NAME=PATH`.
    #[error("`{0}` is not NAME=PATH, such as snponly.efi=/usr/lib/ipxe/snponly.efi")]
    Form(String),
    /// One of the usual loaders is not installed.
    #[error("the boot loader `{}` is missing: install iPXE (Debian: apt install ipxe), or name another with --loader {name}=PATH", path.display())]
    Missing {
        /// Its name.
        name: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// A loader cannot be read.
    #[error("cannot read the boot loader `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Empty or too large.
    #[error("`{}` cannot be a boot loader: it has {size} bytes, 1 to {MAX_LOADER} are allowed", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length, as far as it was read.
        size: u64,
    },
}

/// The loaders of an image, name and content: the usual ones, save where `named` has another of that name, and the rest of
/// `named`.
pub(super) fn read(named: &[LoaderFile]) -> Result<Vec<(String, Vec<u8>)>, LoaderError> {
    let mut loaders = Vec::new();
    for (name, path) in DEFAULTS {
        if named.iter().all(|loader| loader.name != name) {
            let path = PathBuf::from(path);
            if !path.exists() {
                return Err(LoaderError::Missing { name: name.to_owned(), path });
            }
            loaders.push((name.to_owned(), content(path)?));
        }
    }
    for loader in named {
        loaders.push((loader.name.clone(), content(loader.path.clone())?));
    }
    Ok(loaders)
}

fn content(path: PathBuf) -> Result<Vec<u8>, LoaderError> {
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(MAX_LOADER + 1).read_to_end(&mut bytes));
    match read {
        Err(source) => Err(LoaderError::Read { path, source }),
        Ok(_) if bytes.is_empty() || bytes.len() as u64 > MAX_LOADER => {
            Err(LoaderError::Size { path, size: bytes.len() as u64 })
        }
        Ok(_) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_loaders_take_the_place_of_the_usual_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("loader");
        std::fs::write(&path, "x").unwrap();
        let named: Vec<_> = ["undionly.kpxe", "snponly.efi", "ipxe.efi"]
            .iter()
            .map(|name| format!("{name}={}", path.display()).parse::<LoaderFile>().unwrap())
            .collect();
        let names: Vec<_> = read(&named).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["undionly.kpxe", "snponly.efi", "ipxe.efi"]);
        std::fs::write(&path, "").unwrap();
        assert!(matches!(read(&named), Err(LoaderError::Size { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read(&named), Err(LoaderError::Read { .. })));
    }

    #[test]
    fn what_is_typed_is_checked() {
        for bad in ["", "x", "=x", "x="] {
            assert!(matches!(bad.parse::<LoaderFile>(), Err(LoaderError::Form(_))), "{bad}");
        }
    }
}
