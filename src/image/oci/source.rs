//! What an operator types for an image.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::digest::Digest;

/// Docker's own registry, and where it is.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// Where a root comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A directory or a tar with a root in it.
    Root(PathBuf),
    /// `oci:DIR[:TAG]`: an OCI image layout.
    Layout {
        /// Its directory.
        directory: PathBuf,
        /// Which image of it; none: the only one.
        tag: Option<String>,
    },
    /// `oci-archive:FILE[:TAG]` or `docker-archive:FILE[:TAG]`: a tar with such a layout, or what `docker save` made.
    Archive {
        /// The tar.
        file: PathBuf,
        /// Which image of it; none: the only one.
        tag: Option<String>,
    },
    /// `docker://[HOST[:PORT]/]NAME[:TAG|@DIGEST]`: an image in a registry.
    Registry(Reference),
}

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The registry as people and container tools call it, with its port.
    pub(super) host: String,
    /// Name of the repository.
    pub(super) repository: String,
    /// A tag, or a digest, which is what counts of the two.
    pub(super) version: Version,
}

/// Which of a repository's images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Version {
    Tag(String),
    Digest(Digest),
}

/// Why text is no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// A scheme that nobody knows.
    #[error(
        "`{0}` is no source: expected a directory, a tar, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:TAG] or docker://[HOST/]NAME[:TAG|@DIGEST]"
    )]
    Scheme(String),
    /// No image of a registry.
    #[error("`{text}` names no image of a registry: {what}")]
    Reference {
        /// What was typed.
        text: String,
        /// What is wrong.
        what: String,
    },
}

impl FromStr for ImageSource {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let with_tag = |rest: &str| {
            let tagged =
                rest.rsplit_once(':').filter(|(_, tag)| !tag.contains('/') && !Path::new(rest).exists());
            tagged.map_or((PathBuf::from(rest), None), |(path, tag)| (path.into(), Some(tag.to_owned())))
        };
        if let Some(rest) = text.strip_prefix("docker://") {
            return rest.parse().map(Self::Registry);
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            let (directory, tag) = with_tag(rest);
            return Ok(Self::Layout { directory, tag });
        }
        if let Some(rest) =
            ["oci-archive:", "docker-archive:"].iter().find_map(|start| text.strip_prefix(start))
        {
            let (file, tag) = with_tag(rest);
            return Ok(Self::Archive { file, tag });
        }
        let path = PathBuf::from(text);
        if path.join("oci-layout").is_file() {
            return Ok(Self::Layout { directory: path, tag: None });
        }
        let scheme = text.split_once(':').is_some_and(|(start, _)| !start.contains('/'));
        if scheme && !path.exists() {
            Err(SourceError::Scheme(text.to_owned()))
        } else {
            Ok(Self::Root(path))
        }
    }
}

impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, path, tag) = match self {
            Self::Root(path) => ("", path, &None),
            Self::Layout { directory, tag } => ("oci:", directory, tag),
            Self::Archive { file, tag } => ("oci-archive:", file, tag),
            Self::Registry(reference) => return write!(f, "docker://{reference}"),
        };
        write!(f, "{start}{}", path.display())?;
        tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
    }
}

impl Reference {
    /// Host and port to connect to.
    pub(super) fn server(&self) -> &str {
        if self.host == DOCKER_HUB.0 { DOCKER_HUB.1 } else { &self.host }
    }
}

/// Whether `host`, which may have a port, is this machine, where nobody listens in.
pub(super) fn is_local(host: &str) -> bool {
    let with_port = host.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
    let name = with_port.map_or(host, |(name, _)| name);
    name == "localhost"
        || name == "[::1]"
        || name.parse().is_ok_and(|ip: std::net::Ipv4Addr| ip.is_loopback())
}

impl FromStr for Reference {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let error = |what: &str| SourceError::Reference { text: text.to_owned(), what: what.to_owned() };
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        let (host, rest) = match text.split_once('/') {
            Some((host, rest)) if is_host(host) => (host.to_owned(), rest.to_owned()),
            Some(_) => (DOCKER_HUB.0.to_owned(), text.to_owned()),
            None => (DOCKER_HUB.0.to_owned(), format!("library/{text}")),
        };
        let (named, digest) = match rest.split_once('@') {
            Some((named, digest)) => {
                (named, Some(digest.parse::<Digest>().map_err(|bad| error(&bad.to_string()))?))
            }
            None => (rest.as_str(), None),
        };
        let (repository, tag) = named.split_once(':').unwrap_or((named, "latest"));
        let word = |text: &str, more: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.as_bytes().contains(&byte))
        };
        let lower = repository.bytes().all(|byte| !byte.is_ascii_uppercase());
        if !lower || !repository.split('/').all(|part| word(part, "._-") && part.trim_matches('.') == part) {
            return Err(error("a repository has parts of a-z 0-9 . _ - with / between them"));
        }
        if !word(tag, "._-") || tag.len() > 128 {
            return Err(error("a tag has at most 128 of A-Z a-z 0-9 . _ -"));
        }
        if !word(&host, ".-:[]") {
            return Err(error("a registry is HOST or HOST:PORT"));
        }
        let version = digest.map_or_else(|| Version::Tag(tag.to_owned()), Version::Digest);
        Ok(Self { host, repository: repository.to_owned(), version })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, repository, version } = self;
        match version {
            Version::Tag(tag) => write!(f, "{host}/{repository}:{tag}"),
            Version::Digest(digest) => write!(f, "{host}/{repository}@{digest}"),
        }
    }
}
