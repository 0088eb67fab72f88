//! `seed` and `fetch`: files from machine to machine, with no fabric, no keys and nothing configured.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a step that fails is a test that fails")]

use std::io::{BufRead, BufReader, Lines};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use netlab::{Host, HostSpec, Lab, LinkShape, wait_until};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bootfabric");
/// A crowd on shaped links, on a machine that does much else.
const DEADLINE: Duration = Duration::from_secs(120);

/// A program whose lines on standard output are read. Ended when dropped.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that is an event of this name; lines before it are passed over.
    fn event(&mut self, name: &str) -> Value {
        for line in self.lines.by_ref() {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            if event["event"] == name {
                return event;
            }
        }
        panic!("the program ended before `{name}`");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn noise(path: &Path, len: usize) {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"share").finalize_xof().fill(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn seed(file: &Path) -> (Running, String) {
    seed_at(file, "127.0.0.1")
}

fn seed_at(file: &Path, at: &str) -> (Running, String) {
    let mut seeder = Running::start(Command::new(PROGRAM).arg("seed").arg(file).args(["--listen", at]));
    let ticket = seeder.lines.next().unwrap().unwrap();
    (seeder, ticket)
}

fn fetch(ticket: &str, to: &Path, more: &[&str]) -> Output {
    Command::new(PROGRAM).args(["fetch", ticket, "-o"]).arg(to).args(more).output().unwrap()
}

fn same(one: &Path, other: &Path) -> bool {
    std::fs::read(one).unwrap() == std::fs::read(other).unwrap()
}

fn words(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "exit status of a failure: {output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A port that nobody has now, and neither the one after it.
fn free_port() -> u16 {
    let pair = || {
        let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
        TcpListener::bind(("127.0.0.1", port.checked_add(1)?)).ok().map(|_| port)
    };
    std::iter::from_fn(|| Some(pair())).flatten().next().unwrap()
}

#[test]
fn the_first_line_is_a_ticket_and_the_file_arrives_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (source, copy) = (dir.path().join("source"), dir.path().join("copy"));
    noise(&source, 3_000_001);
    let (_seeder, ticket) = seed(&source);
    let done = fetch(&ticket, &copy, &[]);
    assert!(done.status.success() && done.stdout.is_empty(), "{done:?}");
    assert!(same(&source, &copy));
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "nothing stays beside the file: {left:?}");
}

#[test]
fn small_and_empty_files_arrive_too() {
    let dir = tempfile::tempdir().unwrap();
    for len in [0, 1, 9_000] {
        let (source, copy) = (dir.path().join("source"), dir.path().join(format!("copy{len}")));
        noise(&source, len);
        let (_seeder, ticket) = seed(&source);
        let done = fetch(&ticket, &copy, &[]);
        assert!(done.status.success() && same(&source, &copy), "{len} bytes: {done:?}");
    }
}

#[test]
fn whoever_has_fetched_a_file_can_give_it_on() {
    let dir = tempfile::tempdir().unwrap();
    let (source, one, other) = (dir.path().join("source"), dir.path().join("one"), dir.path().join("other"));
    noise(&source, 2_000_000);
    let (seeder, ticket) = seed(&source);
    let at = format!("127.0.0.1:{}", free_port());
    let mut first = Running::start(
        Command::new(PROGRAM).args(["fetch", &ticket, "--seed-after", "--listen", &at, "-o"]).arg(&one),
    );
    assert_eq!(first.lines.next().unwrap().unwrap(), "done");
    assert!(same(&source, &one), "`done` is said when the file is in its place");
    drop(seeder);
    let done = fetch(&ticket, &other, &["--peer", &at]);
    assert!(done.status.success() && same(&source, &other), "{done:?}");
}

/// In a crowd the first peer that answers may be another that fetches, while the seeder is busy with them all.
#[test]
fn who_meets_only_others_that_fetch_waits_for_one_that_has_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (source, one, other) = (dir.path().join("source"), dir.path().join("one"), dir.path().join("other"));
    noise(&source, 2_000_000);
    let [seeder_at, at] = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
    let (seeder, ticket) = seed_at(&source, &seeder_at);
    drop(seeder);
    let fetch = |to: &Path, more: &[&str]| {
        Running::start(Command::new(PROGRAM).args(["fetch", &ticket, "--json", "-o"]).arg(to).args(more))
    };
    let mut first = fetch(&one, &["--listen", &at]);
    let mut second = fetch(&other, &["--listen", "127.0.0.1", "--peer", &at]);
    second.event("peer-up");
    let _seeder = seed_at(&source, &seeder_at);
    second.event("done");
    first.event("done");
    assert!(same(&source, &one) && same(&source, &other));
}

#[test]
fn errors_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (source, copy) = (dir.path().join("source"), dir.path().join("copy"));
    noise(&source, 10_000);
    let no_ticket = fetch("magnet:?xt=urn", &copy, &[]);
    assert_eq!(no_ticket.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&no_ticket.stderr).contains("bootfabric seed"), "{no_ticket:?}");
    let (seeder, ticket) = seed(&source);
    assert!(words(&fetch(&ticket, dir.path(), &[])).contains("is a directory"));
    assert!(words(&fetch(&ticket, &dir.path().join("no/copy"), &[])).contains("make it first"));
    drop(seeder);
    assert!(words(&fetch(&ticket, &copy, &["--patience", "1"])).contains("no peer answers"));
    assert!(!copy.exists());
    let missing = Command::new(PROGRAM).arg("seed").arg(dir.path()).output().unwrap();
    assert!(words(&missing).contains("is not a file"), "{missing:?}");
}

/// So many hosts on one switch, 10.9.0.1 and up, each behind a link of this rate.
fn hosts(lab: &Lab, count: usize, rate_bit: u64) -> Vec<Host> {
    let switch = lab.switch("sw0").unwrap();
    let host = |number: usize| {
        let spec = HostSpec::new(&format!("n{number}"))
            .address(format!("10.9.0.{}/24", number + 1).parse().unwrap());
        let host = lab.host_with(&spec, &switch).unwrap();
        host.port().shape(LinkShape::rate(rate_bit)).unwrap();
        host
    };
    (0..count).map(host).collect()
}

#[test]
fn a_crowd_goes_on_without_its_seeder() -> anyhow::Result<()> {
    if !netlab::ready_or_skip()? {
        return Ok(());
    }
    let (lab, dir) = (Lab::new("share")?, tempfile::tempdir()?);
    let source = dir.path().join("source");
    noise(&source, 8 << 20);
    let hosts = hosts(&lab, 6, 50_000_000);
    let mut seeder = Running::start(
        hosts[0].command(PROGRAM).arg("seed").arg(&source).args(["--json", "--listen", "10.9.0.1"]),
    );
    let ticket = seeder.event("seeding")["ticket"].as_str().unwrap().to_owned();
    let copy = |number: usize| dir.path().join(format!("copy{number}"));
    let fetch = |number: usize, more: &[&str]| {
        let mut command = hosts[number].command(PROGRAM);
        command.args(["fetch", &ticket, "--json", "--seed-after", "-o"]).arg(copy(number)).args(more);
        Running::start(&mut command)
    };
    let mut nodes: Vec<(usize, Running)> = vec![(1, fetch(1, &["--listen", "10.9.0.2:7000"]))];
    nodes.extend((2..5).map(|number| (number, fetch(number, &[]))));
    seeder.event("first-copy-out");
    drop(seeder);
    // One that never saw the seeder, besides those that may still lack something.
    nodes.push((5, fetch(5, &["--peer", "10.9.0.2:7000"])));
    for (number, node) in &mut nodes {
        node.event("done");
        assert!(same(&source, &copy(*number)), "node {number}");
    }
    Ok(())
}

#[test]
fn a_killed_fetch_goes_on_from_what_it_had() -> anyhow::Result<()> {
    if !netlab::ready_or_skip()? {
        return Ok(());
    }
    let (lab, dir) = (Lab::new("resume")?, tempfile::tempdir()?);
    let (source, copy) = (dir.path().join("source"), dir.path().join("copy"));
    noise(&source, 16 << 20);
    let hosts = hosts(&lab, 2, 50_000_000);
    let mut seeder = Running::start(
        hosts[0].command(PROGRAM).arg("seed").arg(&source).args(["--json", "--listen", "10.9.0.1"]),
    );
    let ticket = seeder.event("seeding")["ticket"].as_str().unwrap().to_owned();
    let begin =
        || Running::start(hosts[1].command(PROGRAM).args(["fetch", &ticket, "--json", "-o"]).arg(&copy));
    let mut first = begin();
    let had = std::iter::from_fn(|| first.event("progress")["bytes"].as_u64())
        .find(|&bytes| bytes > 1 << 20)
        .unwrap();
    drop(first);
    assert!(!copy.exists(), "what is not complete has not the file's name");
    let sent = || hosts[0].port().counters().unwrap().from_node.bytes;
    // What was on its way when the fetch was killed is none of the second's business.
    let mut last = sent();
    wait_until("silence", DEADLINE, || {
        let before = std::mem::replace(&mut last, sent());
        (before == last).then_some(())
    })?;
    let mut second = begin();
    second.event("done");
    assert!(same(&source, &copy));
    let fetched = sent() - last;
    assert!(fetched < (16 << 20) - had / 2, "{fetched} bytes were sent again although {had} had been kept");
    Ok(())
}
