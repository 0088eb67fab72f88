//! The parts of an image beside its root, small and good enough to build from.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// The version of the kernel.
pub(crate) const KERNEL: &str = "6.1.0-1-amd64";

/// Runs `command`, which must succeed.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// Writes a file and the directories above it.
fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Makes a kernel with one module in the directory `kernel` of `dir`, and a file `loader`.
pub(crate) fn make(dir: &Path) {
    let file = |path: &str, content: &[u8]| write(&dir.join(path), content);
    // Passes for a kernel: boot flag, magic, and where the version is (Linux, Documentation/arch/x86/boot.rst).
    let mut kernel = vec![0; 0x400];
    kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20e..0x210].copy_from_slice(&[0, 1]);
    kernel[0x236] = 1;
    kernel[0x300..0x300 + KERNEL.len()].copy_from_slice(KERNEL.as_bytes());
    file(&format!("kernel/boot/vmlinuz-{KERNEL}"), &kernel);
    let modules = format!("kernel/lib/modules/{KERNEL}");
    file(&format!("{modules}/modules.dep"), b"kernel/virtio_net.ko:\n");
    file(&format!("{modules}/kernel/virtio_net.ko"), b"virtio_net");
    let builtin = b"kernel/loop.ko\nkernel/squashfs.ko\nkernel/overlay.ko\n";
    file(&format!("{modules}/modules.builtin"), builtin);
    file("loader", b"loader");
}
