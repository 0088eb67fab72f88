//! Loading modules into the running kernel.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use super::super::kernel_line;
use super::index::{Index, IndexError, Module, ModuleName};
use super::sysfs;

/// Where the kernel's modules are.
const ROOT: &str = "/lib/modules";

/// `MODULE_INIT_COMPRESSED_FILE` (linux/module.h, since 5.17): the kernel unpacks the file itself.
const COMPRESSED: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);

/// Rounds of looking for devices that appeared because a module was loaded. Each round is a bus behind a bus; real
/// machines need three or four.
const MAX_ROUNDS: usize = 32;

/// A module cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(in crate::stage) enum LoadError {
    /// Neither a module file nor part of the kernel.
    #[error("the image carries no module `{0}`, and the kernel does not contain it")]
    Missing(String),
    /// The module's file cannot be opened.
    #[error("cannot open the module {path}")]
    Open {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The kernel cannot unpack the module's file.
    #[error("this kernel cannot unpack {path}; build the image again with unpacked modules")]
    Compressed {
        /// Its file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// The kernel refused the module.
    #[error("the kernel refused the module {path}")]
    Refused {
        /// Its file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
}

/// The modules of the running kernel.
pub(in crate::stage) struct Modules {
    directory: PathBuf,
    index: Index,
    /// The kernel line, for the modules' parameters.
    line: String,
    /// Modules that were loaded, or found loaded.
    loaded: BTreeSet<ModuleName>,
    /// Modaliases that were looked up.
    seen: BTreeSet<String>,
    failures: Vec<LoadError>,
}

impl Modules {
    /// Reads the index for the kernel that runs; `line` is its command line.
    pub(in crate::stage) fn open(line: &str) -> Result<Self, IndexError> {
        let path = Path::new("/proc/sys/kernel/osrelease");
        let release = std::fs::read_to_string(path)
            .map_err(|source| IndexError::Read { path: path.to_owned(), source })?;
        let release = release.trim();
        Ok(Self {
            directory: Path::new(ROOT).join(release),
            index: Index::open(Path::new(ROOT), release)?,
            line: line.to_owned(),
            loaded: BTreeSet::new(),
            seen: BTreeSet::new(),
            failures: Vec::new(),
        })
    }

    /// Whether the image carries no modules.
    pub(in crate::stage) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Number of modules loaded so far.
    pub(in crate::stage) fn count(&self) -> usize {
        self.loaded.len()
    }

    /// What could not be loaded for a device; a machine boots with most of such failures.
    pub(in crate::stage) fn failures(&self) -> &[LoadError] {
        &self.failures
    }

    /// Loads the module `name` and all it needs.
    pub(in crate::stage) fn load(&mut self, name: &str) -> Result<(), LoadError> {
        let name = ModuleName::new(name);
        if self.loaded.contains(&name) || self.index.is_builtin(&name) || is_live(&name) {
            return Ok(());
        }
        let Some(plan) = self.index.plan(&name) else {
            return Err(LoadError::Missing(name.as_str().to_owned()));
        };
        for (step, module) in plan {
            if self.loaded.contains(step) {
                continue;
            }
            insert(&self.directory, module, &kernel_line::module_parameters(&self.line, step.as_str()))?;
            self.loaded.insert(step.clone());
        }
        Ok(())
    }

    /// Loads what `alias` asks for (as in `modprobe ALIAS`); false if no module answers to it.
    pub(super) fn load_alias(&mut self, alias: &str) -> Result<bool, LoadError> {
        let wanted = self.index.wanted_by(alias);
        // All are tried before the first failure is told: a device may do with any one of them.
        let outcomes: Vec<_> = wanted.iter().map(|name| self.load(name.as_str())).collect();
        outcomes.into_iter().collect::<Result<(), _>>()?;
        Ok(!wanted.is_empty())
    }

    /// Loads the modules of all devices there are, and of those that appear by doing so.
    pub(in crate::stage) fn load_for_devices(&mut self) {
        for _ in 0..MAX_ROUNDS {
            let fresh: Vec<String> =
                sysfs::modaliases().into_iter().filter(|alias| !self.seen.contains(alias)).collect();
            if fresh.is_empty() {
                return;
            }
            for modalias in fresh {
                if let Err(error) = self.load_alias(&modalias) {
                    self.failures.push(error);
                }
                self.seen.insert(modalias);
            }
        }
    }

    /// The modules that a modalias asks for, by name.
    pub(in crate::stage) fn drivers_of(&self, modalias: &str) -> Vec<String> {
        self.index.wanted_by(modalias).iter().map(|name| name.as_str().to_owned()).collect()
    }
}

fn is_live(name: &ModuleName) -> bool {
    Path::new("/sys/module").join(name.as_str()).join("initstate").exists()
}

fn insert(directory: &Path, module: &Module, parameters: &str) -> Result<(), LoadError> {
    let path = directory.join(&module.path);
    let file = File::open(&path).map_err(|source| LoadError::Open { path: path.clone(), source })?;
    let packed = path.extension().is_some_and(|extension| extension != "ko");
    let flags = if packed { COMPRESSED } else { ModuleInitFlags::empty() };
    // The line holds no NUL; if it did, the module would go without its parameters.
    let parameters = CString::new(parameters).unwrap_or_default();
    match finit_module(&file, &parameters, flags) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(source @ (Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOEXEC)) if packed => {
            Err(LoadError::Compressed { path, source })
        }
        Err(source) => Err(LoadError::Refused { path, source }),
    }
}
