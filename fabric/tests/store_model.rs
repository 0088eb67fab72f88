//! The store against a model: a set of chunk numbers. Any sequence of writes, damage and restarts must agree with it.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod store_support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;

use fabric::store::WriteError;
use proptest::collection::vec;
use proptest::prelude::*;
use store_support::{assert_claims_hold, blob, open_fast, run_bytes};

const SEED: u64 = 60;
const LEN: usize = 1 << 20;

#[derive(Debug, Clone)]
enum Op {
    /// Write a run, some of its chunks spoilt, some bytes missing at its end.
    Write { first: u32, count: u32, spoilt: Vec<u32>, missing: usize },
    /// Open the store anew.
    Restart,
    /// Damage the bytes of a chunk on the device, then open the store anew and verify it.
    Damage { chunk: u32 },
    /// Remove the blob and begin it again.
    Forget,
    /// Import the whole blob.
    Import,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0u32..30, 1u32..12, vec(0u32..30, 0..2), prop_oneof![3 => Just(0), 1 => 1usize..9000])
            .prop_map(|(first, count, spoilt, missing)| Op::Write { first, count, spoilt, missing }),
        2 => Just(Op::Restart),
        2 => (0u32..30).prop_map(|chunk| Op::Damage { chunk }),
        1 => Just(Op::Forget),
        1 => Just(Op::Import),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_store_holds_what_the_model_holds(ops in vec(op(), 1..24)) {
        let dir = tempfile::tempdir().unwrap();
        let (bytes, index) = blob(SEED, LEN);
        let count = index.count();
        let mut model = BTreeSet::new();
        let mut store = open_fast(dir.path());
        let mut blob = store.begin(index.clone()).unwrap();
        for op in ops {
            match op {
                Op::Write { first, count: wanted, spoilt, missing } => {
                    let first = first % count;
                    let wanted = wanted.min(count - first);
                    let mut run = run_bytes(&bytes, &index, first, wanted).to_vec();
                    let start = index.entry(first).unwrap().offset;
                    let chunks = first..first + wanted;
                    let spoilt: BTreeSet<_> = spoilt.iter().map(|at| at % count).filter(|at| chunks.contains(at)).collect();
                    for &chunk in &spoilt {
                        run[(index.entry(chunk).unwrap().offset - start) as usize] ^= 0x80;
                    }
                    run.truncate(run.len().saturating_sub(missing));
                    let end = start + run.len() as u64;
                    let whole: Vec<_> = chunks.filter(|&chunk| index.entry(chunk).unwrap().range().end <= end).collect();
                    // Chunks that are held are not looked at again.
                    let bad = whole.iter().copied().find(|chunk| spoilt.contains(chunk) && !model.contains(chunk));
                    model.extend(whole.iter().filter(|chunk| !spoilt.contains(chunk)));
                    match (blob.write_run(first, &run), bad) {
                        (Ok(run), None) => prop_assert_eq!((run.count as usize, missing), (whole.len(), 0)),
                        (Err(WriteError::BadChunk { chunk, .. }), Some(bad)) => prop_assert_eq!(chunk, bad),
                        (Err(WriteError::Length { .. }), None) => prop_assert!(missing > 0),
                        (result, bad) => prop_assert!(false, "{result:?}, bad {bad:?}"),
                    }
                }
                Op::Restart => {
                    drop((store, blob));
                    store = open_fast(dir.path());
                    blob = store.begin(index.clone()).unwrap();
                }
                Op::Damage { chunk } => {
                    let chunk = chunk % count;
                    let path = blob.path().to_path_buf();
                    drop((store, blob));
                    if model.remove(&chunk) {
                        let mut permissions = fs::metadata(&path).unwrap().permissions();
                        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
                        fs::set_permissions(&path, permissions).unwrap();
                        let at = index.entry(chunk).unwrap().offset;
                        let file = fs::File::options().write(true).open(&path).unwrap();
                        file.write_all_at(&[bytes[at as usize] ^ 1], at).unwrap();
                    }
                    store = open_fast(dir.path());
                    store.verify(&|_| ()).unwrap();
                    blob = store.begin(index.clone()).unwrap();
                }
                Op::Forget => {
                    store.forget(&index.blob()).unwrap();
                    model.clear();
                    blob = store.begin(index.clone()).unwrap();
                }
                Op::Import => {
                    prop_assert_eq!(store.add_bytes(&bytes).unwrap(), index.reference());
                    model.extend(0..count);
                }
            }
            let have = blob.have();
            prop_assert_eq!((0..count).filter(|&chunk| have.has(chunk)).collect::<BTreeSet<_>>(), model.clone());
            assert_claims_hold(&blob, &bytes);
        }
    }
}
