//! Hashing what lies in a blob's file.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::bitfield::Bitfield;
use crate::content::{BlobIndex, Chunk};
use crate::exchange::message::Run;
use crate::id::Hash;

/// Which of the chunks in `runs` have the right bytes in `file`. What cannot be read is not right.
pub(super) fn good_chunks(file: &File, index: &BlobIndex, runs: &[Run]) -> Bitfield {
    let mut good = Bitfield::empty(index.count());
    let mut buffer = Vec::new();
    for chunk in runs.iter().flat_map(|run| run.first..run.first.saturating_add(run.count)) {
        let Some(entry) = index.entry(chunk) else { break };
        if read_chunk(file, &entry, &mut buffer) {
            good.insert(chunk);
        }
    }
    good
}

/// Reads one chunk into `buffer`; true if it is as its index says.
pub(super) fn read_chunk(file: &File, chunk: &Chunk, buffer: &mut Vec<u8>) -> bool {
    buffer.resize(chunk.len as usize, 0);
    file.read_exact_at(buffer, chunk.offset).is_ok() && Hash::of(buffer) == chunk.id.0
}

/// The set as runs, ascending.
pub(super) fn runs_of(chunks: &Bitfield) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for chunk in (0..chunks.len()).filter(|&chunk| chunks.has(chunk)) {
        match runs.last_mut() {
            Some(run) if run.first + run.count == chunk => run.count += 1,
            _ => runs.push(Run { first: chunk, count: 1 }),
        }
    }
    runs
}
