//! Where an image's kernel comes from: a Debian package, a directory, files, or the root itself.
//!
//! Owns finding the kernel and its modules in the places that distributions use, checking that the two belong together,
//! and making the module index where it is missing. Never changes what the operator gave: what has to be written goes
//! into a temporary directory.

mod bzimage;
mod find;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

pub use bzimage::KernelImageError;
#[cfg(test)]
pub(super) use bzimage::tests::sample as sample_kernel;
pub(super) use find::is_part as is_part_of_kernel;

use super::tool::{DEPMOD, DPKG_DEB, ToolError};

/// First bytes of a Debian package.
const PACKAGE_MAGIC: &[u8] = b"!<arch>\n";

/// Largest kernel that is read, in bytes; distributions' are below 20 MB.
const MAX_KERNEL: u64 = 512 << 20;

/// Where to take the kernel from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelSource {
    /// A Debian package of a kernel, such as `linux-image-6.1.0-40-amd64_….deb`.
    Package(PathBuf),
    /// A directory laid out like `/`: an unpacked package, or a root.
    Directory(PathBuf),
    /// A kernel, and the directory of its modules: `lib/modules/VERSION`, or one that has it somewhere below as such.
    Files {
        /// The kernel.
        vmlinuz: PathBuf,
        /// Its modules.
        modules: PathBuf,
    },
}

impl KernelSource {
    /// What `path` (and, for a bare kernel, `modules`) stands for, by looking at it.
    ///
    /// # Errors
    /// [`KernelError::Read`] if `path` cannot be read, [`KernelError::NoModuleDirectory`] for a bare kernel alone.
    pub fn detect(path: &Path, modules: Option<&Path>) -> Result<Self, KernelError> {
        let error = |source| KernelError::Read { path: path.to_owned(), source };
        if fs::metadata(path).map_err(error)?.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        let mut magic = [0; PACKAGE_MAGIC.len()];
        if fs::File::open(path).map_err(error)?.read_exact(&mut magic).is_ok() && magic == PACKAGE_MAGIC {
            return Ok(Self::Package(path.to_owned()));
        }
        let modules = modules.ok_or_else(|| KernelError::NoModuleDirectory(path.to_owned()))?;
        Ok(Self::Files { vmlinuz: path.to_owned(), modules: modules.to_owned() })
    }
}

/// Why there is no usable kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A file or directory cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A bare kernel without modules.
    #[error("`{}` is a kernel without modules: name their directory (lib/modules/VERSION) with --module-dir", .0.display())]
    NoModuleDirectory(PathBuf),
    /// No kernel found.
    #[error(
        "there is no kernel in {place} (looked for boot/vmlinuz-VERSION and lib/modules/VERSION/vmlinuz): an image needs one. Name a kernel package with --kernel, on Debian one that `apt-get download linux-image-amd64` or one of its dependencies gave"
    )]
    NoKernel {
        /// Where it was looked for.
        place: String,
    },
    /// A kernel without its modules.
    #[error(
        "there are no modules for kernel {version} in {place} (lib/modules/{version}): take kernel and modules from one package"
    )]
    NoModules {
        /// Version of the kernel.
        version: String,
        /// Where they were looked for.
        place: String,
    },
    /// Not a kernel that can be booted.
    #[error("`{}` cannot be booted", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: KernelImageError,
    },
    /// Kernel and modules do not belong together.
    #[error("`{}` is kernel {inside}, its modules are for {named}: take both from one package", path.display())]
    OtherVersion {
        /// The kernel.
        path: PathBuf,
        /// The version in the file.
        inside: String,
        /// The version of the modules.
        named: String,
    },
    /// An external program failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A temporary directory cannot be used.
    #[error("cannot write to a temporary directory (TMPDIR names another place for it)")]
    Temporary(#[source] std::io::Error),
}

/// A kernel with its modules.
#[derive(Debug)]
pub(super) struct Kernel {
    /// What `uname -r` will say.
    pub(super) version: String,
    /// The bzImage.
    pub(super) bytes: Vec<u8>,
    /// Directory of the modules, `lib/modules/VERSION`.
    pub(super) modules: PathBuf,
    /// Directory of `modules.dep` and the like: the same, or a temporary one.
    pub(super) index: PathBuf,
    /// Older kernels that were found at the same place and not taken.
    pub(super) others: Vec<String>,
    /// Whether the kernel says that it can unpack an initramfs compressed with zstd; `None` if its configuration is not there.
    pub(super) unpacks_zstd: Option<bool>,
    /// Directories that the paths above may lead into.
    kept: Vec<TempDir>,
}

impl Kernel {
    /// Finds the kernel of `source` and checks it.
    pub(super) fn open(source: &KernelSource) -> Result<Self, KernelError> {
        match source {
            KernelSource::Package(path) => {
                let dir = TempDir::new().map_err(KernelError::Temporary)?;
                DPKG_DEB.run([Path::new("-x"), path, dir.path()])?;
                let place = format!("the package {}", path.display());
                Self::in_directory(dir.path(), &place).map(|kernel| kernel.keeping(dir))
            }
            KernelSource::Directory(path) => Self::in_directory(path, &path.display().to_string()),
            KernelSource::Files { vmlinuz, modules } => {
                let (bytes, version) = read_kernel(vmlinuz)?;
                let found = find::modules_of(modules, &version).ok_or_else(|| KernelError::NoModules {
                    version: version.clone(),
                    place: modules.display().to_string(),
                })?;
                Self::complete(version, bytes, found, None, Vec::new())
            }
        }
    }

    /// Finds the newest kernel in a directory laid out like `/`; `place` names it in errors.
    pub(super) fn in_directory(root: &Path, place: &str) -> Result<Self, KernelError> {
        let mut found = find::kernels(root);
        let newest = found.pop().ok_or_else(|| KernelError::NoKernel { place: place.to_owned() })?;
        let (bytes, inside) = read_kernel(&newest.vmlinuz)?;
        if inside != newest.version {
            return Err(KernelError::OtherVersion { path: newest.vmlinuz, inside, named: newest.version });
        }
        let version = newest.version;
        let modules = find::modules_below(root, &version)
            .ok_or_else(|| KernelError::NoModules { version: version.clone(), place: place.to_owned() })?;
        let config = find::config(root, &modules, &version);
        let others = found.into_iter().map(|kernel| kernel.version).collect();
        Self::complete(version, bytes, modules, config, others)
    }

    fn complete(
        version: String,
        bytes: Vec<u8>,
        modules: PathBuf,
        config: Option<String>,
        others: Vec<String>,
    ) -> Result<Self, KernelError> {
        let unpacks_zstd = config.map(|text| text.lines().any(|line| line == "CONFIG_RD_ZSTD=y"));
        let mut kernel =
            Self { version, bytes, index: modules.clone(), modules, others, unpacks_zstd, kept: Vec::new() };
        if !kernel.modules.join("modules.dep").exists() {
            let (index, dir) = make_index(&kernel.modules, &kernel.version)?;
            kernel.index = index;
            kernel.kept.push(dir);
        }
        Ok(kernel)
    }

    /// Keeps `dir` for as long as the kernel.
    pub(super) fn keeping(mut self, dir: TempDir) -> Self {
        self.kept.push(dir);
        self
    }
}

fn read_kernel(path: &Path) -> Result<(Vec<u8>, String), KernelError> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_KERNEL).read_to_end(&mut bytes));
    read.map_err(|source| KernelError::Read { path: path.to_owned(), source })?;
    let version =
        bzimage::version(&bytes).map_err(|source| KernelError::Image { path: path.to_owned(), source })?;
    Ok((bytes, version))
}

/// Runs `depmod` for the modules in `modules`. It writes beside them, so it gets a directory of links to what is there.
fn make_index(modules: &Path, version: &str) -> Result<(PathBuf, TempDir), KernelError> {
    let base = TempDir::new().map_err(KernelError::Temporary)?;
    let index = base.path().join("lib/modules").join(version);
    let link = || {
        fs::create_dir_all(&index)?;
        for entry in fs::read_dir(fs::canonicalize(modules)?)? {
            let entry = entry?;
            std::os::unix::fs::symlink(entry.path(), index.join(entry.file_name()))?;
        }
        Ok(())
    };
    link().map_err(KernelError::Temporary)?;
    DEPMOD.run([Path::new("-b"), base.path(), Path::new(version)])?;
    Ok((index, base))
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
