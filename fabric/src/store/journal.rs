//! The journal of a partial blob: which runs of chunks were written, eight bytes each (first, count, little-endian).
//!
//! It is only a hint: what it lists is hashed again when the store is opened. So it needs no checksums and no flushing, and
//! anything in it, damage included, is safe to read.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::dir::Dir;
use super::error::StoreError;
use crate::content::MAX_CHUNKS;
use crate::exchange::message::Run;

const RECORD: u64 = 8;

/// The longest journal that is read (bytes): one record for each chunk of the largest blob.
const MAX_JOURNAL: u64 = RECORD * MAX_CHUNKS as u64;

pub(super) struct Journal {
    file: File,
    /// Where the next record goes. A record that was written in part is written over.
    end: u64,
}

impl Journal {
    /// A journal of `runs` at `path`, in place of what is there; a crash leaves the old one or the new one.
    pub(super) fn replace(dir: &Dir, path: &Path, runs: &[Run]) -> Result<Self, StoreError> {
        let bytes: Vec<u8> = runs.iter().flat_map(record).collect();
        dir.write_whole(path, &bytes)?;
        let file = File::options().write(true).open(path).map_err(|error| dir.error("open", path, error))?;
        Ok(Self { file, end: bytes.len() as u64 })
    }

    pub(super) fn append(&mut self, run: Run) -> io::Result<()> {
        self.file.write_all_at(&record(&run), self.end)?;
        self.end += RECORD;
        Ok(())
    }

    /// The runs in the journal at `path`, within `0..chunks`, ascending and disjoint. None if there is no journal.
    pub(super) fn read(path: &Path, chunks: u32) -> io::Result<Vec<Run>> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(MAX_JOURNAL).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        Ok(merge(bytes.chunks_exact(8).filter_map(parse).collect(), chunks))
    }
}

fn record(run: &Run) -> [u8; RECORD as usize] {
    (u64::from(run.count) << 32 | u64::from(run.first)).to_le_bytes()
}

fn parse(record: &[u8]) -> Option<Run> {
    let (first, count) = record.split_first_chunk::<4>()?;
    Some(Run { first: u32::from_le_bytes(*first), count: u32::from_le_bytes(*count.first_chunk()?) })
}

/// Sorts, joins and cuts runs off at `chunks`, so that reading them costs no more than the blob.
fn merge(mut runs: Vec<Run>, chunks: u32) -> Vec<Run> {
    runs.sort_unstable();
    let mut merged: Vec<Run> = Vec::new();
    let mut end = 0;
    for run in runs {
        let from = run.first.max(end);
        let to = run.first.saturating_add(run.count).min(chunks);
        if from >= to {
            continue;
        }
        match merged.last_mut() {
            Some(last) if from == end => last.count += to - from,
            _ => merged.push(Run { first: from, count: to - from }),
        }
        end = to;
    }
    merged
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::store::StoreOptions;

    #[test]
    fn damage_at_the_end_hides_nothing_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("have");
        let store = Dir::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
        let mut journal = Journal::replace(&store, &path, &[Run { first: 5, count: 2 }]).unwrap();
        journal.append(Run { first: 0, count: 1 }).unwrap();
        journal.file.write_all_at(&[1, 2, 3], journal.end).unwrap();
        let runs = [Run { first: 0, count: 1 }, Run { first: 5, count: 2 }];
        assert_eq!(Journal::read(&path, 10).unwrap(), runs);
        assert_eq!(Journal::read(&dir.path().join("none"), 10).unwrap(), []);
    }

    proptest! {
        #[test]
        fn merging_keeps_the_set(runs in vec((0u32..40, prop_oneof![0u32..9, Just(u32::MAX)]), 0..20), chunks in 0u32..30) {
            let runs: Vec<_> = runs.into_iter().map(|(first, count)| Run { first, count }).collect();
            let set = |runs: &[Run]| {
                let ends = |run: &Run| run.first..run.first.saturating_add(run.count).min(chunks);
                runs.iter().flat_map(ends).collect::<BTreeSet<_>>()
            };
            let merged = merge(runs.clone(), chunks);
            prop_assert_eq!(set(&merged), set(&runs));
            prop_assert!(merged.windows(2).all(|pair| pair[0].first + pair[0].count < pair[1].first));
        }
    }
}
