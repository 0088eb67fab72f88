//! A process killed at any instant of whatever a store does: nothing acknowledged is lost, nothing unverified admitted.
//!
//! A child does operations, and tells of each when it starts and when it is done. The parent kills it, replays on a model what
//! was done, and compares. The operation that was under way may have happened or not. One test kills at random instants of long
//! sequences, the other looks at what is there at every single system call of a short one.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod store_support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use fabric::content::BlobIndex;
use fabric::exchange::Run;
use fabric::id::ObjectId;
use fabric::store::{Item, Pin, Store};
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use store_support::{assert_claims_hold, blob, child, child_dir, naming, noise, open_fast, run_bytes};

/// Lengths of the blobs in a long sequence.
const BLOBS: [usize; 5] = [40_000, 200_000, 600_000, 1 << 20, 3 << 20];
/// The same in the short one.
const SMALL_BLOBS: [usize; 5] = [2_000, 150_000, 3_000, 60_000, 1_000];
/// Which blobs each object names.
const OBJECTS: [&[usize]; 4] = [&[0, 1], &[1, 2], &[3], &[0, 4]];
const NAMES: u64 = 3;
const ROUNDS: u64 = 40;
/// Operations that a child has ready: far more than it lives to do.
const OPS: u64 = 5000;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Op {
    Begin(usize),
    Write(usize, u32),
    Import(usize),
    Forget(usize),
    /// Give a chunk back, and its room.
    Withdraw(usize, u32),
    /// Keep the object and let a head name it.
    Publish(u64, usize),
    Unhead(u64),
    Pin(u64, usize),
    Unpin(u64),
    Collect,
    /// Close the store and open it.
    Reopen,
}

/// Everything that a store does, once at least.
const SCRIPT: [Op; 27] = [
    Op::Write(1, 1),
    Op::Publish(0, 0),
    Op::Import(0),
    Op::Write(1, 0),
    Op::Begin(3),
    Op::Import(4),
    Op::Pin(0, 4),
    Op::Reopen,
    Op::Import(1),
    Op::Import(2),
    Op::Pin(1, 2),
    Op::Unpin(1),
    Op::Write(3, 0),
    Op::Reopen,
    Op::Collect,
    Op::Write(3, 0),
    Op::Forget(3),
    Op::Publish(0, 1),
    Op::Import(2),
    Op::Unhead(0),
    Op::Collect,
    Op::Import(3),
    Op::Withdraw(3, 1),
    Op::Withdraw(3, 0),
    Op::Reopen,
    Op::Write(3, 1),
    Op::Write(3, 0),
];

/// Operation number `number` of `seed`. Each seed favours some of them, so that kills meet each in the middle.
fn op(seed: u64, number: u64) -> Op {
    let random = noise(seed << 32 | number, 24);
    let mut random = random.chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()) >> 8);
    let (kind, which, other) = (random.next().unwrap(), random.next().unwrap(), random.next().unwrap());
    let one = which as usize % BLOBS.len();
    let kinds: &[u64] = match seed % 4 {
        0 => &[0, 1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8],
        1 => &[2, 8, 2, 3, 2, 8, 4],
        2 => &[1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 9, 9],
        _ => &[4, 5, 6, 7, 8, 2],
    };
    match kinds[kind as usize % kinds.len()] {
        0 => Op::Begin(one),
        1 => Op::Write(one, other as u32),
        2 => Op::Import(one),
        3 => Op::Forget(one),
        4 => Op::Publish(other % NAMES, which as usize % OBJECTS.len()),
        5 => Op::Unhead(other % NAMES),
        6 => Op::Pin(other % NAMES, one),
        7 => Op::Unpin(other % NAMES),
        9 => Op::Withdraw(one, other as u32),
        _ => Op::Collect,
    }
}

struct World {
    blobs: Vec<(Vec<u8>, BlobIndex)>,
    objects: Vec<Vec<u8>>,
}

impl World {
    fn new(lengths: [usize; 5]) -> Self {
        let blobs: Vec<_> = (0..).zip(lengths).map(|(seed, len)| blob(seed, len)).collect();
        let object = |named: &&[usize]| {
            naming("some", &named.iter().map(|&blob| blobs[blob].1.reference()).collect::<Vec<_>>())
        };
        Self { objects: OBJECTS.iter().map(object).collect(), blobs }
    }

    /// Does it; whether that worked. Only pinning what is not there does not.
    fn run(&self, store: &Store, op: Op) -> bool {
        match op {
            Op::Begin(blob) => drop(store.begin(self.blobs[blob].1.clone()).unwrap()),
            Op::Write(blob, chunk) => {
                let (bytes, index) = &self.blobs[blob];
                let chunk = chunk % index.count();
                let begun = store.begin(index.clone()).unwrap();
                begun.write_run(chunk, run_bytes(bytes, index, chunk, 1)).unwrap();
            }
            Op::Import(blob) => drop(store.add_bytes(&self.blobs[blob].0).unwrap()),
            Op::Forget(blob) => drop(store.forget(&self.blobs[blob].1.blob()).unwrap()),
            Op::Withdraw(blob, chunk) => {
                if let Some(blob) = store.blob(&self.blobs[blob].1.blob()) {
                    let first = chunk % blob.index().count();
                    blob.withdraw(&[Run { first, count: 1 }]).unwrap();
                    assert!(blob.trim().unwrap(), "nobody reads");
                }
            }
            Op::Publish(name, object) => {
                let id = store.put_object(&self.objects[object]).unwrap();
                store.set_head(&head(name), &id).unwrap();
            }
            Op::Unhead(name) => drop(store.remove_head(&head(name)).unwrap()),
            Op::Pin(name, blob) => {
                let item = Item::Blob(self.blobs[blob].1.blob());
                return store.pin(&Pin { name: pin(name), item, reason: "a reason".into() }).is_ok();
            }
            Op::Unpin(name) => drop(store.unpin(&pin(name)).unwrap()),
            Op::Collect => drop(store.gc().unwrap()),
            Op::Reopen => {}
        }
        true
    }
}

fn head(name: u64) -> String {
    format!("head-{name}")
}

fn pin(name: u64) -> String {
    format!("pin-{name}")
}

/// What was acknowledged and must be there.
#[derive(Default)]
struct Model {
    chunks: BTreeMap<usize, BTreeSet<u32>>,
    heads: BTreeMap<u64, usize>,
    pins: BTreeMap<u64, usize>,
}

impl Model {
    fn done(&mut self, world: &World, op: Op) {
        match op {
            Op::Begin(_) | Op::Reopen => {}
            Op::Write(blob, chunk) => {
                self.chunks.entry(blob).or_default().insert(chunk % world.blobs[blob].1.count());
            }
            Op::Import(blob) => drop(self.chunks.insert(blob, (0..world.blobs[blob].1.count()).collect())),
            Op::Forget(blob) => drop(self.chunks.remove(&blob)),
            Op::Withdraw(blob, chunk) => {
                let chunk = chunk % world.blobs[blob].1.count();
                self.chunks.entry(blob).or_default().remove(&chunk);
            }
            Op::Publish(name, object) => drop(self.heads.insert(name, object)),
            Op::Unhead(name) => drop(self.heads.remove(&name)),
            Op::Pin(name, blob) => drop(self.pins.insert(name, blob)),
            Op::Unpin(name) => drop(self.pins.remove(&name)),
            Op::Collect => {
                let named = self.heads.values().flat_map(|&object| OBJECTS[object]).chain(self.pins.values());
                let named: BTreeSet<usize> = named.copied().collect();
                self.chunks.retain(|blob, _| named.contains(blob));
            }
        }
    }

    /// What was under way may have happened.
    fn maybe(&mut self, world: &World, op: Op, store: &Store) {
        let kept = |name| {
            let pins = store.pins().unwrap();
            pins.into_iter().find(|there| there.name == pin(name)).map(|pin| pin.item)
        };
        let happened = match op {
            Op::Begin(_) | Op::Write(..) | Op::Import(_) | Op::Reopen => false,
            Op::Forget(_) | Op::Withdraw(..) | Op::Collect => true,
            Op::Publish(name, object) => {
                store.head(&head(name)).unwrap()
                    == Some(ObjectId(fabric::id::Hash::of(&world.objects[object])))
            }
            Op::Unhead(name) => store.head(&head(name)).unwrap().is_none(),
            Op::Pin(name, blob) => kept(name) == Some(Item::Blob(world.blobs[blob].1.blob())),
            Op::Unpin(name) => kept(name).is_none(),
        };
        if happened {
            self.done(world, op);
        }
    }

    fn check(&self, world: &World, store: &Store) {
        let heads = self
            .heads
            .iter()
            .map(|(&name, &object)| (head(name), ObjectId(fabric::id::Hash::of(&world.objects[object]))));
        let heads: Vec<_> = heads.collect();
        assert_eq!(store.heads().unwrap(), heads);
        assert!(heads.iter().all(|(_, object)| store.object(object).is_some()), "a named object is lost");
        let pins = store.pins().unwrap().into_iter().map(|pin| (pin.name, pin.item));
        let expected =
            self.pins.iter().map(|(&name, &blob)| (pin(name), Item::Blob(world.blobs[blob].1.blob())));
        assert!(pins.eq(expected), "{:?}", store.pins());
        for (number, (bytes, index)) in world.blobs.iter().enumerate() {
            let held = store.blob(&index.blob());
            if let Some(held) = &held {
                assert_claims_hold(held, bytes);
            }
            let have = held.map(|blob| blob.have());
            let acknowledged = self.chunks.get(&number).into_iter().flatten();
            let lost: Vec<_> =
                acknowledged.filter(|&&chunk| have.as_ref().is_none_or(|have| !have.has(chunk))).collect();
            assert!(lost.is_empty(), "blob {number} lost {lost:?}");
        }
        assert!(store.verify(&|_| ()).unwrap().is_clean());
        store.garbage().unwrap();
    }
}

#[test]
fn killing_it_at_any_instant_leaves_what_was_acknowledged_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (world, mut model) = (World::new(BLOBS), Model::default());
    let mut interrupted: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 0..ROUNDS {
        let (done, under_way) = kill_after(dir.path(), seed, 1 + seed * 7 % 23);
        println!("seed {seed}: {} operations, then killed in {under_way:?}", done.len());
        done.iter().for_each(|&op| model.done(&world, op));
        let store = open_fast(dir.path());
        if let Some(op) = under_way {
            let kind = format!("{op:?}");
            *interrupted.entry(kind.split('(').next().unwrap().to_owned()).or_default() += 1;
            model.maybe(&world, op, &store);
        }
        model.check(&world, &store);
        assert_eq!(std::fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
        // The next child forgets what was only recent.
    }
    println!("interrupted: {interrupted:?}");
    assert!(interrupted.len() > 3, "the kills met too little: {interrupted:?}");
}

/// Runs a child until it has done `least` operations, kills it, and returns what it did and what it was doing.
fn kill_after(dir: &Path, seed: u64, least: u64) -> (Vec<Op>, Option<Op>) {
    let mut running = child(&[], "child_does_what_follows_from_a_seed", dir);
    running.stdin.take().unwrap().write_all(&seed.to_le_bytes()).unwrap();
    let (mut done, mut under_way) = (Vec::new(), None);
    let mut killed = false;
    for line in BufReader::new(running.stdout.take().unwrap()).lines() {
        let Some(number) = hear(&line.unwrap(), |number| op(seed, number), &mut done, &mut under_way) else {
            continue;
        };
        if !killed && number >= least {
            running.kill().unwrap();
            killed = true;
        }
    }
    assert!(killed && !running.wait().unwrap().success(), "seed {seed}: the child ended by itself");
    (done, under_way)
}

/// Makes sense of a line that the child said; the number of the operation.
fn hear(line: &str, op: impl Fn(u64) -> Op, done: &mut Vec<Op>, under_way: &mut Option<Op>) -> Option<u64> {
    let (word, number) = line.split_once(' ')?;
    let number = number.parse().ok()?;
    match word {
        "start" => *under_way = Some(op(number)),
        "done" => done.extend(under_way.take()),
        "refused" => *under_way = None,
        _ => return None,
    }
    Some(number)
}

#[test]
#[ignore = "run as a child of killing_it_at_any_instant_leaves_what_was_acknowledged_and_nothing_else"]
fn child_does_what_follows_from_a_seed() {
    let Some(dir) = child_dir() else { return };
    let mut seed = [0; 8];
    std::io::stdin().read_exact(&mut seed).unwrap();
    let (seed, world, store) = (u64::from_le_bytes(seed), World::new(BLOBS), open_fast(&dir));
    // One write call: the line is whole or not there. The test program has begun one.
    let say = |word, number| std::io::stdout().lock().write_all(line(word, number).as_bytes()).unwrap();
    println!();
    for number in 0..OPS {
        say("start", number);
        say(if world.run(&store, op(seed, number)) { "done" } else { "refused" }, number);
    }
}

/// Where the child of the script says what it does, beside the store.
const LOG: &str = "log";

/// As killing it there would: the child stops before and after each of its system calls, and what is on disk then is checked in
/// a copy. (What was written is in the page cache, which outlives a process.)
#[test]
fn stopping_it_at_every_system_call_leaves_what_was_acknowledged_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(SMALL_BLOBS);
    let mut running = child(&[], "child_does_the_script", dir.path());
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    let thread = lines.by_ref().find_map(|line| line.unwrap().strip_prefix("thread ")?.parse().ok());
    let thread = Pid::from_raw(thread.unwrap());
    ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL).unwrap();
    ptrace::interrupt(thread).unwrap();
    running.stdin.take().unwrap().write_all(b".").unwrap();
    let (mut stops, mut states, mut before) = (0, 0, None);
    loop {
        match waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => break,
            WaitStatus::PtraceSyscall(_) => {
                stops += 1;
                let now = Some(fingerprint(dir.path()));
                if now != before {
                    states += 1;
                    check_copy(&world, dir.path(), stops);
                    before = now;
                }
            }
            _ => {}
        }
        ptrace::syscall(thread, None).unwrap();
    }
    // The thread may have been the process.
    let _ = running.wait();
    let log = std::fs::read_to_string(dir.path().join(LOG)).unwrap();
    assert_eq!(log.lines().count(), SCRIPT.len() * 2, "the script was not done: {log}");
    println!("{stops} stops, {states} different states");
    assert!(states > SCRIPT.len() * 5, "{states} states cannot be all");
}

/// Checks what a kill at this moment would leave of `dir`.
fn check_copy(world: &World, dir: &Path, stop: u32) {
    let copy = tempfile::tempdir().unwrap();
    copy_all(&dir.join("store"), copy.path());
    let log = std::fs::read_to_string(dir.join(LOG)).unwrap_or_default();
    let (mut done, mut under_way, mut model) = (Vec::new(), None, Model::default());
    for line in log.lines() {
        hear(line, |number| SCRIPT[number as usize], &mut done, &mut under_way);
    }
    println!("stop {stop}: {} operations, then {under_way:?}", done.len());
    done.iter().for_each(|&op| model.done(world, op));
    let store = open_fast(copy.path());
    if let Some(op) = under_way {
        model.maybe(world, op, &store);
    }
    model.check(world, &store);
    store.gc().unwrap();
    model.done(world, Op::Collect);
    model.check(world, &store);
}

/// Changes with every change below `dir`.
fn fingerprint(dir: &Path) -> Vec<(PathBuf, [u64; 5])> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let of = entry.metadata().unwrap();
        let what = [of.ino(), of.len(), of.blocks(), of.mtime_nsec() as u64, of.mode().into()];
        found.push((entry.path(), what));
        if of.is_dir() {
            found.extend(fingerprint(&entry.path()));
        }
    }
    found.sort();
    found
}

fn copy_all(from: &Path, to: &Path) {
    let Ok(entries) = std::fs::read_dir(from) else { return };
    for entry in entries.map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_all(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
#[ignore = "run as a child of stopping_it_at_every_system_call_leaves_what_was_acknowledged_and_nothing_else"]
fn child_does_the_script() {
    let Some(dir) = child_dir() else { return };
    let world = World::new(SMALL_BLOBS);
    println!("\nthread {}", nix::unistd::gettid());
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let mut log = std::fs::File::create(dir.join(LOG)).unwrap();
    let mut store = open_fast(&dir.join("store"));
    for (number, &op) in (0..).zip(&SCRIPT) {
        log.write_all(line("start", number).as_bytes()).unwrap();
        if op == Op::Reopen {
            drop(store);
            store = open_fast(&dir.join("store"));
        }
        let word = if world.run(&store, op) { "done" } else { "refused" };
        log.write_all(line(word, number).as_bytes()).unwrap();
    }
}

fn line(word: &str, number: u64) -> String {
    format!("{word} {number}\n")
}
