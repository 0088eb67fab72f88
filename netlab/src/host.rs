//! A host: a network namespace with one interface `eth0`, in which programs of this machine run.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use crate::events::EventLog;
use crate::netns::Namespace;
use crate::shared::{Owned, Shared, Stage};
use crate::{Cidr, Mac, Port, Process, Result, Switch};

/// The interface of a host.
const INTERFACE: &str = "eth0";

/// What a host is to be.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// Its name in the lab.
    pub name: String,
    /// Its Ethernet address; one of the lab's own if `None`.
    pub mac: Option<Mac>,
    /// Its addresses on `eth0`.
    pub addresses: Vec<Cidr>,
}

impl HostSpec {
    /// A host without addresses.
    #[must_use]
    pub fn new(name: &str) -> HostSpec {
        HostSpec { name: name.into(), mac: None, addresses: Vec::new() }
    }

    /// With this Ethernet address.
    #[must_use]
    pub fn mac(self, mac: Mac) -> HostSpec {
        HostSpec { mac: Some(mac), ..self }
    }

    /// With this address too.
    #[must_use]
    pub fn address(mut self, address: Cidr) -> HostSpec {
        self.addresses.push(address);
        self
    }
}

/// A host of the lab. Clones are handles to the same host.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    name: String,
    stem: String,
    mac: Mac,
    shared: Arc<Shared>,
    namespace: Namespace,
    port: Port,
    events_path: PathBuf,
    events: EventLog,
    processes: Mutex<Vec<Process>>,
}

impl Host {
    pub(crate) fn create(shared: &Arc<Shared>, spec: &HostSpec, switch: &Switch) -> Result<Host> {
        let name = spec.name.clone();
        let stem = shared.claim_name(&name)?;
        let mac = spec.mac.unwrap_or_else(|| shared.next_mac());
        let namespace = shared.create_namespace(&stem)?;
        let port = switch.plug(&name, &namespace, INTERFACE, Some(mac))?;
        let events_path = shared.directory().join(format!("{stem}.events"));
        let events = shared.follow_events(&name, &events_path, None)?;
        let processes = Mutex::default();
        let shared = Arc::clone(shared);
        let host = Host(Arc::new(Inner {
            name,
            stem,
            mac,
            shared,
            namespace,
            port,
            events_path,
            events,
            processes,
        }));
        host.0.shared.own(Stage::Node, host.0.clone());
        for &address in &spec.addresses {
            host.add_address(address)?;
        }
        Ok(host)
    }

    /// Its name in the lab.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its Ethernet address.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.0.mac
    }

    /// The name of its interface.
    #[must_use]
    pub fn interface(&self) -> &'static str {
        INTERFACE
    }

    /// The switch port it is plugged into.
    #[must_use]
    pub fn port(&self) -> &Port {
        &self.0.port
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// Where programs on this host may append their events, one JSON object per line.
    #[must_use]
    pub fn events_path(&self) -> &Path {
        &self.0.events_path
    }

    /// The events written there.
    #[must_use]
    pub fn events(&self) -> &EventLog {
        &self.0.events
    }

    /// Gives it an address on `eth0`.
    ///
    /// # Errors
    /// When it has that address already, or is gone.
    pub fn add_address(&self, address: Cidr) -> Result<()> {
        self.namespace().ip(&["address", "add", &address.to_string(), "dev", INTERFACE])?;
        Ok(())
    }

    /// A command that runs inside the host. The caller gives it arguments, and runs it itself or by [`Host::spawn`].
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.namespace().command(program)
    }

    /// Starts a command made by [`Host::command`], with no input and its output in `HOST.NAME.log`. The lab ends it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Result<Process> {
        let mut processes = self.0.processes.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = processes.iter().filter(|process| process.name() == name).count();
        let number = if earlier == 0 { String::new() } else { format!("-{}", earlier + 1) };
        let log = self.0.shared.directory().join(format!("{}.{name}{number}.log", self.0.stem));
        let process = Process::spawn_logged(name, command, &log)?;
        processes.push(process.clone());
        drop(processes);
        self.0
            .shared
            .timeline()
            .note(self.name(), json!({"event": "start", "process": name, "pid": process.pid()}));
        Ok(process)
    }

    /// Runs a closure on a thread of its own inside the host, for example to open a socket or ask a server there.
    ///
    /// # Errors
    /// When the host is gone. A panic of the closure goes on in the caller.
    pub fn run_in<T: Send>(&self, closure: impl FnOnce() -> T + Send) -> Result<T> {
        self.namespace().run(closure)
    }

    /// Kills its processes, pulls its cable and deletes it: nothing of it is left but its files. Fine when it is gone.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn delete(&self) -> Result<()> {
        if self.namespace().exists() {
            self.0.shared.timeline().note(self.name(), json!({"event": "delete"}));
        }
        self.0.shut_down()?;
        self.0.shared.release_name(self.name());
        Ok(())
    }
}

impl Owned for Inner {
    fn shut_down(&self) -> Result<()> {
        for process in self.processes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            process.kill()?;
        }
        self.port.unplug()?;
        self.shared.delete_namespace(&self.namespace)
    }
}
