//! One switch with DHCP nodes and real clients, each in its own network namespace, deleted on drop.
//!
//! A node's service runs on a thread of its own inside its namespace. Names carry the process id and a counter, so that
//! tests run side by side.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use nix::sched::{CloneFlags, setns};
use pxe::dhcp::{ClientKey, Config, MemberId, Network, Subnet};

static LABS: AtomicU32 = AtomicU32::new(0);

/// The interface's name inside every namespace of a node or client.
pub(crate) const INTERFACE: &str = "eth0";

pub(crate) struct Lab {
    name: String,
    namespaces: Vec<String>,
    pub(crate) files: tempfile::TempDir,
}

impl Lab {
    /// A switch without anything on it; `None`, with the reason on standard error, where namespaces cannot be made.
    pub(crate) fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: network namespaces need root");
            return None;
        }
        let name = format!("pxd{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let mut lab = Self { name, namespaces: Vec::new(), files: tempfile::tempdir().unwrap() };
        let switch = lab.add_namespace("sw");
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge", "stp_state", "0", "forward_delay", "0"]);
        ip(&["-n", &switch, "link", "set", "br0", "up"]);
        Some(lab)
    }

    fn add_namespace(&mut self, host: &str) -> String {
        let namespace = format!("{}-{host}", self.name);
        ip(&["netns", "add", &namespace]);
        self.namespaces.push(namespace.clone());
        ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        namespace
    }

    /// Plugs a host with this last byte of its Ethernet address into the switch.
    pub(crate) fn add_host(&mut self, host: &str, last: u8) -> Host {
        let namespace = self.add_namespace(host);
        let switch = format!("{}-sw", self.name);
        let mac = [2, 0, 0, 0xbf, 0, last];
        let text = ClientKey::ethernet(mac).to_string();
        ip(&[
            "link", "add", INTERFACE, "netns", &namespace, "address", &text, "type", "veth", "peer", "name",
            host, "netns", &switch,
        ]);
        ip(&["-n", &switch, "link", "set", host, "master", "br0", "up"]);
        ip(&["-n", &namespace, "link", "set", INTERFACE, "up"]);
        Host { namespace, mac, files: self.files.path().to_owned() }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in self.namespaces.iter().rev() {
            let _ = Command::new("ip").args(["netns", "del", namespace]).output();
        }
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) namespace: String,
    pub(crate) mac: [u8; 6],
    files: PathBuf,
}

impl Host {
    pub(crate) fn key(&self) -> ClientKey {
        ClientKey::ethernet(self.mac)
    }

    pub(crate) fn add_address(&self, address: Ipv4Addr) {
        ip(&["-n", &self.namespace, "address", "add", &format!("{address}/24"), "dev", INTERFACE]);
    }

    /// A node's configuration on the lab's subnet.
    pub(crate) fn config(&self, address: Ipv4Addr) -> Config {
        let network = Network::new(address, 24).unwrap();
        let subnet = Subnet {
            ranges: vec![(Ipv4Addr::new(10, 9, 0, 100), Ipv4Addr::new(10, 9, 0, 199))],
            ..Subnet::whole(network)
        };
        Config::new(address, self.key(), subnet)
    }

    pub(crate) fn member(&self) -> MemberId {
        MemberId::new([self.mac[5]; 32])
    }

    /// Runs a future on a thread inside this namespace.
    pub(crate) fn run<T: Send + 'static, F: Future<Output = T>>(
        &self,
        body: impl FnOnce() -> F + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let path = format!("/run/netns/{}", self.namespace);
        thread::spawn(move || {
            setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(body())
        })
    }

    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }

    /// A script for DHCP clients that writes what it is told to a file.
    fn script(&self) -> (PathBuf, PathBuf) {
        use std::os::unix::fs::PermissionsExt;
        let script = self.files.join(format!("{}.sh", self.namespace));
        let told = self.files.join(format!("{}.told", self.namespace));
        std::fs::write(
            &script,
            format!("#!/bin/sh\necho \"hook=${{1:-$reason}}\" >> {0}\nenv >> {0}\n", told.display()),
        )
        .unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let _ = std::fs::remove_file(&told);
        (script, told)
    }

    /// Runs `busybox udhcpc` until it has a lease, and returns what it was told, by environment variable.
    pub(crate) fn udhcpc(&self, arguments: &[&str]) -> Told {
        let (script, told) = self.script();
        let output = self
            .command("busybox")
            .args(["udhcpc", "-f", "-q", "-n", "-t", "8", "-T", "1", "-i", INTERFACE, "-s"])
            .arg(script)
            .args(arguments)
            .output()
            .unwrap();
        Told::read(&told, &output)
    }

    /// Runs ISC `dhclient` until it has a lease; it keeps its lease file between calls.
    pub(crate) fn dhclient(&self, arguments: &[&str]) -> Told {
        let (script, told) = self.script();
        let file = |name: &str| self.files.join(format!("{}.{name}", self.namespace));
        let output = self
            .command("dhclient")
            .args(["-4", "-v", "-1", "-cf", "/dev/null", "-sf"])
            .arg(script)
            .arg("-lf")
            .arg(file("leases"))
            .arg("-pf")
            .arg(file("pid"))
            .args(arguments)
            .arg(INTERFACE)
            .output()
            .unwrap();
        Told::read(&told, &output)
    }

    /// Ends the `dhclient` left in the background, without a word to the server.
    pub(crate) fn end_dhclient(&self) {
        let Ok(pid) = std::fs::read_to_string(self.files.join(format!("{}.pid", self.namespace))) else {
            return;
        };
        if let Ok(pid) = pid.trim().parse() {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// What a client's hook script was told.
pub(crate) struct Told {
    lines: Vec<String>,
    pub(crate) output: String,
}

impl Told {
    fn read(file: &std::path::Path, output: &std::process::Output) -> Self {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let both = [&output.stdout[..], &output.stderr].concat();
        let output = format!("{}: {}", output.status, String::from_utf8_lossy(&both));
        Self { lines: text.lines().map(str::to_owned).collect(), output }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.lines.iter().rev().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }

    pub(crate) fn address(&self, name: &str) -> Ipv4Addr {
        let value = self.get(name).unwrap_or_else(|| panic!("no {name}; {}", self.output));
        value.parse().unwrap()
    }
}
