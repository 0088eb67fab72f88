//! What fetching one file moves where another is held, by several rules of cutting: how the content format was chosen.
//!
//! `cargo run --release -p fabric --example chunk_sizes -- OLD NEW [CHANGED]` prints one line for each rule: how many chunks
//! NEW has, how large its index is, how many bytes of chunks are not in OLD and in how many runs they lie. CHANGED is the
//! size of what really changed (bytes), such as the changed files of two root filesystems, compressed: the last column is
//! what moves, index included, divided by it. `tests/chunk-sizes.sh` makes such files from Debian packages and runs this.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement stops where it cannot go on")]

use std::collections::HashSet;

use fabric::content::{AVERAGE_CHUNK, CutRule, Difference, MAX_CHUNK, MIN_CHUNK, index_bytes};
use fabric::id::Hash;

const KIB: usize = 1024;
/// Bytes of an index for each chunk.
const ENTRY: u64 = 36;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [old, new, changed @ ..] = arguments.as_slice() else {
        eprintln!("give the old file, the new file and, if known, the bytes of what changed");
        std::process::exit(2);
    };
    let (old, new) = (std::fs::read(old).unwrap(), std::fs::read(new).unwrap());
    let changed: Option<f64> = changed.first().map(|bytes| bytes.parse().unwrap());
    println!(
        "{:<26} {:>7} {:>9} {:>9} {:>5} {:>8}",
        "rule", "chunks", "index kB", "moved kB", "runs", "ratio"
    );
    let average = [4, 8, 16, 32, 64, 128, 256].map(|size| (format!("{size} KiB"), fastcdc(size * KIB)));
    let frames = [0, 512, 1024, 2048, 4096, 8192].map(|least| {
        (format!("frames >= {least}, 32 KiB"), CutRule { min_frame: Some(least), ..fastcdc(32 * KIB) })
    });
    for (name, rule) in average.into_iter().chain(frames) {
        let row = Row::measure(&old, &new, &rule);
        let ratio =
            changed.map_or("-".into(), |changed| format!("{:.2}", (row.moved + row.index) as f64 / changed));
        let format = if rule == CutRule::FORMAT { " (the content format)" } else { "" };
        let (chunks, index, moved, runs) = (row.chunks, row.index / 1000, row.moved / 1000, row.runs);
        println!("{name:<26} {chunks:>7} {index:>9} {moved:>9} {runs:>5} {ratio:>8}{format}");
        if rule == CutRule::FORMAT {
            let (old, new) = (index_bytes(&old).unwrap(), index_bytes(&new).unwrap());
            assert_eq!(Difference::of(&new, [&old]).fetched_bytes, row.moved, "not what the program does");
        }
    }
}

/// FastCDC alone, in the proportions of the content format.
fn fastcdc(average: usize) -> CutRule {
    let (min, max) = (average / (AVERAGE_CHUNK / MIN_CHUNK), average * (MAX_CHUNK / AVERAGE_CHUNK));
    CutRule { min, average, max, min_frame: None }
}

struct Row {
    chunks: usize,
    /// Bytes of the new file's index.
    index: u64,
    /// Bytes of the chunks that the old file does not have.
    moved: u64,
    /// Runs that they make up: requests, at least.
    runs: u64,
}

impl Row {
    fn measure(old: &[u8], new: &[u8], rule: &CutRule) -> Self {
        let held: HashSet<Hash> = chunks(old, rule).into_iter().map(Hash::of).collect();
        let chunks = chunks(new, rule);
        let mut row = Self { chunks: chunks.len(), index: chunks.len() as u64 * ENTRY, moved: 0, runs: 0 };
        let mut running = false;
        for chunk in chunks {
            let absent = !held.contains(&Hash::of(chunk));
            row.moved += if absent { chunk.len() as u64 } else { 0 };
            row.runs += u64::from(absent && !running);
            running = absent;
        }
        row
    }
}

fn chunks<'a>(mut bytes: &'a [u8], rule: &CutRule) -> Vec<&'a [u8]> {
    let mut lengths = Vec::new();
    rule.cut(bytes, true, &mut lengths);
    let chunk = |len: u32| bytes.split_off(..len as usize).unwrap();
    lengths.into_iter().map(chunk).collect()
}
