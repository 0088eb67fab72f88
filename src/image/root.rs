//! An image's root filesystem: from a directory or a tar to a squashfs.
//!
//! The source is gone through twice. The survey checks all of it before anything is made, finds out what it holds (of
//! the layers of a container image: what is left of each) and keeps the parts of its kernel if they are wanted. Packing then passes it on to `mksquashfs` as one tar, whatever the
//! source is, together with what an image adds to a root. Nothing is ever unpacked next to other files, so no
//! privileges are needed and no name in an archive can do harm.
//!
//! The same source gives the same bytes: members in the order of the archive, or sorted by name; times as they are, and
//! none of the present.

mod add;
mod firmware;
mod pack;
mod rules;
mod survey;
mod tree;
mod walk;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::archive::{ArchiveError, Unpacked};
use super::elf::MACHINE_HEAD;
use super::kernel::Kernel;
use super::progress::{Progress, Step};
use super::tar::{Kind, Member, NewMember, TarError, TarReader};
use super::tool::ToolError;
pub use pack::SQUASHFS_OPTIONS;
pub(super) use rules::is_left_out;
use survey::Survey;
use tree::{Plan, Tree};
use walk::Found;

/// Where to take the root from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootSource {
    /// A directory with a root in it.
    Directory(PathBuf),
    /// A tar with a root in it, plain or compressed with gzip, xz or zstd.
    Tar(PathBuf),
    /// The layers of a container image, the lowest first; each is a tar like the above.
    Layers {
        /// What the image is called, for people.
        name: String,
        /// The layers.
        layers: Vec<PathBuf>,
    },
}

impl RootSource {
    /// What `path` is.
    ///
    /// # Errors
    /// [`RootError::Read`] if there is nothing to be read.
    pub fn detect(path: &Path) -> Result<Self, RootError> {
        let metadata =
            std::fs::metadata(path).map_err(|source| RootError::Read { path: path.to_owned(), source })?;
        Ok(if metadata.is_dir() { Self::Directory(path.to_owned()) } else { Self::Tar(path.to_owned()) })
    }

    /// What errors call it.
    fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Tar(path) => path,
            Self::Layers { name, .. } => Path::new(name),
        }
    }

    /// The archives that make it.
    fn archives(&self) -> &[PathBuf] {
        match self {
            Self::Directory(_) => &[],
            Self::Tar(path) => std::slice::from_ref(path),
            Self::Layers { layers, .. } => layers,
        }
    }
}

/// Why there is no root.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Something of the source cannot be read.
    #[error("cannot read `{}`{}", path.display(), hint(source))]
    Read {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The archive cannot be unpacked.
    #[error("cannot read `{}`", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Why.
        source: ArchiveError,
    },
    /// The archive is no good.
    #[error("cannot use `{}`", path.display())]
    Tar {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        source: TarError,
    },
    /// Nothing that could be booted.
    #[error("`{}` has no init (looked for {looked_for}): is it a root filesystem? On Debian, systemd-sysv provides one", path.display())]
    NoInit {
        /// The source.
        path: PathBuf,
        /// Where an init is expected.
        looked_for: String,
    },
    /// A system for other machines.
    #[error("`{}` is a root for {machine} (its `{program}` is), and images are for 64-bit x86: get it for x86-64 (amd64)", path.display())]
    OtherMachine {
        /// The source.
        path: PathBuf,
        /// A program in it.
        program: String,
        /// What that is for.
        machine: String,
    },
    /// A file became shorter or longer between two looks.
    #[error("`{}` changed while it was read: build from a root that is not in use", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The squashfs cannot be made.
    #[error("cannot make the squashfs{}", namespace_hint(.0))]
    Squashfs(#[from] ToolError),
    /// The root cannot be handed to `mksquashfs`.
    #[error("cannot hand the root to `mksquashfs`")]
    Pipe(#[source] std::io::Error),
    /// A temporary file cannot be written.
    #[error("cannot write to a temporary directory (TMPDIR names another place for it)")]
    Temporary(#[source] std::io::Error),
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => " (run as root to read all of a root, or build from a tar)",
        _ => "",
    }
}

fn namespace_hint(error: &ToolError) -> &'static str {
    match error {
        ToolError::Failed { words, .. } if words.contains("unshare: ") => {
            " (without root it takes a user namespace, which this system denies: allow them, or run this as root)"
        }
        _ => "",
    }
}

/// How much a root is, unpacked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// Bytes of its files in whole pages, holes included.
    pub(super) bytes: u64,
    /// Files, directories and all else; every name of a file counts.
    pub(super) inodes: u64,
}

impl Content {
    /// Counts a file of `size` bytes.
    fn add(&mut self, size: u64) {
        /// Bytes of a page.
        const PAGE: u64 = 4096;
        self.bytes += size.next_multiple_of(PAGE);
        self.inodes += 1;
    }
}

/// A root that was checked and can be packed.
#[derive(Debug)]
pub(super) struct Root {
    source: RootSource,
    survey: Survey,
    /// What a directory holds; empty for archives.
    found: Vec<Found>,
    /// What archives hold; empty for a directory.
    plan: Plan,
    /// Files of the kernels in archives.
    kernels: Option<TempDir>,
}

impl Root {
    /// Goes through `source` and checks it. `keep_kernel` keeps the parts of its kernels for [`Root::kernel`]; `skip` is a
    /// directory that is left out should the source contain it: the store that the image goes to.
    pub(super) fn survey(
        source: &RootSource,
        keep_kernel: bool,
        skip: &Path,
        progress: &dyn Progress,
    ) -> Result<Self, RootError> {
        progress.begin(Step::Survey, None);
        let mut root = Self {
            source: source.clone(),
            survey: Survey::default(),
            found: Vec::new(),
            plan: Plan::default(),
            kernels: None,
        };
        if let RootSource::Directory(path) = source {
            root.found = walk::walk(path, skip)?;
            for found in &root.found {
                root.survey.observe(&found.member());
                if rules::tells_machine(&found.path) {
                    root.survey.observe_program(&found.path, &found.head(path, MACHINE_HEAD)?);
                }
            }
        } else {
            if keep_kernel {
                root.kernels = Some(TempDir::new().map_err(RootError::Temporary)?);
            }
            root.survey_archives(progress)?;
        }
        progress.end();
        if let Some((program, machine)) = root.survey.foreign {
            return Err(RootError::OtherMachine { path: source.path().to_owned(), program, machine });
        }
        if !root.survey.has_init {
            let (path, looked_for) = (source.path().to_owned(), rules::INITS.join(", "));
            return Err(RootError::NoInit { path, looked_for });
        }
        Ok(root)
    }

    /// Where the parts of the root's kernels are, laid out like `/`.
    pub(super) fn kernel_directory(&self) -> &Path {
        self.kernels.as_ref().map_or(self.source.path(), TempDir::path)
    }

    /// Whether the root has the modules of kernel `version`.
    pub(super) fn has_modules(&self, version: &str) -> bool {
        self.survey.module_versions.contains(version)
    }

    /// Packs the root into the squashfs `out`. The modules of `add_modules` are added to it.
    pub(super) fn pack(
        &self,
        add_modules: Option<&Kernel>,
        out: &Path,
        progress: &dyn Progress,
    ) -> Result<Content, RootError> {
        let added = add::added(&self.survey, add_modules)?;
        let total = self.survey.bytes + added.iter().map(add::Added::size).sum::<u64>();
        progress.begin(Step::Root, Some(total));
        pack::squashfs(out, self.survey.newest, |stream| {
            match &self.source {
                RootSource::Directory(path) => walk::write(path, &self.found, stream, progress)?,
                _ => self.pass_archives(stream, progress)?,
            }
            add::write(&added, stream, progress)
        })?;
        progress.end();
        let mut content = self.survey.content;
        for one in &added {
            content.add(one.size());
        }
        Ok(content)
    }

    fn survey_archives(&mut self, progress: &dyn Progress) -> Result<(), RootError> {
        let (mut tree, mut kept) = (Tree::default(), Vec::new());
        let whiteouts = matches!(self.source, RootSource::Layers { .. });
        for (layer, path) in self.source.archives().iter().enumerate() {
            let tar = |source| RootError::Tar { path: path.clone(), source };
            let mut archive = Archive::open(path)?;
            while let Some((number, member)) = archive.next()? {
                progress.advance(member.size);
                let reader = &mut archive.reader;
                let Some(real) = tree.apply(layer, number, member.clone(), whiteouts).map_err(tar)? else {
                    continue;
                };
                if member.kind == Kind::File && rules::tells_machine(&real) {
                    let head = reader.head(MACHINE_HEAD as u64).map_err(tar)?;
                    self.survey.observe_program(&real, &head);
                } else if let Some(dir) = &self.kernels {
                    let part = survey::keep_kernel_part(dir.path(), &real, &member, reader);
                    let part = part.map_err(|error| match error {
                        TarError::Io(source) => RootError::Temporary(source),
                        other => tar(other),
                    });
                    kept.extend(part?.then_some(real));
                }
            }
            archive.finish()?;
        }
        // A part of a kernel that a later layer removed.
        for (dir, part) in self.kernels.iter().flat_map(|dir| kept.iter().map(move |part| (dir, part))) {
            if !tree.contains(part) {
                drop(std::fs::remove_file(dir.path().join(OsStr::from_bytes(part))));
            }
        }
        self.plan = tree.finish();
        for node in self.plan.nodes() {
            for (at, name) in node.names.iter().enumerate() {
                let size = if at == 0 { node.member.size } else { 0 };
                self.survey.observe(&Member { path: name.clone(), size, ..node.member.clone() });
            }
        }
        for path in &self.plan.implied {
            self.survey.observe(&Member::directory(path));
        }
        Ok(())
    }

    /// Passes what is left of the members of all archives on, in their order.
    fn pass_archives(&self, stream: &mut pack::Stream, progress: &dyn Progress) -> Result<(), RootError> {
        for path in &self.plan.implied {
            stream.begin(&NewMember::plain(path, Kind::Directory, 0o755).header())?;
        }
        for (layer, path) in self.source.archives().iter().enumerate() {
            let mut archive = Archive::open(path)?;
            while let Some((number, member)) = archive.next()? {
                let Some(node) = self.plan.of_member(layer, number) else { continue };
                let Some(first) = node.names.iter().find(|name| **name == member.path).or(node.names.first())
                else {
                    continue;
                };
                let reader = &mut archive.reader;
                stream.begin(&reader.headers(&member, first))?;
                reader.copy(stream).map_err(|source| RootError::Tar { path: path.clone(), source })?;
                stream.end(member.size)?;
                for name in node.names.iter().filter(|name| *name != first) {
                    let link = NewMember::plain(name, Kind::HardLink, 0o644);
                    stream.begin(&NewMember { link: first, mtime: member.mtime, ..link }.header())?;
                }
                progress.advance(member.size);
            }
            archive.finish()?;
        }
        Ok(())
    }
}

/// One of the archives, with its name for errors.
struct Archive<'a> {
    path: &'a Path,
    reader: TarReader<Unpacked>,
    /// Members that were gone through.
    count: usize,
}

impl<'a> Archive<'a> {
    fn open(path: &'a Path) -> Result<Self, RootError> {
        let unpacked =
            Unpacked::open(path).map_err(|source| RootError::Archive { path: path.to_owned(), source })?;
        Ok(Self { path, reader: TarReader::new(unpacked), count: 0 })
    }

    /// The next member and its number.
    fn next(&mut self) -> Result<Option<(usize, Member)>, RootError> {
        let next = self.reader.next();
        let next = next.map_err(|source| RootError::Tar { path: self.path.to_owned(), source })?;
        self.count += 1;
        Ok(next.map(|member| (self.count, member)))
    }

    fn finish(self) -> Result<(), RootError> {
        let finished = self.reader.into_inner().finish();
        finished.map_err(|source| RootError::Archive { path: self.path.to_owned(), source })
    }
}

#[cfg(test)]
#[path = "root_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "root/property_tests.rs"]
mod property_tests;
