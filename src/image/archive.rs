//! Opens a tar that may be compressed, by what its first bytes say and not by its name.
//!
//! zstd is unpacked here; gzip and xz by their programs, which every system has.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::process::{ChildStdout, Stdio};

use super::tool::{GZIP, Running, Tool, ToolError, XZ};

/// Largest window that a zstd archive may ask for (log2 of bytes): what `zstd --ultra --long=31` makes.
const MAX_ZSTD_WINDOW: u32 = 31;

/// The unpacked bytes of an archive.
pub(super) enum Unpacked {
    /// As it is in the file.
    Plain(File),
    /// Unpacked here.
    Zstd(Box<zstd::Decoder<'static, io::BufReader<File>>>),
    /// Unpacked by a program.
    Program(ChildStdout, Running),
}

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file itself.
    #[error(transparent)]
    File(#[from] io::Error),
    /// What unpacks it.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

impl Unpacked {
    /// Opens the file `path`.
    pub(super) fn open(path: &Path) -> Result<Self, ArchiveError> {
        let mut file = File::open(path)?;
        let mut head = Vec::new();
        file.by_ref().take(6).read_to_end(&mut head)?;
        file.rewind()?;
        match head.as_slice() {
            [0x1f, 0x8b, ..] => Self::through(GZIP, file),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Self::through(XZ, file),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let mut decoder = zstd::Decoder::new(file)?;
                decoder.window_log_max(MAX_ZSTD_WINDOW)?;
                Ok(Self::Zstd(Box::new(decoder)))
            }
            _ => Ok(Self::Plain(file)),
        }
    }

    fn through(tool: Tool, file: File) -> Result<Self, ArchiveError> {
        let mut command = tool.command()?;
        command.arg("-dc").stdin(file).stdout(Stdio::piped());
        let mut running = tool.start(command)?;
        let stdout = running.child.stdout.take().ok_or_else(|| io::Error::other("no output to read"))?;
        Ok(Self::Program(stdout, running))
    }

    /// Reads what is left and checks that unpacking went well to the end: a damaged archive may look whole until then.
    pub(super) fn finish(mut self) -> Result<(), ArchiveError> {
        io::copy(&mut self, &mut io::sink())?;
        match self {
            Self::Program(stdout, running) => {
                drop(stdout);
                Ok(running.finish()?)
            }
            Self::Plain(_) | Self::Zstd(_) => Ok(()),
        }
    }
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "it is cut off, get it again"),
                _ => error,
            }),
            Self::Program(stdout, _) => stdout.read(buffer),
        }
    }
}
