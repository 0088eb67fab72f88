//! Releases: which blobs make up an image, and how it is booted.
//!
//! What is on the wire ([`Wire`]) and what it means once checked ([`Release`]) are two types: words that this program
//! does not know, such as a root mode of a later version, get an error that names them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::TrustError;
use super::signed::{Signed, Statement};
use super::text::{check_line, check_name, check_word, shorten};
use crate::codec;
use crate::content::{BlobRef, MAX_BLOB};

/// Longest kernel command line of a release (characters). Kernels take 2047 on x86; the rest is for what the boot
/// script adds.
const MAX_CMDLINE: usize = 1024;

/// Most loaders of a release: two per architecture and firmware kind, with room.
const MAX_LOADERS: usize = 16;

/// The processor architecture of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

/// How the root filesystem is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootFormat {
    /// A squashfs that every distribution's kernel can mount.
    Squashfs,
}

/// How a node holds its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootMode {
    /// The mounted blob below a writable filesystem in RAM.
    Overlay,
    /// Unpacked into a filesystem on compressed RAM.
    Zram,
    /// Unpacked into plain RAM.
    Tmpfs,
}

macro_rules! words {
    ($type:ident, $what:literal, $($word:literal => $value:ident),+) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$value => $word),+ })
            }
        }

        impl FromStr for $type {
            type Err = TrustError;

            fn from_str(word: &str) -> Result<Self, TrustError> {
                match word {
                    $($word => Ok(Self::$value),)+
                    _ => {
                        let known = [$($word),+].join(", ");
                        let word = shorten(word);
                        let why = format!("`{}` is unknown; this program knows: {known}", word.escape_default());
                        Err(TrustError::Invalid { what: $what, why })
                    }
                }
            }
        }
    };
}

words!(Arch, "architecture", "x86_64" => X86_64, "aarch64" => Aarch64);
words!(RootFormat, "root format", "squashfs" => Squashfs);
words!(RootMode, "root mode", "overlay" => Overlay, "zram" => Zram, "tmpfs" => Tmpfs);

/// A program that firmware loads first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Loader {
    /// The file name under which firmware asks for it, such as `undionly.kpxe`.
    pub name: String,
    /// Its content.
    pub blob: BlobRef,
}

/// One version of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Name of the image: 1 to 64 of `a-z 0-9 . _ -`.
    pub name: String,
    /// Version for people: one printable ASCII word. Only the generation orders releases.
    pub version: String,
    /// Place in the order of releases of this name; at least 1.
    pub generation: u64,
    /// The architecture.
    pub arch: Arch,
    /// The kernel.
    pub kernel: BlobRef,
    /// What `uname -r` says under this kernel.
    pub kernel_version: String,
    /// The initramfs whose `/init` is this program.
    pub first_stage: BlobRef,
    /// The root filesystem.
    pub root: BlobRef,
    /// How the root filesystem is packed.
    pub root_format: RootFormat,
    /// The programs that firmware loads first, each name once.
    pub loaders: Vec<Loader>,
    /// Kernel arguments of the image: printable ASCII, at most 1024 characters.
    pub cmdline: String,
    /// How nodes hold the root.
    pub root_mode: RootMode,
    /// The RAM that a machine needs to boot this release (MiB).
    pub memory_needed_mib: u32,
}

/// Format 1 of a release.
#[derive(Serialize, Deserialize)]
struct Wire {
    name: String,
    version: String,
    generation: u64,
    arch: String,
    kernel: BlobRef,
    kernel_version: String,
    first_stage: BlobRef,
    root: BlobRef,
    root_format: String,
    loaders: Vec<Loader>,
    cmdline: String,
    root_mode: String,
    memory_needed_mib: u32,
}

impl Release {
    /// All blobs, boot blobs first: loaders, kernel, first stage, then the root.
    pub fn blobs(&self) -> impl Iterator<Item = &BlobRef> {
        self.boot_blobs().chain([&self.root])
    }

    /// The blobs that firmware and loaders ask for: loaders, kernel, first stage.
    pub fn boot_blobs(&self) -> impl Iterator<Item = &BlobRef> {
        self.loaders.iter().map(|loader| &loader.blob).chain([&self.kernel, &self.first_stage])
    }

    /// All blobs and what they are: a loader's name, `kernel`, `first-stage`, `root`; in the order of [`Release::blobs`].
    pub fn roles(&self) -> impl Iterator<Item = (&str, &BlobRef)> {
        let loaders = self.loaders.iter().map(|loader| (loader.name.as_str(), &loader.blob));
        loaders.chain([("kernel", &self.kernel), ("first-stage", &self.first_stage), ("root", &self.root)])
    }

    fn check(&self) -> Result<(), String> {
        check_name("the name", &self.name)?;
        check_word("the version", &self.version)?;
        check_word("the kernel version", &self.kernel_version)?;
        check_line("the kernel command line", &self.cmdline, MAX_CMDLINE)?;
        if self.generation == 0 {
            return Err("the generation is 0: the first is 1".into());
        }
        if self.loaders.len() > MAX_LOADERS {
            return Err(format!("{} loaders, at most {MAX_LOADERS} are allowed", self.loaders.len()));
        }
        for (at, loader) in self.loaders.iter().enumerate() {
            check_name("the loader", &loader.name)?;
            if self.loaders.iter().take(at).any(|other| other.name == loader.name) {
                return Err(format!("there are two loaders `{}`", loader.name));
            }
        }
        match self.blobs().find(|blob| !(1..=MAX_BLOB).contains(&blob.size)) {
            Some(blob) => {
                Err(format!("blob {} has {} bytes, 1 to {MAX_BLOB} are allowed", blob.blob, blob.size))
            }
            None => Ok(()),
        }
    }
}

/// A signed [`Release`].
pub type SignedRelease = Signed<Release>;

impl Statement for Release {
    const KIND: u8 = 1;
    const NAME: &'static str = "release";
    const FORMAT: u8 = 1;
    /// The longest texts and the most loaders need a tenth of it.
    const MAX_PAYLOAD: usize = 32 << 10;

    fn to_payload(&self) -> Result<Vec<u8>, TrustError> {
        self.check().map_err(|why| TrustError::Invalid { what: Self::NAME, why })?;
        let release = self.clone();
        let wire = Wire {
            name: release.name,
            version: release.version,
            generation: release.generation,
            arch: release.arch.to_string(),
            kernel: release.kernel,
            kernel_version: release.kernel_version,
            first_stage: release.first_stage,
            root: release.root,
            root_format: release.root_format.to_string(),
            loaders: release.loaders,
            cmdline: release.cmdline,
            root_mode: release.root_mode.to_string(),
            memory_needed_mib: release.memory_needed_mib,
        };
        codec::encode(Self::NAME, &wire).map_err(|_| TrustError::Malformed { what: Self::NAME })
    }

    fn from_payload(_: u8, payload: &[u8]) -> Result<Self, TrustError> {
        let wire: Wire =
            codec::decode(Self::NAME, payload).map_err(|_| TrustError::Malformed { what: Self::NAME })?;
        let release = Self {
            name: wire.name,
            version: wire.version,
            generation: wire.generation,
            arch: wire.arch.parse()?,
            kernel: wire.kernel,
            kernel_version: wire.kernel_version,
            first_stage: wire.first_stage,
            root: wire.root,
            root_format: wire.root_format.parse()?,
            loaders: wire.loaders,
            cmdline: wire.cmdline,
            root_mode: wire.root_mode.parse()?,
            memory_needed_mib: wire.memory_needed_mib,
        };
        release.check().map_err(|why| TrustError::Invalid { what: Self::NAME, why })?;
        Ok(release)
    }
}

#[cfg(test)]
#[path = "release_tests.rs"]
mod tests;
