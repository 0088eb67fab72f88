//! Container images as roots: from an image layout, an archive, or a registry.
//!
//! | module | owns |
//! |---|---|
//! | `source` | what an operator types |
//! | `document` | indexes, manifests and configurations, and the choice of the platform |
//! | `digest` | SHA-256 and SHA-512 of what comes in |
//! | `layout` | images in a directory or an archive |
//! | `registry` | images behind HTTP |
//! | `credentials`, `certificates` | who asks for them, and whom to believe |
//!
//! Sources: OCI image specification 1.1, OCI distribution specification 1.1, and the formats of Docker that these grew from.
//! All that is read was checked by its digest before: index by reference, manifest by index, configuration and layers by
//! manifest. What comes out is a list of files with layers; laying them over each other is the root's matter. Nothing of an image
//! but its files is used: no command, environment or user.

mod certificates;
mod credentials;
mod digest;
mod document;
mod layout;
mod registry;
mod registry_error;
mod source;

use std::io;
use std::path::{Path, PathBuf};

pub use digest::Digest;
use document::{Descriptor, Document, ImageConfig, Manifest};
pub use registry_error::RegistryError;
pub use source::{ImageSource, SourceError};

use super::archive::ArchiveError;
use super::progress::{Progress, Step};
use super::root::{RootError, RootSource};
use super::tar::TarError;

/// Largest index, manifest or configuration, in bytes: what registries take for a manifest (distribution specification,
/// "Pushing Manifests").
const MAX_DOCUMENT: u64 = 4 << 20;

/// Most layers of an image; container tools stop at 127.
const MAX_LAYERS: usize = 512;

/// Most indexes on the way to a manifest.
const MAX_INDEXES: usize = 4;

/// Why there is no root from a container image.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// What was typed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A directory or a tar that is none.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A file of an image layout.
    #[error("cannot read `{}` of the image", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An archive with an image in it.
    #[error("cannot unpack the archive `{}`", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: ArchiveError,
    },
    /// The same, as a tar.
    #[error("cannot use the archive `{}`", path.display())]
    Tar {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: TarError,
    },
    /// Scratch files.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Content is not what its digest says.
    #[error(
        "the image is refused: {what} should be {expected}, and is {found}: it was damaged or exchanged, get it again"
    )]
    Digest {
        /// Layer, manifest or configuration.
        what: String,
        /// What the image says.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A layer is longer or shorter than its manifest says.
    #[error("the image is refused: {what} should have {expected} bytes, and has {found}")]
    Size {
        /// Layer, manifest or configuration.
        what: String,
        /// Bytes that it should have.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// JSON that makes no sense.
    #[error("the image is refused: its {what} is malformed")]
    Document {
        /// Which.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// JSON of a kind that is no image.
    #[error(
        "`{0}` is no container image for Linux: it has neither layers nor a list of manifests (images of Docker's first format are not read)"
    )]
    NoImage(String),
    /// Too much of something.
    #[error("the image is refused: it has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many may be.
        limit: usize,
    },
    /// None for x86-64.
    #[error("`{image}` has no variant for linux/amd64, which images are for; it has {there}")]
    Platform {
        /// The image.
        image: String,
        /// The platforms that it has.
        there: String,
    },
    /// A layout with several images.
    #[error("`{image}` holds {there}: name one as {image}:TAG")]
    Which {
        /// The layout.
        image: String,
        /// The tags in it.
        there: String,
    },
}

/// What leads to an image: a layout or a registry.
trait Blobs {
    /// The document that the source names, checked if it was named by digest.
    fn first(&self) -> Result<Vec<u8>, ImportError>;
    /// Another document, checked.
    fn document(&self, descriptor: &Descriptor, what: &'static str) -> Result<Vec<u8>, ImportError>;
    /// A file with the layer, checked.
    fn layer(&self, descriptor: &Descriptor, progress: &dyn Progress) -> Result<PathBuf, ImportError>;
}

/// How registries are spoken to.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImportOptions {
    /// HTTP without TLS, for registries other than those on this machine.
    pub plain_http: bool,
}

/// Makes a root of `source`. What has to be unpacked or downloaded goes into `scratch`, which must stay until the root is
/// packed. Blocks for as long as it takes.
///
/// # Errors
/// [`ImportError`]; `scratch` may then hold parts.
pub fn open(
    source: &ImageSource,
    scratch: &Path,
    options: ImportOptions,
    progress: &dyn Progress,
) -> Result<RootSource, ImportError> {
    let blobs: Box<dyn Blobs> = match source {
        ImageSource::Root(path) => return Ok(RootSource::detect(path)?),
        ImageSource::Layout { directory, tag } => {
            Box::new(layout::Layout::new(directory.clone(), tag.clone(), source.to_string()))
        }
        ImageSource::Archive { file, tag } => {
            let directory = scratch.join("archive");
            layout::unpack(file, &directory, progress)?;
            if !directory.join("index.json").exists() {
                return layout::docker_archive(&directory, &source.to_string(), tag.as_deref(), progress);
            }
            Box::new(layout::Layout::new(directory, tag.clone(), source.to_string()))
        }
        ImageSource::Registry(reference) => {
            let credentials = credentials::find(reference)?;
            Box::new(registry::Registry::new(reference.clone(), credentials, options.plain_http, scratch)?)
        }
    };
    let name = source.to_string();
    let manifest = manifest(&*blobs, &name)?;
    let config = blobs.document(&manifest.config, "configuration")?;
    parse::<ImageConfig>(&config, "configuration")?.check(&name)?;
    if manifest.layers.len() > MAX_LAYERS {
        return Err(ImportError::TooMany { what: "layers", limit: MAX_LAYERS });
    }
    progress.begin(Step::Layers, Some(manifest.layers.iter().map(|layer| layer.size).sum()));
    let layers = manifest.layers.iter().map(|layer| blobs.layer(layer, progress));
    let layers = layers.collect::<Result<Vec<_>, _>>()?;
    progress.end();
    Ok(RootSource::Layers { name, layers })
}

/// Follows indexes to the manifest for this platform.
fn manifest(blobs: &dyn Blobs, name: &str) -> Result<Manifest, ImportError> {
    let mut bytes = blobs.first()?;
    for _ in 0..MAX_INDEXES {
        match parse::<Document>(&bytes, "manifest")? {
            Document::Manifest(manifest) => return Ok(manifest),
            Document::Index(index) => bytes = blobs.document(&index.for_this_platform(name)?, "manifest")?,
            Document::Other {} => return Err(ImportError::NoImage(name.to_owned())),
        }
    }
    Err(ImportError::TooMany { what: "indexes on the way to its manifest", limit: MAX_INDEXES })
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, ImportError> {
    serde_json::from_slice(bytes).map_err(|source| ImportError::Document { what, source })
}

#[cfg(test)]
#[path = "oci/tests.rs"]
mod tests;
