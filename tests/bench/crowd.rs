//! A flash crowd: every node a namespace of its own on one switch, links shaped in both directions.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use netlab::{Cidr, Host, HostSpec, Lab, LinkShape};
use serde_json::Value;

use crate::measure::{Usage, median, spread, start, usage, write_noise};

/// A crowd that is not done by then has a fault.
const DEADLINE: Duration = Duration::from_secs(300);
/// How often the wire is looked at where logs are kept.
const SAMPLE: Duration = Duration::from_millis(100);

/// When who starts and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    AtOnce,
    HalfLate,
    SeederKilled,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowd {
    pub(crate) nodes: usize,
    pub(crate) rate_bit: u64,
    pub(crate) size: u64,
    pub(crate) when: When,
}

/// What one run gave. Times are divided by the time one link needs for one copy.
#[derive(Debug)]
pub(crate) struct Run {
    /// Last of all, or of the first half where there are two.
    pub(crate) last: f64,
    /// Last of the late half, from its own start.
    late: Option<f64>,
    /// Bytes that left the seeder's interface, divided by the size.
    copies: f64,
    /// CPU seconds of all processes for each GiB delivered.
    cpu: f64,
    /// Largest of any node, MiB.
    memory: f64,
}

/// Runs it `runs` times and prints one line.
pub(crate) fn report(name: &str, crowd: &Crowd, runs: usize) {
    let runs: Vec<Run> = (0..runs).map(|_| run(crowd)).collect();
    let of = |get: fn(&Run) -> f64| runs.iter().map(get).collect::<Vec<_>>();
    let late: Vec<f64> = runs.iter().filter_map(|run| run.late).collect();
    let late = if late.is_empty() { String::new() } else { format!("  late half {}", spread(&late)) };
    println!(
        "{name:<10} last {}{late}  copies {}  CPU-s/GiB {:.2}  memory {:.1} MiB",
        spread(&of(|run| run.last)),
        spread(&of(|run| run.copies)),
        median(of(|run| run.cpu)),
        median(of(|run| run.memory)),
    );
}

enum Told {
    Progress { node: usize, bytes: u64 },
    Done { node: usize, at: Instant },
    FirstCopyOut,
}

struct Node {
    host: Host,
    child: Child,
    started: Instant,
    done: Option<Instant>,
    bytes: u64,
    memory: f64,
}

/// Runs it once.
pub(crate) fn run(crowd: &Crowd) -> Run {
    let lab = Lab::new("bench").expect("the lab needs root");
    let switch = lab.switch("sw0").unwrap();
    let files = tempfile::tempdir().unwrap();
    let source = files.path().join("source");
    write_noise(&source, crowd.size);
    let hosts: Vec<Host> = (0..=crowd.nodes)
        .map(|number| {
            let address: Cidr = format!("10.9.0.{}/24", number + 1).parse().unwrap();
            let host =
                lab.host_with(&HostSpec::new(&format!("n{number}")).address(address), &switch).unwrap();
            host.port().shape(LinkShape::rate(crowd.rate_bit)).unwrap();
            host
        })
        .collect();
    let (tell, told) = channel();
    let keep = std::env::var_os("KEEP").map(PathBuf::from);
    let logs = keep.as_deref().unwrap_or(files.path());
    let mut command = hosts[0].command(program());
    let listen = "10.9.0.1:7000";
    let mut seeder =
        start(command.arg("seed").arg(&source).args(["--listen", listen, "--json"]), &logs.join("n0.log"));
    let mut lines = BufReader::new(seeder.stdout.take().unwrap()).lines();
    let first: Value = serde_json::from_str(&lines.next().expect("a ticket").unwrap()).unwrap();
    let ticket = first["ticket"].as_str().unwrap().to_owned();
    let relay = tell.clone();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if line.contains("\"first-copy-out\"") {
                let _ = relay.send(Told::FirstCopyOut);
            }
        }
    });
    let before = hosts[0].port().counters().unwrap().from_node.bytes;
    let sampling = keep.as_deref().map(|keep| sample(hosts.clone(), &keep.join("wire")));
    let join = |number: usize| {
        let output = files.path().join(format!("out{number}"));
        let mut command = hosts[number].command(program());
        command.args(["fetch", &ticket, "--json", "--seed-after", "-o"]).arg(&output);
        let started = Instant::now();
        let mut child = start(&mut command, &logs.join(format!("n{number}.log")));
        let events = keep.as_ref().map(|keep| keep.join(format!("n{number}.events")));
        follow(number, child.stdout.take().unwrap(), tell.clone(), events);
        Node { host: hosts[number].clone(), child, started, done: None, bytes: 0, memory: 0.0 }
    };
    let first_half = if crowd.when == When::HalfLate { crowd.nodes / 2 } else { crowd.nodes };
    let mut nodes: Vec<Node> = (1..=first_half).map(join).collect();
    let mut seeder_usage = Usage::default();
    let mut killed = false;
    let deadline = Instant::now() + DEADLINE;
    while nodes.len() < crowd.nodes || nodes.iter().any(|node| node.done.is_none()) {
        let wait = deadline.saturating_duration_since(Instant::now());
        match told.recv_timeout(wait).unwrap_or_else(|_| panic!("not done in time: {}", states(&nodes))) {
            Told::Progress { node, bytes } => {
                let node = &mut nodes[node - 1];
                node.bytes = bytes;
                node.memory = node.memory.max(usage(node.child.id()).anonymous_mib);
            }
            Told::Done { node, at } => {
                nodes[node - 1].done = Some(at);
                nodes[node - 1].bytes = crowd.size;
            }
            Told::FirstCopyOut if crowd.when == When::SeederKilled => {
                assert!(
                    nodes.iter().all(|node| node.done.is_none()),
                    "the seeder was killed too late to matter"
                );
                seeder_usage = usage(seeder.id());
                seeder.kill().unwrap();
                killed = true;
            }
            Told::FirstCopyOut => {}
        }
        let half = nodes.iter().map(|node| node.bytes).sum::<u64>() * 2 >= crowd.size * first_half as u64;
        if half && nodes.len() < crowd.nodes {
            nodes.extend((first_half + 1..=crowd.nodes).map(join));
        }
    }
    assert_eq!(killed, crowd.when == When::SeederKilled, "the kill must have happened");
    if !killed {
        seeder_usage = usage(seeder.id());
    }
    let after = hosts[0].port().counters().unwrap().from_node.bytes;
    drop(sampling);
    let used: Vec<Usage> = nodes.iter().map(|node| usage(node.child.id())).collect();
    let cpu = used.iter().map(|usage| usage.cpu).sum::<f64>() + seeder_usage.cpu;
    let memory = nodes.iter().map(|node| node.memory).chain([seeder_usage.anonymous_mib]).fold(0.0, f64::max);
    for (number, node) in nodes.iter().enumerate() {
        assert!(same(&source, &files.path().join(format!("out{}", number + 1))), "a node has a wrong file");
        assert!(node.host.namespace().exists());
    }
    terminate(&seeder);
    let _ = seeder.wait();
    let bound = crowd.size as f64 * 8.0 / crowd.rate_bit as f64;
    let stretch = |nodes: &[Node]| {
        let first = nodes.iter().map(|node| node.started).min().unwrap();
        let last = nodes.iter().filter_map(|node| node.done).max().unwrap();
        last.duration_since(first).as_secs_f64() / bound
    };
    let (early, late) = nodes.split_at(first_half);
    let run = Run {
        last: stretch(early),
        late: (!late.is_empty()).then(|| stretch(late)),
        copies: (after - before) as f64 / crowd.size as f64,
        cpu: cpu / (crowd.size as f64 * crowd.nodes as f64 / (1u64 << 30) as f64),
        memory,
    };
    for node in &nodes {
        terminate(&node.child);
    }
    for mut node in nodes {
        let _ = node.child.wait();
    }
    eprintln!("  {run:?}");
    run
}

/// Writes down ten times a second what each host has sent and received (`MILLISECONDS SENT/RECEIVED …`, in bytes), until the
/// sender that is returned is dropped.
fn sample(hosts: Vec<Host>, file: &Path) -> Sender<()> {
    let mut file = std::fs::File::create(file).unwrap();
    let (running, over) = channel::<()>();
    let begun = Instant::now();
    std::thread::spawn(move || {
        while over.recv_timeout(SAMPLE) == Err(RecvTimeoutError::Timeout) {
            let of = |host: &Host| {
                let counters = host.port().counters().unwrap();
                format!(" {}/{}", counters.from_node.bytes, counters.to_node.bytes)
            };
            let bytes: String = hosts.iter().map(of).collect();
            writeln!(file, "{}{bytes}", begun.elapsed().as_millis()).unwrap();
        }
    });
    running
}

/// Asks a process to end, as a person would.
fn terminate(child: &Child) {
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    // One that was killed before is gone.
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
}

fn states(nodes: &[Node]) -> String {
    let state = |(number, node): (usize, &Node)| format!("{}: {} bytes", number + 1, node.bytes);
    nodes.iter().enumerate().map(state).collect::<Vec<_>>().join(", ")
}

/// Reads a fetcher's events, and writes them down if `keep` says where.
fn follow(node: usize, output: impl Read + Send + 'static, tell: Sender<Told>, keep: Option<PathBuf>) {
    let mut keep = keep.map(|path| std::fs::File::create(path).unwrap());
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(file) = &mut keep {
                writeln!(file, "{line}").unwrap();
            }
            let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
            let told = match event["event"].as_str() {
                Some("progress") => Told::Progress { node, bytes: event["bytes"].as_u64().unwrap_or(0) },
                Some("done") => Told::Done { node, at: Instant::now() },
                _ => continue,
            };
            if tell.send(told).is_err() {
                return;
            }
        }
    });
}

fn same(one: &Path, other: &Path) -> bool {
    std::fs::read(one).unwrap() == std::fs::read(other).unwrap()
}

/// The program that is measured: this build's, or what `PROGRAM` names.
pub(crate) fn program() -> String {
    std::env::var("PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_bootfabric").to_owned())
}
