//! How many large downloads run at once, and who is next.
//!
//! Firmware cannot seed: serving few machines fast turns them into servers sooner than serving all of them slowly. So
//! there is a number of places, and who finds none either hears at once that the node is busy, to ask another one, or
//! waits here if it said that it would (`?wait=SECONDS`). Who asked first is served first, also when it went to ask
//! elsewhere in between; a client between two of its files has asked first of all. Firmware that gives up where it is
//! kept waiting, UEFI HTTP boot, goes before everybody and may take as many places again.
//!
//! Pure bookkeeping behind a lock that is never held across an await. A place is given back when it is dropped.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::head::Agent;
use crate::files::FileError;

/// Answers of at least so many bytes count as large downloads: kernels and images do, loaders, scripts and the runs that
/// peers fetch (about 1 MiB) do not.
pub const LARGE_DOWNLOAD: u64 = 4 * 1024 * 1024;
/// Longest wait for a place. iPXE is told to give a peer up after [`NO_PROGRESS`] without a byte, which is longer.
pub const LONGEST_WAIT: Duration = Duration::from_secs(25);
/// How long a client that says it waits should wait for a byte before it takes the node for dead.
pub const NO_PROGRESS: Duration = Duration::from_secs(40);
/// UEFI HTTP boot waits for an answer for 5 s (EDK2 `PcdHttpIoTimeout`).
const FIRMWARE_WAIT: Duration = Duration::from_secs(3);
/// Clients that may wait at once: five switches of 48 ports.
const MAX_WAITING: usize = 256;
/// Clients whose first question is remembered.
const MAX_REMEMBERED: usize = 4096;
/// How long it is remembered after their last one: longer than the longest pause of a boot script.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Who wants a large download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) client: IpAddr,
    pub(super) agent: Agent,
    /// How long it waits for a place.
    pub(super) patience: Duration,
}

impl Ask {
    /// The question behind a request with this `query`.
    pub(super) fn new(client: IpAddr, agent: Agent, query: &str) -> Self {
        let asked = query.split('&').find_map(|field| field.strip_prefix("wait=")?.parse().ok());
        let patience = match agent {
            Agent::Firmware => FIRMWARE_WAIT,
            Agent::Ipxe | Agent::Other => Duration::from_secs(asked.unwrap_or(0)).min(LONGEST_WAIT),
        };
        Self { client, agent, patience }
    }
}

/// A place in the order: firmware first, then by the number of the first question.
type Turn = (bool, u64);

#[derive(Debug)]
struct Waiter {
    turn: Turn,
    id: u64,
    place: oneshot::Sender<Place>,
}

#[derive(Debug, Default)]
struct State {
    in_use: usize,
    /// In the order in which they are served.
    waiting: Vec<Waiter>,
    first_asked: HashMap<IpAddr, (u64, Instant)>,
    next: u64,
}

impl State {
    fn turn(&mut self, ask: Ask, now: Instant) -> Turn {
        self.next += 1;
        let fresh = |last: Instant| now.saturating_duration_since(last) < REMEMBERED;
        let number = match self.first_asked.get_mut(&ask.client) {
            Some((number, last)) if fresh(*last) => {
                *last = now;
                *number
            }
            _ => {
                if self.first_asked.len() >= MAX_REMEMBERED {
                    self.first_asked.retain(|_, (_, last)| fresh(*last));
                }
                if self.first_asked.len() < MAX_REMEMBERED {
                    self.first_asked.insert(ask.client, (self.next, now));
                }
                self.next
            }
        };
        (ask.agent != Agent::Firmware, number)
    }

    fn wait(&mut self, turn: Turn) -> (u64, oneshot::Receiver<Place>) {
        let (place, receiver) = oneshot::channel();
        let id = self.next;
        let at = self.waiting.partition_point(|waiter| waiter.turn <= turn);
        self.waiting.insert(at, Waiter { turn, id, place });
        (id, receiver)
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    max: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A large download's place.
#[derive(Debug)]
pub(super) struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.lock();
            state.in_use = state.in_use.saturating_sub(1);
            let free = state.in_use < self.0.max && !state.waiting.is_empty();
            free.then(|| {
                state.in_use += 1;
                state.waiting.remove(0)
            })
        };
        if let Some(waiter) = next {
            // If it has just gone away the place comes back here, and goes to the one after it.
            let _ = waiter.place.send(Place(Arc::clone(&self.0)));
        }
    }
}

/// Admits large downloads up to a bound; by default there is none.
#[derive(Debug, Default)]
pub(super) struct Downloads {
    shared: Option<Arc<Shared>>,
    retry_after: u32,
}

impl Downloads {
    /// At most `max` at once, without bound if `None`; above it clients are asked to wait `retry_after` seconds.
    pub(super) fn new(max: Option<usize>, retry_after: u32) -> Self {
        let shared = max.map(|max| Arc::new(Shared { state: Mutex::default(), max: max.max(1) }));
        Self { shared, retry_after }
    }

    /// A place for an answer of `length` bytes, to be held until it is over; `None` where it needs none.
    pub(super) async fn admit(&self, length: u64, ask: Ask) -> Result<Option<Place>, FileError> {
        let Some(shared) = self.shared.as_ref().filter(|_| length >= LARGE_DOWNLOAD) else { return Ok(None) };
        let busy = FileError::Busy { retry_after: self.retry_after };
        let (id, place) = {
            let mut state = shared.lock();
            // The runtime's clock, which is virtual in the simulation.
            let turn = state.turn(ask, tokio::time::Instant::now().into_std());
            let places = if ask.agent == Agent::Firmware { shared.max * 2 } else { shared.max };
            if state.in_use < places && state.waiting.first().is_none_or(|first| turn < first.turn) {
                state.in_use += 1;
                return Ok(Some(Place(Arc::clone(shared))));
            }
            if ask.patience.is_zero() || state.waiting.len() >= MAX_WAITING {
                return Err(busy);
            }
            state.wait(turn)
        };
        let _leaves = Leaves { shared, id };
        match tokio::time::timeout(ask.patience, place).await {
            Ok(Ok(place)) => Ok(Some(place)),
            _ => Err(busy),
        }
    }

    /// Large downloads under way, and clients that wait for their turn.
    pub(super) fn load(&self) -> (usize, usize) {
        self.shared.as_ref().map_or((0, 0), |shared| {
            let state = shared.lock();
            (state.in_use, state.waiting.len())
        })
    }
}

/// Takes a waiter out of the order, however its waiting ends.
struct Leaves<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        let gone = {
            let mut state = self.shared.lock();
            let at = state.waiting.iter().position(|waiter| waiter.id == self.id);
            at.map(|at| state.waiting.remove(at))
        };
        drop(gone);
    }
}

#[cfg(test)]
mod turning;

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;

    const BUSY: FileError = FileError::Busy { retry_after: 5 };

    fn ask(client: u8, patience: u64) -> Ask {
        Ask {
            client: [192, 0, 2, client].into(),
            agent: Agent::Ipxe,
            patience: Duration::from_secs(patience),
        }
    }

    fn firmware(client: u8) -> Ask {
        Ask { agent: Agent::Firmware, ..ask(client, 3) }
    }

    fn waits(downloads: &Arc<Downloads>, ask: Ask) -> JoinHandle<Result<Option<Place>, FileError>> {
        let downloads = Arc::clone(downloads);
        tokio::spawn(async move { downloads.admit(LARGE_DOWNLOAD, ask).await })
    }

    async fn waiting(downloads: &Downloads, count: usize) {
        while downloads.load().1 != count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn only_large_downloads_need_a_place() {
        let downloads = Downloads::new(Some(1), 5);
        let place = downloads.admit(LARGE_DOWNLOAD, ask(1, 0)).await.unwrap();
        assert!(place.is_some());
        assert_eq!(downloads.admit(LARGE_DOWNLOAD, ask(2, 0)).await.unwrap_err(), BUSY);
        assert!(downloads.admit(LARGE_DOWNLOAD - 1, ask(2, 0)).await.unwrap().is_none());
        drop(place);
        assert!(downloads.admit(u64::MAX, ask(3, 0)).await.unwrap().is_some());
        assert!(Downloads::new(None, 5).admit(u64::MAX, ask(1, 0)).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn who_asked_first_is_served_first_also_after_asking_elsewhere() {
        let downloads = Arc::new(Downloads::new(Some(1), 5));
        let first = downloads.admit(LARGE_DOWNLOAD, ask(1, 0)).await.unwrap();
        for client in [2, 3] {
            assert_eq!(downloads.admit(LARGE_DOWNLOAD, ask(client, 0)).await.unwrap_err(), BUSY);
        }
        let fourth = waits(&downloads, ask(4, 20));
        waiting(&downloads, 1).await;
        let third = waits(&downloads, ask(3, 20));
        waiting(&downloads, 2).await;
        let second = waits(&downloads, ask(2, 20));
        waiting(&downloads, 3).await;
        // The first goes on with its next file before them all.
        let again = waits(&downloads, ask(1, 20));
        waiting(&downloads, 4).await;
        drop(first);
        for next in [again, second, third, fourth] {
            let place = next.await.unwrap().unwrap();
            assert_eq!(downloads.load().0, 1);
            drop(place);
        }
        assert_eq!(downloads.load(), (0, 0));
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_it_said_and_nobody_overtakes_those_who_wait() {
        let downloads = Arc::new(Downloads::new(Some(1), 5));
        let first = downloads.admit(LARGE_DOWNLOAD, ask(1, 0)).await.unwrap();
        let patient = waits(&downloads, ask(3, 20));
        waiting(&downloads, 1).await;
        let impatient = Ask { patience: Duration::from_millis(10), ..ask(2, 0) };
        assert_eq!(downloads.admit(LARGE_DOWNLOAD, impatient).await.unwrap_err(), BUSY);
        assert_eq!(downloads.load(), (1, 1));
        patient.abort();
        let _ = patient.await;
        assert_eq!(downloads.load(), (1, 0), "a client that left holds nothing");
        drop(first);
        assert_eq!(downloads.load(), (0, 0));
    }

    #[tokio::test]
    async fn firmware_goes_first_within_its_own_bound() {
        let downloads = Arc::new(Downloads::new(Some(1), 5));
        let first = downloads.admit(LARGE_DOWNLOAD, ask(1, 0)).await.unwrap();
        let patient = waits(&downloads, ask(2, 20));
        waiting(&downloads, 1).await;
        let at_once = downloads.admit(LARGE_DOWNLOAD, firmware(3)).await.unwrap();
        assert!(at_once.is_some());
        let next = waits(&downloads, firmware(4));
        waiting(&downloads, 2).await;
        drop(first);
        assert_eq!(downloads.load(), (1, 2), "more than the usual places are in use");
        drop(at_once);
        let next = next.await.unwrap().unwrap();
        drop(next);
        assert!(patient.await.unwrap().unwrap().is_some());
    }

    #[test]
    fn patience_is_what_was_said_within_reason() {
        let of = |agent, query| Ask::new([192, 0, 2, 1].into(), agent, query).patience.as_secs();
        assert_eq!(of(Agent::Ipxe, ""), 0);
        assert_eq!(of(Agent::Ipxe, "x=1&wait=7"), 7);
        assert_eq!(of(Agent::Other, "wait=99999999999"), LONGEST_WAIT.as_secs());
        assert_eq!(of(Agent::Other, "wait=-1"), 0);
        assert_eq!(of(Agent::Firmware, ""), FIRMWARE_WAIT.as_secs());
        assert!(NO_PROGRESS > LONGEST_WAIT);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten() {
        let mut state = State::default();
        let start = Instant::now();
        for client in 0..=MAX_REMEMBERED as u32 {
            let client = std::net::Ipv4Addr::from(client).into();
            state.turn(Ask { client, ..ask(0, 0) }, start);
        }
        assert_eq!(state.first_asked.len(), MAX_REMEMBERED);
        let later = start + REMEMBERED;
        let turn = state.turn(ask(1, 0), later);
        assert_eq!((state.first_asked.len(), turn), (1, (true, MAX_REMEMBERED as u64 + 2)));
    }
}
