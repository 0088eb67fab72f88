//! What an image has beside its root and its name: kernel, modules, tools and loaders. The same however the root is made.

use std::path::PathBuf;

use anyhow::Context;
use fabric::store::Store;
use fabric::trust::{Operator, RootMode};

use crate::home;
use crate::image::build::{BuildRequest, RootModules};
use crate::image::firmware::FirmwareSource;
use crate::image::loaders::LoaderFile;
use crate::image::{KernelSource, RootSource, SETS};

#[derive(Debug, clap::Args)]
pub(super) struct Parts {
    /// The kernel: a Debian package, a directory laid out like /, or a vmlinuz with --module-dir [default: the root's own]
    #[arg(long, value_name = "DEB|DIR|VMLINUZ")]
    kernel: Option<PathBuf>,
    /// The modules of a kernel that is a bare vmlinuz: lib/modules/VERSION
    #[arg(long, value_name = "DIR", requires = "kernel")]
    module_dir: Option<PathBuf>,
    /// Kernel arguments
    #[arg(long, default_value = "console=tty0 console=ttyS0,115200")]
    cmdline: String,
    /// How nodes hold the root: overlay (the image itself, and over it what is written), zram (unpacked into compressed RAM),
    /// tmpfs (unpacked into RAM); a node's kernel line can say otherwise
    #[arg(long, value_name = "MODE", default_value_t = RootMode::Overlay)]
    root_mode: RootMode,
    #[arg(long, value_name = "SETS", value_delimiter = ',', default_value = "pc", help = modules_help())]
    modules: Vec<String>,
    /// Do not add the kernel's modules to a root that has none for it (smaller; the booted system can load no more)
    #[arg(long)]
    no_root_modules: bool,
    /// Where the firmware files are that these modules ask for: a directory laid out like /, or one such as lib/firmware; what it
    /// lacks comes from the root [default: the root alone]
    #[arg(long, value_name = "DIR", conflicts_with = "no_firmware")]
    firmware: Option<PathBuf>,
    /// Take no firmware files into the first stage
    #[arg(long)]
    no_firmware: bool,
    /// A program to put into the first stage, with its libraries; may be repeated
    #[arg(long = "tool", value_name = "PATH")]
    tools: Vec<PathBuf>,
    /// Let machines install the image on their disks: takes mke2fs, GRUB and the drivers of disks into the first stage
    #[arg(long)]
    disk: bool,
    /// A boot loader beside, or instead of, undionly.kpxe and snponly.efi; may be repeated
    #[arg(long = "loader", value_name = "NAME=PATH")]
    loaders: Vec<LoaderFile>,
    /// The program that becomes the first stage's /init: a static build of bootfabric [default: this one]
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Leave busybox out of the first stage: no emergency shell
    #[arg(long)]
    no_shell: bool,
}

fn modules_help() -> String {
    let sets: Vec<_> = SETS.iter().map(|set| format!("`{}`: {}", set.name, set.about)).collect();
    format!(
        "Kernel modules for the first stage: sets, and single ones, which are then loaded in any case. {}",
        sets.join("; ")
    )
}

impl Parts {
    /// Whether a kernel is named.
    pub(super) fn names_kernel(&self) -> bool {
        self.kernel.is_some()
    }

    /// The request for an image `name` of `root`, to be signed by `operator` and put into `store`.
    pub(super) fn request(
        self,
        name: String,
        version: String,
        root: RootSource,
        store: &Store,
        operator: &Operator,
    ) -> anyhow::Result<BuildRequest> {
        let program = match self.program {
            Some(path) => path,
            None => std::env::current_exe()
                .context("cannot tell where this program is: name it with --program")?,
        };
        let kernel =
            self.kernel.as_deref().map(|path| KernelSource::detect(path, self.module_dir.as_deref()));
        let firmware = match self.firmware {
            _ if self.no_firmware => FirmwareSource::None,
            Some(path) => {
                std::fs::read_dir(&path)
                    .with_context(|| format!("cannot read the directory of firmware `{}`", path.display()))?;
                FirmwareSource::Directory(path)
            }
            None => FirmwareSource::Root,
        };
        let settings = home::settings(store, &operator.trust_root())?;
        Ok(BuildRequest {
            private: settings.is_some_and(|settings| settings.private),
            root,
            kernel: kernel.transpose()?,
            name,
            version,
            cmdline: self.cmdline,
            root_mode: self.root_mode,
            modules: self.modules,
            root_modules: if self.no_root_modules { RootModules::Leave } else { RootModules::Add },
            firmware,
            tools: self.tools,
            disk: self.disk,
            loaders: self.loaders,
            program,
            shell: !self.no_shell,
        })
    }
}
