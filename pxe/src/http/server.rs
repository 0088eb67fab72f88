//! The HTTP driver.
//!
//! Tasks: one accepts connections; one per connection ([`super::connection`]), bounded by [`super::HttpConfig`]. All are
//! owned by the accepting task's tracker. No channels: tasks share counters and the table of connections behind a lock
//! that is never held across an await.
//!
//! Shutdown: when the token is cancelled the listener closes, idle connections close, and answers under way are finished. What
//! is left at the end of the drain time is cut.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::HttpConfig;
use super::admission::Downloads;
use super::connection::Connection;
use super::counters::HttpCounters;
use super::limits::{Admission, Connections};
use super::shared::Shared;
use super::turns::Turns;
use super::wire::Wire;
use crate::ending::Ending;
use crate::files::BootFiles;

/// Pause after a failed `accept`, so that a lasting cause (no file descriptors left) does not spin.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// A running HTTP service. Dropping it leaves the service running: the token given to [`HttpServer::serve`] ends it, and answers
/// under way go on as long as their clients take them.
#[derive(Debug)]
pub struct HttpServer {
    local_addr: SocketAddr,
    counters: Arc<HttpCounters>,
    ending: Ending<JoinHandle<()>>,
}

impl HttpServer {
    /// Serves `files` on `listener` (from [`crate::bind::tcp`], or taken over from another process) until `stop` is
    /// cancelled.
    ///
    /// # Errors
    /// If the listener has no address.
    pub fn serve(
        listener: TcpListener,
        files: Arc<dyn BootFiles>,
        config: HttpConfig,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let local_addr = listener.local_addr()?;
        let downloads = Arc::new(Downloads::new(config.max_downloads, config.retry_after));
        let shared = Arc::new(Shared {
            files,
            connections: Mutex::new(Connections::new(
                config.max_connections,
                config.max_connections_per_client,
            )),
            counters: Arc::new(HttpCounters::new(Arc::clone(&downloads))),
            downloads,
            turns: Turns::new(),
            config,
        });
        let (counters, drain) = (Arc::clone(&shared.counters), shared.config.drain);
        let abort = CancellationToken::new();
        let ended = tokio::spawn(accept(listener, shared, stop.clone(), abort.clone()));
        Ok(Self { local_addr, counters, ending: Ending { stop, abort, drain, ended } })
    }

    /// The address connections are accepted on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The counters of this service.
    #[must_use]
    pub fn counters(&self) -> &Arc<HttpCounters> {
        &self.counters
    }

    /// Waits until the service has stopped and every connection is closed; once the token is cancelled, for the configured drain
    /// time at most.
    pub async fn stopped(self) {
        let drain = self.ending.drain;
        self.ending.within(drain).await;
    }

    /// As [`Self::stopped`], with `drain` as the drain time: where somebody else serves already, nobody waits for the end of
    /// long answers.
    pub async fn stopped_within(self, drain: Duration) {
        self.ending.within(drain).await;
    }
}

/// A connection's place in the table.
struct Place {
    shared: Arc<Shared>,
    client: SocketAddr,
    admission: Admission,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.counters.connections_open.fetch_sub(1, Relaxed);
        let mut connections = self.shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.closed(self.client.ip(), self.admission);
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    let tracker = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, client)) => begin(stream, client, &shared, &tracker, &stop, &abort),
            Err(error) => {
                tracing::debug!(%error, "accepting an HTTP connection failed");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
    drop(listener);
    tracker.close();
    tracker.wait().await;
}

fn begin(
    stream: TcpStream,
    client: SocketAddr,
    shared: &Arc<Shared>,
    tracker: &TaskTracker,
    stop: &CancellationToken,
    abort: &CancellationToken,
) {
    let client = canonical(client);
    let admission = shared.connections.lock().unwrap_or_else(PoisonError::into_inner).opened(client.ip());
    shared.counters.connections.fetch_add(1, Relaxed);
    shared.counters.connections_open.fetch_add(1, Relaxed);
    let place = Place { shared: Arc::clone(shared), client, admission };
    if admission != Admission::Serve {
        shared.counters.connections_refused.fetch_add(1, Relaxed);
    }
    // Both fail only if the client has gone already.
    let Ok(local) = stream.local_addr().map(canonical) else { return };
    if admission == Admission::Drop || stream.set_nodelay(true).is_err() {
        return;
    }
    let (shared, stop) = (Arc::clone(shared), stop.clone());
    let refuse = admission == Admission::Refuse;
    let serve = async move {
        let Some(wire) = wire(stream, &shared.config).await else { return };
        Connection { wire, shared, client, local, refuse, stop }.run().await;
    };
    let abort = abort.clone();
    tracker.spawn(async move {
        tokio::select! {
            () = serve => {}
            () = abort.cancelled() => {}
        }
        drop(place);
    });
}

/// What HTTP is spoken over with this client; `None` if it does not get so far.
async fn wire(stream: TcpStream, config: &HttpConfig) -> Option<Wire> {
    let Some(wrapper) = &config.wrapper else { return Some(Wire::plain(stream)) };
    match tokio::time::timeout(config.head_deadline, wrapper.wrap(stream)).await {
        Ok(Ok(wrapped)) => Some(Wire::wrapped(wrapped)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a client does not shake hands");
            None
        }
        Err(_) => None,
    }
}

/// An IPv4 client of an IPv6 listener as the IPv4 client it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
