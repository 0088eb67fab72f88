//! The sets of modules that an operator can name, as data.
//!
//! A member is a module's name or an alias. A kernel may have it built in, and then nothing is copied. What a set calls
//! [`Need::Must`] has to be there in one of the two ways; a driver may be missing, as kernels for virtual machines have few.

/// Whether an image can do without a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Without it the first stage cannot do its work.
    Must,
    /// It is taken where the kernel has it, and reported where not.
    May,
    /// It is taken where the kernel has it; its absence means nothing, as other kernels do without it.
    Helps,
}

/// A group of modules of a set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub(super) need: Need,
    /// Whether its members drive network interfaces.
    pub(super) network: bool,
    /// Whether the first stage loads them in any case, rather than when a device or the kernel asks.
    pub(super) load: bool,
    pub(super) members: &'static [&'static str],
}

/// A named set.
#[derive(Debug, Clone, Copy)]
pub struct ModuleSet {
    /// What the operator types.
    pub name: &'static str,
    /// For whom it is.
    pub about: &'static str,
    pub(super) groups: &'static [Group],
}

/// The sets that can be named.
pub const SETS: [ModuleSet; 3] = [
    ModuleSet {
        name: "virtio",
        about: "virtual machines with virtio devices (QEMU, most clouds)",
        groups: &[VIRTIO_BUS, VIRTIO_NETWORK, VIRTIO_DEVICES],
    },
    ModuleSet {
        name: "pc",
        about: "PCs and servers: common network cards, hypervisors, USB network adapters, keyboards",
        groups: &[
            VIRTIO_BUS,
            VIRTIO_NETWORK,
            VIRTIO_DEVICES,
            HYPERVISOR_NETWORK,
            GIGABIT_NETWORK,
            FAST_NETWORK,
            USB_NETWORK,
            PHYS,
            CONSOLE,
        ],
    },
    ModuleSet {
        name: "storage",
        about: "disks and the file systems on them (a RAM root needs none)",
        groups: &[DISKS, DISK_FILE_SYSTEMS],
    },
];

/// What every first stage needs.
pub(super) const ALWAYS: ModuleSet =
    ModuleSet { name: "always", about: "mounting the root", groups: &[ROOT, RAM_ROOTS, NETWORK_STACK] };

const DRIVER: Group = Group { need: Need::May, network: false, load: false, members: &[] };
const NETWORK: Group = Group { network: true, ..DRIVER };
const HELPER: Group = Group { need: Need::Helps, ..DRIVER };

const ROOT: Group =
    Group { need: Need::Must, load: true, members: &["loop", "squashfs", "overlay"], ..DRIVER };

// Newer kernels have zram's compressors inside zram itself.
const RAM_ROOTS: Group = Group {
    members: &["zram", "xfs", "ext4", "crypto-lz4", "crypto-zstd", "crypto-lzo-rle", "crypto-crc32c"],
    ..HELPER
};

const NETWORK_STACK: Group = Group { load: true, members: &["af_packet", "ipv6"], ..HELPER };

const VIRTIO_BUS: Group = Group { members: &["virtio_pci"], ..DRIVER };
const VIRTIO_NETWORK: Group = Group { members: &["virtio_net"], ..NETWORK };
const VIRTIO_DEVICES: Group =
    Group { members: &["virtio_blk", "virtio_rng", "virtio_console", "virtio_mmio"], ..HELPER };

const HYPERVISOR_NETWORK: Group = Group {
    network: true,
    members: &["vmxnet3", "hv_vmbus", "hv_netvsc", "pci_hyperv", "xen_netfront", "ena", "gve"],
    ..HELPER
};

const GIGABIT_NETWORK: Group = Group {
    members: &[
        "e1000",
        "e1000e",
        "igb",
        "igc",
        "igbvf",
        "r8169",
        "8139cp",
        "8139too",
        "tg3",
        "bnx2",
        "atl1c",
        "alx",
        "sky2",
        "forcedeth",
    ],
    ..NETWORK
};

const FAST_NETWORK: Group = Group {
    members: &[
        "ixgbe",
        "ixgbevf",
        "i40e",
        "iavf",
        "ice",
        "bnxt_en",
        "bnx2x",
        "mlx4_en",
        "mlx5_core",
        "cxgb4",
        "sfc",
        "be2net",
        "qede",
        "atlantic",
        "ionic",
    ],
    ..NETWORK
};

const USB_NETWORK: Group = Group {
    need: Need::Helps,
    network: true,
    load: false,
    members: &[
        "xhci_pci",
        "ehci_pci",
        "r8152",
        "asix",
        "ax88179_178a",
        "cdc_ether",
        "cdc_ncm",
        "smsc95xx",
        "lan78xx",
    ],
};

// Cards ask for these by the id of the chip on them, after the driver is loaded.
const PHYS: Group = Group {
    members: &["realtek", "broadcom", "bcm_phy_lib", "marvell", "at803x", "smsc", "intel_xway"],
    ..HELPER
};

const CONSOLE: Group = Group {
    members: &[
        "usbhid",
        "hid_generic",
        "atkbd",
        "i8042",
        "uhci_hcd",
        "ohci_pci",
        "efi_pstore",
        "simplefb",
        "simpledrm",
    ],
    ..HELPER
};

const DISKS: Group = Group {
    members: &[
        "nvme",
        "ahci",
        "sd_mod",
        "sr_mod",
        "usb_storage",
        "uas",
        "virtio_blk",
        "virtio_scsi",
        "ata_piix",
        "megaraid_sas",
        "mpt3sas",
        "mmc_block",
        "sdhci_pci",
    ],
    ..DRIVER
};

const DISK_FILE_SYSTEMS: Group = Group {
    members: &["ext4", "xfs", "btrfs", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "dm_mod"],
    ..HELPER
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_set_has_members() {
        for set in SETS.iter().chain([&ALWAYS]) {
            assert!(set.groups.iter().all(|group| !group.members.is_empty()), "{}", set.name);
        }
        let names: std::collections::BTreeSet<_> = SETS.iter().map(|set| set.name).collect();
        assert_eq!(names.len(), SETS.len());
    }
}
