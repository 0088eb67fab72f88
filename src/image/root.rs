//! An image's root filesystem: from a directory or a tar to a squashfs.
//!
//! The source is gone through twice. The survey checks all of it before anything is made, finds out what it holds and
//! keeps the parts of its kernel if they are wanted. Packing then passes it on to `mksquashfs` as one tar, whatever the
//! source is, together with what an image adds to a root. Nothing is ever unpacked next to other files, so no
//! privileges are needed and no name in an archive can do harm.
//!
//! The same source gives the same bytes: members in the order of the archive, or sorted by name; times as they are, and
//! none of the present.

mod add;
mod pack;
mod rules;
mod survey;
mod walk;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::archive::{ArchiveError, Unpacked};
use super::kernel::Kernel;
use super::progress::{Progress, Step};
use super::tar::{TarError, TarReader};
use super::tool::ToolError;
use survey::Survey;
use walk::Found;

/// Where to take the root from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootSource {
    /// A directory with a root in it.
    Directory(PathBuf),
    /// A tar with a root in it, plain or compressed with gzip, xz or zstd.
    Tar(PathBuf),
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

    fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::Tar(path) => path,
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
    /// A file became shorter or longer between two looks.
    #[error("`{}` changed while it was read: build from a root that is not in use", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The squashfs cannot be made.
    #[error("cannot make the squashfs")]
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
    /// What a directory holds; empty for a tar.
    found: Vec<Found>,
    /// Files of the kernels in a tar.
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
        let mut root =
            Self { source: source.clone(), survey: Survey::default(), found: Vec::new(), kernels: None };
        match source {
            RootSource::Directory(path) => {
                root.found = walk::walk(path, skip)?;
                for found in &root.found {
                    root.survey.observe(&found.member());
                }
            }
            RootSource::Tar(path) => {
                if keep_kernel {
                    root.kernels = Some(TempDir::new().map_err(RootError::Temporary)?);
                }
                root.survey_tar(path, progress)?;
            }
        }
        progress.end();
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
                RootSource::Tar(path) => pass_tar(path, stream, progress)?,
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

    fn survey_tar(&mut self, path: &Path, progress: &dyn Progress) -> Result<(), RootError> {
        let tar = |source| RootError::Tar { path: path.to_owned(), source };
        let archive = |source| RootError::Archive { path: path.to_owned(), source };
        let mut reader = TarReader::new(Unpacked::open(path).map_err(archive)?);
        while let Some(member) = reader.next().map_err(tar)? {
            progress.advance(member.size);
            if rules::is_left_out(&member.path) {
                continue;
            }
            self.survey.observe(&member);
            if let Some(dir) = &self.kernels {
                survey::keep_kernel_part(dir.path(), &member, &mut reader).map_err(|error| match error {
                    TarError::Io(source) => RootError::Temporary(source),
                    other => tar(other),
                })?;
            }
        }
        reader.into_inner().finish().map_err(archive)
    }
}

/// Passes the members of a tar on as they are, those left out excepted.
fn pass_tar(path: &Path, stream: &mut pack::Stream, progress: &dyn Progress) -> Result<(), RootError> {
    let tar = |source| RootError::Tar { path: path.to_owned(), source };
    let archive = |source| RootError::Archive { path: path.to_owned(), source };
    let mut reader = TarReader::new(Unpacked::open(path).map_err(archive)?);
    while let Some(member) = reader.next().map_err(tar)? {
        if member.path.is_empty() || rules::is_left_out(&member.path) {
            continue;
        }
        stream.begin(reader.headers())?;
        reader.copy(stream).map_err(tar)?;
        stream.end(member.size)?;
        progress.advance(member.size);
    }
    reader.into_inner().finish().map_err(archive)
}

#[cfg(test)]
#[path = "root_tests.rs"]
mod tests;
