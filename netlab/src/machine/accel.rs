//! Whether KVM really runs a guest here.
//!
//! A `/dev/kvm` that opens proves nothing: inside some virtual machines it refuses registers, and inside others it runs
//! SeaBIOS in real mode and then hangs a kernel for ever. So the first lab of a boot starts OVMF under KVM, which runs
//! from flash, in long mode and with timers, and takes KVM only when OVMF reaches its boot manager.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::spec::Uefi;
use crate::{Error, Result, state, wait_until};

/// The program that runs guests.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

const DEVICE: &str = "/dev/kvm";

/// Under KVM OVMF's boot manager speaks after about one second.
const PROBE_WAIT: Duration = Duration::from_secs(10);

/// What OVMF prints once it has come that far.
const PROOF: &[u8] = b"BdsDxe";

/// Longest output of a probe that is looked at.
const MAX_OUTPUT: usize = 1 << 20;

/// How QEMU runs guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// Translating instructions: works everywhere, 10 to 30 times slower.
    Tcg,
    /// The kernel's virtual machine.
    Kvm,
}

impl Accel {
    /// What this machine can do. `NETLAB_ACCEL=tcg|kvm` decides without a look; otherwise the first question after a boot of
    /// this machine takes some seconds where KVM hangs, and all later ones nothing.
    ///
    /// # Errors
    /// When `NETLAB_ACCEL` is neither, or `/run/netlab` cannot be written.
    pub fn detect() -> Result<Accel> {
        static KNOWN: OnceLock<Accel> = OnceLock::new();
        if let Some(&known) = KNOWN.get() {
            return Ok(known);
        }
        let found = match std::env::var("NETLAB_ACCEL").as_deref() {
            Ok("tcg") => Accel::Tcg,
            Ok("kvm") => Accel::Kvm,
            Ok("") | Err(_) => remembered_or_probed()?,
            Ok(other) => {
                return Err(Error::Name { name: other.into(), problem: "NETLAB_ACCEL must be tcg or kvm" });
            }
        };
        Ok(*KNOWN.get_or_init(|| found))
    }

    fn label(self) -> &'static str {
        match self {
            Accel::Tcg => "tcg",
            Accel::Kvm => "kvm",
        }
    }
}

/// Looks into the file that an earlier process of this boot has written; else probes, once for all processes.
fn remembered_or_probed() -> Result<Accel> {
    let Ok(device) = fs::metadata(DEVICE) else { return Ok(Accel::Tcg) };
    // A module loaded again makes the device again, with another time.
    let known = |accel: Accel| format!("{} {}.{}\n", accel.label(), device.ctime(), device.ctime_nsec());
    let path = state::directory()?.join("accel");
    let _lock = state::lock()?;
    let remembered = fs::read_to_string(&path).unwrap_or_default();
    if let Some(accel) = [Accel::Tcg, Accel::Kvm].into_iter().find(|&accel| remembered == known(accel)) {
        return Ok(accel);
    }
    let accel = if kvm_runs_a_guest() { Accel::Kvm } else { Accel::Tcg };
    tracing::info!(accel = accel.label(), "probed how guests can run");
    state::write_whole(&path, known(accel).as_bytes())?;
    Ok(accel)
}

fn kvm_runs_a_guest() -> bool {
    let uefi = Uefi::default();
    let code = uefi.code.display();
    let variables = uefi.variables.display();
    let mut command = Command::new(QEMU);
    command
        .args([
            "-accel",
            "kvm",
            "-cpu",
            "max",
            "-machine",
            "q35",
            "-m",
            "128",
            "-nodefaults",
            "-display",
            "none",
        ])
        .args(["-no-user-config", "-chardev", "stdio,id=c,signal=off", "-serial", "chardev:c"])
        .args(["-drive", &format!("if=pflash,unit=0,format=raw,readonly=on,file={code}")])
        .args(["-drive", &format!("if=pflash,unit=1,format=raw,snapshot=on,file={variables}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    let output = Arc::new(Mutex::new(Output::default()));
    if let Some(stdout) = child.stdout.take() {
        let output = Arc::clone(&output);
        std::thread::spawn(move || collect(stdout, &output));
    }
    let proven = wait_until("OVMF to run under KVM", PROBE_WAIT, || {
        let output = output.lock().unwrap_or_else(PoisonError::into_inner);
        let proven = output.bytes.windows(PROOF.len()).any(|window| window == PROOF);
        (proven || output.ended).then_some(proven)
    });
    end(child);
    proven.unwrap_or(false)
}

#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    ended: bool,
}

fn collect(mut stdout: impl Read, output: &Mutex<Output>) {
    let mut buffer = [0; 4096];
    loop {
        let length = stdout.read(&mut buffer).unwrap_or(0);
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        output.bytes.extend_from_slice(buffer.get(..length).unwrap_or_default());
        if length == 0 || output.bytes.len() > MAX_OUTPUT {
            output.ended = true;
            return;
        }
    }
}

/// A QEMU that the kernel holds cannot be waited for, so a thread does that.
fn end(mut child: Child) {
    // Fails only when it has ended already.
    let _ = child.kill();
    std::thread::spawn(move || child.wait());
}
