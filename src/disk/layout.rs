//! Where everything goes on a disk: the plan, made before a byte is written.
//!
//! | partition | size | for |
//! |---|---|---|
//! | `bootfabric bios` | 1 MiB | the part of GRUB that a BIOS starts |
//! | `bootfabric efi` | kernel and first stage three times over | FAT: GRUB for UEFI, kernel, first stage |
//! | `bootfabric store` | three times the image, at least 256 MiB | ext4 labelled `bootfabric`: the node's store and key |
//! | `bootfabric root` and 16 digits of the release | the rest | ext4: the system |

use serde::{Deserialize, Serialize};

use super::gpt::{self, Guid, Partition, Table};

/// Partitions begin and end at multiples of this, in bytes: what suits every disk.
const ALIGN: u64 = 1 << 20;
/// What the names of all partitions begin with.
pub(super) const NAME: &str = "bootfabric ";
/// What the name of the root's partition begins with.
pub(super) const ROOT_NAME: &str = "bootfabric root ";
/// Name of the store's partition.
pub(super) const STORE_NAME: &str = "bootfabric store";
/// Digits of the release that the root's name carries.
const DIGITS: usize = 16;
/// Partition of the loader for BIOS.
const BIOS: u64 = 1 << 20;
/// Smallest partition for UEFI.
const LEAST_EFI: u64 = 64 << 20;
/// Smallest store.
const LEAST_STORE: u64 = 256 << 20;
/// What a root needs beside its files: the journal, the tables, and some room to live in.
const BESIDE_ROOT: u64 = 192 << 20;

/// Types of partitions (UEFI 2.10 section 5.3.3, GRUB manual "BIOS installation", UAPI.2 discoverable partitions).
const BIOS_KIND: Guid = Guid(*b"\x21\x68\x61\x48\x64\x49\x6e\x6f\x74\x4e\x65\x65\x64\x45\x46\x49");
const EFI_KIND: Guid = Guid(*b"\xc1\x2a\x73\x28\xf8\x1f\x11\xd2\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b");
const DATA_KIND: Guid = Guid(*b"\x0f\xc6\x3d\xaf\x84\x83\x47\x72\x8e\x79\x3d\x69\xd8\x47\x7d\xe4");
const ROOT_KIND: Guid = Guid(*b"\x4f\x68\xbc\xe3\xe8\xcd\x4d\xb1\x96\xe7\xfb\xca\xf9\x84\xb7\x09");

/// What is to find room on the disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Needs {
    /// Kernel, first stage and loader.
    pub(super) boot: u64,
    /// All that the store holds.
    pub(super) store: u64,
    /// Files of the root, each rounded up to blocks; `None`: no root, as the machine runs from memory.
    pub(super) root: Option<u64>,
}

/// A place on a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) start: u64,
    pub(super) length: u64,
}

/// The plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layout {
    pub(super) bios: Place,
    pub(super) efi: Place,
    pub(super) store: Place,
    pub(super) root: Option<Place>,
}

/// The disk does not hold it all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the disk has {have_mib} MiB, {need_mib} MiB are needed: {boot_mib} to boot, {store_mib} for the store, {root_mib} for the root"
)]
pub struct TooSmall {
    have_mib: u64,
    need_mib: u64,
    boot_mib: u64,
    store_mib: u64,
    root_mib: u64,
}

impl Layout {
    /// Plans for a disk of `size` bytes in blocks of `block` bytes. Without a root the store gets the rest.
    pub(super) fn plan(size: u64, block: u64, needs: Needs) -> Result<Self, TooSmall> {
        let up = |bytes: u64| bytes.next_multiple_of(ALIGN);
        let efi = up(needs.boot * 3).max(LEAST_EFI);
        let store = up(needs.store * 3).max(LEAST_STORE);
        let root = needs.root.map(|files| up(files + files / 16 + BESIDE_ROOT));
        let begin = up(gpt::head(block)).max(ALIGN);
        let end = size.saturating_sub(gpt::tail(block)) / ALIGN * ALIGN;
        let need = begin + BIOS + efi + store + root.unwrap_or(0);
        if need > end {
            let mib = |bytes: u64| bytes >> 20;
            return Err(TooSmall {
                have_mib: mib(size),
                need_mib: mib(need + up(gpt::tail(block))),
                boot_mib: mib(BIOS + efi),
                store_mib: mib(store),
                root_mib: mib(root.unwrap_or(0)),
            });
        }
        let mut next = begin;
        let mut place = |length: u64| {
            let start = next;
            next += length;
            Place { start, length }
        };
        let (bios, efi) = (place(BIOS), place(efi));
        let store = place(if root.is_some() { store } else { end - begin - BIOS - efi.length });
        let root = root
            .map(|_| Place { start: store.start + store.length, length: end - store.start - store.length });
        Ok(Self { bios, efi, store, root })
    }

    /// Its places, in the order of the partitions' numbers.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        [self.bios, self.efi, self.store].into_iter().chain(self.root)
    }

    /// The table of the plan, with new identities.
    pub(super) fn table(&self, release: &str) -> std::io::Result<Table> {
        let root = root_name(release);
        let kinds = [
            (BIOS_KIND, "bootfabric bios"),
            (EFI_KIND, "bootfabric efi"),
            (DATA_KIND, STORE_NAME),
            (ROOT_KIND, root.as_str()),
        ];
        let partition = |((kind, name), Place { start, length }): ((Guid, &str), Place)| {
            Ok(Partition { kind, id: Guid::random()?, start, length, name: name.to_owned() })
        };
        let partitions =
            kinds.into_iter().zip(self.places()).map(partition).collect::<std::io::Result<_>>()?;
        Ok(Table { id: Guid::random()?, partitions })
    }
}

/// Name of the partition of the root of `release`, an object id in hexadecimal.
pub(super) fn root_name(release: &str) -> String {
    format!("{ROOT_NAME}{}", release.get(..DIGITS).unwrap_or(release))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs { boot: 20 << 20, store: 100 << 20, root: Some(400 << 20) };

    #[test]
    fn places_follow_each_other_and_the_root_has_the_rest() {
        for (size, block) in [(2_000_000_000, 512), (2_000_003_072, 4096), (4 << 40, 512)] {
            let Layout { bios, efi, store, root } = Layout::plan(size, block, NEEDS).unwrap();
            let places = [bios, efi, store, root.unwrap()];
            assert_eq!(bios.start, 1 << 20);
            for pair in places.windows(2) {
                assert_eq!(pair[0].start + pair[0].length, pair[1].start);
            }
            let end = places[3].start + places[3].length;
            assert!(end <= size - gpt::tail(block) && end + 2 * ALIGN > size - gpt::tail(block));
            assert!(places.iter().all(|place| place.start % ALIGN == 0 && place.length % ALIGN == 0));
        }
        let keep = Layout::plan(1 << 30, 512, Needs { root: None, ..NEEDS }).unwrap();
        assert!(keep.root.is_none() && keep.store.length > 900 << 20);
    }

    #[test]
    fn what_does_not_fit_is_said_with_figures() {
        let error = Layout::plan(500 << 20, 512, NEEDS).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the disk has 500 MiB, 980 MiB are needed: 65 to boot, 300 for the store, 617 for the root"
                .replace("980", &error.need_mib.to_string())
        );
        assert!(Layout::plan(error.need_mib << 20, 512, NEEDS).is_ok());
        for size in [0, 1, 1 << 20] {
            assert!(Layout::plan(size, 512, NEEDS).is_err());
        }
    }
}
