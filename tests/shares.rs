//! Nodes that keep a share of the root's blob each: real agents of first stages in namespaces, told as PID 1 tells them; and a
//! machine among them, whose memory is measured.

mod debian;

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bootfabric::event::{Event, Record};
use bootfabric::home::Home;
use bootfabric::lab::assets::Assets;
use bootfabric::lab::cluster::Boot;
use bootfabric::limits::Limits;
use bootfabric::stage::{RootOptions, Seed, StageConfig};
use debian::Debian;
use fabric::trust::RootMode;
use netlab::{Host, HostSpec};

/// From a change among the sharers to the last share that follows from it: half a minute until a dead neighbour counts as gone,
/// and a few looks.
const PATIENCE: Duration = Duration::from_secs(150);

/// Prefix of the network that `init` makes.
const PREFIX: u8 = 22;
/// What the first stage tells an agent, in its state directory.
const CONFIG: &str = "stage.json";
/// How the agents keep the root's blob.
const SHARE: Seed = Seed::Share { copies: 2 };
/// How often all are looked at while one is listened to.
const LOOK: Duration = Duration::from_secs(1);

/// A lab for agents that are told what PID 1 would tell them.
struct Bench {
    debian: Debian,
    release: String,
    trust_root: String,
}

/// The agent of a first stage.
struct Agent {
    name: String,
    host: Host,
    child: Child,
    events: Receiver<Event>,
    state: PathBuf,
    share: Option<Share>,
}

/// What a node says of its share.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Share {
    blob: String,
    bytes: u64,
    held: u64,
    sharers: u32,
    lacking: u64,
}

impl Share {
    fn of(event: Event) -> Option<Self> {
        let Event::RootShared { blob, bytes, held, sharers, lacking, .. } = event else { return None };
        Some(Self { blob, bytes, held, sharers, lacking })
    }
}

impl Bench {
    fn new(name: &'static str, changes: &[&str]) -> anyhow::Result<Option<Self>> {
        let Some(debian) = Debian::new(name, Boot::Bios, changes)? else { return Ok(None) };
        let trust_root = Home::at(Some(&debian.origin.home))?.trust_root()?.to_string();
        let release = debian.origin.status()?.release.context("the origin has no release")?.id.to_string();
        Ok(Some(Self { debian, release, trust_root }))
    }

    /// Starts an agent at the address that ends with `number`, and waits until it holds everything.
    fn agent(&self, number: u8, peers: &[Ipv4Addr], seed: Seed) -> anyhow::Result<Agent> {
        let name = format!("agent{number}");
        let address = format!("10.77.0.{number}/{PREFIX}");
        let spec = HostSpec::new(&name).address(address.parse()?);
        let cluster = &self.debian.cluster;
        let host = cluster.lab().host_with(&spec, cluster.switch())?;
        let state = cluster.lab().directory().join(format!("{name}.state"));
        std::fs::create_dir_all(&state)?;
        let config = StageConfig {
            interface: host.interface().into(),
            mac: host.mac().to_string(),
            address,
            peers: peers.to_vec(),
            release: self.release.clone(),
            name: name.clone(),
            trust_root: self.trust_root.clone(),
            http_port: 80,
            swarm_port: 7744,
            limits: Limits::default(),
            root: RootOptions { mode: Some(RootMode::Zram), seed, ..RootOptions::default() },
            store: state.join("store"),
            store_on_disk: false,
            awaits_disk: false,
            state: state.clone(),
            events: Some(host.events_path().into()),
            private: false,
        };
        config.write(&state.join(CONFIG))?;
        let (child, events) = start(&host, &state, cluster.program())?;
        let mut agent = Agent { name, host, child, events, state, share: None };
        agent
            .wait("its root", |event| matches!(event, Event::BlobComplete { role, .. } if role == "root"))?;
        self.debian.say(&format!("{} holds the root", agent.name));
        Ok(agent)
    }

    /// Three agents that share the root with whoever comes.
    fn three(&self) -> anyhow::Result<Vec<Agent>> {
        let origin = self.debian.origin.node.address;
        let agents = (201..204).map(|number| self.agent(number, &[origin], SHARE));
        let mut agents = agents.collect::<anyhow::Result<Vec<_>>>()?;
        agents.iter_mut().try_for_each(Agent::share)?;
        Ok(agents)
    }
}

impl Agent {
    /// Kills it and starts it anew, as PID 1 does with an agent that died. Expects that the new one says what is `known` of the
    /// root, and fetches nothing of it.
    fn dies(&mut self, program: &Path, known: impl Fn(&Event) -> bool) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        (self.child, self.events) = start(&self.host, &self.state, program)?;
        let fetches = |event: &Event| match event {
            Event::Progress { role, .. } | Event::BlobComplete { role, .. } => role == "root",
            _ => false,
        };
        let event = self.wait("what it has left of the root", |event| known(event) || fetches(event))?;
        ensure!(known(&event), "{} fetches what it had given back: {event:?}", self.name);
        Ok(())
    }

    fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        Ok(self.child.stdin.as_mut().context("no input")?.write_all(line.as_bytes())?)
    }

    /// Tells it to keep a share.
    fn share(&mut self) -> anyhow::Result<()> {
        self.tell("share root\n")?;
        self.wait("its share", |event| matches!(event, Event::RootShared { .. })).map(drop)
    }

    fn wait(&mut self, what: &str, wanted: impl Fn(&Event) -> bool) -> anyhow::Result<Event> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let event = self.events.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let event = event.with_context(|| format!("{} says nothing of {what}", self.name))?;
            self.share = Share::of(event.clone()).or(self.share.take());
            if wanted(&event) {
                return Ok(event);
            }
        }
    }

    /// Its share as it says now.
    fn look(&mut self) -> Option<&Share> {
        while let Ok(event) = self.events.try_recv() {
            self.share = Share::of(event).or(self.share.take());
        }
        self.share.as_ref()
    }

    /// Bytes that the root's blob takes in its store.
    fn room(&self) -> anyhow::Result<u64> {
        let blob = &self.share.as_ref().context("it keeps no share")?.blob;
        let partial = self.state.join("store/partial").join(format!("{blob}.data"));
        let whole = self.state.join("store/blobs").join(blob);
        Ok(std::fs::metadata(partial).or_else(|_| std::fs::metadata(whole))?.blocks() * 512)
    }
}

/// Starts the agent whose configuration is in `state`; its process and what it says.
fn start(host: &Host, state: &Path, program: &Path) -> anyhow::Result<(Child, Receiver<Event>)> {
    let mut command = host.command(program);
    command.args(["agent", "--first-stage"]).arg(state.join(CONFIG));
    let log = std::fs::File::options().create(true).append(true).open(state.join("log"))?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn()?;
    let output = child.stdout.take().context("no output")?;
    let (tell, events) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Ok(Record { event, .. }) = serde_json::from_str(&line) {
                // Whoever listened has seen enough; the agent goes on, and its pipe must not fill.
                let _ = tell.send(event);
            }
        }
    });
    Ok((child, events))
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `agents`, who are all the `sharers`, hold two copies of everything between them, and no more.
fn settled(agents: &mut [Agent], sharers: u32) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shares: Vec<Share> = agents.iter_mut().filter_map(|agent| agent.look().cloned()).collect();
        let held: u64 = shares.iter().map(|share| share.held).sum();
        let agree = shares.iter().all(|share| share.sharers == sharers && share.lacking == 0);
        if agree && shares.first().is_some_and(|share| held == 2 * share.bytes) {
            break;
        }
        ensure!(Instant::now() < deadline, "{shares:?}");
        // Whoever has something to tell tells it: the first is heard here, the others are looked at.
        let first = agents.first_mut().context("no agents")?;
        match first.events.recv_timeout(LOOK) {
            Ok(event) => first.share = Share::of(event).or(first.share.take()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("{} has ended", first.name),
        }
    }
    Ok(())
}

/// Bytes that each holds.
fn kept(agents: &[Agent]) -> Vec<u64> {
    agents.iter().filter_map(|agent| Some(agent.share.as_ref()?.held)).collect()
}

/// What is given back is said before it is done.
fn trimmed(agents: &[Agent]) -> anyhow::Result<()> {
    for agent in agents {
        let held = agent.share.as_ref().context("no share")?.held;
        netlab::wait_until("what is not held has no room", PATIENCE, || {
            agent.room().ok().filter(|room| *room < held + held / 20)
        })?;
    }
    Ok(())
}

#[test]
fn agents_keep_two_copies_between_them_whoever_comes_and_goes() -> anyhow::Result<()> {
    let Some(bench) = Bench::new("shares", &[])? else { return Ok(()) };
    let mut agents = bench.three()?;
    let peers = [Ipv4Addr::new(10, 77, 0, 201)];
    let mut fourth = bench.agent(204, &peers, SHARE)?;
    fourth.share()?;
    agents.push(fourth);
    settled(&mut agents, 4)?;
    trimmed(&agents)?;
    bench.debian.say(&format!("four keep {:?} bytes", kept(&agents)));

    // The next machine has the whole of what nobody has whole.
    bench.debian.origin.process.kill()?;
    drop(bench.agent(205, &peers, SHARE)?);

    // One dies without a word: the others hold what it held. It was one of the newest peers, so nobody depends on it.
    drop(agents.pop());
    settled(&mut agents, 3)?;
    bench.debian.say(&format!("three keep {:?} bytes", kept(&agents)));

    // What an agent that died had given back is not fetched again, whether it is all or a part.
    let (before, program) = (kept(&agents), bench.debian.cluster.program());
    let died = agents.last_mut().context("no agents")?;
    died.dies(program, |event| matches!(event, Event::RootShared { .. }))?;
    settled(&mut agents, 3)?;
    ensure!(before == kept(&agents), "{before:?} before, {:?} after", kept(&agents));
    let dropped = |event: &Event| matches!(event, Event::RootDropped { .. });
    let mut leech = bench.agent(206, &peers, Seed::None)?;
    leech.tell("drop root\n")?;
    leech.wait("that it has nothing left", dropped)?;
    leech.dies(program, dropped)?;
    drop(leech);
    bench.debian.say("agents that died have what they had");

    // The agent of the booted system takes over: the same share, and nothing comes again.
    let heir = agents.remove(0);
    let before = kept(&agents);
    let mut command = heir.host.command(bench.debian.cluster.program());
    let heir_process = heir.host.spawn("heir", command.args(["agent", "--take-over"]).arg(&heir.state))?;
    let events = heir.host.events();
    let took_over = events.wait_for_name("took-over", PATIENCE).with_context(|| heir_process.describe())?;
    ensure!(took_over.number("fetched") == Some(0), "{:?}", took_over.value);
    let again = |event: &netlab::Event| event.is("root-shared") && event.number("sharers") == Some(3);
    let share = events.wait_for("its share", PATIENCE, again)?;
    let held = heir.share.as_ref().context("no share")?.held;
    ensure!((share.number("held"), share.number("lacking")) == (Some(held), Some(0)), "{:?}", share.value);
    agents.iter_mut().for_each(|agent| drop(agent.look().cloned()));
    ensure!(before == kept(&agents), "{before:?} before, {:?} after", kept(&agents));
    Ok(())
}

/// Memory of a machine whose root is held as `mode` says and that is the fourth to keep a share: MiB used when it has come down to
/// it.
fn fourth_of_four(name: &'static str, mode: &str) -> anyhow::Result<Option<u64>> {
    let line = Assets::kernel_line("bootfabric.seed=share");
    let Some(bench) = Bench::new(name, &["--root-mode", mode, "--cmdline", &line])? else { return Ok(None) };
    let agents = bench.three()?;
    let machine =
        bench.debian.cluster.power_on_as(&bench.debian.cluster.spec("a").memory_mib(1024).cpus(2))?;
    machine.booted(bench.debian.cluster.root())?;
    bench.debian.say("booted");
    // A half, give or take what chance gives it, and in a look or two.
    let down = |event: &netlab::Event| {
        let (held, bytes) = (event.number("held").unwrap_or(u64::MAX), event.number("bytes").unwrap_or(0));
        event.is("root-shared") && event.number("sharers") == Some(4) && held < bytes / 3 * 2
    };
    let share = machine.events().wait_for("its share", PATIENCE, down)?;
    bench.debian.sound(&machine)?;
    let room = format!(
        "for n in $(seq 100); do [ $(du -sk /run/bootfabric/store/partial | cut -f1) -lt {} ] && break; sleep 0.2; done",
        share.number("held").unwrap_or(0) / 1000
    );
    bench.debian.ssh(&machine, &room)?;
    let used = bench.debian.used_mib(&machine)?;
    let status =
        bench.debian.ssh(&machine, "/run/bootfabric/bin/bootfabric status; du -sm /run/bootfabric/store")?;
    bench.debian.say(&format!("{mode}: {used} MiB used; {:?}\n{status}", share.value));
    drop(agents);
    Ok(Some(used))
}

#[test]
#[ignore = "soak: boots two machines to measure their memory"]
fn zram_and_a_share_take_a_third_less_than_tmpfs() -> anyhow::Result<()> {
    let (Some(zram), Some(tmpfs)) = (fourth_of_four("zram4", "zram")?, fourth_of_four("tmpfs4", "tmpfs")?)
    else {
        return Ok(());
    };
    println!("zram {zram} MiB, tmpfs {tmpfs} MiB");
    ensure!(zram * 3 <= tmpfs * 2, "zram takes {zram} MiB, tmpfs {tmpfs}");
    Ok(())
}
