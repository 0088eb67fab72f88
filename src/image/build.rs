//! Building an image from its parts, and putting it into the store.
//!
//! Everything that can be checked is checked before the long work begins: keys, loaders, kernel, modules, the whole
//! of the root. Nothing in the store changes until the image is whole; a build that fails leaves blobs at worst.

use std::path::{Path, PathBuf};
use std::thread;

use fabric::content::BlobRef;
use fabric::id::ObjectId;
use fabric::store::{Store, StoreError};
use fabric::trust::{
    Arch, Loader, Operator, Release, RootFormat, RootMode, SignedRelease, Statement, TrustError,
};
use serde::Serialize;

use super::firmware::{FirmwareReport, FirmwareSource};
use super::first_stage::{self, FirstStage, FirstStageError, Part, Recipe};
use super::heads::{self, HeadsError};
use super::kernel::{Kernel, KernelError, KernelSource};
use super::loaders::{self, LoaderError, LoaderFile};
use super::modules::Absent;
use super::progress::{Progress, Step};
use super::root::{Content, Root, RootError, RootSource};
use crate::memory;

/// Whether the modules of a kernel that is not the root's own are added to the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootModules {
    /// All of them, if the root has none for this kernel: the booted system can then load what it wants.
    Add,
    /// None: the booted system has the modules that the first stage loaded, and a smaller root.
    Leave,
}

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Where the root comes from.
    pub root: RootSource,
    /// Where the kernel comes from; `None`: out of the root.
    pub kernel: Option<KernelSource>,
    /// Name of the image.
    pub name: String,
    /// Its version, for people.
    pub version: String,
    /// Kernel arguments.
    pub cmdline: String,
    /// How nodes hold the root.
    pub root_mode: RootMode,
    /// Sets of kernel modules, and single ones, for the first stage.
    pub modules: Vec<String>,
    /// Whether the root gets modules.
    pub root_modules: RootModules,
    /// Where the first stage's firmware comes from.
    pub firmware: FirmwareSource,
    /// Tools for the first stage, by their absolute paths.
    pub tools: Vec<PathBuf>,
    /// Loaders beside, or instead of, the usual ones.
    pub loaders: Vec<LoaderFile>,
    /// The program that becomes `/init`.
    pub program: PathBuf,
    /// Whether the fabric is private.
    pub private: bool,
    /// Whether machines can install it on their disks.
    pub disk: bool,
    /// Whether busybox, where it is found, becomes the first stage's emergency shell.
    pub shell: bool,
}

/// What was built.
#[derive(Debug, Clone, Serialize)]
pub struct Built {
    /// Object id of the signed release.
    pub id: ObjectId,
    /// What was signed.
    pub release: Release,
    /// What the first stage holds, before compression.
    pub first_stage: Vec<Part>,
    /// How it is compressed.
    pub compression: &'static str,
    /// Members of module sets that the kernel does not have.
    pub absent_modules: Vec<Absent>,
    /// What was not found of the firmware that modules may ask for.
    pub firmware: FirmwareReport,
    /// Kernels at the same place that are older than the one taken.
    pub other_kernels: Vec<String>,
    /// Whether the kernel's modules were added to the root.
    pub modules_added_to_root: bool,
}

/// Why there is no image. Each names what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The first stage.
    #[error(transparent)]
    FirstStage(#[from] FirstStageError),
    /// A boot loader.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// The images in the store.
    #[error(transparent)]
    Image(#[from] HeadsError),
    /// The release.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A scratch directory of the store.
    #[error("cannot remove the temporary directory `{}`", path.display())]
    Scratch {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Checks what can be checked of `request` before there is a root: names, version, kernel line, loaders.
///
/// # Errors
/// [`BuildError::Trust`], [`BuildError::Loader`].
pub fn check(request: &BuildRequest) -> Result<(), BuildError> {
    check_words(request)?;
    loaders::read(&request.loaders)?;
    Ok(())
}

/// Builds the image of `request`, signs it as `operator` and puts it into `store`, where it becomes the one that bare
/// machines are booted with. Blocks for as long as it takes: seconds to minutes.
///
/// # Errors
/// [`BuildError`]; the images in the store are then as they were.
pub fn build(
    request: &BuildRequest,
    store: &Store,
    operator: &Operator,
    progress: &dyn Progress,
) -> Result<Built, BuildError> {
    let trust_root = operator.trust_root();
    check_words(request)?;
    let generation = heads::next_generation(store, &trust_root, &request.name)?;
    let loaders = loaders::read(&request.loaders)?;
    // A kernel of its own is looked at first: it is the more likely to be wrong, and the quicker to be read.
    let own_kernel = request.kernel.as_ref().map(Kernel::open).transpose()?;
    let root = Root::survey(&request.root, own_kernel.is_none(), store.path(), progress)?;
    let kernel = match own_kernel {
        Some(kernel) => kernel,
        None => Kernel::in_directory(root.kernel_directory(), "the root")?,
    };
    let recipe = Recipe {
        program: &request.program,
        trust_root: &trust_root,
        private: request.private,
        kernel: &kernel,
        modules: &request.modules,
        firmware: &request.firmware,
        root: &root,
        tools: &request.tools,
        disk: request.disk,
        shell: request.shell,
    };
    let planned = first_stage::plan(&recipe, progress)?;
    let add_modules = request.root_modules == RootModules::Add && !root.has_modules(&kernel.version);
    let scratch = Scratch::new(store)?;
    let squashfs = scratch.0.join("root.squashfs");
    let (content, first_stage) = thread::scope(|scope| {
        let first_stage = scope.spawn(|| planned.compress());
        let content = root.pack(add_modules.then_some(&kernel), &squashfs, progress);
        progress.begin(Step::FirstStage, None);
        let first_stage = first_stage.join();
        progress.end();
        (content, first_stage)
    });
    let content = content?;
    let first_stage = first_stage.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;

    let blobs = add_blobs(store, &kernel, &first_stage, &squashfs, loaders, progress)?;
    scratch.remove()?;
    let release = release(request, generation, &kernel.version, content, blobs);
    let signed = SignedRelease::sign(operator, &release)?;
    let id = heads::publish(store, &trust_root, &request.name, &signed)?;
    Ok(Built {
        id,
        release,
        first_stage: first_stage.parts,
        compression: first_stage.compression,
        absent_modules: first_stage.absent,
        firmware: first_stage.firmware,
        other_kernels: kernel.others,
        modules_added_to_root: add_modules,
    })
}

/// The blobs of an image.
struct Blobs {
    kernel: BlobRef,
    first_stage: BlobRef,
    root: BlobRef,
    loaders: Vec<Loader>,
}

fn add_blobs(
    store: &Store,
    kernel: &Kernel,
    first_stage: &FirstStage,
    squashfs: &Path,
    loaders: Vec<(String, Vec<u8>)>,
    progress: &dyn Progress,
) -> Result<Blobs, StoreError> {
    let size = std::fs::metadata(squashfs).ok().map(|metadata| metadata.len());
    progress.begin(Step::Store, size);
    let before = std::cell::Cell::new(0);
    let root =
        store.adopt_file(squashfs, &|done| progress.advance(done.saturating_sub(before.replace(done))))?;
    let loaders =
        loaders.into_iter().map(|(name, bytes)| Ok(Loader { name, blob: store.add_bytes(&bytes)? }));
    let loaders = loaders.collect::<Result<Vec<_>, StoreError>>()?;
    let blobs = Blobs {
        kernel: store.add_bytes(&kernel.bytes)?,
        first_stage: store.add_bytes(&first_stage.bytes)?,
        root,
        loaders,
    };
    progress.end();
    Ok(blobs)
}

fn release(
    request: &BuildRequest,
    generation: u64,
    kernel_version: &str,
    content: Content,
    blobs: Blobs,
) -> Release {
    let unpacked = memory::unpacked_word(content.bytes, content.inodes);
    let mut release = Release {
        name: request.name.clone(),
        version: request.version.clone(),
        generation,
        arch: Arch::X86_64,
        kernel: blobs.kernel,
        kernel_version: kernel_version.to_owned(),
        first_stage: blobs.first_stage,
        root: blobs.root,
        root_format: RootFormat::Squashfs,
        loaders: blobs.loaders,
        cmdline: format!("{} {unpacked}", request.cmdline).trim_start().to_owned(),
        root_mode: request.root_mode,
        memory_needed_mib: 0,
    };
    let needed = memory::needed_mib(&release, request.root_mode);
    release.memory_needed_mib = u32::try_from(needed).unwrap_or(u32::MAX);
    release
}

/// Refuses a name, version or kernel line that no release may have, before anything is built: the words of a release are
/// checked when it is encoded, whatever its blobs are.
fn check_words(request: &BuildRequest) -> Result<(), TrustError> {
    let stand_in = fabric::content::index_bytes(b"stand-in")
        .map(|index| index.reference())
        .map_err(|_| TrustError::Malformed { what: "release" })?;
    let loader = |name: &String| Loader { name: name.clone(), blob: stand_in };
    let loaders = request.loaders.iter().map(|file| loader(&file.name)).collect();
    let blobs = Blobs { kernel: stand_in, first_stage: stand_in, root: stand_in, loaders };
    release(request, 1, "0", Content::default(), blobs).to_payload().map(drop)
}

/// A directory in the store that goes with the build.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(store: &Store) -> Result<Self, StoreError> {
        store.scratch().map(Self)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn remove(self) -> Result<(), BuildError> {
        std::fs::remove_dir_all(&self.0)
            .map_err(|source| BuildError::Scratch { path: self.0.clone(), source })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // After a failure; the store removes what is left when it is opened next.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
