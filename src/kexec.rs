//! Starting a kernel from a running one: loading it, and giving the machine to it.
//!
//! Owns the system call and what its refusals mean. Which kernel, and whether it is the right one, is for who calls.

use std::ffi::{CString, c_long};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;

/// `kexec_file_load(2)`; the C library has no name for it on every processor.
const KEXEC_FILE_LOAD: c_long = if cfg!(target_arch = "x86_64") { 320 } else { 294 };

/// How long programs have to end when there is no systemd to ask them.
const GRACE: Duration = Duration::from_secs(10);

/// How long writing back may take before a forced restart.
const WRITTEN: Duration = Duration::from_secs(30);

/// The kernel does not take another one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KexecError {
    /// A line that no kernel can be told.
    #[error("the kernel line contains a NUL")]
    Line,
    /// It cannot do such a thing.
    #[error("this kernel cannot load another one (it lacks CONFIG_KEXEC_FILE)")]
    Unable,
    /// It may not.
    #[error(
        "the kernel does not allow it: this needs root, kernel.kexec_load_disabled=0, and no lockdown (Secure Boot)"
    )]
    Forbidden,
    /// Another process is loading one.
    #[error("another process is loading a kernel")]
    Busy,
    /// A signature is needed.
    #[error("the kernel takes only signed kernels, and this one's signature is not one that it trusts")]
    Unsigned(#[source] Errno),
    /// Anything else.
    #[error("the kernel refuses the new one")]
    Refused(#[source] Errno),
}

/// Loads `kernel` with the initramfs `initrd` and the kernel line `line`, to be started by [`Restart::Kexec`]. The kernel has read
/// both files when this returns (kexec_file_load(2)).
///
/// # Errors
/// [`KexecError`]; what was loaded before, if anything, stays.
pub(crate) fn load(kernel: &File, initrd: &File, line: &str) -> Result<(), KexecError> {
    let line = CString::new(line).map_err(|_| KexecError::Line)?;
    match kexec_file_load(kernel, initrd, &line) {
        Ok(()) => Ok(()),
        Err(Errno::ENOSYS) => Err(KexecError::Unable),
        Err(Errno::EPERM | Errno::EACCES) => Err(KexecError::Forbidden),
        Err(Errno::EBUSY) => Err(KexecError::Busy),
        Err(error @ (Errno::EKEYREJECTED | Errno::ENOKEY | Errno::ENODATA | Errno::EBADMSG)) => {
            Err(KexecError::Unsigned(error))
        }
        Err(error) => Err(KexecError::Refused(error)),
    }
}

#[expect(unsafe_code, reason = "no crate that is in use wraps this system call")]
fn kexec_file_load(kernel: &File, initrd: &File, line: &CString) -> nix::Result<()> {
    let bytes = line.as_bytes_with_nul();
    // SAFETY: both descriptors are open while they are borrowed, and the line is as long as is said, its NUL counted; the kernel
    // only reads it.
    let done = unsafe {
        libc::syscall(
            KEXEC_FILE_LOAD,
            c_long::from(kernel.as_raw_fd()),
            c_long::from(initrd.as_raw_fd()),
            bytes.len(),
            bytes.as_ptr(),
            0 as c_long,
        )
    };
    Errno::result(done).map(drop)
}

/// What the machine starts anew through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    /// Through its firmware.
    Firmware,
    /// With the kernel that was loaded.
    Kexec,
}

/// Starts the machine anew at once: no program is asked to end, no init has to be in order. What is to be written back is, as far as
/// that takes no longer than [`WRITTEN`]: a file-system that is stuck must not keep the machine.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn restart_at_once(how: Restart) -> anyhow::Result<()> {
    if !done_within(WRITTEN, nix::unistd::sync) {
        tracing::warn!("not all is written back after {} s; going on without", WRITTEN.as_secs());
    }
    let refused = match how {
        Restart::Firmware => reboot(RebootMode::RB_AUTOBOOT),
        Restart::Kexec => reboot(RebootMode::RB_KEXEC),
    };
    match refused {
        Err(error) => bail!("the kernel does not start the machine anew: {error}"),
        Ok(never) => match never {},
    }
}

/// Does `work` on a thread of its own; whether it is done within `patience`. If not, the thread goes on.
fn done_within(patience: Duration, work: impl FnOnce() + Send + 'static) -> bool {
    let (done, wait) = mpsc::channel();
    std::thread::spawn(move || {
        work();
        // Nobody may be waiting any more.
        let _ = done.send(());
    });
    wait.recv_timeout(patience).is_ok()
}

/// Starts the machine anew in good order: by its init. Returns when that has begun.
///
/// # Errors
/// If nothing on this machine can do it.
pub(crate) fn restart(how: Restart) -> anyhow::Result<()> {
    if Path::new("/run/systemd/system").is_dir() {
        return run("systemctl", &[if how == Restart::Firmware { "reboot" } else { "kexec" }]);
    }
    match how {
        Restart::Firmware => run("reboot", &[]),
        // An init other than systemd knows no such end.
        Restart::Kexec => end_and_kexec(),
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // An ssh session may lack the directories of an administrator's programs.
    let directories =
        std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    let found = directories.map(|directory| directory.join(program)).find(|path| path.is_file());
    let found = found.with_context(|| {
        format!("this machine has no `{program}`: start it anew by its own means, or say --force")
    })?;
    let mut command = Command::new(&found);
    let status = command.args(arguments).stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot run {}", found.display()))?;
    ensure!(status.success(), "`{program} {}` ends with {status}", arguments.join(" "));
    Ok(())
}

/// Ends all programs, writes back what is to be written, and starts the loaded kernel.
#[expect(unsafe_code, reason = "a signal is to be ignored")]
fn end_and_kexec() -> anyhow::Result<()> {
    ensure!(is_loaded(), "no kernel is loaded");
    for ignored in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGPIPE] {
        // SAFETY: ignoring a signal runs no code.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    // All but this process and init.
    let everybody = Pid::from_raw(-1);
    let _ = kill(everybody, Signal::SIGTERM);
    let deadline = Instant::now() + GRACE;
    while others() > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = kill(everybody, Signal::SIGKILL);
    restart_at_once(Restart::Kexec)
}

/// Processes with a program, beside this one and init.
fn others() -> usize {
    let own = std::process::id();
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok().filter(|pid| *pid != 1 && *pid != own)
    });
    // Kernel threads have no program.
    pids.filter(|pid| std::fs::read_link(format!("/proc/{pid}/exe")).is_ok()).count()
}

/// Whether a kernel is loaded.
pub(crate) fn is_loaded() -> bool {
    std::fs::read_to_string("/sys/kernel/kexec_loaded").is_ok_and(|text| text.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stuck_is_not_waited_for() {
        let (hold, held) = mpsc::channel::<()>();
        assert!(!done_within(Duration::from_millis(10), move || assert!(held.recv().is_err())));
        drop(hold);
        assert!(done_within(Duration::from_secs(60), || ()));
    }
}
