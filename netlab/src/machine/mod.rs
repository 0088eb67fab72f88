//! A virtual machine with real firmware, plugged into a switch.
//!
//! Each machine has a namespace of its own: QEMU runs in it, and in it a small bridge joins QEMU's tap with the far end of
//! the cable to the switch. [`spec`] says what a machine is to be, [`arguments`] turns that into QEMU's words, [`accel`]
//! finds out how QEMU can run it, [`qmp`] talks to its monitor.

mod accel;
mod arguments;
mod qmp;
mod spec;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

pub use accel::Accel;
pub(crate) use accel::QEMU;
pub use spec::{DirectKernel, Firmware, MachineSpec, Nic, Uefi, UefiBoot};

use crate::events::{EventLog, Health};
use crate::netns::Namespace;
use crate::shared::{Owned, Shared, Stage};
use crate::switch::add_bridge;
use crate::{Console, Error, Mac, Port, Process, Result, Switch};

/// Joins tap and cable inside the machine's namespace.
const BRIDGE: &str = "br0";
/// The far end of the cable.
const UPLINK: &str = "uplink";
/// QEMU's network device.
const TAP: &str = "tap0";

/// A machine of the lab. Clones are handles to the same machine.
#[derive(Clone)]
pub struct Machine(Arc<Inner>);

struct Inner {
    name: String,
    mac: Mac,
    shared: Arc<Shared>,
    namespace: Namespace,
    port: Port,
    process: Process,
    console: Console,
    events: EventLog,
    monitor: PathBuf,
}

impl Machine {
    pub(crate) fn power_on(shared: &Arc<Shared>, spec: &MachineSpec, switch: &Switch) -> Result<Machine> {
        let accel = Accel::detect()?;
        let name = spec.name.clone();
        let stem = shared.claim_name(&name)?;
        let mac = spec.mac.unwrap_or_else(|| shared.next_mac());
        let namespace = shared.create_namespace(&stem)?;
        namespace.disable_ipv6()?;
        add_bridge(&namespace, BRIDGE)?;
        namespace.ip(&["tuntap", "add", "dev", TAP, "mode", "tap"])?;
        namespace.ip(&["link", "set", TAP, "master", BRIDGE, "up"])?;
        let port = switch.plug(&name, &namespace, UPLINK, None)?;
        namespace.ip(&["link", "set", UPLINK, "master", BRIDGE])?;

        let files = arguments::Files {
            events: format!("{stem}.events"),
            variables: format!("{stem}.vars.fd"),
            monitor: shared.run_directory().join(format!("{stem}.qmp")),
        };
        let file = |name: &str| shared.directory().join(name);
        if let Firmware::Uefi(uefi) = &spec.firmware {
            // Boot entries persist in the variables: each machine starts from the distribution's.
            fs::copy(&uefi.variables, file(&files.variables))
                .map_err(Error::file("copy", &uefi.variables))?;
        }
        let (console, serial) = Console::open(
            &name,
            &file(&format!("{stem}.console")),
            shared.timeline(),
            spec.failures.clone(),
        )?;
        let log = file(&format!("{stem}.qemu.log"));
        let stderr = fs::File::create(&log).map_err(Error::file("create", &log))?;
        let serial_out = serial.try_clone().map_err(Error::system("prepare a console"))?;
        let mut command = namespace.command(QEMU);
        command
            .args(arguments::arguments(spec, mac, accel, TAP, &files))
            .current_dir(shared.directory())
            .stdin(Stdio::from(serial))
            .stdout(Stdio::from(serial_out))
            .stderr(stderr);
        // QEMU opens the event file itself, so it is made and followed before.
        let health = Arc::new(Alive { console: console.clone() });
        let events = shared.follow_events(&name, &file(&files.events), Some(health))?;
        let process = Process::spawn(&name, &mut command, &log)?;
        // The console ends with the machine only if nobody else holds the machine's end of it.
        drop(command);

        let firmware = spec.firmware.label();
        shared
            .timeline()
            .note(&name, json!({"event": "power-on", "firmware": firmware, "mac": mac.to_string()}));
        let (shared, monitor) = (Arc::clone(shared), files.monitor);
        let inner = Inner { name, mac, shared, namespace, port, process, console, events, monitor };
        let machine = Machine(Arc::new(inner));
        machine.0.shared.own(Stage::Node, machine.0.clone());
        Ok(machine)
    }

    /// Its name in the lab.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The Ethernet address of its network card.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.0.mac
    }

    /// The number of the QEMU process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.process.pid()
    }

    /// Whether it is powered on.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.0.process.is_running()
    }

    /// Its first serial port, `ttyS0`.
    #[must_use]
    pub fn console(&self) -> &Console {
        &self.0.console
    }

    /// What the guest wrote to its second serial port, `ttyS1`, one JSON object per line.
    #[must_use]
    pub fn events(&self) -> &EventLog {
        &self.0.events
    }

    /// The switch port it is plugged into.
    #[must_use]
    pub fn port(&self) -> &Port {
        &self.0.port
    }

    /// The namespace that QEMU runs in. The guest's own network is not in it, only the wire.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// QEMU's own messages.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        self.0.process.log_path()
    }

    /// Pulls the plug.
    ///
    /// # Errors
    /// When QEMU cannot be killed.
    pub fn kill(&self) -> Result<()> {
        if self.is_running() {
            self.0.shared.timeline().note(self.name(), json!({"event": "kill"}));
        }
        self.0.process.kill()?;
        Ok(())
    }

    /// Presses the power button and waits until the guest has shut itself down.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the guest does not obey in time; [`Machine::kill`] always works.
    pub fn power_off(&self, within: Duration) -> Result<ExitStatus> {
        self.0.shared.timeline().note(self.name(), json!({"event": "power-button"}));
        if let Err(error) = self.monitor("system_powerdown", &json!({})) {
            // It may just have gone by itself.
            if self.is_running() {
                return Err(error);
            }
        }
        self.wait_for_end(within)
    }

    /// Waits until the machine is off: the guest powered down, or rebooted when its spec does not let it.
    ///
    /// # Errors
    /// [`Error::Timeout`] with the end of the console.
    pub fn wait_for_end(&self, within: Duration) -> Result<ExitStatus> {
        self.0.process.wait(within).map_err(|error| match error {
            Error::Timeout { what, within, .. } => Error::Timeout { what, within, state: self.describe() },
            other => other,
        })
    }

    /// Sets the link state that the guest's network card sees. A port that is down is not seen by the guest.
    ///
    /// # Errors
    /// When the monitor does not answer.
    pub fn set_carrier(&self, up: bool) -> Result<()> {
        self.monitor("set_link", &json!({"name": arguments::NETDEV, "up": up}))?;
        self.0.shared.timeline().note(self.name(), json!({"event": "carrier", "up": up}));
        Ok(())
    }

    /// Runs a command of QEMU's machine protocol (QMP) and returns its result.
    ///
    /// # Errors
    /// When the monitor refuses it or does not answer.
    pub fn monitor(&self, command: &str, arguments: &serde_json::Value) -> Result<serde_json::Value> {
        qmp::execute(&self.0.monitor, command, arguments)
            .map_err(|problem| Error::Monitor { machine: self.name().into(), problem })
    }

    /// State and end of the console, for error messages.
    #[must_use]
    pub fn describe(&self) -> String {
        let state = if self.is_running() { "it runs".into() } else { self.0.process.describe() };
        let transcript = self.console().transcript_path().display();
        format!("{}: {state}; the end of {transcript}:\n{}", self.name(), self.console().tail())
    }

    /// Kills it, pulls its cable and frees its name: nothing of it is left but its files. Fine when it is gone.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn delete(&self) -> Result<()> {
        self.kill()?;
        self.0.shut_down()?;
        self.0.shared.release_name(self.name());
        Ok(())
    }
}

impl Owned for Inner {
    fn shut_down(&self) -> Result<()> {
        self.process.kill()?;
        self.console.close();
        self.port.unplug()?;
        self.shared.delete_namespace(&self.namespace)
    }
}

/// Waiting for events of a machine ends when it is off or has failed visibly.
struct Alive {
    console: Console,
}

impl Health for Alive {
    fn check(&self) -> std::result::Result<(), String> {
        if let Some(failure) = self.console.failure() {
            return Err(format!("its console shows {failure:?}:\n{}", self.console.tail()));
        }
        if self.console.is_closed() {
            return Err(format!("the machine is off; the end of its console:\n{}", self.console.tail()));
        }
        Ok(())
    }
}
