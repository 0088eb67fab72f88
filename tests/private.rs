//! A private fabric, end to end: real programs in namespaces, one of them uninvited.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use bootfabric::home::RELEASE_HEAD;
use bootfabric::lab::cluster::STEP_DEADLINE;
use bootfabric::stage::config::StageConfig;
use fabric::id::{Hash, ObjectId};
use fabric::store::{Store, StoreOptions};
use fabric::swarm::{NodeKey, NodePublicKey};
use fabric::tls::TlsClient;
use fabric::trust::{Arch, KeyDir, Release, RootFormat, RootMode, SignedRelease};
use netlab::{Capture, CaptureOptions, Host, Lab, Process, Switch, wait_until};
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
    lab: Lab,
    switch: Switch,
    capture: Capture,
    program: PathBuf,
    home: PathBuf,
    one: Host,
    address: Ipv4Addr,
    release: ObjectId,
    kernel: Vec<u8>,
    root: Vec<u8>,
}

impl Fabric {
    /// A member with an image, on a switch of which every byte is recorded.
    fn new(name: &'static str) -> anyhow::Result<Option<Self>> {
        if !netlab::ready_or_skip()? {
            return Ok(None);
        }
        let program = PathBuf::from(env!("CARGO_BIN_EXE_bootfabric"));
        let lab = Lab::new(name)?;
        let switch = lab.switch("sw0")?;
        let whole = CaptureOptions { snap_length: 262_144, ..CaptureOptions::default() };
        let capture = switch.capture_with("whole", &whole)?;
        let home = lab.directory().join("one.home");
        let made = Command::new(&program).args(["init", "--private", "--fabric"]).arg(&home).status()?;
        ensure!(made.success(), "no fabric was made");
        let (kernel, root) = (noise(1, 100_000), noise(2, 5_000_000));
        let release = put_image(&home, &kernel, &root)?;
        let one = lab.host("one", &switch)?;
        let mut up = one.command(&program);
        up.args(["up", "--interface", "eth0", "--name", "one", "--fabric"]).arg(&home);
        up.arg("--state").arg(lab.directory().join("one.state")).arg("--events").arg(one.events_path());
        one.spawn("up", &mut up)?;
        let started = one.events().wait_for_name("node-started", STEP_DEADLINE)?;
        let address = started.text("address").context("no address")?.parse()?;
        Ok(Some(Self { lab, switch, capture, program, home, one, address, release, kernel, root }))
    }

    /// Says `bootfabric member …` on the first node's machine.
    fn member(&self, args: &[&str]) -> anyhow::Result<Value> {
        let fabric = ["--fabric".as_ref(), self.home.as_os_str()];
        self.ask(&[&["member"], args].concat(), &fabric)
    }

    /// What the first node says of itself.
    fn status(&self) -> anyhow::Result<Value> {
        self.ask(&["status"], &[])
    }

    fn ask(&self, args: &[&str], more: &[&OsStr]) -> anyhow::Result<Value> {
        let mut command = self.one.command(&self.program);
        let output =
            command.args(args).arg("--json").args(more).arg("--state").arg(self.state("one")).output()?;
        ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn waiting(&self) -> anyhow::Result<Vec<String>> {
        let listed = self.member(&["ls", "--waiting"])?;
        let waiting = listed["waiting"].as_array().context("no list")?.iter();
        Ok(waiting.filter_map(|machine| machine["node"].as_str().map(str::to_owned)).collect())
    }

    fn state(&self, name: &str) -> PathBuf {
        self.lab.directory().join(format!("{name}.state"))
    }

    fn store(&self, name: &str) -> PathBuf {
        self.lab.directory().join(format!("{name}.store"))
    }

    /// Starts the agent of a machine that has just booted into its first stage.
    fn start_bare(&self, host: &Host) -> anyhow::Result<Process> {
        let stage = StageConfig {
            interface: host.interface().into(),
            mac: host.mac().to_string(),
            address: BARE.into(),
            peers: vec![self.address],
            release: self.release.to_string(),
            name: "node-bare".into(),
            trust_root: trust_root(&self.home)?,
            http_port: 80,
            swarm_port: 7744,
            store: self.store("bare"),
            store_on_disk: false,
            awaits_disk: false,
            state: self.state("bare"),
            events: None,
            private: true,
            limits: bootfabric::limits::Limits::default(),
            root: bootfabric::stage::RootOptions::default(),
        };
        let file = self.lab.directory().join("stage.json");
        stage.write(&file)?;
        let mut agent = host.command(&self.program);
        agent.args(["agent", "--first-stage"]).arg(&file);
        Ok(host.spawn("agent", &mut agent)?)
    }
}

/// Bytes that are found nowhere else.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Signs a release of these blobs and puts it into the store. No machine boots it here.
fn put_image(home: &Path, kernel: &[u8], root: &[u8]) -> anyhow::Result<ObjectId> {
    let store = Store::open(&home.join("store"), StoreOptions::default())?;
    let release = Release {
        name: "test".into(),
        version: "1".into(),
        generation: 1,
        arch: Arch::X86_64,
        kernel: store.add_bytes(kernel)?,
        kernel_version: "6".into(),
        first_stage: store.add_bytes(b"a first stage")?,
        root: store.add_bytes(root)?,
        root_format: RootFormat::Squashfs,
        loaders: vec![],
        cmdline: "quiet".into(),
        root_mode: RootMode::Overlay,
        memory_needed_mib: 1,
    };
    let signed = SignedRelease::sign(&KeyDir::new(home.join("keys")).operator()?, &release)?;
    let id = store.put_object(signed.bytes())?;
    store.set_head(RELEASE_HEAD, &id)?;
    Ok(id)
}

/// The key in the form in which the kernel's first stage carries it.
fn trust_root(home: &Path) -> anyhow::Result<String> {
    Ok(KeyDir::new(home.join("keys")).trust_root()?.to_string())
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

/// Pieces of `content`, evenly spread.
fn samples(content: &[u8]) -> BTreeSet<&[u8]> {
    let step = content.len() / SAMPLES;
    (0..SAMPLES).filter_map(|n| content.get(n * step..n * step + SAMPLE)).collect()
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

/// The nodes that the first one sees.
fn peers(fabric: &Fabric) -> Vec<String> {
    let status = fabric.status().unwrap_or_default();
    let peers = status["peers"].as_array().cloned().unwrap_or_default();
    peers.iter().filter_map(|peer| peer["node"].as_str().map(str::to_owned)).collect()
}

#[test]
fn only_admitted_machines_are_given_anything_and_nobody_on_the_wire_reads_it() -> anyhow::Result<()> {
    let Some(fabric) = Fabric::new("private")? else { return Ok(()) };
    let (lab, release) = (&fabric.lab, fabric.release);
    let root = Hash::of(&fabric.root);

    // A bare machine waits, is seen, is admitted, and has its root.
    let host = lab.host("bare", &fabric.switch)?;
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
    let copy = std::fs::read(fabric.store("bare").join("blobs").join(root.to_string()))?;
    assert!(copy == fabric.root, "the copy differs");

    // All of it crossed the wire, and none of it could be read there.
    let recorded = std::fs::metadata(fabric.capture.path())?.len();
    assert!(recorded > copy.len() as u64, "{recorded} bytes recorded of a root of {}", copy.len());
    assert_eq!(found(fabric.capture.path(), &samples(&copy))?, 0, "the root was seen on the wire");

    // Somebody who knows the fabric, has the program and is on the switch.
    let home = lab.directory().join("outsider.home");
    outsider_home(&fabric.home, &home)?;
    let outsider = lab.host("outsider", &fabric.switch)?;
    let peer = fabric.address.to_string();
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
    for (address, key) in [(fabric.address, one_key), (bare_address, bare.public())] {
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
    let open = fabric.kernel.get(500..500 + SAMPLE).context("no kernel")?;
    wait_until("the kernel's first bytes on the wire", STEP_DEADLINE, || {
        found(fabric.capture.path(), &BTreeSet::from([open])).ok().filter(|found| *found == 1)
    })?;
    assert_eq!(peers(&fabric), std::slice::from_ref(&bare_id));

    // Withdrawn, the machine is dropped; with an empty store it gets nothing, until it is admitted again.
    fabric.member(&["revoke", "node-bare"])?;
    agent.wait_for_log(r#""event":"not-admitted""#, STEP_DEADLINE)?;
    wait_until("the machine is gone", STEP_DEADLINE, || peers(&fabric).is_empty().then_some(()))?;
    agent.kill()?;
    std::fs::remove_dir_all(fabric.store("bare"))?;
    let again = fabric.start_bare(&host)?;
    again.wait_for_log(r#""event":"not-admitted""#, STEP_DEADLINE)?;
    assert_eq!(blobs_in(&fabric.store("bare")), 0);
    fabric.member(&["admit", &bare_id, "--name", "node-bare"])?;
    again.wait_for_log(r#""event":"blob-complete","role":"root""#, STEP_DEADLINE)?;
    Ok(())
}
