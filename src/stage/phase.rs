//! Phases: what the first stage does, as data, and the runner that never gives up on one.
//!
//! Owns the order of events around a phase: said before it starts, timed, its failure explained, tried again after a
//! growing pause, for ever. Knows no clock and no console of its own: both are the [`Host`]'s.

use std::any::Any;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// One step of the first stage.
pub(super) struct Phase<C> {
    /// Name: shown on the console and carried by events, so it never changes.
    pub(super) name: &'static str,
    /// The longest time without progress before the phase counts as failed. Waiting functions keep to it; one
    /// system call that hangs cannot be interrupted.
    pub(super) deadline: Duration,
    /// How soon it is tried again.
    pub(super) retry: Retry,
    /// What a person can do when the failure itself says nothing better.
    pub(super) remedy: &'static str,
    /// Does it. Gets the deadline; returns a few words on the outcome for the console. It must be safe to call again
    /// after a failure.
    pub(super) run: fn(&mut C, Duration) -> Result<String, PhaseError>,
}

/// Pauses between attempts: doubled from `first` up to `most`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    /// After the first failure.
    pub(super) first: Duration,
    /// The longest.
    pub(super) most: Duration,
}

impl Retry {
    /// The pause after failed attempt number `attempt`, counted from 1.
    pub(super) fn delay(self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.most)
    }
}

/// Why a phase failed: an error with its chain of causes, and what to do where the error knows better than the phase.
#[derive(Debug)]
pub(super) struct PhaseError {
    cause: Box<dyn Error + Send + Sync>,
    remedy: Option<String>,
}

impl PhaseError {
    /// A failure that is only words.
    pub(super) fn message(text: impl Into<String>) -> Self {
        Self { cause: text.into().into(), remedy: None }
    }

    /// Says what a person can do.
    pub(super) fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Says it where nothing was said.
    pub(super) fn or_remedy(mut self, remedy: &str) -> Self {
        self.remedy.get_or_insert_with(|| remedy.to_owned());
        self
    }

    /// The error and what caused it, outermost first, on one line.
    pub(super) fn chain(&self) -> String {
        let mut text = self.cause.to_string();
        let mut next = self.cause.source();
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }
}

/// Any error is a failure, as in `anyhow`; for that this type is not itself an [`Error`].
impl<E: Error + Send + Sync + 'static> From<E> for PhaseError {
    fn from(error: E) -> Self {
        Self { cause: Box::new(error), remedy: None }
    }
}

/// What the runner says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Report<'a> {
    /// A phase begins (once, not at each attempt).
    Started,
    /// A phase is done.
    Done {
        /// Time since it began, failed attempts included.
        took: Duration,
        /// What came of it.
        note: &'a str,
    },
    /// An attempt failed.
    Failed {
        /// Time since the phase began.
        took: Duration,
        /// Causes, outermost first.
        error: &'a str,
        /// What to do.
        remedy: &'a str,
        /// The pause that follows.
        retry_in: Duration,
    },
}

/// What the runner needs of the machine.
pub(super) trait Host {
    /// Time since the first stage began.
    fn now(&self) -> Duration;
    /// Tells the person and the programs that watch.
    fn report(&mut self, phase: &'static str, report: Report<'_>);
    /// Lets `delay` pass, doing whatever must go on meanwhile.
    fn pause(&mut self, delay: Duration);
}

/// Runs all phases in order. Returns when the last one is done, however long that takes.
pub(super) fn run_all<C: Host>(phases: &[Phase<C>], host: &mut C) {
    for phase in phases {
        run(phase, host);
    }
}

fn run<C: Host>(phase: &Phase<C>, host: &mut C) {
    let began = host.now();
    host.report(phase.name, Report::Started);
    for attempt in 1_u32.. {
        let outcome = catch_unwind(AssertUnwindSafe(|| (phase.run)(host, phase.deadline)));
        let took = host.now().saturating_sub(began);
        let error = match outcome {
            Ok(Ok(note)) => return host.report(phase.name, Report::Done { took, note: &note }),
            Ok(Err(error)) => error,
            Err(payload) => PhaseError::message(format!("a fault in the program: {}", panic_text(&*payload)))
                .with_remedy("please report this; the first stage tries again"),
        };
        let retry_in = phase.retry.delay(attempt);
        let remedy = error.remedy.as_deref().unwrap_or(phase.remedy);
        host.report(phase.name, Report::Failed { took, error: &error.chain(), remedy, retry_in });
        host.pause(retry_in);
    }
}

/// What a panic said, if it said it in words.
pub(super) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no words")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    /// A machine of which time passes only when somebody waits.
    #[derive(Default)]
    struct Bench {
        now: Duration,
        log: Vec<String>,
        failures: u32,
    }

    impl Host for Bench {
        fn now(&self) -> Duration {
            self.now
        }
        fn report(&mut self, phase: &'static str, report: Report<'_>) {
            self.log.push(format!("{phase} {report:?}"));
        }
        fn pause(&mut self, delay: Duration) {
            self.now += delay;
        }
    }

    const RETRY: Retry = Retry { first: Duration::from_secs(1), most: Duration::from_secs(5) };

    fn phase(
        name: &'static str,
        run: fn(&mut Bench, Duration) -> Result<String, PhaseError>,
    ) -> Phase<Bench> {
        Phase { name, deadline: Duration::from_secs(9), retry: RETRY, remedy: "the phase's advice", run }
    }

    fn third_time_lucky(bench: &mut Bench, _: Duration) -> Result<String, PhaseError> {
        bench.now += Duration::from_millis(10);
        bench.failures += 1;
        match bench.failures {
            1 => Err(Outer(std::io::Error::other("inner")).into()),
            2 => Err(PhaseError::message("still not").with_remedy("better advice")),
            _ => Ok("at last".into()),
        }
    }

    #[test]
    fn a_failure_is_explained_and_tried_again_until_it_works() {
        let mut bench = Bench::default();
        run_all(&[phase("link", third_time_lucky), phase("next", |_, _| Ok(String::new()))], &mut bench);
        assert_eq!(
            bench.log,
            [
                "link Started",
                "link Failed { took: 10ms, error: \"outer: inner\", remedy: \"the phase's advice\", retry_in: 1s }",
                "link Failed { took: 1.02s, error: \"still not\", remedy: \"better advice\", retry_in: 2s }",
                "link Done { took: 3.03s, note: \"at last\" }",
                "next Started",
                "next Done { took: 0ns, note: \"\" }",
            ]
        );
    }

    #[test]
    fn a_panic_is_one_more_failure() {
        let mut bench = Bench::default();
        run_all(
            &[phase("odd", |bench, _| {
                bench.failures += 1;
                assert!(bench.failures > 1, "first attempt");
                Ok(String::new())
            })],
            &mut bench,
        );
        assert!(bench.log[1].contains("a fault in the program: first attempt"), "{:?}", bench.log);
        assert!(bench.log[2].starts_with("odd Done"), "{:?}", bench.log);
    }

    #[test]
    fn the_deadline_of_the_phase_reaches_its_function() {
        let mut bench = Bench::default();
        run_all(&[phase("p", |_, deadline| Ok(format!("{deadline:?}")))], &mut bench);
        assert!(bench.log[1].contains("9s"), "{:?}", bench.log);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let seconds: Vec<u64> = (1..=5).map(|attempt| RETRY.delay(attempt).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 5, 5]);
        assert_eq!(RETRY.delay(u32::MAX), RETRY.most);
        assert_eq!(RETRY.delay(0), RETRY.first);
    }
}
