//! What systemd in the root must know: the agent as a service, and an interface to leave alone.
//!
//! All of it is written below `/run/systemd`, so the root stays as it is and a reboot leaves nothing.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::nic::Nic;

/// The service that takes over from the first stage's agent.
const SERVICE: &str = include_str!("bootfabric.service");

/// Writes the runtime units below `run`, the machine's `/run`. Writing twice changes nothing.
pub(super) fn write_units(run: &Path, nic: &Nic) -> io::Result<()> {
    let units = run.join("systemd/system");
    let wants = units.join("multi-user.target.wants");
    fs::create_dir_all(&wants)?;
    fs::write(units.join("bootfabric.service"), SERVICE)?;
    match symlink("../bootfabric.service", wants.join("bootfabric.service")) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let network = run.join("systemd/network");
    fs::create_dir_all(&network)?;
    fs::write(network.join("10-bootfabric.network"), network_text(nic))?;
    fs::write(network.join("10-bootfabric.link"), link_text(nic))
}

/// For systemd-networkd: the address is the agent's business.
fn network_text(nic: &Nic) -> String {
    format!(
        "# The machine booted over this interface; the node keeps its address.\n[Match]\nMACAddress={}\n\n[Link]\nUnmanaged=yes\n",
        nic.mac
    )
}

/// For udev: the agent knows the interface by this name, and it is in use.
fn link_text(nic: &Nic) -> String {
    format!(
        "# The machine booted over this interface; it keeps its name.\n[Match]\nMACAddress={}\n\n[Link]\nName={}\n",
        nic.mac, nic.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::config::{PROGRAM, STATE};
    use crate::stage::netlink::LinkIndex;

    #[test]
    fn the_service_runs_the_kept_program_over_the_same_state() {
        assert!(SERVICE.contains(&format!("\nExecStart={PROGRAM} agent --take-over {STATE}\n")), "{SERVICE}");
    }

    #[test]
    fn units_are_written_and_wanted() {
        let run = tempfile::tempdir().unwrap();
        let nic = Nic {
            name: "eth0".into(),
            index: LinkIndex(2),
            mac: "52:54:00:12:34:56".parse().unwrap(),
            carrier: true,
        };
        for _ in 0..2 {
            write_units(run.path(), &nic).unwrap();
        }
        let wanted = run.path().join("systemd/system/multi-user.target.wants/bootfabric.service");
        assert_eq!(fs::read_to_string(wanted).unwrap(), SERVICE);
        let network = fs::read_to_string(run.path().join("systemd/network/10-bootfabric.network")).unwrap();
        assert!(network.contains("MACAddress=52:54:00:12:34:56\n\n[Link]\nUnmanaged=yes"), "{network}");
    }
}
