//! A private fabric, end to end: real programs in namespaces, one of them uninvited.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use bootfabric::lab::assets::{Assets, RootKind};
use bootfabric::lab::cluster::{Boot, Cluster, HostNode, Options, STEP_DEADLINE};
use bootfabric::stage::config::StageConfig;
use fabric::swarm::{NodeKey, NodePublicKey};
use fabric::tls::TlsClient;
use netlab::{Capture, CaptureOptions, Host, Process, wait_until};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Where nodes give blobs to members: the port after the swarm's.
const BULK: u16 = 7745;
/// Address of the bare machine, in the fabric's pool.
const BARE: &str = "10.77.3.200/22";
/// What any answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Places of the root that are looked for on the wire.
const SAMPLES: usize = 64;
/// Bytes looked for at each: no chance hit.
const SAMPLE: usize = 32;

struct Fabric {
    cluster: Cluster,
    program: PathBuf,
    capture: Capture,
    one: HostNode,
}

impl Fabric {
    /// A member with an image, on a switch of which every byte is recorded.
    fn new(name: &'static str) -> anyhow::Result<Option<Self>> {
        if !netlab::ready_or_skip()? {
            return Ok(None);
        }
        let program = PathBuf::from(env!("CARGO_BIN_EXE_bootfabric"));
        let assets = Assets::find(&program)?;
        let options = Options { name, root: RootKind::Busybox, boot: Boot::Bios, keep: None };
        let cluster = Cluster::new(assets.clone(), options)?;
        let whole = CaptureOptions { snap_length: 262_144, ..CaptureOptions::default() };
        let capture = cluster.switch().capture_with("whole", &whole)?;
        let home = cluster.lab().directory().join("one.home");
        assets.private_home(RootKind::Busybox, &home)?;
        let one = cluster.start_host("one", home, &[])?;
        Ok(Some(Self { cluster, program, capture, one }))
    }

    /// Says `bootfabric member …` on the first node's machine.
    fn member(&self, args: &[&str]) -> anyhow::Result<Value> {
        let mut command = self.one.host.command(&self.program);
        command.arg("member").args(args).arg("--json");
        command.arg("--fabric").arg(&self.one.home).arg("--state").arg(self.state("one"));
        let output = command.output()?;
        ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn waiting(&self) -> anyhow::Result<Vec<String>> {
        let listed = self.member(&["ls", "--waiting"])?;
        let waiting = listed["waiting"].as_array().context("no list")?.iter();
        Ok(waiting.filter_map(|machine| machine["node"].as_str().map(str::to_owned)).collect())
    }

    /// The id of a blob by what it is in the release.
    fn blob(&self, role: &str) -> anyhow::Result<String> {
        let status = self.one.status()?;
        let blob = status.blobs.iter().find(|blob| blob.role == role).context("no such blob")?;
        Ok(blob.blob.to_string())
    }

    fn state(&self, name: &str) -> PathBuf {
        self.cluster.lab().directory().join(format!("{name}.state"))
    }

    fn store(&self, name: &str) -> PathBuf {
        self.cluster.lab().directory().join(format!("{name}.store"))
    }

    fn release(&self) -> anyhow::Result<String> {
        Ok(self.one.status()?.release.context("no release")?.id.to_string())
    }

    /// Starts the agent of a machine that has just booted into its first stage.
    fn start_bare(&self, host: &Host) -> anyhow::Result<Process> {
        let stage = StageConfig {
            interface: host.interface().into(),
            mac: host.mac().to_string(),
            address: BARE.into(),
            peers: vec![self.one.node.address],
            release: self.release()?,
            name: "node-bare".into(),
            trust_root: trust_root(&self.one.home)?,
            http_port: 80,
            swarm_port: 7744,
            store: self.store("bare"),
            state: self.state("bare"),
            events: None,
            private: true,
            limits: bootfabric::limits::Limits::default(),
        };
        let file = self.cluster.lab().directory().join("stage.json");
        stage.write(&file)?;
        let mut agent = host.command(&self.program);
        agent.args(["agent", "--first-stage"]).arg(&file);
        Ok(host.spawn("agent", &mut agent)?)
    }
}

/// The key in the form in which the kernel's first stage carries it.
fn trust_root(home: &Path) -> anyhow::Result<String> {
    Ok(fabric::trust::KeyDir::new(home.join("keys")).trust_root()?.to_string())
}

fn key_of(state: &Path) -> anyhow::Result<NodeKey> {
    Ok(NodeKey::load_or_create(&state.join("node.key"))?)
}

/// The fabric's directory as somebody outside may have it: who the fabric is, and nothing else.
fn outsider_home(from: &Path, to: &Path) -> anyhow::Result<()> {
    for directory in ["keys", "store/objects", "store/heads"] {
        std::fs::create_dir_all(to.join(directory))?;
    }
    let settings = std::fs::read_to_string(from.join("store/heads/settings"))?;
    let object = format!("store/objects/{}", settings.trim());
    for file in ["keys/root.pub", "store/heads/settings", &object, "store/format"] {
        std::fs::copy(from.join(file), to.join(file)).with_context(|| file.to_owned())?;
    }
    Ok(())
}

/// What plain HTTP answers on `at`: status line and all that follows.
fn get(at: SocketAddr, target: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: h\r\nRange: bytes=0-999\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    // A server that hangs up has answered nothing.
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut answer));
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The same over TLS with the node that has `key`, showing a token or none.
fn get_secure(
    at: SocketAddr,
    key: NodePublicKey,
    target: &str,
    token: Option<&str>,
) -> anyhow::Result<String> {
    let shown = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request =
        format!("GET {target} HTTP/1.1\r\nHost: h\r\n{shown}Range: bytes=0-999\r\nConnection: close\r\n\r\n");
    let ask = async {
        let mut stream = TlsClient::new(key)?.connect(tokio::net::TcpStream::connect(at).await?).await?;
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, ask).await? })
}

/// The error code with which TFTP refuses a file.
fn tftp_refusal(at: Ipv4Addr, name: &str) -> anyhow::Result<u16> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(format!("\0\x01{name}\0octet\0").as_bytes(), (at, 69))?;
    let mut answer = [0; 600];
    let length = socket.recv(&mut answer)?;
    match answer.get(..length) {
        Some([0, 5, high, low, ..]) => Ok(u16::from_be_bytes([*high, *low])),
        other => anyhow::bail!("no error: {other:?}"),
    }
}

fn blobs_in(store: &Path) -> usize {
    ["blobs", "partial"].iter().filter_map(|part| std::fs::read_dir(store.join(part)).ok()).flatten().count()
}

/// Pieces of `content` that are found nowhere else.
fn samples(content: &[u8]) -> anyhow::Result<BTreeSet<&[u8]>> {
    let step = content.len() / SAMPLES;
    let samples = (0..SAMPLES).filter_map(|n| content.get(n * step..n * step + SAMPLE));
    // Runs of one byte are in every file.
    let telling = |sample: &&[u8]| sample.iter().collect::<BTreeSet<_>>().len() > SAMPLE / 2;
    let samples: BTreeSet<&[u8]> = samples.filter(telling).collect();
    ensure!(samples.len() > SAMPLES / 4, "the content says too little: {} samples", samples.len());
    Ok(samples)
}

/// How many of the samples are found in the file at `path`.
fn found(path: &Path, samples: &BTreeSet<&[u8]>) -> anyhow::Result<usize> {
    let recorded = std::fs::read(path)?;
    let begins = |window: &[u8]| usize::from(window[0]) << 8 | usize::from(window[1]);
    let mut beginnings = vec![false; 1 << 16];
    samples.iter().for_each(|sample| beginnings[begins(sample)] = true);
    let windows = recorded.windows(SAMPLE).filter(|window| beginnings[begins(window)]);
    Ok(windows.filter(|window| samples.contains(window)).collect::<BTreeSet<_>>().len())
}

#[test]
fn only_admitted_machines_are_given_anything_and_nobody_on_the_wire_reads_it() -> anyhow::Result<()> {
    let Some(fabric) = Fabric::new("private")? else { return Ok(()) };
    let lab = fabric.cluster.lab();
    let (release, root) = (fabric.release()?, fabric.blob("root")?);

    // A bare machine waits, is seen, is admitted, and has its root.
    let host = lab.host("bare", fabric.cluster.switch())?;
    host.add_address(BARE.parse()?)?;
    let agent = fabric.start_bare(&host)?;
    agent.wait_for_log("waits to be admitted", STEP_DEADLINE)?;
    let bare = key_of(&fabric.state("bare"))?;
    let bare_id = bare.node_id().to_string();
    agent.wait_for_log(&format!("bootfabric member admit {bare_id}"), STEP_DEADLINE)?;
    wait_until("the machine is listed", STEP_DEADLINE, || {
        fabric.waiting().ok().filter(|ids| *ids == [bare_id.clone()])
    })?;
    assert_eq!(blobs_in(&fabric.store("bare")), 0);
    let admitted = fabric.member(&["admit", "--waiting"])?;
    assert_eq!((&admitted[0]["name"], &admitted[0]["node"]), (&"node-bare".into(), &bare_id.clone().into()));
    agent.wait_for_log(r#""event":"blob-complete","role":"root""#, STEP_DEADLINE)?;
    agent.wait_for_log(r#""event":"node-started""#, STEP_DEADLINE)?;
    let copy = std::fs::read(fabric.store("bare").join("blobs").join(&root))?;
    let original = std::fs::read(fabric.one.home.join("store/blobs").join(&root))?;
    assert!(copy == original, "the copy differs");

    // All of it crossed the wire, and none of it could be read there.
    let recorded = std::fs::metadata(fabric.capture.path())?.len();
    assert!(recorded > copy.len() as u64, "{recorded} bytes recorded of a root of {}", copy.len());
    assert_eq!(found(fabric.capture.path(), &samples(&copy)?)?, 0, "the root was seen on the wire");

    // Somebody who knows the fabric, has the program and is on the switch.
    let home = lab.directory().join("outsider.home");
    outsider_home(&fabric.one.home, &home)?;
    let outsider = lab.host("outsider", fabric.cluster.switch())?;
    let peer = fabric.one.node.address.to_string();
    let mut up = outsider.command(&fabric.program);
    up.args([
        "up",
        "--interface",
        "eth0",
        "--name",
        "outsider",
        "--dhcp",
        "off",
        "--peer",
        &peer,
        "--fabric",
    ]);
    up.arg(&home).arg("--state").arg(fabric.state("outsider")).arg("--events").arg(outsider.events_path());
    let _up = outsider.spawn("up", &mut up)?;
    outsider.events().wait_for_name("not-admitted", STEP_DEADLINE)?;
    let outsider_id = key_of(&fabric.state("outsider"))?.node_id().to_string();
    wait_until("the outsider is listed", STEP_DEADLINE, || {
        fabric.waiting().ok().filter(|ids| *ids == [outsider_id.clone()])
    })?;
    let bare_address: Ipv4Addr = BARE.split('/').next().context("no address")?.parse()?;
    let one_key = key_of(&fabric.state("one"))?.public();
    for (address, key) in [(fabric.one.node.address, one_key), (bare_address, bare.public())] {
        let (public, bulk): (SocketAddr, SocketAddr) = ((address, 80).into(), (address, BULK).into());
        let blob = format!("/blob/{root}");
        let made_up = "5a".repeat(32);
        outsider.run_in(|| -> anyhow::Result<()> {
            for target in [blob.as_str(), "/status"] {
                let answer = get(public, target)?;
                ensure!(
                    answer.starts_with("HTTP/1.1 403") && answer.contains("private"),
                    "{target}: {answer}"
                );
            }
            // What boots a machine stays open.
            for target in ["/boot.ipxe".to_owned(), format!("/boot/{release}/kernel")] {
                let answer = get(public, &target)?;
                ensure!(answer.starts_with("HTTP/1.1 206"), "{target}: {answer}");
            }
            ensure!(tftp_refusal(address, &blob)? == 2, "TFTP gives blobs");
            ensure!(!get(bulk, &blob)?.contains("HTTP/1.1 2"), "the bulk service speaks without TLS");
            for token in [None, Some(made_up.as_str()), Some("x")] {
                for target in [blob.as_str(), "/status", "/boot.ipxe", "/"] {
                    let answer = get_secure(bulk, key, target, token)?;
                    ensure!(answer.starts_with("HTTP/1.1 403"), "{target} with {token:?}: {answer}");
                }
            }
            Ok(())
        })??;
    }
    assert_eq!(blobs_in(&home.join("store")), 0);
    // What travels in the open is found, so the root would have been.
    let kernel = std::fs::read(fabric.one.home.join("store/blobs").join(fabric.blob("kernel")?))?;
    let open = kernel.get(500..500 + SAMPLE).context("no kernel")?;
    wait_until("the kernel's first bytes on the wire", STEP_DEADLINE, || {
        found(fabric.capture.path(), &BTreeSet::from([open])).ok().filter(|found| *found == 1)
    })?;
    let seen = fabric.one.status()?.peers;
    assert!(seen.iter().all(|peer| peer.node.to_string() == bare_id), "{seen:?}");

    // Withdrawn, the machine is dropped; with an empty store it gets nothing, until it is admitted again.
    fabric.member(&["revoke", "node-bare"])?;
    agent.wait_for_log(r#""event":"not-admitted""#, STEP_DEADLINE)?;
    wait_until("the machine is gone", STEP_DEADLINE, || {
        fabric.one.status().ok().filter(|now| now.peers.is_empty())
    })?;
    agent.kill()?;
    std::fs::remove_dir_all(fabric.store("bare"))?;
    let again = fabric.start_bare(&host)?;
    again.wait_for_log(r#""event":"not-admitted""#, STEP_DEADLINE)?;
    assert_eq!(blobs_in(&fabric.store("bare")), 0);
    fabric.member(&["admit", &bare_id, "--name", "node-bare"])?;
    again.wait_for_log(r#""event":"blob-complete","role":"root""#, STEP_DEADLINE)?;
    Ok(())
}
