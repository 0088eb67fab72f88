//! The program as `modprobe`: the kernel runs `/sbin/modprobe -q -- NAME` when it wants a module by itself.

use std::ffi::OsString;
use std::process::ExitCode;

use super::load::Modules;

/// Loads each name or alias in `args` (what follows the program's name), with all it needs. Options are accepted and, save
/// `-q`, without effect; those that would unload or list are refused. Returns failure if anything could not be loaded.
#[must_use]
pub fn modprobe_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = args.into_iter().map(|arg| arg.to_string_lossy().into_owned());
    let request = match Request::read(args) {
        Ok(request) => request,
        Err(option) => {
            eprintln!("modprobe: `{option}` is not supported in the first stage, which only loads modules");
            return ExitCode::FAILURE;
        }
    };
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let mut modules = match Modules::open(&line) {
        Ok(modules) => modules,
        Err(error) => return request.refuse(&error.to_string()),
    };
    let mut outcome = ExitCode::SUCCESS;
    for name in &request.names {
        let found = match modules.load_alias(name) {
            Ok(false) => modules.load(name),
            Ok(true) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = found {
            outcome = request.refuse(&error.to_string());
        }
    }
    outcome
}

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    quiet: bool,
    names: Vec<String>,
}

impl Request {
    /// Reads arguments; the error is the option that cannot be honoured.
    fn read(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut request = Self::default();
        let mut only_names = false;
        for arg in args {
            match arg.as_str() {
                _ if only_names => request.names.push(arg),
                "--" => only_names = true,
                "-q" | "--quiet" => request.quiet = true,
                "-a" | "-b" | "-v" | "-s" | "--all" | "--use-blacklist" | "--verbose" | "--syslog" => {}
                option if option.starts_with('-') => return Err(arg),
                // `name option=value`: parameters come from the kernel line alone.
                word if word.contains('=') => {}
                _ => request.names.push(arg),
            }
        }
        Ok(request)
    }

    fn refuse(&self, why: &str) -> ExitCode {
        if !self.quiet {
            eprintln!("modprobe: {why}");
        }
        ExitCode::FAILURE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Request, String> {
        Request::read(args.iter().map(|arg| (*arg).to_owned()))
    }

    #[test]
    fn what_the_kernel_asks() {
        assert_eq!(
            read(&["-q", "--", "fs-squashfs"]),
            Ok(Request { quiet: true, names: vec!["fs-squashfs".into()] })
        );
        assert_eq!(read(&["--", "-odd"]), Ok(Request { quiet: false, names: vec!["-odd".into()] }));
        assert_eq!(read(&["loop", "max_loop=4"]), Ok(Request { quiet: false, names: vec!["loop".into()] }));
        assert_eq!(read(&["-r", "loop"]), Err("-r".into()));
    }
}
