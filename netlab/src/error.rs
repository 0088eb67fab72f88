//! The one error type of the crate: each variant names the operation that failed and its subject.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use crate::missing::Missing;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong in the lab.
///
/// `Debug` prints what `Display` prints, with the causes: a test that returns an `Error` then fails with readable text.
#[derive(thiserror::Error)]
pub enum Error {
    /// A program such as `ip` ran and failed.
    #[error("`{command}` failed ({status}): {stderr}")]
    Tool {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote on its standard error.
        stderr: String,
    },
    /// A program could not be started at all.
    #[error("cannot start `{command}`; netlab::check() lists what must be installed")]
    Start {
        /// The command line.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program answered something that cannot be understood.
    #[error("cannot understand the output of `{command}`: {problem}")]
    Output {
        /// The command line.
        command: String,
        /// What is wrong with its output.
        problem: String,
    },
    /// An operation on a file or directory failed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// A verb: read, write, create.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A system call without a file failed.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A deadline passed.
    #[error("waited {within:?} for {what}; {state}")]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        within: Duration,
        /// What was there instead.
        state: String,
    },
    /// What was waited for cannot happen any more.
    #[error("waited for {what}, which cannot come any more: {state}")]
    InVain {
        /// What was waited for.
        what: String,
        /// Why it cannot come.
        state: String,
    },
    /// A name that cannot be used for a switch, a node or a capture.
    #[error("bad name {name:?}: {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// QEMU's monitor refused a command or did not answer.
    #[error("the monitor of machine {machine}: {problem}")]
    Monitor {
        /// The machine.
        machine: String,
        /// What happened.
        problem: String,
    },
    /// A capture file that is none.
    #[error("the capture {}", path.display())]
    Capture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: crate::pcap::PcapError,
    },
    /// The machine that runs the lab lacks something.
    #[error("this machine cannot run the lab:\n{}\n(BOOTFABRIC_SKIP_LAB=1 skips the tests that need it)", list(.0))]
    NotReady(Vec<Missing>),
}

fn list(missing: &[Missing]) -> String {
    missing.iter().map(|one| format!("  - {one}")).collect::<Vec<_>>().join("\n")
}

impl Error {
    /// For `map_err` after an operation on a file.
    pub(crate) fn file(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::File { action, path, source }
    }

    /// For `map_err` after a system call.
    pub(crate) fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let action = action.into();
        move |source| Error::System { action, source }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
