//! Images out of the store, for other tools: the root as a tar, any blob as a file.
//!
//! What is written was hashed on the way out (a blob) or just before (the root, which `sqfs2tar` reads), and the file gets its
//! name only when it is whole. Where the file system can, it has none before, so that nothing stays of a program that is killed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::linkat;

use fabric::content::BlobRef;
use fabric::store::Store;
use fabric::trust::Release;

use super::progress::{Progress, Step};
use super::tool::{SQFS2TAR, ToolError};

/// Bytes read at a time.
const PIECE: usize = 1 << 18;

/// Endings of the names of tars, and how `sqfs2tar` calls what compresses them.
const ENDINGS: [(&str, Option<&str>); 6] = [
    (".tar", None),
    (".tar.zst", Some("zstd")),
    (".tar.gz", Some("gzip")),
    (".tgz", Some("gzip")),
    (".tar.xz", Some("xz")),
    (".txz", Some("xz")),
];

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The name tells no kind of archive.
    #[error("`{}` names no tar: .tar, .tar.zst, .tar.gz or .tar.xz (--blob root writes the squashfs)", .0.display())]
    Ending(PathBuf),
    /// No blob by that name.
    #[error("the image has no blob `{name}`: it has {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The store lacks some of it.
    #[error("the store does not hold all of {0}: fetch the image first")]
    Incomplete(String),
    /// The store's file is not what it was.
    #[error("{what} is damaged in the store (`{}`): `bootfabric store verify` tells what can be repaired", path.display())]
    Damaged {
        /// The blob.
        what: String,
        /// Its file.
        path: PathBuf,
    },
    /// The store's file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is a file of that name.
    #[error("`{}` is there already: remove it, or use another name", .0.display())]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tar cannot be made.
    #[error("cannot make a tar of the root")]
    Tar(#[from] ToolError),
}

/// Writes the root of `release` as the tar `out`, compressed as its name says: owners, permissions, times, attributes, devices
/// and hard links as they are in the image. Returns its bytes.
///
/// # Errors
/// [`ExportError`]; nothing is left at `out` then.
pub fn export_root(
    store: &Store,
    release: &Release,
    out: &Path,
    progress: &dyn Progress,
) -> Result<u64, ExportError> {
    let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let ending = ENDINGS.iter().rfind(|(ending, _)| name.ends_with(ending));
    let (_, compressor) = ending.ok_or_else(|| ExportError::Ending(out.to_owned()))?;
    let mut command = SQFS2TAR.command()?;
    command.args(["--root-becomes", ".", "--no-skip"]);
    if let Some(compressor) = compressor {
        command.args(["--compressor", compressor]);
    }
    let mut target = Target::new(out)?;
    let path = copy_verified(store, &release.root, "the root", &mut io::sink(), out, progress)?;
    progress.begin(Step::Export, None);
    // Through a pipe: the program ends when nobody reads any more.
    command.arg(&path).stdout(Stdio::piped());
    let mut running = SQFS2TAR.start(command)?;
    if let Some(mut stdout) = running.child.stdout.take() {
        io::copy(&mut stdout, target.file()).map_err(|source| write(out, source))?;
    }
    running.finish()?;
    progress.end();
    target.finish(out)
}

/// Writes the blob that `release` calls `name` (`root`, `kernel`, `first-stage` or a loader) to the file `out`. Returns its bytes.
///
/// # Errors
/// As [`export_root`].
pub fn export_blob(
    store: &Store,
    release: &Release,
    name: &str,
    out: &Path,
    progress: &dyn Progress,
) -> Result<u64, ExportError> {
    let loaders = release.loaders.iter().map(|loader| (loader.name.as_str(), &loader.blob));
    let own = [("root", &release.root), ("kernel", &release.kernel), ("first-stage", &release.first_stage)];
    let all: Vec<_> = own.into_iter().chain(loaders).collect();
    let Some((_, blob)) = all.iter().find(|(one, _)| *one == name) else {
        let known = all.iter().map(|(name, _)| (*name).to_owned()).collect();
        return Err(ExportError::Unknown { name: name.to_owned(), known });
    };
    let mut target = Target::new(out)?;
    copy_verified(store, blob, name, target.file(), out, progress)?;
    target.finish(out)
}

/// Copies `blob` to `copy` and compares its hash with its name. Returns where it is.
fn copy_verified(
    store: &Store,
    blob: &BlobRef,
    what: &str,
    copy: &mut impl Write,
    out: &Path,
    progress: &dyn Progress,
) -> Result<PathBuf, ExportError> {
    let held = store.blob(&blob.blob).filter(|held| held.is_complete());
    let held = held.ok_or_else(|| ExportError::Incomplete(what.to_owned()))?;
    let path = held.path().to_owned();
    let read = |source| ExportError::Read { path: path.clone(), source };
    let mut file = File::open(&path).map_err(read)?;
    let (mut hash, mut buffer) = (blake3::Hasher::new(), vec![0; PIECE]);
    progress.begin(Step::Export, Some(blob.size));
    loop {
        let length = file.read(&mut buffer).map_err(read)?;
        let piece = buffer.get(..length).unwrap_or_default();
        if piece.is_empty() {
            break;
        }
        hash.update(piece);
        copy.write_all(piece).map_err(|source| write(out, source))?;
        progress.advance(length as u64);
    }
    progress.end();
    if fabric::id::Hash::from(hash.finalize()) != blob.blob.0 {
        return Err(ExportError::Damaged { what: what.to_owned(), path });
    }
    Ok(path)
}

/// A file that has its name only once it is whole.
#[derive(Debug)]
enum Target {
    /// Without a name (open(2), `O_TMPFILE`).
    Unnamed(File),
    /// With another name, where the file system cannot do that: NFS, FAT.
    Aside(tempfile::NamedTempFile),
}

impl Target {
    fn new(out: &Path) -> Result<Self, ExportError> {
        if out.symlink_metadata().is_ok() {
            return Err(ExportError::Exists(out.to_owned()));
        }
        let beside = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let unnamed = File::options().write(true).custom_flags(nix::libc::O_TMPFILE).open(beside);
        if let Ok(file) = unnamed {
            return Ok(Self::Unnamed(file));
        }
        let mut aside = tempfile::Builder::new();
        let file = aside.prefix(".bootfabric-").permissions(permissions()).tempfile_in(beside);
        file.map(Self::Aside).map_err(|source| write(out, source))
    }

    fn file(&mut self) -> &mut File {
        match self {
            Self::Unnamed(file) => file,
            Self::Aside(file) => file.as_file_mut(),
        }
    }

    fn finish(mut self, out: &Path) -> Result<u64, ExportError> {
        let file = self.file();
        let synced = file.sync_all().and_then(|()| file.metadata());
        let bytes = synced.map_err(|source| write(out, source))?.len();
        let named = match self {
            Self::Unnamed(file) => {
                // The way for those without privileges: open(2), at O_TMPFILE.
                let open = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
                linkat(AT_FDCWD, &open, AT_FDCWD, out, AtFlags::AT_SYMLINK_FOLLOW).map_err(io::Error::from)
            }
            Self::Aside(file) => file.persist_noclobber(out).map(drop).map_err(|error| error.error),
        };
        named.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => ExportError::Exists(out.to_owned()),
            _ => write(out, error),
        })?;
        Ok(bytes)
    }
}

fn write(out: &Path, source: io::Error) -> ExportError {
    ExportError::Write { path: out.to_owned(), source }
}

/// Those of any new file, less what the umask takes.
fn permissions() -> std::fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}
