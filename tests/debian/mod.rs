//! A lab whose machines run a Debian that is looked into over ssh.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use bootfabric::lab::assets::RootKind;
use bootfabric::lab::cluster::{Boot, Cluster, HostNode, MachineNode};

/// What a machine is asked to do over ssh takes seconds, or, where it fills its memory under emulation, minutes.
const PATIENCE: Duration = Duration::from_secs(400);

/// A lab whose origin has a Debian with an ssh server.
pub(crate) struct Debian {
    pub(crate) cluster: Cluster,
    pub(crate) origin: HostNode,
}

impl Debian {
    /// With the image changed as `bootfabric image set` does; none where labs cannot be made.
    pub(crate) fn new(name: &'static str, boot: Boot, changes: &[&str]) -> anyhow::Result<Option<Self>> {
        // Figures are those of the program as it is released.
        let program = std::env::var_os("BOOTFABRIC_PROGRAM");
        let program = program.as_ref().map_or(Path::new(env!("CARGO_BIN_EXE_bootfabric")), Path::new);
        let Some(cluster) = Cluster::in_test(program, name, RootKind::DebianSsh, boot)? else {
            return Ok(None);
        };
        let home = cluster.make_home("origin")?;
        if !changes.is_empty() {
            cluster.assets().set(cluster.root(), &home, changes)?;
        }
        let origin = cluster.start_host("origin", home, &[])?;
        Ok(Some(Self { cluster, origin }))
    }

    pub(crate) fn say(&self, what: &str) {
        println!("{:7.1} s  {what}", self.cluster.lab().elapsed().as_secs_f64());
    }

    /// Runs `script` on `machine`; what it prints.
    pub(crate) fn ssh(&self, machine: &MachineNode, script: &str) -> anyhow::Result<String> {
        let output = self.ssh_command(machine)?.arg(script).output().context("cannot run ssh")?;
        ensure!(
            output.status.success(),
            "{}: `{script}` ends with {}: {}{}\n{}",
            machine.name,
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            machine.machine.console().tail(),
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// The beginning of a command that runs its next argument on `machine`.
    pub(crate) fn ssh_command(&self, machine: &MachineNode) -> anyhow::Result<Command> {
        let mut ssh = self.origin.host.command("timeout");
        ssh.arg(PATIENCE.as_secs().to_string()).args(["ssh", "-F", "none", "-o", "BatchMode=no"]);
        for option in [
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            "PreferredAuthentications=none",
            "ConnectTimeout=60",
            // One a second: its server starts beside what is waited for.
            "ConnectionAttempts=60",
            "LogLevel=ERROR",
            // A machine that starts anew says no goodbye.
            "ServerAliveInterval=5",
            "ServerAliveCountMax=6",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.arg(format!("root@{}", machine.started()?.address));
        Ok(ssh)
    }

    /// Waits until systemd has done all it has to, and expects that nothing failed.
    pub(crate) fn sound(&self, machine: &MachineNode) -> anyhow::Result<()> {
        let failed = self.ssh(
            machine,
            "systemctl is-system-running --wait; systemctl --failed --plain --no-legend; true",
        )?;
        ensure!(failed == "running", "{}: {failed}", machine.name);
        self.say(&format!("{} runs, no unit failed, ssh answers", machine.name));
        Ok(())
    }

    /// MiB that programs and the kernel hold, files in RAM included: what is neither free nor cached from elsewhere.
    pub(crate) fn used_mib(&self, machine: &MachineNode) -> anyhow::Result<u64> {
        let meminfo = self.ssh(machine, "cat /proc/meminfo")?;
        let field = |name: &str| -> anyhow::Result<u64> {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            Ok(line.context("no such field")?.trim().trim_end_matches(" kB").parse()?)
        };
        let cached = field("Cached")? + field("Buffers")? + field("SReclaimable")? - field("Shmem")?;
        Ok((field("MemTotal")? - field("MemFree")? - cached) / 1024)
    }
}
