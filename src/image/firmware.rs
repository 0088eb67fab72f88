//! Firmware files that drivers ask for: which of them go into the first stage.
//!
//! A module names the files that it may ask for (`firmware=` in its section `.modinfo`; Linux, `MODULE_FIRMWARE`), for all the
//! cards that it knows. What there is of them is taken unpacked, as not every kernel unpacks firmware.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::elf;
use super::tool::{ToolError, XZ};

/// Most bytes of firmware in a first stage, unpacked: it is held in memory twice while the machine starts.
const MAX_FIRMWARE: u64 = 32 << 20;

/// Longest name of a file that is looked for.
const MAX_NAME: usize = 255;

/// Where a root has firmware.
pub(super) const DIRECTORIES: [&str; 2] = ["usr/lib/firmware", "lib/firmware"];

/// How files end: as they are, or compressed (Linux, `CONFIG_FW_LOADER_COMPRESS`).
pub(super) const ENDINGS: [&str; 3] = ["", ".xz", ".zst"];

/// Where firmware is taken from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum FirmwareSource {
    /// The root.
    #[default]
    Root,
    /// A directory: one laid out like `/`, or firmware itself; what it lacks, from the root.
    Directory(PathBuf),
    /// None is taken.
    None,
}

/// What became of the firmware that modules ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FirmwareReport {
    /// Files that are not to be found.
    pub missing: Vec<String>,
    /// Files that would have been too many bytes.
    pub too_large: Vec<String>,
}

/// Why firmware cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum FirmwareError {
    /// A file is damaged.
    #[error("cannot read the firmware file `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A compressed file is damaged.
    #[error("cannot unpack the firmware file `{}`", path.display())]
    Unpack {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ToolError,
    },
}

/// The files that the module with the bytes `module` may ask for. Names that lead elsewhere are none.
pub(super) fn wanted_by(module: &[u8]) -> impl Iterator<Item = String> + '_ {
    let info = elf::section(module, b".modinfo").unwrap_or_default();
    let names = info.split(|byte| *byte == 0).filter_map(|entry| entry.strip_prefix(b"firmware="));
    names.filter_map(|name| std::str::from_utf8(name).ok()).filter(|name| is_plain(name)).map(str::to_owned)
}

fn is_plain(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name.split('/').all(|part| !matches!(part, "" | "." | ".."))
        && !name.contains(char::is_control)
}

/// Finds the files `wanted` below `places`, the first of which that has one counts: directories laid out like `/`, or firmware
/// themselves. Smaller files come first where there is no room for all.
///
/// # Errors
/// [`FirmwareError`] for what is there and cannot be read.
pub(super) fn find(
    wanted: &BTreeSet<String>,
    places: &[&Path],
) -> Result<(BTreeMap<String, Vec<u8>>, FirmwareReport), FirmwareError> {
    let (mut found, mut report) = (Vec::new(), FirmwareReport::default());
    for name in wanted {
        match places.iter().find_map(|place| locate(place, name)) {
            Some(path) => found.push((name.clone(), unpacked(&path)?)),
            None => report.missing.push(name.clone()),
        }
    }
    found.sort_by_key(|(_, bytes)| bytes.len());
    let (mut files, mut total) = (BTreeMap::new(), 0);
    for (name, bytes) in found {
        total += bytes.len() as u64;
        if total > MAX_FIRMWARE {
            report.too_large.push(name);
        } else {
            files.insert(name, bytes);
        }
    }
    report.too_large.sort_unstable();
    Ok((files, report))
}

/// The file `name` of `place`, which no link leads out of.
fn locate(place: &Path, name: &str) -> Option<PathBuf> {
    let real = fs::canonicalize(place).ok()?;
    let directories = DIRECTORIES.iter().map(|dir| real.join(dir)).chain([real.clone()]);
    let candidates = directories.flat_map(|dir| ENDINGS.map(|ending| dir.join(format!("{name}{ending}"))));
    candidates
        .filter_map(|path| fs::canonicalize(path).ok())
        .find(|path| path.starts_with(&real) && path.is_file())
}

fn unpacked(path: &Path) -> Result<Vec<u8>, FirmwareError> {
    let read = |source| FirmwareError::Read { path: path.to_owned(), source };
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("xz") => XZ
            .filter(&["-dc"], path)
            .map_err(|source| FirmwareError::Unpack { path: path.to_owned(), source }),
        Some("zst") => {
            use std::io::Read;
            let mut bytes = Vec::new();
            let decoder = fs::File::open(path).and_then(zstd::Decoder::new).map_err(read)?;
            // One byte more than fits is enough to know.
            decoder.take(MAX_FIRMWARE + 1).read_to_end(&mut bytes).map_err(read)?;
            Ok(bytes)
        }
        _ => fs::read(path).map_err(read),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// A module as the kernel builds them, with `info` in its section `.modinfo`.
    pub(in crate::image) fn module(info: &[u8]) -> Vec<u8> {
        let names = b"\0.modinfo\0";
        let (header, table) = (64, 64 + names.len() + info.len());
        let mut file = vec![0; table + 3 * 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[0x12] = 62;
        file[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        file[0x3a..0x40].copy_from_slice(&[64, 0, 3, 0, 1, 0]);
        file[header..header + names.len()].copy_from_slice(names);
        file[header + names.len()..table].copy_from_slice(info);
        for (number, name, start, size) in
            [(1, 0u32, header, names.len()), (2, 1, header + names.len(), info.len())]
        {
            let at = table + number * 64;
            file[at..at + 4].copy_from_slice(&name.to_le_bytes());
            file[at + 0x18..at + 0x20].copy_from_slice(&(start as u64).to_le_bytes());
            file[at + 0x20..at + 0x28].copy_from_slice(&(size as u64).to_le_bytes());
        }
        file
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_module_tells_what_it_may_ask_for() {
        let module = module(b"license=GPL\0firmware=a/b.bin\0firmware=../x\0firmware=/y\0firmware=c.fw\0");
        assert_eq!(wanted_by(&module).collect::<Vec<_>>(), ["a/b.bin", "c.fw"]);
        assert_eq!(wanted_by(b"no module").count(), 0);
    }

    #[test]
    fn files_are_found_compressed_or_behind_links_and_never_outside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let firmware = root.join("usr/lib/firmware");
        fs::create_dir_all(firmware.join("a")).unwrap();
        fs::write(dir.path().join("outside"), "secret").unwrap();
        fs::write(firmware.join("a/plain"), "plain").unwrap();
        fs::write(firmware.join("packed.zst"), zstd::encode_all(b"packed".as_slice(), 3).unwrap()).unwrap();
        fs::write(firmware.join("old"), "old").unwrap();
        assert!(Command::new("xz").arg(firmware.join("old")).status().unwrap().success());
        symlink("a/plain", firmware.join("link")).unwrap();
        symlink(dir.path().join("outside"), firmware.join("out")).unwrap();
        let wanted = set(&["a/plain", "packed", "old", "link", "out", "none"]);
        let (files, report) = find(&wanted, &[dir.path().join("nowhere").as_path(), &root]).unwrap();
        let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        let expected: [(&str, &[u8]); 4] =
            [("a/plain", b"plain"), ("link", b"plain"), ("old", b"old"), ("packed", b"packed")];
        assert_eq!(files, expected);
        assert_eq!(report.missing, ["none", "out"]);
        // A directory of firmware itself serves as well.
        assert_eq!(find(&set(&["a/plain"]), &[&firmware]).unwrap().0.len(), 1);
    }

    #[test]
    fn what_is_too_much_stays_out() {
        let dir = tempfile::tempdir().unwrap();
        let big = fs::File::create(dir.path().join("big")).unwrap();
        big.set_len(MAX_FIRMWARE).unwrap();
        fs::write(dir.path().join("small"), "small").unwrap();
        let (files, report) = find(&set(&["big", "small"]), &[dir.path()]).unwrap();
        assert_eq!(files.into_keys().collect::<Vec<_>>(), ["small"]);
        assert_eq!(report.too_large, ["big"]);
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0usize..300, value: u8, cut in 0usize..300) {
            let mut file = module(b"firmware=a\0");
            if let Some(byte) = file.get_mut(at) { *byte = value; }
            file.truncate(cut.max(at));
            let _ = wanted_by(&file).count();
        }
    }
}
