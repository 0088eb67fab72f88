//! What the machine that runs the lab must have, found out before anything is started.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::machine::QEMU;
use crate::missing::Missing;
use crate::{Error, Result};

/// Tests that need the lab are skipped when this is `1`.
const SKIP: &str = "BOOTFABRIC_SKIP_LAB";

/// capabilities(7), as bits of `CapEff`.
const CAP_NET_ADMIN: u64 = 12;
const CAP_SYS_ADMIN: u64 = 21;

/// Programs of the path: name, use, Debian package.
const PROGRAMS: [(&str, &str, &str); 4] = [
    ("ip", "namespaces, bridges and cables", "iproute2"),
    ("tc", "shaped links", "iproute2"),
    ("tcpdump", "packet captures", "tcpdump"),
    (QEMU, "machines", "qemu-system-x86"),
];

/// Files: any one of the first list, use, Debian package.
const FILES: [(&[&str], &str, &str); 4] = [
    (&["/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin"], "machines with BIOS", "seabios"),
    (
        &["/usr/lib/ipxe/qemu/efi-virtio.rom", "/usr/share/qemu/efi-virtio.rom"],
        "network boot of the BIOS",
        "ipxe-qemu",
    ),
    (&["/usr/share/OVMF/OVMF_CODE_4M.fd"], "machines with UEFI", "ovmf"),
    (&["/usr/share/OVMF/OVMF_VARS_4M.fd"], "machines with UEFI", "ovmf"),
];

/// Whether a lab can run here, and everything that is missing if not.
///
/// # Errors
/// The list of what is missing.
pub fn check() -> std::result::Result<(), Vec<Missing>> {
    let mut missing = Vec::new();
    if !has_capabilities() {
        let what = "the rights of root (CAP_NET_ADMIN and CAP_SYS_ADMIN)".into();
        missing.push(Missing { what, needed_for: "network namespaces", package: None });
    }
    if let Err(error) = File::options().read(true).write(true).open("/dev/net/tun") {
        let what = format!("/dev/net/tun ({error})");
        missing.push(Missing { what, needed_for: "the network cards of machines", package: None });
    }
    for (program, needed_for, package) in PROGRAMS {
        if find_program(program).is_none() {
            missing.push(Missing {
                what: format!("the program {program}"),
                needed_for,
                package: Some(package),
            });
        }
    }
    for (files, needed_for, package) in FILES {
        if !files.iter().any(|file| Path::new(file).exists()) {
            let what = format!("the file {}", files.join(" or "));
            missing.push(Missing { what, needed_for, package: Some(package) });
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(missing) }
}

/// For tests that need the lab: `true` to run, `false` to skip because the environment says so (the reason is printed).
///
/// # Errors
/// [`Error::NotReady`] with all that is missing: a tier that cannot run fails, it does not pass by doing nothing.
pub fn ready_or_skip() -> Result<bool> {
    if std::env::var_os(SKIP).as_deref() == Some(OsStr::new("1")) {
        eprintln!("skipped: {SKIP}=1");
        return Ok(false);
    }
    check().map(|()| true).map_err(Error::NotReady)
}

fn has_capabilities() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    [CAP_NET_ADMIN, CAP_SYS_ADMIN].iter().all(|bit| effective >> bit & 1 == 1)
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_path() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("no-such-program-here"), None);
    }

    #[test]
    fn missing_things_say_what_to_do() {
        let missing =
            Missing { what: "the program ip".into(), needed_for: "bridges", package: Some("iproute2") };
        let text = Error::NotReady(vec![missing]).to_string();
        assert!(text.contains("the program ip, needed for bridges (Debian package iproute2)"), "{text}");
    }
}
