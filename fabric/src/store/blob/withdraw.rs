//! Taking chunks out of a blob, and giving them back: first they are no longer held, then the file-system gets their room.
//!
//! Between the two lies whoever reads them. Every reader takes the file [before it asks](Blob::held_file) whether its bytes are
//! held, and a withdrawal gives readers another file from then on: once nobody has the one from before, nobody reads
//! what is to go.

use std::fs::{File, Permissions};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use nix::fcntl::{FallocateFlags, fallocate};

use super::{Blob, PARTIAL_MODE, Phase, Writer, bytes_of};
use crate::exchange::message::Run;
use crate::store::check;
use crate::store::error::StoreError;
use crate::store::journal::Journal;

impl Blob {
    /// The file, if all bytes of `range` are held; through it they stay readable although the blob withdraws them.
    #[must_use]
    pub fn held_file(&self, range: Range<u64>) -> Option<Arc<File>> {
        let file = self.file();
        self.holds(range).then_some(file)
    }

    /// Takes `bad` chunks out, which makes a complete blob a partial one. One that is lent cannot be repaired: it ends. A
    /// reader only stops trusting them.
    pub(in crate::store) fn drop_chunks(&self, bad: &[Run]) -> Result<(), StoreError> {
        let _transition = self.transition();
        // Held to the end, so that no chunk is committed in between.
        let mut state = self.state();
        if matches!(state.phase, Phase::Forgotten | Phase::HandedOver) {
            return Ok(());
        }
        let mut have = state.have.clone();
        for chunk in bad.iter().flat_map(|run| run.first..run.first.saturating_add(run.count)) {
            have.remove(chunk);
        }
        if self.is_lent() || self.dir.is_reader() {
            self.complete.store(false, Ordering::Release);
            self.held.send_replace(have.count());
            state.held_bytes = bytes_of(&self.index, &have);
            state.have = have;
            state.phase = if self.is_lent() { Phase::Forgotten } else { Phase::ReadOnly };
            return Ok(());
        }
        // The journal first: a crash from here on leaves a partial blob, or a complete one whose damage is found again.
        let journal = Journal::replace(&self.dir, &self.dir.journal(&self.id()), &check::runs_of(&have))?;
        if self.is_complete() {
            self.dir.rename(&self.complete_path, &self.partial_path)?;
            self.complete.store(false, Ordering::Release);
        }
        let open = || {
            state.file.set_permissions(Permissions::from_mode(PARTIAL_MODE))?;
            let file = File::options().write(true).open(&self.partial_path)?;
            file.set_len(self.index.size())?;
            Ok(Arc::new(file))
        };
        let file = open().map_err(|error| self.dir.error("open", &self.partial_path, error))?;
        self.held.send_replace(have.count());
        state.held_bytes = bytes_of(&self.index, &have);
        state.have = have;
        state.phase = Phase::Partial(Writer { file, journal });
        Ok(())
    }

    /// Holds the chunks of `runs` no longer: a complete blob becomes a partial one. [`Blob::trim`] gives their room back.
    /// Nothing happens to a blob that is lent.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::HandedOver`], [`StoreError::ReadOnly`].
    pub fn withdraw(&self, runs: &[Run]) -> Result<(), StoreError> {
        self.dir.check_lock()?;
        if self.is_lent() || runs.is_empty() {
            return Ok(());
        }
        let _writing = self.writing.write().unwrap_or_else(PoisonError::into_inner);
        self.drop_chunks(runs)?;
        let path = self.path();
        let fresh = File::open(path).map_err(|error| self.dir.error("open", path, error))?;
        let before = std::mem::replace(&mut self.state().file, Arc::new(fresh));
        let mut untrimmed = self.untrimmed.lock().unwrap_or_else(PoisonError::into_inner);
        untrimmed.get_or_insert_default().push(before);
        Ok(())
    }

    /// Gives back the room of everything that is not held. False if somebody reads from the file as it was before the last
    /// withdrawal: then nothing is done yet.
    ///
    /// # Errors
    /// [`StoreError::Io`], if the file-system has no holes in files for example; [`StoreError::HandedOver`],
    /// [`StoreError::ReadOnly`].
    pub fn trim(&self) -> Result<bool, StoreError> {
        self.dir.check_lock()?;
        let _writing = self.writing.write().unwrap_or_else(PoisonError::into_inner);
        let mut untrimmed = self.untrimmed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = untrimmed.as_ref() else { return Ok(true) };
        // The one count is ours.
        if before.iter().any(|file| Arc::strong_count(file) > 1) {
            return Ok(false);
        }
        let (file, have) = {
            let state = self.state();
            (state.writer_file(), state.have.clone())
        };
        let Some(file) = file else { return Ok(true) };
        let mut gap: Option<Range<u64>> = None;
        let mut gaps = Vec::new();
        for (number, chunk) in (0..).zip(self.index.chunks()) {
            match &mut gap {
                _ if have.has(number) => gaps.extend(gap.take()),
                Some(gap) => gap.end = chunk.range().end,
                None => gap = Some(chunk.range()),
            }
        }
        gaps.extend(gap);
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        for gap in gaps {
            let (at, len) = (gap.start.try_into().unwrap_or(i64::MAX), (gap.end - gap.start).try_into());
            fallocate(&*file, punch, at, len.unwrap_or(i64::MAX))
                .map_err(|errno| self.dir.error("make a hole in", &self.partial_path, errno.into()))?;
        }
        *untrimmed = None;
        Ok(true)
    }
}
