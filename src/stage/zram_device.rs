//! Compressed memory as a block device.
//!
//! Owns the zram driver's files (linux/Documentation/admin-guide/blockdev/zram.rst). The device is as large as what may be
//! kept on it at worst, uncompressed: whoever fills it is told "no space left" by the file-system, and never meets a
//! device that cannot take what was promised, nor a machine without memory. What compresses takes less.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::modules::{LoadError, Modules};
use super::root::options::Compression;

/// Where devices are made and taken away.
const CONTROL: &str = "/sys/class/zram-control";

/// Compressors in the order in which they are tried: the densest first, as memory is what this is about.
const COMPRESSIONS: [Compression; 3] = [Compression::Zstd, Compression::Lz4, Compression::LzoRle];

/// The driver keeps what does not compress as it is, in whole pages, and a little about each. Its limit is above the
/// device's size by one part in this many, so that it is never what stops a writer.
const OVERHEAD: u64 = 16;

/// No compressed memory.
#[derive(Debug, thiserror::Error)]
pub(super) enum ZramError {
    /// The kernel has no such driver.
    #[error("no zram driver")]
    NoDriver(#[source] LoadError),
    /// The driver does not take it.
    #[error("zram does not take `{value}` in {path}")]
    Set {
        /// The driver's file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The driver says nothing.
    #[error("cannot read {path}")]
    Read {
        /// The driver's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A device of its own. It goes when this does, unless it is mounted.
#[derive(Debug)]
pub(super) struct Zram {
    number: u32,
    compression: String,
}

/// What is on a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    /// As its users see it.
    pub(super) original: u64,
    /// Memory that it takes, all told.
    pub(super) used: u64,
}

impl Zram {
    /// Makes a device of `size` bytes.
    pub(super) fn new(
        modules: Option<&mut Modules>,
        compression: Option<Compression>,
        size: u64,
    ) -> Result<Self, ZramError> {
        modules.map_or(Ok(()), |modules| modules.load("zram")).map_err(ZramError::NoDriver)?;
        let number = read(&Path::new(CONTROL).join("hot_add"))?;
        let number = number.trim().parse().unwrap_or(0);
        let mut device = Self { number, compression: String::new() };
        device.compress(compression)?;
        device.set("disksize", &size.to_string())?;
        device.set("mem_limit", &(size + size / OVERHEAD).to_string())?;
        Ok(device)
    }

    /// Chooses a compressor: `wanted`, or the first that the kernel has.
    fn compress(&mut self, wanted: Option<Compression>) -> Result<(), ZramError> {
        let known = read(&self.file("comp_algorithm"))?;
        let known = names(&known);
        let chosen = match wanted {
            Some(wanted) => Some(wanted.name()),
            None => COMPRESSIONS.iter().map(|one| one.name()).find(|name| known.contains(name)),
        };
        if let Some(name) = chosen {
            self.set("comp_algorithm", name)?;
        }
        let now = read(&self.file("comp_algorithm"))?;
        self.compression = current(&now).unwrap_or("unknown").to_owned();
        Ok(())
    }

    /// The device's node.
    pub(super) fn node(&self) -> PathBuf {
        PathBuf::from(format!("/dev/zram{}", self.number))
    }

    /// The kernel's name of its compressor.
    pub(super) fn compression(&self) -> String {
        self.compression.clone()
    }

    /// What is on it.
    pub(super) fn usage(&self) -> Result<Usage, ZramError> {
        let path = self.file("mm_stat");
        let text = read(&path)?;
        usage(&text).ok_or_else(|| ZramError::Read { path, source: io::ErrorKind::InvalidData.into() })
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new("/sys/block").join(format!("zram{}", self.number)).join(name)
    }

    fn set(&self, name: &str, value: &str) -> Result<(), ZramError> {
        let path = self.file(name);
        fs::write(&path, value).map_err(|source| ZramError::Set { path, value: value.to_owned(), source })
    }
}

impl Drop for Zram {
    fn drop(&mut self) {
        // One that is mounted stays, which is right.
        let _ = fs::write(Path::new(CONTROL).join("hot_remove"), self.number.to_string());
    }
}

fn read(path: &Path) -> Result<String, ZramError> {
    fs::read_to_string(path).map_err(|source| ZramError::Read { path: path.to_owned(), source })
}

/// The names in `lzo [lzo-rle] zstd`.
fn names(text: &str) -> Vec<&str> {
    text.split_whitespace().map(|word| word.trim_matches(['[', ']'])).collect()
}

/// The name in brackets.
fn current(text: &str) -> Option<&str> {
    text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
}

/// `mm_stat`: bytes as they are, compressed, and used in all are its first three numbers.
fn usage(text: &str) -> Option<Usage> {
    let mut numbers = text.split_whitespace().map(str::parse);
    let (original, _, used) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(Usage { original, used })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_s_files_are_understood() {
        let text = "lzo [lzo-rle] lz4 zstd \n";
        assert_eq!(names(text), ["lzo", "lzo-rle", "lz4", "zstd"]);
        assert_eq!(current(text), Some("lzo-rle"));
        assert_eq!(current("lzo"), None);
        let stat = " 12288     3504    16384        0    20480        1        0        0        0\n";
        assert_eq!(usage(stat), Some(Usage { original: 12288, used: 16384 }));
        assert_eq!(usage("1 x 3"), None);
        assert_eq!(usage(""), None);
    }
}
