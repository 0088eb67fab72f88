//! How much memory a machine has, and how much a root needs on it.

use std::io;

use fabric::trust::{Release, RootMode};

/// Bytes that a file, directory or link takes beside its content: an inode and its name in the kernel.
pub(crate) const PER_INODE: u64 = 1024;

/// What a machine needs beside the blobs, in MiB: the agent, the root's own programs, and some room for what they write.
/// A small Debian with systemd has 40 MiB in use at its login prompt, and the agent may take as much.
pub(crate) const BESIDE_BLOBS_MIB: u64 = 128;

/// The key of a release's kernel line that says how large its root is unpacked, in MiB.
const UNPACKED: &str = "bootfabric.unpacked=";

/// What a squashfs becomes on zram, in eighths of its size: zram compresses each page alone, a squashfs 128 KiB at a time.
const ZRAM_EIGHTHS: u64 = 14;

/// Memory that programs can still have, bytes (`MemAvailable` of proc_meminfo(5)).
///
/// # Errors
/// Those of reading `/proc/meminfo`; `InvalidData` if it does not say.
pub(crate) fn available() -> io::Result<u64> {
    parse(&std::fs::read_to_string("/proc/meminfo")?)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no usable MemAvailable in /proc/meminfo"))
}

fn parse(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The words that tell a machine how much memory an unpacked root takes: `bytes` of files in whole pages and `inodes`.
pub(crate) fn unpacked_word(bytes: u64, inodes: u64) -> String {
    format!("{UNPACKED}{}", (bytes + inodes * PER_INODE).div_ceil(1 << 20))
}

/// Those words in a release, if its builder wrote them.
pub(crate) fn unpacked_word_of(release: &Release) -> Option<&str> {
    release.cmdline.split_whitespace().rfind(|word| word.starts_with(UNPACKED))
}

/// MiB of the unpacked root, as the release says. Releases of older versions do not: then a squashfs's usual third.
pub(crate) fn unpacked_mib(release: &Release) -> u64 {
    let said = unpacked_word_of(release).and_then(|word| word.strip_prefix(UNPACKED)?.parse().ok());
    said.unwrap_or(release.root.size.saturating_mul(3).div_ceil(1 << 20))
}

/// MiB of memory that a machine needs to boot `release` with its root held as `mode` says.
///
/// Unpacking needs the blob and the root at once.
pub(crate) fn needed_mib(release: &Release, mode: RootMode) -> u64 {
    let blobs: u64 = release.blobs().map(|blob| blob.size).sum();
    let held = blobs.div_ceil(1 << 20).saturating_add(BESIDE_BLOBS_MIB);
    let unpacked = match mode {
        RootMode::Overlay => 0,
        RootMode::Tmpfs => unpacked_mib(release),
        RootMode::Zram => {
            (release.root.size.saturating_mul(ZRAM_EIGHTHS) / 8).div_ceil(1 << 20).min(unpacked_mib(release))
        }
    };
    // What the builder says is the least, whatever this version thinks.
    let said = if mode == release.root_mode { u64::from(release.memory_needed_mib) } else { 0 };
    held.saturating_add(unpacked).max(said)
}

#[cfg(test)]
mod tests {
    use fabric::content::index_bytes;
    use fabric::trust::{Arch, RootFormat};

    use super::*;

    /// A release whose root has `mib` MiB, and nothing else of any size.
    fn release(mib: u64, cmdline: &str) -> Release {
        let mut blob = index_bytes(b"a").unwrap().reference();
        blob.size = 1;
        let root = fabric::content::BlobRef { size: mib << 20, ..blob };
        Release {
            name: "debian".into(),
            version: "1".into(),
            generation: 1,
            arch: Arch::X86_64,
            kernel: blob,
            kernel_version: "6.1".into(),
            first_stage: blob,
            root,
            root_format: RootFormat::Squashfs,
            loaders: vec![],
            cmdline: cmdline.into(),
            root_mode: RootMode::Overlay,
            memory_needed_mib: 0,
        }
    }

    #[test]
    fn available_memory_is_read_in_bytes() {
        let text = "MemTotal:  500000 kB\nMemFree: 1 kB\nMemAvailable:     2048 kB\n";
        assert_eq!(parse(text), Some(2 * 1024 * 1024));
        assert_eq!(parse("MemTotal: 1 kB\n"), None);
        assert_eq!(parse("MemAvailable: lots\n"), None);
    }

    #[test]
    fn each_mode_needs_the_blobs_and_what_it_unpacks() {
        let word = unpacked_word(200 << 20, 10 << 10);
        assert_eq!(word, "bootfabric.unpacked=210");
        let said = release(50, &format!("quiet {word}"));
        let held = 50 + 1 + BESIDE_BLOBS_MIB;
        let needed = [RootMode::Overlay, RootMode::Tmpfs, RootMode::Zram].map(|mode| needed_mib(&said, mode));
        assert_eq!(needed, [held, held + 210, held + 88]);
        // Of releases that do not say, a guess; and never less than the builder says of its own mode.
        assert_eq!(needed_mib(&release(50, "quiet"), RootMode::Tmpfs), held + 150);
        let more = Release { memory_needed_mib: 4096, ..said };
        assert_eq!(needed_mib(&more, RootMode::Overlay), 4096);
        assert_eq!(needed_mib(&more, RootMode::Tmpfs), held + 210);
    }
}
