//! What a machine is to be.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::Mac;

/// Enough for a kernel, a first stage and a small Debian in RAM.
const DEFAULT_MEMORY_MIB: u32 = 512;

/// What no machine prints in a good run.
const DEFAULT_FAILURES: [&str; 1] = ["Kernel panic - not syncing"];

/// What a machine starts with.
#[derive(Clone, Debug)]
pub enum Firmware {
    /// SeaBIOS, which finds the iPXE option ROM of the network card.
    Bios,
    /// OVMF with its own network drivers.
    Uefi(Uefi),
    /// No firmware step: QEMU loads a kernel itself.
    Kernel(DirectKernel),
}

impl Firmware {
    /// OVMF from the Debian package, which only tries PXE over IPv4.
    #[must_use]
    pub fn uefi() -> Firmware {
        Firmware::Uefi(Uefi::default())
    }

    /// A name for reports.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Firmware::Bios => "bios",
            Firmware::Uefi(_) => "uefi",
            Firmware::Kernel(_) => "kernel",
        }
    }
}

/// An OVMF build and what it may try.
#[derive(Clone, Debug)]
pub struct Uefi {
    /// The code, used in place.
    pub code: PathBuf,
    /// The variables, of which each machine gets a fresh copy.
    pub variables: PathBuf,
    /// What it boots from. Each way that is tried in vain costs more than a minute.
    pub boot: UefiBoot,
    /// Runs in system management mode with protected variables, as Secure Boot needs; `code` must be a `.secboot` build.
    pub secure: bool,
}

impl Default for Uefi {
    fn default() -> Uefi {
        Uefi {
            code: "/usr/share/OVMF/OVMF_CODE_4M.fd".into(),
            variables: "/usr/share/OVMF/OVMF_VARS_4M.fd".into(),
            boot: UefiBoot::PxeV4,
            secure: false,
        }
    }
}

/// In which ways OVMF tries to boot from the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UefiBoot {
    /// PXE over IPv4 first; no PXE over IPv6.
    PxeV4,
    /// HTTP boot over IPv4 first; no PXE.
    HttpV4,
    /// As OVMF does by itself: PXE over IPv4, over IPv6, HTTP over IPv4, over IPv6.
    Any,
}

/// A kernel that QEMU loads itself.
#[derive(Clone, Debug)]
pub struct DirectKernel {
    /// The bzImage.
    pub kernel: PathBuf,
    /// The initramfs, if any.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub command_line: String,
}

impl DirectKernel {
    /// A kernel with an initramfs.
    #[must_use]
    pub fn new(kernel: &Path, initrd: &Path, command_line: &str) -> DirectKernel {
        DirectKernel { kernel: kernel.into(), initrd: Some(initrd.into()), command_line: command_line.into() }
    }
}

/// A model of network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nic {
    /// virtio: fastest, and in every kernel.
    Virtio,
    /// Intel 82540EM; not in Debian's cloud kernel.
    E1000,
    /// Intel 82574L; not in Debian's cloud kernel.
    E1000e,
    /// Realtek 8139; not in Debian's cloud kernel.
    Rtl8139,
}

/// What a machine is to be: it has no display, one network card and two serial ports.
#[derive(Clone, Debug)]
pub struct MachineSpec {
    /// Its name in the lab.
    pub name: String,
    /// What it starts with.
    pub firmware: Firmware,
    /// Its memory.
    pub memory_mib: u32,
    /// Its processors.
    pub cpus: u8,
    /// Its Ethernet address; one of the lab's own if `None`.
    pub mac: Option<Mac>,
    /// Its network card.
    pub nic: Nic,
    /// The UUID of its mainboard. Without one, DHCP option 97 is all zeros, the same for every machine.
    pub uuid: Option<String>,
    /// Whether a guest that reboots starts again; otherwise the machine is off then, which ends failed boots early.
    pub reboots: bool,
    /// Texts on the console that end every wait at once.
    pub failures: Vec<String>,
    /// Files that are its disks, virtio ones, in this order. Firmware tries them before the network.
    pub disks: Vec<PathBuf>,
    /// More arguments for QEMU.
    pub extra: Vec<OsString>,
}

impl MachineSpec {
    /// A machine with 512 MiB, one processor and a virtio card.
    #[must_use]
    pub fn new(name: &str, firmware: Firmware) -> MachineSpec {
        MachineSpec {
            name: name.into(),
            firmware,
            memory_mib: DEFAULT_MEMORY_MIB,
            cpus: 1,
            mac: None,
            nic: Nic::Virtio,
            uuid: None,
            reboots: false,
            failures: DEFAULT_FAILURES.map(str::to_owned).to_vec(),
            disks: Vec::new(),
            extra: Vec::new(),
        }
    }

    /// With this much memory.
    #[must_use]
    pub fn memory_mib(self, memory_mib: u32) -> MachineSpec {
        MachineSpec { memory_mib, ..self }
    }

    /// With this many processors.
    #[must_use]
    pub fn cpus(self, cpus: u8) -> MachineSpec {
        MachineSpec { cpus, ..self }
    }

    /// With this Ethernet address.
    #[must_use]
    pub fn mac(self, mac: Mac) -> MachineSpec {
        MachineSpec { mac: Some(mac), ..self }
    }

    /// With this network card.
    #[must_use]
    pub fn nic(self, nic: Nic) -> MachineSpec {
        MachineSpec { nic, ..self }
    }

    /// With this mainboard UUID.
    #[must_use]
    pub fn uuid(self, uuid: &str) -> MachineSpec {
        MachineSpec { uuid: Some(uuid.into()), ..self }
    }

    /// Starts again when the guest reboots.
    #[must_use]
    pub fn reboots(self) -> MachineSpec {
        MachineSpec { reboots: true, ..self }
    }

    /// With one more text that ends every wait.
    #[must_use]
    pub fn failure(mut self, text: &str) -> MachineSpec {
        self.failures.push(text.into());
        self
    }

    /// With one more disk: a raw image file, whose name is its serial number as far as there is room.
    #[must_use]
    pub fn disk(mut self, path: &Path) -> MachineSpec {
        self.disks.push(path.into());
        self
    }

    /// With more arguments for QEMU.
    #[must_use]
    pub fn extra(mut self, arguments: &[&str]) -> MachineSpec {
        self.extra.extend(arguments.iter().map(OsString::from));
        self
    }
}
