//! A crowd of first stages: their real agents, each in a namespace of its own and told by a `stage.json` as PID 1 tells it; and in
//! the same run a crowd of `fetch` that moves one file of as many bytes over links of the same shape.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use bootfabric::event::{Event, Record};
use bootfabric::home::Home;
use bootfabric::lab::assets::Assets;
use bootfabric::limits::Limits;
use bootfabric::stage::{RootOptions, StageConfig};
use netlab::{Cidr, Host, HostSpec, Lab, LinkShape};

use crate::crowd::{self, Crowd, When, program};
use crate::measure::{spread, start, write_noise};

/// Agents that are not done by then have a fault.
const DEADLINE: Duration = Duration::from_secs(180);

/// How long a crowd of first stages took.
#[derive(Debug)]
struct Run {
    /// Bytes that each agent fetched: boot blobs and root.
    size: u64,
    /// Until the last held all boot blobs, divided by the time one link needs for `size`.
    boot_blobs: f64,
    /// The same until the last held the root.
    last: f64,
}

/// Runs both crowds `runs` times, and prints one line.
pub(crate) fn report(name: &str, nodes: usize, rate_bit: u64, root: u64, runs: usize) {
    let files = tempfile::tempdir().unwrap();
    let home = files.path().join("home");
    make_image(&home, files.path(), root);
    let pairs: Vec<(Run, f64)> = (0..runs)
        .map(|_| {
            let stages = run(&home, nodes, rate_bit);
            eprintln!("  {stages:?}");
            let fetches = crowd::run(&Crowd { nodes, rate_bit, size: stages.size, when: When::AtOnce });
            (stages, fetches.last)
        })
        .collect();
    let of = |get: fn(&(Run, f64)) -> f64| spread(&pairs.iter().map(get).collect::<Vec<_>>());
    println!(
        "{name:<10} first stages: boot blobs {}, last {}  fetch: last {}  ratio {}",
        of(|(stages, _)| stages.boot_blobs),
        of(|(stages, _)| stages.last),
        of(|(_, fetches)| *fetches),
        of(|(stages, fetches)| stages.last / fetches),
    );
}

/// An operator's directory with an image whose root is `size` bytes that do not compress. Nothing can boot it.
fn make_image(home: &Path, scratch: &Path, size: u64) {
    let assets = Assets::find(Path::new(&program())).unwrap();
    let root = scratch.join("root");
    std::fs::create_dir_all(root.join("sbin")).unwrap();
    std::fs::write(root.join("sbin/init"), "#!/bin/sh\n").unwrap();
    write_noise(&root.join("noise"), size);
    succeed(Command::new(program()).args(["init", "--fabric"]).arg(home));
    let mut build = Command::new(program());
    build
        .args(["image", "build", "--name", "noise", "--version", "1", "--modules", "virtio", "--fabric"])
        .arg(home);
    build.arg("--no-root-modules").arg("--root").arg(&root).arg("--kernel").arg(assets.kernel().unwrap());
    succeed(&mut build);
    std::fs::remove_dir_all(root).unwrap();
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What an agent said, and when.
struct Said {
    node: usize,
    at: Instant,
    event: Event,
}

/// One agent, and what is known of it.
struct Agent {
    log: PathBuf,
    fetched: u64,
    boot_blobs: Option<Instant>,
    root: Option<Instant>,
}

fn run(home: &Path, nodes: usize, rate_bit: u64) -> Run {
    let lab = Lab::new("stages").expect("the lab needs root");
    let switch = lab.switch("sw0").unwrap();
    let files = tempfile::tempdir().unwrap();
    let hosts: Vec<Host> = (0..=nodes)
        .map(|number| {
            let spec = HostSpec::new(&format!("n{number}")).address(address(number));
            let host = lab.host_with(&spec, &switch).unwrap();
            host.port().shape(LinkShape::rate(rate_bit)).unwrap();
            host
        })
        .collect();
    let release = start_origin(&hosts[0], home, &files.path().join("origin"));
    let keep = std::env::var_os("KEEP").map(PathBuf::from);
    let logs = keep.as_deref().unwrap_or(files.path());
    let trust_root = Home::at(Some(home)).unwrap().trust_root().unwrap().to_string();
    let configs: Vec<PathBuf> = (1..=nodes)
        .map(|number| {
            let state = files.path().join(format!("n{number}"));
            std::fs::create_dir(&state).unwrap();
            let config = StageConfig {
                interface: hosts[number].interface().into(),
                mac: hosts[number].mac().to_string(),
                address: address(number).to_string(),
                peers: vec!["10.77.0.1".parse().unwrap()],
                release: release.clone(),
                name: hosts[number].name().into(),
                trust_root: trust_root.clone(),
                http_port: 80,
                swarm_port: 7744,
                limits: Limits::default(),
                root: RootOptions::default(),
                store: state.join("store"),
                store_on_disk: false,
                awaits_disk: false,
                state: state.clone(),
                events: None,
                private: false,
            };
            let path = state.join("stage.json");
            config.write(&path).unwrap();
            path
        })
        .collect();
    let (tell, told) = channel();
    let started = Instant::now();
    let mut agents = Vec::new();
    let mut children = Vec::new();
    for (node, (host, config)) in hosts[1..].iter().zip(&configs).enumerate() {
        let log = logs.join(format!("stage{}.log", node + 1));
        let mut command = host.command(program());
        let mut child = start(command.args(["agent", "--first-stage"]).arg(config), &log);
        let events = keep.as_ref().map(|keep| keep.join(format!("stage{}.events", node + 1)));
        follow(node, child.stdout.take().unwrap(), tell.clone(), events);
        children.push(child);
        agents.push(Agent { log, fetched: 0, boot_blobs: None, root: None });
    }
    // Who is left listening hears when all agents have ended.
    drop(tell);
    while agents.iter().any(|agent| agent.root.is_none()) {
        let wait = (started + DEADLINE).saturating_duration_since(Instant::now());
        let Said { node, at, event } =
            told.recv_timeout(wait).unwrap_or_else(|_| panic!("not all are done:\n{}", states(&agents)));
        let agent = &mut agents[node];
        match event {
            Event::PhaseFailed { phase, error, .. } => eprintln!("  n{}: {phase}: {error}", node + 1),
            Event::BootBlobsHeld { .. } => agent.boot_blobs = Some(at),
            Event::BlobComplete { role, sources, .. } => {
                agent.fetched += sources.iter().map(|source| source.bytes).sum::<u64>();
                if role == "root" {
                    agent.root = Some(at);
                }
            }
            _ => {}
        }
    }
    let size = agents[0].fetched;
    assert!(
        agents.iter().all(|agent| agent.fetched == size),
        "not all fetched the same:\n{}",
        states(&agents)
    );
    drop(lab);
    for mut child in children {
        let _ = child.wait();
    }
    let bound = size as f64 * 8.0 / rate_bit as f64;
    let last = |of: fn(&Agent) -> Option<Instant>| {
        agents.iter().filter_map(of).max().unwrap().duration_since(started).as_secs_f64() / bound
    };
    Run { size, boot_blobs: last(|agent| agent.boot_blobs), last: last(|agent| agent.root) }
}

/// Starts the node that has the image, waits until it serves, and says which release that is.
fn start_origin(host: &Host, home: &Path, state: &Path) -> String {
    let mut up = host.command(program());
    up.args(["up", "--interface", host.interface(), "--name", host.name(), "--fabric"]).arg(home);
    up.arg("--state").arg(state).arg("--events").arg(host.events_path());
    let process = host.spawn("up", &mut up).unwrap();
    let serves = host.events().wait_for_name("node-started", DEADLINE);
    serves.unwrap_or_else(|error| panic!("{error}: {}", process.describe()));
    let verified = host.events().wait_for_name("release-verified", DEADLINE).unwrap();
    verified.text("release").unwrap().to_owned()
}

/// Of the node with that number; the origin has number 0.
fn address(number: usize) -> Cidr {
    format!("10.77.0.{}/24", number + 1).parse().unwrap()
}

fn states(agents: &[Agent]) -> String {
    let state = |(number, agent): (usize, &Agent)| {
        let words = std::fs::read_to_string(&agent.log).unwrap_or_default();
        let last = words.lines().last().unwrap_or_default();
        format!("n{}: {} bytes, root {}: {last}", number + 1, agent.fetched, agent.root.is_some())
    };
    agents.iter().enumerate().map(state).collect::<Vec<_>>().join("\n")
}

/// Reads an agent's events, and writes them down if `keep` says where.
fn follow(node: usize, output: impl Read + Send + 'static, tell: Sender<Said>, keep: Option<PathBuf>) {
    let mut keep = keep.map(|path| std::fs::File::create(path).unwrap());
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(file) = &mut keep {
                writeln!(file, "{line}").unwrap();
            }
            let Ok(Record { event, .. }) = serde_json::from_str(&line) else { continue };
            // Whoever listened has seen enough; the agent goes on, and its pipe must not fill.
            let _ = tell.send(Said { node, at: Instant::now(), event });
        }
    });
}
