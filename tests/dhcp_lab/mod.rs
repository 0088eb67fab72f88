//! A switch with nodes that have a release nobody boots, and clients without a network stack of their own.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bootfabric::home::RELEASE_HEAD;
use fabric::store::{Store, StoreOptions};
use fabric::trust::{Arch, KeyDir, Release, RootFormat, RootMode, SignedRelease};
use netlab::pcap::{DhcpKind, DhcpMessage};
use netlab::{Capture, Host, HostSpec, Lab, Process, Switch, wait_until};

/// Anything that takes seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A client's first retry; iPXE, OVMF and udhcpc wait longer.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Link {
    pub(crate) lab: Lab,
    pub(crate) switch: Switch,
    pub(crate) capture: Capture,
}

pub(crate) struct Node {
    pub(crate) host: Host,
    pub(crate) process: Process,
    pub(crate) address: Ipv4Addr,
}

impl Link {
    pub(crate) fn new(name: &'static str) -> anyhow::Result<Option<Self>> {
        if !netlab::ready_or_skip()? {
            return Ok(None);
        }
        let lab = Lab::new(name)?;
        let switch = lab.switch("sw0")?;
        let capture = switch.capture("dhcp", "udp port 67 or udp port 68 or udp port 4011")?;
        Ok(Some(Self { lab, switch, capture }))
    }

    pub(crate) fn host(&self, name: &str, address: &str) -> anyhow::Result<Host> {
        Ok(self.lab.host_with(&HostSpec::new(name).address(address.parse()?), &self.switch)?)
    }

    /// An operator's directory of a new fabric, with a release that no machine boots here.
    pub(crate) fn make_home(&self, name: &str, pool: &str) -> anyhow::Result<PathBuf> {
        let home = self.lab.directory().join(format!("{name}.home"));
        let mut init = Command::new(env!("CARGO_BIN_EXE_bootfabric"));
        init.args(["init", "--name", name, "--subnet", "10.77.0.0/22", "--pool", pool, "--fabric"])
            .arg(&home);
        let output = init.output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        put_image(&home)?;
        Ok(home)
    }

    pub(crate) fn start(&self, name: &str, number: u8, home: &Path, more: &[&str]) -> anyhow::Result<Node> {
        let address = Ipv4Addr::new(10, 77, 0, number);
        let host = self.host(name, &format!("{address}/22"))?;
        let own = self.lab.directory().join(format!("{name}.own"));
        ensure!(Command::new("cp").arg("-a").arg(home).arg(&own).status()?.success());
        let mut up = host.command(env!("CARGO_BIN_EXE_bootfabric"));
        up.args(["up", "--interface", host.interface(), "--name", name, "--fabric"]).arg(&own);
        up.arg("--state").arg(own.join("state")).arg("--events").arg(host.events_path()).args(more);
        let process = host.spawn("up", &mut up)?;
        host.events().wait_for_name("node-started", PATIENCE).with_context(|| process.describe())?;
        Ok(Node { host, process, address })
    }

    /// Nodes that know each other.
    pub(crate) fn nodes(&self, home: &Path, count: u8) -> anyhow::Result<Vec<Node>> {
        let start = |n: u8| self.start(&format!("node{n}"), n, home, &["--peer", "10.77.0.1"]);
        let nodes = (1..=count).map(start).collect::<anyhow::Result<Vec<_>>>()?;
        wait_until("the nodes know each other", PATIENCE, || {
            let peers =
                |node: &Node| node.host.events().all().iter().filter(|event| event.is("peer-up")).count();
            nodes.iter().all(|node| peers(node) + 1 >= nodes.len()).then_some(())
        })?;
        // Each believes in the others as responders, too: their states are told after the connection.
        wait_until("the nodes know each other as responders", PATIENCE, || {
            nodes
                .iter()
                .all(|node| responders(node).is_ok_and(|count| count + 1 == nodes.len()))
                .then_some(())
        })?;
        Ok(nodes)
    }

    pub(crate) fn count(&self, kind: DhcpKind) -> anyhow::Result<usize> {
        Ok(self.capture.trace()?.dhcp.iter().filter(|seen| seen.kind == kind && !is_probe(seen)).count())
    }
}

pub(crate) fn is_probe(message: &DhcpMessage) -> bool {
    message.options.get(&60).is_some_and(|class| class == b"bootfabric")
}

impl Node {
    pub(crate) fn wait_for_stage(&self, stage: &str) -> anyhow::Result<()> {
        let is = |event: &netlab::Event| event.is("dhcp") && event.text("stage") == Some(stage);
        self.host.events().wait_for(stage, PATIENCE, is).with_context(|| self.process.describe())?;
        Ok(())
    }
}

/// How many other nodes that answer DHCP a node knows.
pub(crate) fn responders(node: &Node) -> anyhow::Result<usize> {
    let state = node.process.log_path().with_file_name(format!("{}.own", node.host.name())).join("state");
    let output = node
        .host
        .command(env!("CARGO_BIN_EXE_bootfabric"))
        .args(["status", "--json", "--state"])
        .arg(state)
        .output()?;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let peers = status["peers"].as_array().context("no peers")?;
    Ok(peers.iter().filter(|peer| peer["serves_boot"] == true).count())
}

/// Signs a release of a few bytes and puts it into the store.
pub(crate) fn put_image(home: &Path) -> anyhow::Result<()> {
    let store = Store::open(&home.join("store"), StoreOptions::default())?;
    let release = Release {
        name: "test".into(),
        version: "1".into(),
        generation: 1,
        arch: Arch::X86_64,
        kernel: store.add_bytes(b"a kernel")?,
        kernel_version: "6".into(),
        first_stage: store.add_bytes(b"a first stage")?,
        root: store.add_bytes(b"a root")?,
        root_format: RootFormat::Squashfs,
        loaders: vec![],
        cmdline: "quiet".into(),
        root_mode: RootMode::Overlay,
        memory_needed_mib: 1,
    };
    let signed = SignedRelease::sign(&KeyDir::new(home.join("keys")).operator()?, &release)?;
    let id = store.put_object(signed.bytes())?;
    store.set_head(RELEASE_HEAD, &id)?;
    Ok(())
}

/// Many clients on one host, without a network stack of their own.
pub(crate) struct Farm {
    pub(crate) socket: UdpSocket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) address: Ipv4Addr,
    pub(crate) server: Ipv4Addr,
}

impl Farm {
    pub(crate) fn new(host: &Host) -> anyhow::Result<Self> {
        let socket = host.run_in(|| UdpSocket::bind("0.0.0.0:68"))??;
        // There is no route to everybody.
        let device = std::ffi::OsString::from(host.interface());
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::BindToDevice, &device)?;
        socket.set_broadcast(true)?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok(Self { socket })
    }

    /// Client `n` sends a message; the transaction is its number.
    pub(crate) fn send(&self, n: u8, kind: u8, ciaddr: Ipv4Addr, options: &[u8]) -> anyhow::Result<()> {
        let mut bytes = vec![0; 240];
        bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
        bytes[7] = n;
        bytes[10] = 0x80;
        bytes[12..16].copy_from_slice(&ciaddr.octets());
        bytes[28..34].copy_from_slice(&mac(n));
        bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
        bytes.extend_from_slice(&[53, 1, kind]);
        bytes.extend_from_slice(options);
        bytes.push(255);
        self.socket.send_to(&bytes, "255.255.255.255:67")?;
        Ok(())
    }

    pub(crate) fn discover(&self, n: u8) -> anyhow::Result<()> {
        self.send(n, 1, Ipv4Addr::UNSPECIFIED, &[])
    }

    pub(crate) fn request(&self, n: u8, offer: Offer) -> anyhow::Result<()> {
        let options = [&[54, 4][..], &offer.server.octets(), &[50, 4], &offer.address.octets()].concat();
        self.send(n, 3, Ipv4Addr::UNSPECIFIED, &options)
    }

    /// The next message of a server before `end`.
    pub(crate) fn next(&self, end: Instant) -> Option<DhcpMessage> {
        let mut buffer = [0; 1500];
        while Instant::now() < end {
            if let Ok((length, _)) = self.socket.recv_from(&mut buffer)
                && let Some(message) = DhcpMessage::parse(&buffer[..length])
                && message.op == 2
            {
                return Some(message);
            }
        }
        None
    }

    /// Whole exchanges of all these clients at once, with retries. What each got, and how often it began.
    pub(crate) fn lease(&self, clients: &BTreeSet<u8>) -> anyhow::Result<BTreeMap<u8, (Offer, u32)>> {
        let mut begun: BTreeMap<u8, (Instant, u32)> = BTreeMap::new();
        let mut done = BTreeMap::new();
        let end = Instant::now() + PATIENCE;
        while done.len() < clients.len() {
            ensure!(Instant::now() < end, "only {done:?} of {clients:?}");
            for &n in clients.iter().filter(|n| !done.contains_key(*n)) {
                let (at, count) = begun.get(&n).copied().unwrap_or((end, 0));
                if count == 0 || at.elapsed() >= RETRY {
                    self.discover(n)?;
                    begun.insert(n, (Instant::now(), count + 1));
                }
            }
            let Some(message) = self.next(Instant::now() + Duration::from_millis(50)) else { continue };
            let n = message.xid.to_be_bytes()[3];
            let Some(server) = message.server_id().filter(|_| clients.contains(&n)) else { continue };
            let offer = Offer { address: message.yiaddr, server };
            match message.kind {
                DhcpKind::Offer => self.request(n, offer)?,
                DhcpKind::Ack => {
                    done.insert(n, (offer, begun.get(&n).map_or(0, |begun| begun.1)));
                }
                _ => {}
            }
        }
        Ok(done)
    }
}

pub(crate) fn mac(n: u8) -> [u8; 6] {
    [2, 0xbf, 0, 0, 0, n]
}

pub(crate) fn distinct<'a>(offers: impl IntoIterator<Item = &'a (Offer, u32)>) -> BTreeSet<Ipv4Addr> {
    offers.into_iter().map(|(offer, _)| offer.address).collect()
}

pub(crate) const POOL: &str = "10.77.0.16-10.77.3.239";
/// Outside of the pool.
pub(crate) const CLIENTS: &str = "10.77.3.250/22";
