//! What the kernel says about devices: their modaliases, and network devices that no driver took.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How deep devices may be nested; PCI bridges and USB hubs make it about 15 on real machines.
const MAX_DEPTH: usize = 40;

/// The modaliases of all devices.
pub(super) fn modaliases() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(Path::new("/sys/devices"), 0, &mut found);
    found
}

fn walk(directory: &Path, depth: usize, found: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        // `file_type` does not follow links, so the walk stays in the tree and ends.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            if depth < MAX_DEPTH {
                walk(&entry.path(), depth + 1, found);
            }
        } else if entry.file_name() == "modalias" {
            found.extend(line_of(&entry.path()));
        }
    }
}

/// A network device without a driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::stage) struct Orphan {
    /// What it is on its bus: `pci 8086:100e`.
    pub(in crate::stage) id: String,
    /// What a driver is looked up by.
    pub(in crate::stage) modalias: String,
}

/// The network devices on PCI and virtio that no driver took.
pub(in crate::stage) fn orphan_nics() -> Vec<Orphan> {
    let mut orphans = Vec::new();
    for device in devices("pci") {
        // Class 02: network controllers (PCI Code and ID Assignment, 1.3).
        if line_of(&device.join("class")).is_some_and(|class| class.starts_with("0x02")) {
            let part = |name| line_of(&device.join(name)).map(|id| id.trim_start_matches("0x").to_owned());
            let id =
                format!("pci {}:{}", part("vendor").unwrap_or_default(), part("device").unwrap_or_default());
            orphans.extend(orphan(&device, id));
        }
    }
    for device in devices("virtio") {
        // Device 1: network card (Virtual I/O Device specification 1.2, section 5).
        if line_of(&device.join("device")).is_some_and(|id| id == "0x0001") {
            orphans.extend(orphan(&device, "virtio network card".to_owned()));
        }
    }
    orphans
}

fn orphan(device: &Path, id: String) -> Option<Orphan> {
    let modalias = line_of(&device.join("modalias"))?;
    (!device.join("driver").exists()).then_some(Orphan { id, modalias })
}

fn devices(bus: &str) -> Vec<PathBuf> {
    let directory = Path::new("/sys/bus").join(bus).join("devices");
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// The first line of a small file; `None` if it cannot be read or is empty.
fn line_of(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().next().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned)
}
