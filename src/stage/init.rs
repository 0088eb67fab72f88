//! The root's own init: finding it, and making sure that it can run, while there is still a way back.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// Where an init is looked for, in this order.
const CANDIDATES: [&str; 4] = ["/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/init"];

/// The root cannot be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum InitError {
    /// Nothing that could be started.
    #[error("the root has no init; looked for {}", .0.join(", "))]
    None(Vec<String>),
    /// It is made for another machine.
    #[error("{path} of the root is a program for another processor (ELF machine {theirs}, this is {ours})")]
    OtherMachine {
        /// The init.
        path: PathBuf,
        /// Its machine.
        theirs: u16,
        /// Ours.
        ours: u16,
    },
    /// It is no program.
    #[error("{path} of the root is no program: neither ELF nor a script")]
    NoProgram {
        /// The file.
        path: PathBuf,
    },
    /// The root cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The init of a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Init {
    /// Its path in the root.
    pub(super) path: PathBuf,
    /// Whether it is systemd.
    pub(super) is_systemd: bool,
}

/// Finds the init of the root at `root`: `named`, if the kernel line names one, else the first of the usual places.
pub(super) fn find(root: &Path, named: Option<&Path>) -> Result<Init, InitError> {
    let usual = CANDIDATES.map(Path::new);
    let looked_at = named.as_ref().map_or(usual.as_slice(), std::slice::from_ref);
    for path in looked_at {
        if let Some((file, resolved)) = open(root, path)? {
            check(path, file)?;
            let is_systemd = resolved.file_name().is_some_and(|name| name == "systemd");
            return Ok(Init { path: path.to_path_buf(), is_systemd });
        }
    }
    Err(InitError::None(looked_at.iter().map(|path| path.display().to_string()).collect()))
}

/// Opens a file as the booted system will see it (links lead into the root); `None` if it is no executable file. Also says
/// where it really is.
fn open(root: &Path, path: &Path) -> Result<Option<(File, PathBuf)>, InitError> {
    let read_error = |path: &Path, source| InitError::Read { path: path.to_owned(), source };
    let directory = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_DIRECTORY.bits())
        .open(root)
        .map_err(|source| read_error(root, source))?;
    // Non-blocking, lest something odd (a FIFO) stops us here.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let Ok(fd) = openat2(&directory, path, how) else { return Ok(None) };
    let file = File::from(fd);
    let meta = file.metadata().map_err(|source| read_error(path, source))?;
    if !meta.is_file() || meta.mode() & 0o111 == 0 {
        return Ok(None);
    }
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let resolved = std::fs::read_link(link).unwrap_or_else(|_| path.to_owned());
    Ok(Some((file, resolved)))
}

/// Checks that the kernel can execute a file: a script, or an ELF program for this machine.
fn check(path: &Path, file: File) -> Result<(), InitError> {
    let read_error = |source| InitError::Read { path: path.to_owned(), source };
    let theirs = match kind(file).map_err(read_error)? {
        Kind::Script => return Ok(()),
        Kind::Other => return Err(InitError::NoProgram { path: path.to_owned() }),
        Kind::Elf(machine) => machine,
    };
    let own = File::open("/proc/self/exe").and_then(kind).map_err(read_error)?;
    match own {
        Kind::Elf(ours) if !runs(ours, theirs) => {
            Err(InitError::OtherMachine { path: path.to_owned(), theirs, ours })
        }
        _ => Ok(()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Elf(u16),
    Script,
    Other,
}

/// Reads what kind of program a file is (ELF header: System V ABI, chapter 4; `e_machine` at offset 18).
fn kind(file: impl Read) -> std::io::Result<Kind> {
    let mut head = Vec::new();
    match file.take(20).read_to_end(&mut head) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
        Err(error) => return Err(error),
    }
    Ok(match head.as_slice() {
        // The sixth byte is 1 for little-endian files, as are all machines that netboot.
        [0x7f, b'E', b'L', b'F', _, 1, .., low, high] if head.len() == 20 => {
            Kind::Elf(u16::from_le_bytes([*low, *high]))
        }
        [b'#', b'!', ..] => Kind::Script,
        _ => Kind::Other,
    })
}

/// Whether a kernel for machine `ours` runs programs for `theirs`: its own, and those of its 32-bit predecessor.
fn runs(ours: u16, theirs: u16) -> bool {
    const I386: u16 = 3;
    const ARM: u16 = 40;
    const X86_64: u16 = 62;
    const AARCH64: u16 = 183;
    ours == theirs || matches!((ours, theirs), (X86_64, I386) | (AARCH64, ARM))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn root_with(files: &[(&str, &[u8], u32)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, content, mode) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
        }
        root
    }

    fn elf(machine: u16) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(18, 0);
        bytes.extend(machine.to_le_bytes());
        bytes.extend([0; 44]);
        bytes
    }

    #[test]
    fn an_absolute_link_leads_into_the_root() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let root = root_with(&[("usr/lib/systemd/systemd", &own, 0o755), ("sbin/other", b"", 0o644)]);
        symlink("/usr/lib/systemd/systemd", root.path().join("sbin/init")).unwrap();
        let init = find(root.path(), None).unwrap();
        assert_eq!(init, Init { path: "/sbin/init".into(), is_systemd: true });
    }

    #[test]
    fn the_named_one_or_none() {
        let root = root_with(&[("sbin/init", b"#!/bin/sh\n", 0o755), ("opt/first", b"#!/bin/sh\n", 0o755)]);
        assert_eq!(find(root.path(), Some(Path::new("/opt/first"))).unwrap().path, Path::new("/opt/first"));
        let error = find(root.path(), Some(Path::new("/opt/absent"))).unwrap_err();
        assert_eq!(error.to_string(), "the root has no init; looked for /opt/absent");
    }

    #[test]
    fn what_cannot_run_is_refused() {
        let root = root_with(&[("sbin/init", b"#!/bin/sh\n", 0o644)]);
        let error = find(root.path(), None).unwrap_err().to_string();
        assert!(error.contains("/sbin/init, /usr/lib/systemd/systemd"), "{error}");
        let root = root_with(&[("init", b"MZ", 0o755)]);
        assert!(matches!(find(root.path(), None), Err(InitError::NoProgram { .. })));
        let root = root_with(&[("init", &elf(8), 0o755)]);
        assert!(matches!(find(root.path(), None), Err(InitError::OtherMachine { theirs: 8, .. })));
    }

    #[test]
    fn headers_of_any_length_are_read() {
        for length in 0..30 {
            let whole = elf(62);
            let kind = kind(&whole[..length]).unwrap();
            assert_eq!(kind == Kind::Elf(62), length >= 20, "{length}");
        }
        assert!(runs(62, 3) && !runs(3, 62) && !runs(62, 183));
    }
}
