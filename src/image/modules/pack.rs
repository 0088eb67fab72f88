//! Copies the chosen modules and their part of the index into the first stage.

use std::path::{Path, PathBuf};

use super::index::ModuleIndex;
use super::select::{Selection, unpacked_path};
use crate::image::cpio::{Archive, CpioError};
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

/// Puts the modules of `selection`, files below `directory`, and their index into `archive` as `lib/modules/VERSION`.
/// Modules are stored unpacked: the archive as a whole compresses better, and the first stage has no decompressor.
pub(in crate::image) fn add_to(
    archive: &mut Archive,
    selection: &Selection,
    index: &ModuleIndex,
    directory: &Path,
    version: &str,
) -> Result<(), PackError> {
    let target = format!("lib/modules/{version}");
    archive.directory(&target)?;
    for name in &selection.modules {
        let Some(module) = index.modules.get(name) else { continue };
        let bytes = unpacked(&directory.join(&module.path))?;
        archive.file(&format!("{target}/{}", unpacked_path(&module.path)), 0o644, bytes)?;
    }
    for (name, text) in selection.index_files(index) {
        archive.file(&format!("{target}/{name}"), 0o644, text.into_bytes())?;
    }
    Ok(())
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
