//! How many large downloads run at once.
//!
//! Firmware cannot seed: serving few machines fast turns them into servers sooner than serving all of them slowly.
//! The policy beyond a plain bound (who waits, who is served first) belongs here when it comes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::files::FileError;

/// Answers of at least so many bytes count as large downloads: kernels and images do, loaders, scripts and the runs that
/// peers fetch (about 1 MiB) do not.
pub const LARGE_DOWNLOAD: u64 = 4 * 1024 * 1024;

/// Admits large downloads up to a bound.
#[derive(Debug)]
pub(super) struct Downloads {
    places: Option<Arc<Semaphore>>,
    retry_after: u32,
}

impl Downloads {
    /// At most `max` at once, without bound if `None`; above it clients are asked to wait `retry_after` seconds.
    pub(super) fn new(max: Option<usize>, retry_after: u32) -> Self {
        let places = max.map(|max| Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))));
        Self { places, retry_after }
    }

    /// A place for an answer of `length` bytes, to be held until it is over; `None` where it needs none.
    pub(super) fn admit(&self, length: u64) -> Result<Option<OwnedSemaphorePermit>, FileError> {
        match &self.places {
            Some(places) if length >= LARGE_DOWNLOAD => Arc::clone(places)
                .try_acquire_owned()
                .map(Some)
                .map_err(|_| FileError::Busy { retry_after: self.retry_after }),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_downloads_need_a_place() {
        let downloads = Downloads::new(Some(1), 5);
        let place = downloads.admit(LARGE_DOWNLOAD).unwrap();
        assert!(place.is_some());
        assert_eq!(downloads.admit(LARGE_DOWNLOAD).unwrap_err(), FileError::Busy { retry_after: 5 });
        assert!(downloads.admit(LARGE_DOWNLOAD - 1).unwrap().is_none());
        drop(place);
        assert!(downloads.admit(u64::MAX).unwrap().is_some());
        assert!(Downloads::new(None, 5).admit(u64::MAX).unwrap().is_none());
    }
}
