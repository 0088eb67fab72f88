//! By which system calls a range of a cached file leaves for the least: the measurement behind `http/body.rs`.
//!
//! Run with `cargo bench -p pxe --bench serving_paths`. Over loopback connections, clients ask for ranges of 1 MiB one after the
//! other; each path serves the same number of them in each round, and the lines are medians over the rounds. CPU seconds are
//! per GB: of the serving threads alone, and of both ends. Figures of one run may be compared, those of two may not.
//!
//! Mapping a file needs `unsafe` (another process can change the bytes under a reference), which this project does without. A
//! file that lies in this process's memory as a whole is what a mapping would be at best, without its page faults.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark stops where it cannot go on")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::sendfile::sendfile64;
use nix::sys::time::TimeValLike;

const RANGE: usize = 1 << 20;
const FILE: usize = 64 << 20;
/// Ranges of one measurement, over all connections.
const RANGES: usize = 512;
const ROUNDS: usize = 5;
const KIB: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Path {
    Sendfile,
    Memory,
    /// `pread(2)` into a buffer of so many bytes that is used again, then `write(2)`.
    Read(usize),
}

const PATHS: [Path; 5] =
    [Path::Sendfile, Path::Memory, Path::Read(64 * KIB), Path::Read(256 * KIB), Path::Read(RANGE)];

struct Content {
    file: File,
    memory: Vec<u8>,
}

/// Seconds.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall: f64,
    server: f64,
    client: f64,
}

fn main() {
    let path = tempfile::NamedTempFile::new().unwrap();
    let memory: Vec<u8> = (0..FILE as u64 / 8)
        .flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .collect();
    std::fs::write(path.path(), &memory).unwrap();
    // Opened anew and read once: cached whoever wrote it.
    assert_eq!(std::fs::read(path.path()).unwrap().len(), FILE);
    let content = Arc::new(Content { file: File::open(path.path()).unwrap(), memory });
    println!(
        "{:<14} {:>5} {:>8} {:>14} {:>14} {:>9}",
        "path", "conn.", "MB/s", "server CPU-s/GB", "both CPU-s/GB", "of sendfile"
    );
    for connections in [1, 8] {
        // Path by path in each round, so that what else the machine does spreads over all.
        let rounds: Vec<Vec<Cost>> =
            (0..ROUNDS).map(|_| PATHS.map(|path| measure(&content, path, connections)).to_vec()).collect();
        let median = |path: usize, of: fn(&Cost) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(|round| of(&round[path])).collect();
            values.sort_by(f64::total_cmp);
            values[ROUNDS / 2]
        };
        let gb = (RANGES * RANGE) as f64 / 1e9;
        let sendfile = median(0, |cost| cost.server + cost.client);
        for (at, path) in PATHS.into_iter().enumerate() {
            let both = median(at, |cost| cost.server + cost.client);
            println!(
                "{:<14} {connections:>5} {:>8.0} {:>14.3} {:>14.3} {:>9.2}",
                name(path),
                1000.0 * gb / median(at, |cost| cost.wall),
                median(at, |cost| cost.server) / gb,
                both / gb,
                both / sendfile
            );
        }
    }
}

fn name(path: Path) -> String {
    match path {
        Path::Sendfile => "sendfile".into(),
        Path::Memory => "memory".into(),
        Path::Read(buffer) => format!("read, {} KiB", buffer / KIB),
    }
}

fn measure(content: &Arc<Content>, path: Path, connections: usize) -> Cost {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let started = Instant::now();
    let pairs: Vec<_> = (0..connections)
        .map(|_| {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, content) = (listener.accept().unwrap().0, Arc::clone(content));
            let serving = thread::spawn(move || cpu(|| serve(server, &content, path)));
            (serving, thread::spawn(move || cpu(|| fetch(client, RANGES / connections))))
        })
        .collect();
    let mut cost = Cost { wall: 0.0, server: 0.0, client: 0.0 };
    for (server, client) in pairs {
        cost.client += client.join().unwrap();
        cost.server += server.join().unwrap();
    }
    cost.wall = started.elapsed().as_secs_f64();
    cost
}

/// CPU seconds of this thread while it does `work`.
fn cpu(work: impl FnOnce()) -> f64 {
    let used = || {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
        (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
    };
    let before = used();
    work();
    used() - before
}

/// Answers each byte with a range, until the client leaves.
fn serve(mut stream: TcpStream, content: &Content, path: Path) {
    let mut buffer = vec![0; if let Path::Read(size) = path { size } else { 0 }];
    let (mut start, mut asked) = (0, [0]);
    while stream.read(&mut asked).unwrap() > 0 {
        match path {
            Path::Sendfile => {
                let mut at = start as i64;
                while at < (start + RANGE) as i64 {
                    let left = start + RANGE - at as usize;
                    sendfile64(&stream, &content.file, Some(&mut at), left).unwrap();
                }
            }
            Path::Memory => stream.write_all(&content.memory[start..start + RANGE]).unwrap(),
            Path::Read(size) => {
                for at in (start..start + RANGE).step_by(size) {
                    content.file.read_exact_at(&mut buffer, at as u64).unwrap();
                    stream.write_all(&buffer).unwrap();
                }
            }
        }
        start = (start + RANGE) % FILE;
    }
}

fn fetch(mut stream: TcpStream, ranges: usize) {
    let mut buffer = vec![0; 256 * KIB];
    for _ in 0..ranges {
        stream.write_all(&[1]).unwrap();
        let mut left = RANGE;
        while left > 0 {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the server left");
            left -= read;
        }
    }
}
