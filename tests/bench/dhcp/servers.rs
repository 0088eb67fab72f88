//! The servers that are compared, each alone on the switch, all with the same subnet and pool.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fabric::id::ObjectId;
use fabric::store::{Store, StoreOptions};
use fabric::trust::{Arch, KeyDir, Release, RootFormat, RootMode, SignedRelease};
use netlab::{Capture, CaptureOptions, Host, HostSpec, Lab, Process, Switch};

use crate::measure::usage;

const PATIENCE: Duration = Duration::from_secs(60);
/// 16,384 addresses: as many as a node's records may be.
const SUBNET: &str = "10.64.0.0/16";
const POOL: &str = "10.64.16.0-10.64.79.255";

/// A switch with a host for load and another for a server.
pub(crate) struct Field {
    lab: Lab,
    switch: Switch,
    pub(crate) client: Host,
    server: Host,
    home: PathBuf,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Ours,
    /// Kea with leases in memory alone, the fastest that it has.
    Kea,
    Dnsmasq,
    Reflector,
}

/// A server that answers; it ends when this is dropped.
pub(crate) struct Running {
    kind: Server,
    process: Process,
}

/// Something that leaves the server a tenth of its processor.
pub(crate) struct Hog(Child);

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
    }
}

fn program() -> PathBuf {
    std::env::var_os("PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_bootfabric").into(), PathBuf::from)
}

impl Field {
    pub(crate) fn new() -> Self {
        let lab = Lab::new("dhcp-bench").expect("a lab: root is needed");
        let switch = lab.switch("sw0").unwrap();
        let host = |name: &str, address: &str| {
            lab.host_with(&HostSpec::new(name).address(address.parse().unwrap()), &switch).unwrap()
        };
        let (client, server) = (host("client", "10.64.1.1/16"), host("server", "10.64.0.100/16"));
        let home = lab.directory().join("home");
        let init = Command::new(program())
            .args(["init", "--subnet", SUBNET, "--pool", POOL, "--fabric"])
            .arg(&home)
            .output()
            .unwrap();
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        put_image(&home);
        Self { lab, switch, client, server, home }
    }

    pub(crate) fn start(&self, kind: Server) -> Running {
        let directory = self.lab.directory();
        let process = match kind {
            Server::Ours => return self.start_node(&self.server, &[], false),
            Server::Reflector => {
                let mut command = self.server.command(std::env::current_exe().unwrap());
                self.server.spawn("reflector", command.args(["reflect", "10.64.0.100"])).unwrap()
            }
            Server::Kea => {
                let config = directory.join("kea.json");
                std::fs::write(&config, kea_config(self.server.interface())).unwrap();
                let mut command = self.server.command("kea-dhcp4");
                command.env("KEA_PIDFILE_DIR", directory).env("KEA_LOCKFILE_DIR", "none");
                let process = self.server.spawn("kea", command.arg("-c").arg(config)).unwrap();
                process.wait_for_log("DHCP4_STARTED", PATIENCE).unwrap();
                process
            }
            Server::Dnsmasq => {
                let leases = directory.join("dnsmasq.leases");
                let _ = std::fs::remove_file(&leases);
                let mut command = self.server.command("dnsmasq");
                command.args([
                    "--keep-in-foreground",
                    "--log-facility=-",
                    "--conf-file=/dev/null",
                    "--port=0",
                    "--quiet-dhcp",
                ]);
                command.args(["--bind-interfaces", "--no-ping", "--dhcp-lease-max=20000"]);
                command.args(["--interface", self.server.interface()]);
                command.args(["--dhcp-range", "10.64.16.0,10.64.79.255,255.255.0.0,3600"]);
                command.arg(format!("--dhcp-leasefile={}", leases.display()));
                let process = self.server.spawn("dnsmasq", &mut command).unwrap();
                process.wait_for_log("DHCP, IP range", PATIENCE).unwrap();
                process
            }
        };
        Running { kind, process }
    }

    /// A node that serves. Events go to a file if somebody reads them: the other servers write no line for each packet either.
    fn start_node(&self, host: &Host, more: &[&str], events: bool) -> Running {
        let files = |what: &str| self.lab.directory().join(format!("{}.{what}", host.name()));
        // A node from nothing each time, with the image.
        let (home, state) = (files("home"), files("state"));
        for directory in [&home, &state] {
            let _ = std::fs::remove_dir_all(directory);
        }
        assert!(Command::new("cp").arg("-a").arg(&self.home).arg(&home).status().unwrap().success());
        let mut command = host.command(program());
        command.args(["up", "--dhcp", "full", "--interface", host.interface(), "--name", host.name()]);
        command.arg("--fabric").arg(home).arg("--state").arg(&state);
        if events {
            command.arg("--events").arg(host.events_path());
        }
        let process = host.spawn("up", command.args(more)).unwrap();
        netlab::wait_until("a node", PATIENCE, || {
            let output =
                Command::new(program()).args(["status", "--json", "--state"]).arg(&state).output().ok()?;
            let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
            (status["serves_boot"] == true).then_some(())
        })
        .unwrap_or_else(|error| panic!("{error}: {}", process.describe()));
        Running { kind: Server::Ours, process }
    }

    /// Nodes that know each other.
    pub(crate) fn start_nodes(&self, count: u8) -> Vec<Running> {
        let hosts: Vec<Host> = (1..=count)
            .map(|n| {
                let address = format!("10.64.0.{n}/16").parse().unwrap();
                let spec = HostSpec::new(&format!("node{n}")).address(address);
                self.lab.host_with(&spec, &self.switch).unwrap()
            })
            .collect();
        let nodes = hosts.iter().map(|host| self.start_node(host, &["--peer", "10.64.0.1"], true)).collect();
        netlab::wait_until("the nodes know each other", PATIENCE, || {
            let peers = |host: &Host| host.events().all().iter().filter(|event| event.is("peer-up")).count();
            hosts.iter().all(|host| peers(host) + 1 >= hosts.len()).then_some(())
        })
        .unwrap();
        nodes
    }

    /// What servers answer to the client, headers and the first options.
    pub(crate) fn capture(&self) -> Capture {
        let options = CaptureOptions { filter: "udp src port 67".into(), snap_length: 320 };
        self.switch.capture_with("replies", &options).unwrap()
    }
}

impl Running {
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Server::Ours => "bootfabric",
            Server::Kea => "Kea",
            Server::Dnsmasq => "dnsmasq",
            Server::Reflector => "reflector",
        }
    }

    /// Ends it at once, as power does.
    pub(crate) fn kill(&self) {
        self.process.kill().unwrap();
    }

    /// CPU seconds used so far.
    pub(crate) fn cpu(&self) -> f64 {
        usage(self.process.pid()).cpu
    }

    /// Puts the server on the first processor, together with a loop of nine times its weight.
    pub(crate) fn crowd(&self) -> Hog {
        let pid = self.process.pid().to_string();
        let pinned = Command::new("taskset").args(["-a", "-c", "-p", "0", &pid]).output().unwrap();
        assert!(pinned.status.success());
        let mut hog = Command::new("taskset");
        hog.args(["-c", "0", "nice", "-n", "-10", "sh", "-c", "while :; do :; done"]);
        Hog(hog.stdin(Stdio::null()).spawn().unwrap())
    }
}

fn kea_config(interface: &str) -> String {
    format!(
        r#"{{"Dhcp4": {{
            "interfaces-config": {{"interfaces": ["{interface}"]}},
            "lease-database": {{"type": "memfile", "persist": false}},
            "valid-lifetime": 3600,
            "subnet4": [{{"subnet": "{SUBNET}", "pools": [{{"pool": "{POOL}"}}]}}],
            "loggers": [{{"name": "kea-dhcp4", "severity": "WARN", "output_options": [{{"output": "stderr"}}]}},
                {{"name": "kea-dhcp4.dhcp4", "severity": "INFO", "output_options": [{{"output": "stderr"}}]}},
                {{"name": "kea-dhcp4.leases", "severity": "WARN", "output_options": [{{"output": "stderr"}}]}}]
        }}}}"#
    )
}

/// A signed release without anything that a machine could boot, so that the node serves.
fn put_image(home: &Path) -> ObjectId {
    let store = Store::open(&home.join("store"), StoreOptions::default()).unwrap();
    let add = |bytes: &[u8]| store.add_bytes(bytes).unwrap();
    let release = Release {
        name: "bench".into(),
        version: "1".into(),
        generation: 1,
        arch: Arch::X86_64,
        kernel: add(b"a kernel"),
        kernel_version: "6".into(),
        first_stage: add(b"a first stage"),
        root: add(b"a root"),
        root_format: RootFormat::Squashfs,
        loaders: vec![],
        cmdline: "quiet".into(),
        root_mode: RootMode::Overlay,
        memory_needed_mib: 1,
    };
    let operator = KeyDir::new(home.join("keys")).operator().unwrap();
    let signed = SignedRelease::sign(&operator, &release).unwrap();
    let id = store.put_object(signed.bytes()).unwrap();
    store.set_head(bootfabric::home::RELEASE_HEAD, &id).unwrap();
    id
}
