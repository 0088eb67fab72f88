//! What the tests of the laboratory share.
#![allow(dead_code, reason = "each test program uses its part")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use netlab::{Host, HostSpec, Lab, Switch, wait_until};

/// Longer than anything here takes on a busy machine; only a failure waits so long.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A whole boot under emulation on a busy machine.
pub(crate) const BOOT: Duration = Duration::from_secs(180);

const PORT: u16 = 4000;

pub(crate) const A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const B: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// Hosts `a` and `b` with addresses.
pub(crate) fn two_hosts(lab: &Lab, switch: &Switch) -> netlab::Result<(Host, Host)> {
    let host = |name: &str, address: Ipv4Addr| {
        let address = format!("{address}/24").parse().unwrap();
        lab.host_with(&HostSpec::new(name).address(address), switch)
    };
    Ok((host("a", A)?, host("b", B)?))
}

/// A socket of the host that gives up waiting soon.
pub(crate) fn socket(host: &Host) -> UdpSocket {
    let socket = host.run_in(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    socket
}

/// Sends `word` until it arrives.
pub(crate) fn reaches(from: &UdpSocket, to: &UdpSocket, address: Ipv4Addr, word: &str) -> netlab::Result<()> {
    let mut buffer = [0; 100];
    wait_until(&format!("{word:?} to arrive at {address}"), LONG, || {
        from.send_to(word.as_bytes(), SocketAddrV4::new(address, PORT)).ok()?;
        let length = to.recv(&mut buffer).ok()?;
        (&buffer[..length] == word.as_bytes()).then_some(())
    })
}

/// A kernel to boot, by the script that prepares all assets of the project.
pub(crate) fn kernel() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/assets.sh");
    let output = Command::new(&script).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {stderr}", script.display());
    stdout.lines().find_map(|line| line.strip_prefix("KERNEL=")).unwrap().into()
}

/// An initramfs in which busybox runs `script` as its init, with `/dev` and `/proc` mounted.
pub(crate) fn initramfs(directory: &Path, script: &str) -> PathBuf {
    let root = directory.join("root");
    for part in ["bin", "dev", "proc"] {
        fs::create_dir_all(root.join(part)).unwrap();
    }
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(
        busybox.expect("busybox is missing: install the Debian package busybox-static"),
        root.join("bin/busybox"),
    )
    .unwrap();
    let init = root.join("init");
    let mounts = "mount -t devtmpfs dev /dev\nmount -t proc proc /proc";
    let text = format!(
        "#!/bin/busybox sh\nalias mount='busybox mount'\nbusybox --install -s /bin\n{mounts}\n{script}\n"
    );
    fs::write(&init, text).unwrap();
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).unwrap();
    let archive = directory.join("initrd");
    let pack = format!("find . | cpio -o -H newc --quiet > '{}'", archive.display());
    let status = Command::new("sh").args(["-ec", &pack]).current_dir(&root).status().unwrap();
    assert!(status.success(), "cpio is missing or failed (Debian package cpio)");
    archive
}
