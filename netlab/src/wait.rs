//! Waiting for a condition with a deadline: the only place of the crate that polls.

use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Between two looks at a condition. Short against everything the lab waits for, long against the cost of a look.
const POLL: Duration = Duration::from_millis(25);

/// What a look at a condition found.
#[derive(Debug)]
pub enum Progress<T> {
    /// It holds.
    Done(T),
    /// Not yet; the text describes the state, for the error when the deadline passes.
    Pending(String),
    /// It never will; the text says why.
    InVain(String),
}

/// Looks again and again until `look` returns `Some`.
///
/// # Errors
/// [`Error::Timeout`] naming `what` when `within` has passed.
pub fn wait_until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    wait_progress(what, within, || {
        Ok(look().map_or_else(|| Progress::Pending("it did not come".into()), Progress::Done))
    })
}

/// Like [`wait_until`], for conditions that can describe their state or know when waiting is in vain.
///
/// # Errors
/// [`Error::Timeout`] with the last state, [`Error::InVain`], or the error of `look` itself.
pub fn wait_progress<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<Progress<T>>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match look()? {
            Progress::Done(value) => return Ok(value),
            Progress::InVain(state) => return Err(Error::InVain { what: what.into(), state }),
            Progress::Pending(state) if Instant::now() >= deadline => {
                return Err(Error::Timeout { what: what.into(), within, state });
            }
            Progress::Pending(_) => {
                let left = deadline.saturating_duration_since(Instant::now());
                std::thread::sleep(left.min(POLL));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_until_it_holds() {
        let mut looks = 0;
        let found = wait_until("the third look", Duration::from_secs(60), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn a_deadline_names_what_and_state() {
        let error =
            wait_progress::<()>("rain", Duration::ZERO, || Ok(Progress::Pending("the sun shines".into())));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("rain") && text.contains("the sun shines"), "{text}");
    }

    #[test]
    fn hopeless_waits_end_at_once() {
        let error =
            wait_progress::<()>("rain", Duration::from_secs(3600), || Ok(Progress::InVain("desert".into())));
        assert!(matches!(error.unwrap_err(), Error::InVain { .. }));
    }
}
