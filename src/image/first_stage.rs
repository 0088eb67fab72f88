//! The first stage: the initramfs whose `/init` is this program.
//!
//! Owns what goes into it and where. The same program, kernel, modules, tools and trust root give the same bytes.
//!
//! | path | what |
//! |---|---|
//! | `init` | the program, without debug information |
//! | `sbin/modprobe` | the program by another name: the kernel calls it when it wants a module |
//! | `etc/bootfabric/trust-root` | the trust root in hexadecimal |
//! | `etc/bootfabric/private` | there if the fabric is private: a machine that did not know would serve anybody |
//! | `etc/bootfabric/modules` | names of modules to load in any case |
//! | `etc/bootfabric/image.json` | kernel version and sets of modules, for people |
//! | `lib/modules/VERSION/` | modules and their part of the index |
//! | `lib/firmware/` | what these modules may ask for, as far as it is there |
//! | `bin/busybox` | the emergency shell |
//! | `usr/lib/bootfabric/disk/` | the parts of GRUB that go onto disks; with them `mke2fs` |
//! | elsewhere | tools at their own paths with their libraries, and links to them in `bin` |

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fabric::trust::TrustRoot;
use serde::Serialize;

use super::closure::{ClosureError, closure};
use super::cpio::{Archive, CpioError};
use super::elf::{Elf, ElfError};
use super::firmware::{self, FirmwareError, FirmwareReport, FirmwareSource};
use super::grub::{self, GrubError};
use super::kernel::Kernel;
use super::modules::{self, Absent, IndexError, ModuleIndex, PackError, Packed, SelectError};
use super::progress::{Progress, Step};
use super::root::{Root, RootError};
use super::tool::{GZIP, ToolError};
use crate::disk::{self, MakeError};
use crate::stage::disk::LOADER;

/// zstd's level. The first stage is made once and fetched by every machine; level 19 makes it 8 % smaller in twice the time, which a
/// root's packing beside it then lacks.
const LEVEL: i32 = 16;

/// The set of modules for disks.
const STORAGE: &str = "storage";

/// Directories that the first stage mounts on or writes to.
const DIRECTORIES: [&str; 7] = ["bin", "dev", "etc", "proc", "run", "sys", "sysroot"];

/// Where busybox may be.
const BUSYBOX: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/usr/lib/busybox/busybox"];

/// Why there is no first stage.
#[derive(Debug, thiserror::Error)]
pub enum FirstStageError {
    /// The program cannot be read.
    #[error("cannot read the program `{}`", path.display())]
    Program {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The program is no program for this.
    #[error("`{}` cannot be the first stage's program", path.display())]
    ProgramKind {
        /// The program.
        path: PathBuf,
        /// What is wrong.
        source: ElfError,
    },
    /// The program needs libraries.
    #[error("`{}` is not statically linked, and the first stage has no libraries for it: `make build` makes a static program, --program names it", .0.display())]
    Dynamic(PathBuf),
    /// The module index is no good.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The modules cannot be chosen.
    #[error(transparent)]
    Select(#[from] SelectError),
    /// The modules cannot be copied.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Firmware cannot be copied.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// Firmware cannot be had from the root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A tool cannot be copied.
    #[error(transparent)]
    Tool(#[from] ClosureError),
    /// The boot loader of disks cannot be made.
    #[error(transparent)]
    Grub(#[from] GrubError),
    /// The program that makes filesystems is missing.
    #[error(transparent)]
    Mke2fs(#[from] MakeError),
    /// A file has no place.
    #[error(transparent)]
    Archive(#[from] CpioError),
    /// The archive cannot be compressed.
    #[error("cannot compress the first stage")]
    Compress(#[source] io::Error),
    /// The archive cannot be compressed by a program.
    #[error("cannot compress the first stage")]
    CompressTool(#[from] ToolError),
}

/// What a first stage is made of.
pub(super) struct Recipe<'a> {
    pub(super) program: &'a Path,
    pub(super) trust_root: &'a TrustRoot,
    /// Whether the fabric is private.
    pub(super) private: bool,
    pub(super) kernel: &'a Kernel,
    /// Sets of modules and single ones.
    pub(super) modules: &'a [String],
    /// Where firmware comes from.
    pub(super) firmware: &'a FirmwareSource,
    pub(super) root: &'a Root,
    /// Absolute paths of tools.
    pub(super) tools: &'a [PathBuf],
    /// Whether to add what installing on a disk takes.
    pub(super) disk: bool,
    /// Whether to add busybox, if it is there, as the emergency shell.
    pub(super) shell: bool,
}

/// One line of the report: what takes how much of the first stage before compression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What it is.
    pub name: String,
    /// How many files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// A first stage.
#[derive(Debug)]
pub(super) struct FirstStage {
    pub(super) bytes: Vec<u8>,
    pub(super) parts: Vec<Part>,
    pub(super) absent: Vec<Absent>,
    pub(super) firmware: FirmwareReport,
    /// `zstd` or `gzip`.
    pub(super) compression: &'static str,
}

/// A first stage with all its parts, before compression.
pub(super) struct Planned {
    plain: Vec<u8>,
    zstd: bool,
    parts: Vec<Part>,
    absent: Vec<Absent>,
    firmware: FirmwareReport,
}

/// Collects the first stage of `recipe`: what can be wrong with it comes out here.
pub(super) fn plan(recipe: &Recipe<'_>, progress: &dyn Progress) -> Result<Planned, FirstStageError> {
    progress.begin(Step::Kernel, None);
    let mut layout = Layout::default();
    layout.base(recipe)?;
    layout.part("program", |archive| add_program(archive, recipe.program))?;
    let index = ModuleIndex::open(&recipe.kernel.index)?;
    let version = recipe.kernel.version.as_str();
    let mut wanted = recipe.modules.to_vec();
    if recipe.disk && !wanted.iter().any(|set| set == STORAGE) {
        wanted.push(STORAGE.to_owned());
    }
    let selection = modules::select(&index, version, &wanted)?;
    layout.archive.file("etc/bootfabric/modules", 0o644, lines(&selection.load))?;
    let packed = modules::add_to(&mut layout.archive, &selection, &index, &recipe.kernel.modules, version)?;
    layout.modules(&packed, version);
    let firmware = layout.firmware(recipe, &packed)?;
    for tool in recipe.tools {
        layout.part(&tool.display().to_string(), |archive| add_tool(archive, tool))?;
    }
    if recipe.disk {
        layout.part("installing on disks (mke2fs, GRUB)", |archive| {
            add_tool(archive, &disk::mke2fs()?)?;
            for (name, bytes) in grub::parts()? {
                archive.file(&format!("{}/{name}", LOADER.trim_start_matches('/')), 0o644, bytes)?;
            }
            Ok(())
        })?;
    }
    if let Some(busybox) = recipe.shell.then(find_busybox).flatten() {
        layout.part("emergency shell (busybox)", |archive| {
            Ok(archive.file("bin/busybox", 0o755, busybox)?)
        })?;
    }
    let mut plain = Vec::new();
    layout.archive.write(&mut plain).map_err(FirstStageError::Compress)?;
    progress.end();
    let zstd = recipe.kernel.unpacks_zstd != Some(false);
    Ok(Planned { plain, zstd, parts: layout.parts, absent: selection.absent, firmware })
}

impl Planned {
    /// Compresses it. One processor does this, and can while others pack the root.
    pub(super) fn compress(self) -> Result<FirstStage, FirstStageError> {
        let bytes = if self.zstd { compress_zstd(&self.plain) } else { compress_gzip(&self.plain) }?;
        let compression = if self.zstd { "zstd" } else { "gzip" };
        let Self { parts, absent, firmware, .. } = self;
        Ok(FirstStage { bytes, parts, absent, firmware, compression })
    }
}

/// The archive with a note of what each part took.
#[derive(Default)]
struct Layout {
    archive: Archive,
    parts: Vec<Part>,
}

impl Layout {
    fn base(&mut self, recipe: &Recipe<'_>) -> Result<(), FirstStageError> {
        for name in DIRECTORIES {
            self.archive.directory(name)?;
        }
        // The kernel opens it before anything is mounted.
        self.archive.character_device("dev/console", 0o600, (5, 1))?;
        self.archive.file(
            "etc/bootfabric/trust-root",
            0o644,
            format!("{}\n", recipe.trust_root).into_bytes(),
        )?;
        if recipe.private {
            self.archive.file("etc/bootfabric/private", 0o644, Vec::new())?;
        }
        let facts = serde_json::json!({ "kernel_version": recipe.kernel.version, "modules": recipe.modules });
        self.archive.file("etc/bootfabric/image.json", 0o644, format!("{facts}\n").into_bytes())?;
        Ok(())
    }

    /// Notes what modules and their index took.
    fn modules(&mut self, packed: &Packed, version: &str) {
        let prefix = format!("lib/modules/{version}/");
        let (mut files, mut bytes) = self.archive.content_below(&prefix);
        for (class, (of_class, their_bytes)) in &packed.classes {
            let name = format!("modules: {class}");
            self.parts.push(Part { name, files: *of_class, bytes: *their_bytes });
            (files, bytes) = (files - of_class, bytes - their_bytes);
        }
        self.parts.push(Part { name: "index of the modules".into(), files, bytes });
    }

    fn firmware(&mut self, recipe: &Recipe<'_>, packed: &Packed) -> Result<FirmwareReport, FirstStageError> {
        if *recipe.firmware == FirmwareSource::None {
            return Ok(FirmwareReport::default());
        }
        let unpacked = recipe.root.firmware(&packed.firmware)?;
        let own = unpacked.as_ref().map_or(recipe.root.kernel_directory(), tempfile::TempDir::path);
        let places = match recipe.firmware {
            FirmwareSource::Directory(path) => vec![path.as_path(), own],
            _ => vec![own],
        };
        let (files, report) = firmware::find(&packed.firmware, &places)?;
        if !files.is_empty() {
            self.part("firmware", |archive| {
                for (name, bytes) in files {
                    archive.file(&format!("lib/firmware/{name}"), 0o644, bytes)?;
                }
                Ok(())
            })?;
        }
        Ok(report)
    }

    fn part(
        &mut self,
        name: &str,
        add: impl FnOnce(&mut Archive) -> Result<(), FirstStageError>,
    ) -> Result<(), FirstStageError> {
        let (files, bytes) = self.archive.content();
        add(&mut self.archive)?;
        let (files_after, bytes_after) = self.archive.content();
        self.parts.push(Part {
            name: name.to_owned(),
            files: files_after - files,
            bytes: bytes_after - bytes,
        });
        Ok(())
    }
}

fn add_program(archive: &mut Archive, path: &Path) -> Result<(), FirstStageError> {
    let file =
        std::fs::read(path).map_err(|source| FirstStageError::Program { path: path.to_owned(), source })?;
    let elf =
        Elf::parse(&file).map_err(|source| FirstStageError::ProgramKind { path: path.to_owned(), source })?;
    if !elf.is_static() {
        return Err(FirstStageError::Dynamic(path.to_owned()));
    }
    archive.file("init", 0o755, elf.loaded_part(&file))?;
    archive.symlink("sbin/modprobe", "../init")?;
    Ok(())
}

/// A tool stays where it is, as it may look for its files from there, and gets a link in `bin`.
fn add_tool(archive: &mut Archive, tool: &Path) -> Result<(), FirstStageError> {
    for path in closure(tool)? {
        let name = path.display().to_string();
        let name = name.trim_start_matches('/');
        if archive.contains(name) {
            continue;
        }
        let bytes =
            std::fs::read(&path).map_err(|source| ClosureError::Read { path: path.clone(), source })?;
        archive.file(name, 0o755, bytes)?;
    }
    if let Some(name) = tool.file_name().and_then(|name| name.to_str()) {
        let link = format!("bin/{name}");
        if !archive.contains(&link) {
            archive.symlink(&link, &tool.display().to_string())?;
        }
    }
    Ok(())
}

/// Busybox, if there is one that runs without libraries.
fn find_busybox() -> Option<Vec<u8>> {
    BUSYBOX.iter().find_map(|path| {
        let file = std::fs::read(path).ok()?;
        Elf::parse(&file).is_ok_and(|elf| elf.is_static()).then_some(file)
    })
}

fn lines(names: &[String]) -> Vec<u8> {
    names.iter().flat_map(|name| [name.as_str(), "\n"]).collect::<String>().into_bytes()
}

fn compress_zstd(plain: &[u8]) -> Result<Vec<u8>, FirstStageError> {
    let compress = || {
        let mut encoder = zstd::Encoder::new(Vec::new(), LEVEL)?;
        encoder.set_pledged_src_size(Some(plain.len() as u64))?;
        encoder.write_all(plain)?;
        encoder.finish()
    };
    compress().map_err(FirstStageError::Compress)
}

/// For kernels that were built without zstd.
fn compress_gzip(plain: &[u8]) -> Result<Vec<u8>, FirstStageError> {
    let mut file = tempfile::NamedTempFile::new().map_err(FirstStageError::Compress)?;
    file.write_all(plain).map_err(FirstStageError::Compress)?;
    Ok(GZIP.filter(&["-9nc"], file.path())?)
}
