//! What a first stage that was built before holds, by what it is for: read back from its archive.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use super::archive::{ArchiveError, Unpacked};
use super::first_stage::Part;
use super::modules::class;

/// Most bytes of an unpacked first stage that are read.
const MAX_STAGE: u64 = 1 << 30;

/// Bytes of an entry's header: a magic of six, and thirteen numbers of eight hexadecimal digits.
const HEADER: usize = 110;
/// Where the length of an entry's content is, and that of its name.
const SIZE: usize = 54;
const NAME_SIZE: usize = 94;

/// What the first stage in the file `path` holds, by what it is for, before compression.
///
/// # Errors
/// [`ArchiveError`] if it cannot be unpacked or is no archive of ours.
pub fn inventory(path: &Path) -> Result<Vec<Part>, ArchiveError> {
    let mut archive = Unpacked::open(path)?;
    let mut bytes = Vec::new();
    archive.by_ref().take(MAX_STAGE).read_to_end(&mut bytes)?;
    archive.finish()?;
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "no initramfs as this program makes them");
    Ok(parts(&bytes).ok_or_else(damaged)?)
}

/// The parts of the archive `bytes` (format "newc"; Linux, Documentation/driver-api/early-userspace/buffer-format.rst), the largest
/// first.
fn parts(bytes: &[u8]) -> Option<Vec<Part>> {
    let mut parts: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    let mut at = 0usize;
    loop {
        let header = bytes.get(at..at.checked_add(HEADER)?)?;
        let number = |at: usize| {
            let digits = std::str::from_utf8(header.get(at..at + 8)?).ok()?;
            usize::from_str_radix(digits, 16).ok()
        };
        let (size, name_size) = (number(SIZE)?, number(NAME_SIZE)?);
        let name_at = at + HEADER;
        let name = bytes.get(name_at..name_at.checked_add(name_size.checked_sub(1)?)?)?;
        let name = std::str::from_utf8(name).ok().filter(|_| header.starts_with(b"070701"))?;
        if name == "TRAILER!!!" {
            break;
        }
        at = name_at
            .checked_add(name_size)?
            .checked_next_multiple_of(4)?
            .checked_add(size)?
            .checked_next_multiple_of(4)?;
        // Directories and the like have no content.
        if let Some(what) = purpose(name).filter(|_| size > 0) {
            let part = parts.entry(what).or_default();
            *part = (part.0 + 1, part.1 + size as u64);
        }
    }
    let mut parts: Vec<Part> = parts
        .into_iter()
        .map(|(name, (files, bytes))| Part { name: name.to_owned(), files, bytes })
        .collect();
    parts.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    Some(parts)
}

/// What the file `name` is for.
fn purpose(name: &str) -> Option<&'static str> {
    if let Some((_, rest)) = name.strip_prefix("lib/modules/").and_then(|rest| rest.split_once('/')) {
        return Some(match class(rest) {
            _ if !rest.starts_with("kernel/") => "index of the modules",
            "network" => "modules: network",
            "storage" => "modules: storage",
            "file systems" => "modules: file systems",
            _ => "modules: other",
        });
    }
    match name {
        "init" | "sbin/modprobe" => Some("program"),
        "bin/busybox" => Some("emergency shell (busybox)"),
        _ if name.starts_with("lib/firmware/") => Some("firmware"),
        _ if name.starts_with("etc/bootfabric/") => None,
        _ => Some("tools"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::cpio::Archive;

    fn sample() -> Vec<u8> {
        let mut archive = Archive::default();
        archive.directory("proc").unwrap();
        for (name, bytes) in [
            ("init", 7usize),
            ("lib/modules/6.1/kernel/drivers/net/a.ko", 3),
            ("lib/modules/6.1/kernel/net/b.ko", 2),
            ("lib/modules/6.1/kernel/fs/c.ko", 1),
            ("lib/modules/6.1/modules.dep", 4),
            ("lib/firmware/x/y", 6),
            ("etc/bootfabric/trust-root", 9),
            ("usr/bin/tool", 8),
        ] {
            archive.file(name, 0o644, vec![1; bytes]).unwrap();
        }
        let mut bytes = Vec::new();
        archive.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn everything_is_counted_by_its_purpose() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stage");
        std::fs::write(&path, zstd::encode_all(sample().as_slice(), 3).unwrap()).unwrap();
        let found = inventory(&path).unwrap();
        let found: Vec<_> = found.iter().map(|part| (part.name.as_str(), part.files, part.bytes)).collect();
        let expected = [
            ("tools", 1, 8),
            ("program", 1, 7),
            ("firmware", 1, 6),
            ("modules: network", 2, 5),
            ("index of the modules", 1, 4),
            ("modules: file systems", 1, 1),
        ];
        assert_eq!(found, expected);
        std::fs::write(&path, "something else").unwrap();
        assert!(inventory(&path).is_err());
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0usize..2000, value: u8, cut in 0usize..2000) {
            let mut bytes = sample();
            if let Some(byte) = bytes.get_mut(at) { *byte = value; }
            bytes.truncate(cut.max(at));
            let _ = parts(&bytes);
        }
    }
}
