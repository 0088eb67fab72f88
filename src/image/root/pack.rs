//! Runs `mksquashfs` over a stream of tar members.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, SystemTime};

use super::RootError;
use crate::image::tar::{END, padding};
use crate::image::tool::{MKSQUASHFS, ToolError, UNSHARE};

/// How the squashfs is made, as words for `mksquashfs`. Blocks of 128 KiB, each compressed by itself, and no small files packed together
/// (`-no-fragments`): what did not change between two versions of a root then has the same bytes in both. Measured on a
/// small Debian: 52.2 MB instead of 48.6 MB, and changing 200 small files moves 1.0 MB instead of 3.6. Blocks of 64 or 256 KiB
/// change that by 2 %. Levels above 15 make it 1 % smaller in two and a half times the time.
pub const SQUASHFS_OPTIONS: [&str; 11] = [
    "-comp",
    "zstd",
    "-Xcompression-level",
    "15",
    "-b",
    "131072",
    "-no-fragments",
    "-noappend",
    "-no-progress",
    "-quiet",
    "-no-recovery",
];

/// The root directory, of which a tar need not say anything.
const ROOT_OPTIONS: [&str; 6] = ["-root-mode", "0755", "-root-uid", "0", "-root-gid", "0"];

/// Bytes given to `mksquashfs` at a time.
const PIPE: usize = 1 << 18;

/// The tar that `mksquashfs` reads. Once the reader is gone everything is swallowed: what it said matters, not the pipe.
pub(super) struct Stream {
    out: BufWriter<ChildStdin>,
    broken: bool,
}

impl Stream {
    /// Writes the headers of a member; its content follows.
    pub(super) fn begin(&mut self, headers: &[u8]) -> Result<(), RootError> {
        self.write_all(headers).map_err(RootError::Pipe)
    }

    /// Ends a member whose content had `size` bytes.
    pub(super) fn end(&mut self, size: u64) -> Result<(), RootError> {
        self.write_all(padding(size)).map_err(RootError::Pipe)
    }

    fn finish(mut self) -> io::Result<()> {
        self.write_all(&END)?;
        self.flush()?;
        // What is buffered for a reader that is gone is given up.
        drop(self.out.into_parts());
        Ok(())
    }

    fn unless_broken<T>(&mut self, result: io::Result<T>, swallowed: T) -> io::Result<T> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.broken = true;
                Ok(swallowed)
            }
            other => other,
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = if self.broken { Ok(bytes.len()) } else { self.out.write(bytes) };
        self.unless_broken(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = if self.broken { Ok(()) } else { self.out.flush() };
        self.unless_broken(flushed, ())
    }
}

/// How far ahead of the clock the time of a file that was just written can be: archives round up to whole seconds.
const ROUNDED_UP: Duration = Duration::from_secs(1);
/// How late the clock that `time(2)` reads may be: two ticks of the slowest kernel.
const TICKS: Duration = Duration::from_millis(20);

/// Waits until it is no earlier than `newest` if that is about to come: `mksquashfs` dates the root directory of a tar by
/// the clock, and only what is later than `newest` is dated back to it. With files from further in the future the root
/// directory has the time it was packed at.
fn wait_for_clock(newest: u32) {
    let newest = SystemTime::UNIX_EPOCH + Duration::from_secs(newest.into());
    if let Ok(ahead) = newest.duration_since(SystemTime::now())
        && ahead <= ROUNDED_UP
    {
        std::thread::sleep(ahead + TICKS);
    }
}

/// The command, run as root: of a tar, `mksquashfs` gives the root directory to whoever runs it, whatever its options say
/// (seen with 4.5). Others are root in a user namespace.
fn mksquashfs() -> Result<Command, ToolError> {
    if nix::unistd::geteuid().is_root() {
        return MKSQUASHFS.command();
    }
    let mut command = UNSHARE.command()?;
    command.args(["--user", "--map-root-user", "--"]).arg(MKSQUASHFS.find()?);
    Ok(command)
}

/// Makes the squashfs `out` from the members that `write` writes. Nothing in it is dated later than `newest`, which is also
/// the date of the whole.
pub(super) fn squashfs(
    out: &Path,
    newest: u32,
    write: impl FnOnce(&mut Stream) -> Result<(), RootError>,
) -> Result<(), RootError> {
    let mut command = mksquashfs()?;
    command.arg("-").arg(out).arg("-tar").args(SQUASHFS_OPTIONS).args(ROOT_OPTIONS);
    command.stdin(Stdio::piped());
    // Options for times do not reach the root directory of a tar; this does.
    wait_for_clock(newest);
    command.env("SOURCE_DATE_EPOCH", newest.to_string());
    let mut running = MKSQUASHFS.start(command)?;
    let stdin =
        running.child.stdin.take().ok_or_else(|| MKSQUASHFS.io(io::Error::other("no input to write")))?;
    let mut stream = Stream { out: BufWriter::with_capacity(PIPE, stdin), broken: false };
    write(&mut stream)?;
    stream.finish().map_err(RootError::Pipe)?;
    Ok(running.finish()?)
}
