//! Where distributions keep kernels, their modules and their configuration.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};

/// Largest configuration that is read, in bytes; a distribution's has 300 kB.
const MAX_CONFIG: u64 = 8 << 20;

/// Directories of modules, below a root: the first is a link to the second on most systems.
const MODULE_DIRS: [&str; 2] = ["usr/lib/modules", "lib/modules"];

/// A kernel that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) version: String,
    pub(super) vmlinuz: PathBuf,
}

/// Whether the file `path` of a root is worth keeping for finding the root's kernel.
pub(in crate::image) fn is_part(path: &str) -> bool {
    let in_boot = |name: &str| ["vmlinuz-", "config-"].iter().any(|start| name.starts_with(start));
    path.strip_prefix("boot/").is_some_and(in_boot)
        || MODULE_DIRS.iter().any(|dir| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/')))
}

/// All kernels below `root`, the newest last.
pub(super) fn kernels(root: &Path) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for (name, path) in entries(&root.join("boot")) {
        if let Some(version) = name.strip_prefix("vmlinuz-") {
            found.push(Found { version: version.to_owned(), vmlinuz: path });
        }
    }
    for dir in MODULE_DIRS {
        for (version, path) in entries(&root.join(dir)) {
            let vmlinuz = path.join("vmlinuz");
            if vmlinuz.is_file() && found.iter().all(|known| known.version != version) {
                found.push(Found { version, vmlinuz });
            }
        }
    }
    found.sort_by(|a, b| compare_versions(&a.version, &b.version));
    found
}

/// The modules of kernel `version` below `root`.
pub(super) fn modules_below(root: &Path, version: &str) -> Option<PathBuf> {
    MODULE_DIRS.iter().map(|dir| root.join(dir).join(version)).find(|dir| has_modules(dir))
}

/// The modules of kernel `version` in a directory that an operator named: itself, or below it.
pub(super) fn modules_of(path: &Path, version: &str) -> Option<PathBuf> {
    let own = path.file_name().is_some_and(|name| name == version).then(|| path.to_owned());
    let own = own.filter(|dir| has_modules(dir)).or_else(|| modules_below(path, version));
    own.or_else(|| Some(path.join(version)).filter(|dir| has_modules(dir)))
}

/// The kernel's configuration, from one of the two places where packages have it.
pub(super) fn config(root: &Path, modules: &Path, version: &str) -> Option<String> {
    use std::io::Read;
    let places = [root.join(format!("boot/config-{version}")), modules.join("config")];
    let file = places.iter().find_map(|path| fs::File::open(path).ok())?;
    let mut text = String::new();
    file.take(MAX_CONFIG).read_to_string(&mut text).ok()?;
    Some(text)
}

fn has_modules(dir: &Path) -> bool {
    dir.join("modules.dep").exists() || dir.join("kernel").is_dir() || dir.join("modules.builtin").exists()
}

/// Names and paths in a directory; nothing if it is not there.
fn entries(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect()
}

/// Orders versions as people do: numbers by value, the rest by bytes.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    while !a.is_empty() && !b.is_empty() {
        let (left, a_rest) = split_number(a);
        let (right, b_rest) = split_number(b);
        let order = match (left.parse::<u64>(), right.parse::<u64>()) {
            (Ok(left), Ok(right)) => left.cmp(&right),
            _ => left.cmp(right),
        };
        if order.is_ne() {
            return order;
        }
        (a, b) = (a_rest, b_rest);
    }
    a.len().cmp(&b.len())
}

/// The digits that `text` begins with, or what comes before its first digit; and the rest.
fn split_number(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_last() {
        let mut versions = ["6.1.0-9-amd64", "6.1.0-40-amd64", "5.10.0-100-amd64", "6.1.0-40-cloud-amd64"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(versions, ["5.10.0-100-amd64", "6.1.0-9-amd64", "6.1.0-40-amd64", "6.1.0-40-cloud-amd64"]);
    }

    #[test]
    fn parts_of_a_kernel_are_known() {
        for path in [
            "boot/vmlinuz-6.1",
            "boot/config-6.1",
            "usr/lib/modules/6.1/kernel/a.ko",
            "lib/modules/6.1/vmlinuz",
        ] {
            assert!(is_part(path), "{path}");
        }
        for path in ["boot/initrd.img-6.1", "lib/modules", "usr/lib/modules-load.d/x", "etc/passwd"] {
            assert!(!is_part(path), "{path}");
        }
    }
}
