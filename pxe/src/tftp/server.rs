//! The TFTP driver.
//!
//! One thread with a runtime of its own: a client without windows waits for each block, so what counts is how soon an
//! ACK is followed by the next block, and a runtime of several threads spends more on waking its threads than a block costs.
//!
//! Transfers without windows go one step further and have a thread each, up to a bound ([`super::lockstep`]).
//!
//! Tasks, all on the service's thread: one receives requests on the listening socket, owned by [`TftpServer`] through the thread;
//! one per transfer ([`super::transfer`]), owned by its tracker and bounded by [`super::TftpConfig`]. Channels: one that
//! says that the thread has ended. Tasks share the table of transfers behind a lock that is never held across an await.
//!
//! Shutdown: when the token is cancelled no request is taken any more, transfers under way go on until the end of the drain time,
//! and what is left then is dropped.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::TftpConfig;
use super::counters::TftpCounters;
use super::lockstep;
use super::packet::Packet;
use super::table::{Table, TransferState, Verdict};
use super::transfer::Job;
use super::wire::{self, Arrival};
use crate::ending::Ending;
use crate::files::BootFiles;

/// Longest request looked at: RFC 2347 allows 512 bytes, option lists of real clients are far shorter.
const REQUEST_BUFFER: usize = 1500;

/// Pause after an error of the listening socket, so that a lasting one does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// Threads that read files for all transfers: what is read is in the page cache or comes from one disk.
const READERS: usize = 4;

/// A running TFTP service. Dropping it leaves the service running: the token given to [`TftpServer::serve`] ends it.
#[derive(Debug)]
pub struct TftpServer {
    local_addr: SocketAddr,
    counters: Arc<TftpCounters>,
    ending: Ending<oneshot::Receiver<()>>,
}

impl TftpServer {
    /// Serves `files` to clients that ask on `socket` (from [`crate::bind::udp`]) until `stop` is cancelled. Transfers
    /// run from sockets of their own on the interface that `socket` is bound to.
    ///
    /// # Errors
    /// If the socket has no address, or the thread cannot be started.
    pub fn serve(
        socket: UdpSocket,
        files: Arc<dyn BootFiles>,
        config: TftpConfig,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let local_addr = socket.local_addr()?;
        let socket = socket.into_std()?;
        let counters = Arc::new(TftpCounters::default());
        let (drain, abort) = (config.drain, CancellationToken::new());
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(READERS + lockstep::THREADS)
            .thread_name("tftp-work")
            .build()?;
        let listener = {
            let _of = runtime.enter();
            Arc::new(UdpSocket::from_std(socket)?)
        };
        let service = Arc::new(Service {
            listener,
            files,
            table: Mutex::new(Table::new(config.max_transfers, config.max_transfers_per_client)),
            config: Arc::new(config),
            counters: Arc::clone(&counters),
            tracker: TaskTracker::new(),
            abort: abort.clone(),
            lanes: Arc::new(Semaphore::new(lockstep::THREADS)),
        });
        let (end, ended) = oneshot::channel();
        let told = stop.clone();
        std::thread::Builder::new().name("tftp".into()).spawn(move || {
            runtime.block_on(service.run(told));
            // Nobody waits where the server was dropped.
            let _ = end.send(());
        })?;
        Ok(Self { local_addr, counters, ending: Ending { stop, abort, drain, ended } })
    }

    /// The address requests are received on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The counters of this service.
    #[must_use]
    pub fn counters(&self) -> &Arc<TftpCounters> {
        &self.counters
    }

    /// Waits until the service has stopped and every transfer is over; once the token is cancelled, for the configured drain time
    /// at most.
    pub async fn stopped(self) {
        let drain = self.ending.drain;
        self.ending.within(drain).await;
    }

    /// As [`Self::stopped`], with `drain` as the drain time.
    pub async fn stopped_within(self, drain: Duration) {
        self.ending.within(drain).await;
    }
}

struct Service {
    listener: Arc<UdpSocket>,
    files: Arc<dyn BootFiles>,
    config: Arc<TftpConfig>,
    table: Mutex<Table>,
    counters: Arc<TftpCounters>,
    tracker: TaskTracker,
    abort: CancellationToken,
    lanes: Arc<Semaphore>,
}

impl Service {
    async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut buffer = [0; REQUEST_BUFFER];
        loop {
            let arrival = tokio::select! {
                arrival = wire::receive(&self.listener, &mut buffer) => arrival,
                () = stop.cancelled() => break,
            };
            match arrival {
                Ok(arrival) => self.on_datagram(buffer.get(..arrival.len).unwrap_or_default(), arrival),
                Err(error) => {
                    tracing::debug!(%error, "receiving a TFTP request failed");
                    tokio::time::sleep(ERROR_PAUSE).await;
                }
            }
        }
        self.tracker.close();
        self.tracker.wait().await;
    }

    fn on_datagram(self: &Arc<Self>, datagram: &[u8], arrival: Arrival) {
        match Packet::parse(datagram) {
            Ok(Packet::Rrq(_) | Packet::Wrq) => {}
            Ok(Packet::Ack(_) | Packet::Error { .. } | Packet::Unexpected) | Err(_) => {
                self.counters.malformed.fetch_add(1, Relaxed);
                return;
            }
        }
        self.counters.requests.fetch_add(1, Relaxed);
        let verdict = self.table().request(arrival.client, datagram);
        match verdict {
            Verdict::Begin(id, state) => self.begin(datagram.to_vec(), arrival, id, state),
            Verdict::Repeated => drop(self.counters.repeated.fetch_add(1, Relaxed)),
            Verdict::Full => drop(self.counters.over_bound.fetch_add(1, Relaxed)),
        }
    }

    fn begin(self: &Arc<Self>, datagram: Vec<u8>, arrival: Arrival, id: u64, state: TransferState) {
        let service = Arc::clone(self);
        let job = Job {
            listener: Arc::clone(&self.listener),
            files: Arc::clone(&self.files),
            config: Arc::clone(&self.config),
            client: arrival.client,
            local: arrival.local,
            state: state.clone(),
            lanes: Arc::clone(&self.lanes),
        };
        self.tracker.spawn(async move {
            service.counters.active.fetch_add(1, Relaxed);
            let report = tokio::select! {
                report = job.run(&datagram) => Some(report),
                () = service.abort.cancelled() => {
                    state.abort.cancel();
                    None
                }
            };
            if let Some(report) = report {
                service.counters.finished(&report);
            }
            service.counters.active.fetch_sub(1, Relaxed);
            service.table().finished(arrival.client, id);
        });
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
