//! Copies the chosen modules and their part of the index into the first stage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::index::ModuleIndex;
use super::select::{Selection, unpacked_path};
use crate::image::cpio::{Archive, CpioError};
use crate::image::firmware;
use crate::image::tool::{GZIP, ToolError, XZ};

/// Largest module, unpacked, in bytes; the largest of a distribution has 12 MB.
const MAX_MODULE: u64 = 256 << 20;

/// Why the modules cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A module's file cannot be read or unpacked.
    #[error("cannot read the module `{}`: the kernel package is incomplete or damaged", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What unpacks modules failed.
    #[error("cannot unpack the module `{}`", path.display())]
    Unpack {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ToolError,
    },
    /// The archive refuses a file.
    #[error(transparent)]
    Archive(#[from] CpioError),
}

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::image) struct Packed {
    /// Files and bytes by what the modules are for.
    pub(in crate::image) classes: BTreeMap<&'static str, (usize, u64)>,
    /// Firmware files that they may ask for.
    pub(in crate::image) firmware: BTreeSet<String>,
}

/// What the module at `path` of a kernel's directory is for.
pub(in crate::image) fn class(path: &str) -> &'static str {
    const CLASSES: [(&str, &str); 14] = [
        ("kernel/drivers/net/", "network"),
        ("kernel/net/", "network"),
        ("kernel/fs/", "file systems"),
        ("kernel/drivers/ata/", "storage"),
        ("kernel/drivers/block/", "storage"),
        ("kernel/drivers/md/", "storage"),
        ("kernel/drivers/message/", "storage"),
        ("kernel/drivers/mmc/", "storage"),
        ("kernel/drivers/nvme/", "storage"),
        ("kernel/drivers/scsi/", "storage"),
        ("kernel/drivers/target/", "storage"),
        ("kernel/drivers/usb/storage/", "storage"),
        ("kernel/drivers/cdrom/", "storage"),
        ("kernel/block/", "storage"),
    ];
    CLASSES.iter().find(|(start, _)| path.starts_with(start)).map_or("other", |(_, class)| class)
}

/// Puts the modules of `selection`, files below `directory`, and their index into `archive` as `lib/modules/VERSION`.
/// Modules are stored unpacked: the archive as a whole compresses better, and the first stage has no decompressor.
pub(in crate::image) fn add_to(
    archive: &mut Archive,
    selection: &Selection,
    index: &ModuleIndex,
    directory: &Path,
    version: &str,
) -> Result<Packed, PackError> {
    let mut packed = Packed::default();
    let target = format!("lib/modules/{version}");
    archive.directory(&target)?;
    for name in &selection.modules {
        let Some(module) = index.modules.get(name) else { continue };
        let bytes = unpacked(&directory.join(&module.path))?;
        let class = packed.classes.entry(class(&module.path)).or_default();
        *class = (class.0 + 1, class.1 + bytes.len() as u64);
        packed.firmware.extend(firmware::wanted_by(&bytes));
        archive.file(&format!("{target}/{}", unpacked_path(&module.path)), 0o644, bytes)?;
    }
    for (name, text) in selection.index_files(index) {
        archive.file(&format!("{target}/{name}"), 0o644, text.into_bytes())?;
    }
    Ok(packed)
}

fn unpacked(path: &Path) -> Result<Vec<u8>, PackError> {
    let tool = |tool: crate::image::tool::Tool| {
        tool.filter(&["-dc"], path).map_err(|source| PackError::Unpack { path: path.to_owned(), source })
    };
    match path.extension().and_then(|suffix| suffix.to_str()) {
        Some("xz") => tool(XZ),
        Some("gz") => tool(GZIP),
        Some("zst") => read(path, zstd::Decoder::new),
        _ => read(path, Ok),
    }
}

fn read<R: std::io::Read>(
    path: &Path,
    decode: impl FnOnce(std::fs::File) -> std::io::Result<R>,
) -> Result<Vec<u8>, PackError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path)
        .and_then(decode)
        .and_then(|reader| reader.take(MAX_MODULE).read_to_end(&mut bytes));
    read.map_err(|source| PackError::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}
