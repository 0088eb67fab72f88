//! Images in a directory or an archive: OCI image layouts, and what `docker save` makes.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::document::{Descriptor, ImageConfig, Index};
use super::{Blobs, ImportError, MAX_DOCUMENT, MAX_LAYERS, parse};
use crate::image::archive::Unpacked;
use crate::image::progress::{Progress, Step};
use crate::image::root::RootSource;
use crate::image::tar::{Kind, TarReader};

/// Bytes hashed at a time.
const PIECE: usize = 1 << 18;

/// An OCI image layout (OCI image specification, "Image Layout").
pub(super) struct Layout {
    directory: PathBuf,
    tag: Option<String>,
    /// What errors call it.
    name: String,
}

impl Layout {
    pub(super) fn new(directory: PathBuf, tag: Option<String>, name: String) -> Self {
        Self { directory, tag, name }
    }

    fn blob(&self, descriptor: &Descriptor) -> PathBuf {
        self.directory.join("blobs").join(descriptor.digest.path())
    }

    /// The image that was asked for.
    fn choose(&self, index: Index) -> Result<Descriptor, ImportError> {
        let names = |all: &[Descriptor]| {
            let names: Vec<_> = all.iter().map(|one| one.name().unwrap_or("one without a name")).collect();
            if names.is_empty() { "no image".into() } else { names.join(", ") }
        };
        let there = names(&index.manifests);
        let mut fitting = index.manifests;
        fitting.retain(|one| self.tag.as_deref().is_none_or(|tag| one.is_called(tag)));
        let several = fitting.iter().any(|one| one.name() != fitting.first().and_then(Descriptor::name));
        if fitting.is_empty() || several {
            return Err(ImportError::Which { image: format!("oci:{}", self.directory.display()), there });
        }
        Index { manifests: fitting }.for_this_platform(&self.name)
    }
}

impl Blobs for Layout {
    fn first(&self) -> Result<Vec<u8>, ImportError> {
        let index = parse(&read(&self.directory.join("index.json"))?, "index.json")?;
        self.document(&self.choose(index)?, "manifest")
    }

    fn document(&self, descriptor: &Descriptor, what: &'static str) -> Result<Vec<u8>, ImportError> {
        let bytes = read(&self.blob(descriptor))?;
        descriptor.digest.check(&bytes, &format!("its {what}"))?;
        Ok(bytes)
    }

    fn layer(&self, descriptor: &Descriptor, progress: &dyn Progress) -> Result<PathBuf, ImportError> {
        let path = self.blob(descriptor);
        let file = File::open(&path).map_err(|source| ImportError::Read { path: path.clone(), source })?;
        let what = format!("the layer {}", descriptor.digest);
        let mut checker = descriptor.digest.checker();
        let bytes = pieces(file, |piece| {
            checker.update(piece);
            progress.advance(piece.len() as u64);
        });
        bytes.map_err(|source| ImportError::Read { path: path.clone(), source })?;
        checker.finish(&what)?;
        Ok(path)
    }
}

/// Unpacks the files of the archive `file` into `directory`, which is made.
pub(super) fn unpack(file: &Path, directory: &Path, progress: &dyn Progress) -> Result<(), ImportError> {
    let archive = |source| ImportError::Archive { path: file.to_owned(), source };
    let tar = |source| ImportError::Tar { path: file.to_owned(), source };
    progress.begin(Step::Archive, fs::metadata(file).ok().map(|metadata| metadata.len()));
    let mut reader = TarReader::new(Unpacked::open(file).map_err(archive)?);
    while let Some(member) = reader.next().map_err(tar)? {
        if member.kind != Kind::File {
            continue;
        }
        let path =
            directory.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&member.path));
        let write = |source| ImportError::Write { path: path.clone(), source };
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(write)?;
        reader.copy(&mut File::create(&path).map_err(write)?).map_err(tar)?;
        progress.advance(member.size);
    }
    reader.into_inner().finish().map_err(archive)?;
    progress.end();
    Ok(())
}

/// An image in what `docker save` made, unpacked.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: PathBuf,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<PathBuf>,
}

/// The layers of the image in `directory`, which has a `manifest.json` of Docker's. They are checked against the digests in the
/// image's configuration, which are those of the unpacked layers; the configuration itself has nothing to be checked against.
pub(super) fn docker_archive(
    directory: &Path,
    name: &str,
    tag: Option<&str>,
    progress: &dyn Progress,
) -> Result<RootSource, ImportError> {
    let list = directory.join("manifest.json");
    if !list.exists() {
        return Err(ImportError::NoImage(name.to_owned()));
    }
    let mut images: Vec<Saved> = parse(&read(&list)?, "manifest.json")?;
    let tags = |image: &Saved| image.repo_tags.clone().unwrap_or_default();
    let there = images.iter().flat_map(tags).collect::<Vec<_>>().join(", ");
    images.retain(|image| {
        let is_tag =
            |known: &String| tag.is_some_and(|tag| known == tag || known.ends_with(&format!(":{tag}")));
        tag.is_none() || tags(image).iter().any(is_tag)
    });
    let (Some(image), true) = (images.pop(), images.is_empty()) else {
        return Err(ImportError::Which { image: name.to_owned(), there });
    };
    let config: ImageConfig = parse(&read(&inside(directory, &image.config, name)?)?, "configuration")?;
    config.check(name)?;
    let digests = config.layers();
    if digests.len() != image.layers.len() {
        return Err(ImportError::NoImage(name.to_owned()));
    }
    if digests.len() > MAX_LAYERS {
        return Err(ImportError::TooMany { what: "layers", limit: MAX_LAYERS });
    }
    progress.begin(Step::Layers, None);
    let layer = |(path, digest): (&PathBuf, super::Digest)| {
        let path = inside(directory, path, name)?;
        let unpacked =
            Unpacked::open(&path).map_err(|source| ImportError::Archive { path: path.clone(), source })?;
        let mut checker = digest.checker();
        let bytes = pieces(unpacked, |piece| {
            checker.update(piece);
            progress.advance(piece.len() as u64);
        });
        bytes.map_err(|source| ImportError::Read { path: path.clone(), source })?;
        checker.finish(&format!("the layer {digest}"))?;
        Ok(path)
    };
    let layers = image.layers.iter().zip(digests).map(layer).collect::<Result<Vec<_>, ImportError>>()?;
    progress.end();
    Ok(RootSource::Layers { name: name.to_owned(), layers })
}

/// `path`, which an archive names, if it leads into `directory`.
fn inside(directory: &Path, path: &Path, name: &str) -> Result<PathBuf, ImportError> {
    let normal = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if normal { Ok(directory.join(path)) } else { Err(ImportError::NoImage(name.to_owned())) }
}

/// Reads a document.
fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_DOCUMENT).read_to_end(&mut bytes));
    read.map_err(|source| ImportError::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// Gives all of `input` to `each`, piece by piece.
pub(super) fn pieces(mut input: impl Read, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        each(buffer.get(..read).unwrap_or_default());
    }
}
