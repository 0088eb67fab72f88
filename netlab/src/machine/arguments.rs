//! Turns a [`MachineSpec`] into QEMU's command line. No input or output here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Accel, Firmware, MachineSpec, Nic, Uefi, UefiBoot};
use crate::Mac;

/// QEMU's name for the network device, for its monitor.
pub(super) const NETDEV: &str = "n0";

/// TCG's cache of translated code. The default, a quarter of a GiB and more, is more than a small guest's whole memory.
const TCG_CACHE_MIB: u32 = 64;

/// Files of one machine. Relative names are in the lab's directory, in which QEMU runs.
pub(super) struct Files {
    pub(super) events: String,
    pub(super) variables: String,
    pub(super) monitor: PathBuf,
}

/// QEMU's arguments. The console is on its standard input and output.
pub(super) fn arguments(
    spec: &MachineSpec,
    mac: Mac,
    accel: Accel,
    tap: &str,
    files: &Files,
) -> Vec<OsString> {
    let mut words = Words::default();
    words.add("-name", &spec.name);
    words.add("-accel", &accelerator(accel));
    words.add("-cpu", "max");
    words.add("-machine", machine(&spec.firmware));
    words.add("-m", &spec.memory_mib.to_string());
    words.add("-smp", &spec.cpus.to_string());
    words.all(&["-display", "none", "-vga", "none", "-nodefaults", "-no-user-config"]);
    if !spec.reboots {
        words.all(&["-no-reboot"]);
    }
    if let Some(uuid) = &spec.uuid {
        words.add("-uuid", uuid);
    }
    serial_ports(&mut words, files);
    words.add("-chardev", &format!("socket,id=qmp,server=on,wait=off,path={}", escaped(&files.monitor)));
    words.add("-mon", "chardev=qmp,mode=control");
    words.add("-netdev", &format!("tap,id={NETDEV},ifname={tap},script=no,downscript=no"));
    // Firmware leaves out what is in no place of a list that names others. A kernel that is given has the first place.
    let ordered = !spec.disks.is_empty() && !matches!(spec.firmware, Firmware::Kernel(_));
    let place = |number: usize| if ordered { format!(",bootindex={number}") } else { String::new() };
    let (nic, rom) = (nic(spec.nic), rom(&spec.firmware));
    words.add("-device", &format!("{nic},netdev={NETDEV},mac={mac}{rom}{}", place(spec.disks.len())));
    for (number, path) in spec.disks.iter().enumerate() {
        disk(&mut words, number, path, &place(number));
    }
    firmware(&mut words, &spec.firmware, files);
    words.0.extend(spec.extra.iter().cloned());
    words.0
}

fn accelerator(accel: Accel) -> String {
    match accel {
        Accel::Kvm => "kvm".into(),
        Accel::Tcg => format!("tcg,tb-size={TCG_CACHE_MIB}"),
    }
}

/// Without graphics SeaBIOS, and with it iPXE, writes to the first serial port. OVMF does so by itself.
fn machine(firmware: &Firmware) -> &'static str {
    match firmware {
        Firmware::Uefi(Uefi { secure: true, .. }) => "q35,graphics=off,smm=on",
        Firmware::Bios | Firmware::Uefi(_) | Firmware::Kernel(_) => "q35,graphics=off",
    }
}

/// `ttyS0` is the console, `ttyS1` the event port.
fn serial_ports(words: &mut Words, files: &Files) {
    words.add("-chardev", "stdio,id=console,signal=off");
    words.add("-serial", "chardev:console");
    words.add("-chardev", &format!("file,id=events,path={}", escaped(Path::new(&files.events))));
    words.add("-serial", "chardev:events");
}

/// What is written need not survive this machine's power: a guest that waits for its disk waits for the file alone.
fn disk(words: &mut Words, number: usize, path: &Path, place: &str) {
    /// Bytes of a virtio disk's serial number.
    const SERIAL: usize = 20;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().replace(',', "")).unwrap_or_default();
    let serial: String = stem.chars().take(SERIAL).collect();
    words.add("-drive", &format!("if=none,id=disk{number},format=raw,cache=unsafe,file={}", escaped(path)));
    words.add("-device", &format!("virtio-blk-pci,drive=disk{number},serial={serial}{place}"));
}

fn nic(nic: Nic) -> &'static str {
    match nic {
        Nic::Virtio => "virtio-net-pci",
        Nic::E1000 => "e1000",
        Nic::E1000e => "e1000e",
        Nic::Rtl8139 => "rtl8139",
    }
}

/// Only the BIOS needs the option ROM: OVMF has drivers of its own, which the ROM would replace by iPXE.
fn rom(firmware: &Firmware) -> &'static str {
    match firmware {
        Firmware::Bios => "",
        Firmware::Uefi(_) | Firmware::Kernel(_) => ",romfile=",
    }
}

fn firmware(words: &mut Words, firmware: &Firmware, files: &Files) {
    match firmware {
        Firmware::Bios => words.add("-boot", "order=n"),
        Firmware::Uefi(uefi) => {
            words.add("-boot", "order=n");
            let code = escaped(&uefi.code);
            words.add("-drive", &format!("if=pflash,unit=0,format=raw,readonly=on,file={code}"));
            let variables = escaped(Path::new(&files.variables));
            words.add("-drive", &format!("if=pflash,unit=1,format=raw,file={variables}"));
            if uefi.secure {
                words.add("-global", "driver=cfi.pflash01,property=secure,value=on");
                words.add("-global", "ICH9-LPC.disable_s3=1");
            }
            let without: &[&str] = match uefi.boot {
                UefiBoot::PxeV4 => &["IPv6PXESupport"],
                UefiBoot::HttpV4 => &["IPv4PXESupport", "IPv6PXESupport"],
                UefiBoot::Any => &[],
            };
            for feature in without {
                words.add("-fw_cfg", &format!("name=opt/org.tianocore/{feature},string=n"));
            }
        }
        Firmware::Kernel(direct) => {
            words.path("-kernel", &direct.kernel);
            if let Some(initrd) = &direct.initrd {
                words.path("-initrd", initrd);
            }
            words.add("-append", &direct.command_line);
        }
    }
}

/// A path inside a list of options: QEMU reads two commas as one.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[derive(Default)]
struct Words(Vec<OsString>);

impl Words {
    fn add(&mut self, option: &str, value: &str) {
        self.0.extend([option.into(), value.into()]);
    }

    fn path(&mut self, option: &str, path: &Path) {
        self.0.extend([option.into(), path.into()]);
    }

    fn all(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(OsString::from));
    }
}

#[cfg(test)]
mod tests {
    use super::super::DirectKernel;
    use super::*;

    fn line(spec: &MachineSpec) -> String {
        let files = Files {
            events: "a.events".into(),
            variables: "a.vars.fd".into(),
            monitor: "/run/x,y.qmp".into(),
        };
        let words = arguments(spec, Mac::numbered(7), Accel::Tcg, "tap0", &files);
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn bios_uses_the_rom_and_boots_from_the_network() {
        let line = line(&MachineSpec::new("a", Firmware::Bios).uuid("u-u").reboots());
        assert!(line.contains("virtio-net-pci,netdev=n0,mac=02:4e:4c:00:00:07 -boot order=n"), "{line}");
        assert!(line.contains("-uuid u-u") && line.contains("/run/x,,y.qmp"), "{line}");
        assert!(
            line.contains("q35,graphics=off ") && !line.contains("-no-reboot") && !line.contains("romfile"),
            "{line}"
        );
    }

    #[test]
    fn disks_come_before_the_network() {
        let line = line(&MachineSpec::new("a", Firmware::Bios).disk(Path::new("/lab/a,1.disk")));
        assert!(line.contains("mac=02:4e:4c:00:00:07,bootindex=1 "), "{line}");
        assert!(
            line.contains("file=/lab/a,,1.disk -device virtio-blk-pci,drive=disk0,serial=a1,bootindex=0"),
            "{line}"
        );
    }

    #[test]
    fn uefi_has_flash_and_no_rom() {
        let plain = line(&MachineSpec::new("a", Firmware::uefi()).nic(Nic::E1000));
        assert!(plain.contains("e1000,netdev=n0,mac=02:4e:4c:00:00:07,romfile= -boot order=n"), "{plain}");
        assert!(
            plain.contains("unit=1,format=raw,file=a.vars.fd") && plain.contains("OVMF_CODE_4M.fd"),
            "{plain}"
        );
        assert!(
            plain.contains("opt/org.tianocore/IPv6PXESupport,string=n") && !plain.contains("IPv4PXE"),
            "{plain}"
        );
        let uefi = Uefi { boot: UefiBoot::HttpV4, secure: true, ..Uefi::default() };
        let secure = line(&MachineSpec::new("a", Firmware::Uefi(uefi)));
        assert!(secure.contains("smm=on") && secure.contains("IPv4PXESupport,string=n"), "{secure}");
    }

    #[test]
    fn a_kernel_is_given_with_its_files() {
        let direct = DirectKernel::new(Path::new("/k,1"), Path::new("/i"), "console=ttyS0 quiet");
        let line = line(&MachineSpec::new("a", Firmware::Kernel(direct)).memory_mib(256).extra(&["-s"]));
        assert!(line.ends_with("-kernel /k,1 -initrd /i -append console=ttyS0 quiet -s"), "{line}");
        assert!(line.contains("-m 256") && line.contains("-no-reboot"), "{line}");
    }

    #[test]
    fn a_kernel_that_is_given_goes_before_disks() {
        let direct = DirectKernel::new(Path::new("/k"), Path::new("/i"), "quiet");
        let spec = MachineSpec::new("a", Firmware::Kernel(direct)).disk(Path::new("/lab/a.disk"));
        let line = line(&spec);
        assert!(line.contains("drive=disk0,serial=a") && !line.contains("bootindex"), "{line}");
    }
}
