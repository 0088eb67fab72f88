//! The external programs that building needs, and how they are run.
//!
//! Owns their names, the Debian packages that hold them, a fixed environment (so that the caller's cannot change what is
//! built) and the end of what they print when they fail. Never uses a shell.

use std::ffi::OsStr;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// How much of a failed program's words an error repeats, in bytes: the last lines say why.
const MAX_WORDS: u64 = 2048;

/// Where programs of the administrator are, besides `PATH`.
const ADMIN_DIRS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// A program and the Debian package that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tool {
    name: &'static str,
    package: &'static str,
}

pub(super) const MKSQUASHFS: Tool = Tool { name: "mksquashfs", package: "squashfs-tools" };
pub(super) const UNSHARE: Tool = Tool { name: "unshare", package: "util-linux" };
pub(super) const SQFS2TAR: Tool = Tool { name: "sqfs2tar", package: "squashfs-tools-ng" };
pub(super) const MMDEBSTRAP: Tool = Tool { name: "mmdebstrap", package: "mmdebstrap" };
pub(super) const DPKG_DEB: Tool = Tool { name: "dpkg-deb", package: "dpkg" };
pub(super) const DEPMOD: Tool = Tool { name: "depmod", package: "kmod" };
pub(super) const GZIP: Tool = Tool { name: "gzip", package: "gzip" };
pub(super) const XZ: Tool = Tool { name: "xz", package: "xz-utils" };
pub(super) const GRUB_MKIMAGE: Tool = Tool { name: "grub-mkimage", package: "grub-common" };

/// Why an external program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not installed.
    #[error("the program `{name}` is missing: install it (Debian: apt install {package})")]
    Missing {
        /// Name of the program.
        name: &'static str,
        /// Debian package that holds it.
        package: &'static str,
    },
    /// It is there, but could not be started or talked to.
    #[error("cannot run `{name}`")]
    Run {
        /// Name of the program.
        name: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// It said no.
    #[error("`{name}` failed ({status}): {words}")]
    Failed {
        /// Name of the program.
        name: &'static str,
        /// Exit status or signal.
        status: ExitStatus,
        /// The end of what it printed.
        words: String,
    },
}

/// A started program whose messages are kept for the case that it fails.
#[derive(Debug)]
pub(super) struct Running {
    tool: Tool,
    pub(super) child: Child,
    words: std::fs::File,
}

impl Tool {
    /// What it is called.
    pub(super) const fn name(self) -> &'static str {
        self.name
    }

    /// The program's path.
    pub(super) fn find(self) -> Result<PathBuf, ToolError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain(ADMIN_DIRS.iter().map(PathBuf::from))
            .map(|dir| dir.join(self.name))
            .find(|candidate| candidate.is_file())
            .ok_or(ToolError::Missing { name: self.name, package: self.package })
    }

    /// A command with no input and a fixed environment.
    pub(super) fn command(self) -> Result<Command, ToolError> {
        let mut command = Command::new(self.find()?);
        command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        if let Some(dir) = std::env::var_os("TMPDIR") {
            command.env("TMPDIR", dir);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command)
    }

    /// Starts `command`, which [`Tool::command`] made.
    pub(super) fn start(self, mut command: Command) -> Result<Running, ToolError> {
        let words = tempfile::tempfile().map_err(|source| self.io(source))?;
        command.stderr(words.try_clone().map_err(|source| self.io(source))?);
        let child = command.spawn().map_err(|source| self.io(source))?;
        Ok(Running { tool: self, child, words })
    }

    /// Runs the program with `arguments` to its end.
    pub(super) fn run<A: AsRef<OsStr>>(
        self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<(), ToolError> {
        let mut command = self.command()?;
        command.args(arguments);
        self.start(command)?.finish()
    }

    /// Runs the program as a filter of a file: `input` in, all of its output back.
    pub(super) fn filter(self, arguments: &[&str], input: &Path) -> Result<Vec<u8>, ToolError> {
        let mut command = self.command()?;
        command.args(arguments).stdin(std::fs::File::open(input).map_err(|source| self.io(source))?);
        command.stdout(Stdio::piped());
        let mut running = self.start(command)?;
        let mut output = Vec::new();
        if let Some(stdout) = running.child.stdout.as_mut() {
            stdout.read_to_end(&mut output).map_err(|source| self.io(source))?;
        }
        running.finish()?;
        Ok(output)
    }

    pub(super) fn io(self, source: std::io::Error) -> ToolError {
        ToolError::Run { name: self.name, source }
    }
}

impl Running {
    /// Waits for the end; an error tells what the program printed last.
    pub(super) fn finish(mut self) -> Result<(), ToolError> {
        drop(self.child.stdin.take());
        let status = self.child.wait().map_err(|source| self.tool.io(source))?;
        if status.success() {
            return Ok(());
        }
        let words = self.last_words().unwrap_or_default();
        Err(ToolError::Failed { name: self.tool.name, status, words })
    }

    fn last_words(&mut self) -> std::io::Result<String> {
        let length = self.words.seek(SeekFrom::End(0))?;
        self.words.seek(SeekFrom::Start(length.saturating_sub(MAX_WORDS)))?;
        let mut bytes = Vec::new();
        self.words.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    }
}

/// A program that is given up (an error on our side) must not outlive the build.
impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let tool = Tool { name: "no-such-program", package: "some-package" };
        let error = tool.command().unwrap_err().to_string();
        assert!(error.contains("apt install some-package"), "{error}");
    }

    #[test]
    fn a_failure_repeats_the_programs_words() {
        let error = GZIP.run(["--decompress", "/no/such/file"]).unwrap_err().to_string();
        assert!(error.contains("No such file"), "{error}");
    }
}
