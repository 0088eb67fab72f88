//! A shell on the console, for who asked for one on the kernel line.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::boot::Boot;

/// The shell and its tools, if the image carries them.
const BUSYBOX: &str = "/bin/busybox";

/// Runs a shell until the person leaves it. The boot's standing duties go on meanwhile.
pub(super) fn run(boot: &mut Boot) {
    if !Path::new(BUSYBOX).exists() {
        boot.console.say("no shell: this image carries no busybox");
        return;
    }
    boot.console.say("a shell, as the kernel line asks; the agent's words are in /run/bootfabric/agent.log; `exit` tries again");
    // Tools under their own names. A shell without them still has its own.
    finish(boot, Command::new(BUSYBOX).args(["--install", "-s", "/bin"]).stdin(Stdio::null()));
    let terminal = terminal();
    let open = || OpenOptions::new().read(true).write(true).open(&terminal);
    let (Ok(input), Ok(output), Ok(errors)) = (open(), open(), open()) else {
        boot.console.say(&format!("no shell: cannot open {}", terminal.display()));
        return;
    };
    // `setsid -c` gives it a session and the terminal, so that ^C reaches the shell's children and not PID 1.
    let mut command = Command::new(BUSYBOX);
    command
        .args(["setsid", "-c", BUSYBOX, "sh"])
        .env_clear()
        .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
        .env("TERM", std::env::var_os("TERM").unwrap_or_else(|| "linux".into()))
        .env("HOME", "/")
        .env("PS1", "first stage# ")
        .stdin(input)
        .stdout(output)
        .stderr(errors);
    finish(boot, &mut command);
}

/// Starts a command and turns until it has ended.
fn finish(boot: &mut Boot, command: &mut Command) {
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return boot.console.say(&format!("no shell: {error}")),
    };
    let pid = i64::from(child.id());
    while !boot.turn(Duration::from_secs(1)).iter().any(|exit| i64::from(exit.pid.as_raw()) == pid) {}
}

/// The terminal behind the console, which unlike `/dev/console` can be a session's own.
fn terminal() -> PathBuf {
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    // The one of `/dev/console` is the last.
    match active.split_whitespace().last() {
        Some(name) if !name.contains('/') => Path::new("/dev").join(name),
        _ => PathBuf::from("/dev/console"),
    }
}
