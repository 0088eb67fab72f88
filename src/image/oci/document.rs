//! The JSON of container images, as far as finding their layers takes (OCI image specification: "Image Index", "Image Manifest",
//! "Image Configuration"; Docker's image manifest version 2, schema 2, has the same fields).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::ImportError;
use super::digest::Digest;

/// Annotation with what an image in a layout is called (OCI image specification, "Annotations").
const NAME: &str = "org.opencontainers.image.ref.name";

/// What a reference leads to.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Document {
    Manifest(Manifest),
    Index(Index),
    Other {},
}

/// An image for one platform.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Descriptor,
    /// The lowest first.
    pub(super) layers: Vec<Descriptor>,
}

/// Images for several platforms, or of several names.
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    pub(super) manifests: Vec<Descriptor>,
}

/// Names content.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Descriptor {
    pub(super) digest: Digest,
    /// Bytes.
    pub(super) size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// What an image says of itself.
#[derive(Debug, Deserialize)]
pub(super) struct ImageConfig {
    #[serde(flatten)]
    platform: Option<Platform>,
    #[serde(default)]
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

impl Platform {
    fn is_ours(&self) -> bool {
        self.os == "linux" && self.architecture == "amd64"
    }

    fn text(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }
}

impl Descriptor {
    /// What the image is called in a layout: its tag, or a whole reference.
    pub(super) fn name(&self) -> Option<&str> {
        self.annotations.get(NAME).map(String::as_str)
    }

    pub(super) fn is_called(&self, tag: &str) -> bool {
        self.name()
            .is_some_and(|name| name == tag || name.rsplit_once(':').is_some_and(|(_, end)| end == tag))
    }
}

impl Index {
    /// The manifest for 64-bit x86 of an index that holds variants of the image `name`.
    pub(super) fn for_this_platform(mut self, name: &str) -> Result<Descriptor, ImportError> {
        if let [_] = self.manifests.as_slice()
            && let Some(only) = self.manifests.pop()
        {
            return Ok(only);
        }
        let platforms = || self.manifests.iter().filter_map(|manifest| manifest.platform.as_ref());
        let there: Vec<_> =
            platforms().map(Platform::text).filter(|text| text != "unknown/unknown").collect();
        let ours = self.manifests.iter().find(|one| one.platform.as_ref().is_some_and(Platform::is_ours));
        ours.cloned().ok_or_else(|| ImportError::Platform {
            image: name.to_owned(),
            there: if there.is_empty() { "none".into() } else { there.join(", ") },
        })
    }
}

impl ImageConfig {
    /// Refuses an image for another platform.
    pub(super) fn check(&self, name: &str) -> Result<(), ImportError> {
        match &self.platform {
            Some(platform) if !platform.is_ours() => {
                Err(ImportError::Platform { image: name.to_owned(), there: platform.text() })
            }
            _ => Ok(()),
        }
    }

    /// Digests of the layers before they are compressed, the lowest first.
    pub(super) fn layers(self) -> Vec<Digest> {
        self.rootfs.diff_ids
    }
}
