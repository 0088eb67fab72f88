//! Runs a system program such as `ip` to its end. Programs that live on are [`crate::Process`]es.

use std::process::{Command, Stdio};

use crate::{Error, Result};

/// Runs `program` with `args` and returns its standard output.
///
/// # Errors
/// [`Error::Start`] or [`Error::Tool`], which show the command line and its standard error.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(args);
    finish(&mut command)
}

/// As [`run`], for a prepared command.
pub(crate) fn finish(command: &mut Command) -> Result<String> {
    let shown = show(command);
    tracing::trace!(command = shown, "run");
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start { command: shown.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Tool { command: shown, status: output.status, stderr })
}

/// The command line for people.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(std::ffi::OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_comes_back() {
        assert_eq!(run("echo", &["one", "two"]).unwrap(), "one two\n");
    }

    #[test]
    fn failures_show_command_and_stderr() {
        let text = run("sh", &["-c", "echo no luck >&2; exit 3"]).unwrap_err().to_string();
        assert!(text.contains("sh -c") && text.contains("no luck") && text.contains('3'), "{text}");
        let text = run("no-such-program-here", &["x"]).unwrap_err().to_string();
        assert!(text.contains("no-such-program-here x"), "{text}");
    }
}
