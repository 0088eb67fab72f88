//! A process killed in the middle of writing: nothing that was acknowledged is lost, nothing unverified is admitted.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod store_support;

use std::io::{BufRead, BufReader, Read, Write};

use store_support::{assert_claims_hold, blob, child, child_dir, open, run_bytes};

const SEED: u64 = 40;
const LEN: usize = 16 << 20;
const THREADS: u32 = 3;
const ROUNDS: usize = 12;
/// Chunks that a child may still be writing when it is killed.
const UNDER_WAY: usize = 8;

#[test]
fn killing_the_writer_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, index) = blob(SEED, LEN);
    let mut acknowledged = Vec::new();
    // Each child resumes where the one before was killed, and is killed a little later. It writes one chunk for each
    // byte that it is given, so that it never gets to the end.
    for round in 1..=ROUNDS {
        let mut writer = child(&[], "child_writes_until_killed", dir.path());
        let mut stdin = writer.stdin.take().unwrap();
        stdin.write_all(&vec![b'.'; round * 2 + UNDER_WAY]).unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let mut chunks =
            lines.by_ref().filter_map(|line| line.ok()?.strip_prefix("held ")?.parse::<u32>().ok());
        acknowledged.extend(chunks.by_ref().take(round * 2));
        writer.kill().unwrap();
        acknowledged.extend(chunks);
        writer.wait().unwrap();

        let store = open(dir.path());
        let blob = store.blob(&index.blob()).expect("begun before the first acknowledgement");
        assert_claims_hold(&blob, &bytes);
        let have = blob.have();
        let lost: Vec<_> = acknowledged.iter().filter(|&&chunk| !have.has(chunk)).collect();
        assert!(lost.is_empty(), "round {round}: lost chunks {lost:?}");
        assert!(!blob.is_complete(), "round {round} came too late to interrupt anything");
    }
    let blob = open(dir.path()).begin(index.clone()).unwrap();
    blob.write_run(0, &bytes).unwrap();
    assert!(blob.is_complete());
    assert_claims_hold(&blob, &bytes);
}

#[test]
#[ignore = "run as a child of killing_the_writer_loses_nothing_acknowledged"]
fn child_writes_until_killed() {
    let Some(dir) = child_dir() else { return };
    let (bytes, index) = blob(SEED, LEN);
    let store = open(&dir);
    let blob = store.begin(index.clone()).unwrap();
    std::thread::scope(|threads| {
        for thread in 0..THREADS {
            let (blob, bytes, index) = (&blob, &bytes, &index);
            threads.spawn(move || {
                for chunk in (thread..index.count()).step_by(THREADS as usize) {
                    if blob.have().has(chunk) {
                        continue;
                    }
                    std::io::stdin().read_exact(&mut [0]).unwrap();
                    blob.write_run(chunk, run_bytes(bytes, index, chunk, 1)).unwrap();
                    // One write call: the line is whole or not there.
                    std::io::stdout().lock().write_all(format!("held {chunk}\n").as_bytes()).unwrap();
                }
            });
        }
    });
}
