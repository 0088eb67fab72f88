//! Runs the DHCP core on one interface: sockets, timer, one task.
//!
//! One task owns the core and all sockets; nothing is shared and nothing is locked. Channels: commands in
//! ([`COMMANDS`]), lease records out ([`REPLICATION`], where back pressure keeps changes in the core, which merges them by
//! holder), events out ([`EVENTS`], where a slow reader loses the oldest). The task ends when its handle is stopped or
//! dropped; a client in the middle of an exchange then retries and finds another node. Aborting it loses nothing but
//! leases that were not yet replicated.
//!
//! Never decides anything about DHCP.

mod sockets;
mod task;

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::client::ClientKey;
use super::config::{Config, ConfigError, Mode};
use super::core::{Core, KnownClient};
use super::event::{BootEvent, Counters};
use super::interface::{Interface, InterfaceError};
use super::lease::{Holder, LeaseRecord};
use super::rank::MemberId;
use crate::bind::PortOwner;

pub use sockets::Sockets;

/// Commands that may wait: members and records come in batches, a few per second.
const COMMANDS: usize = 64;
/// Batches of records that may wait to be sent to other nodes.
const REPLICATION: usize = 64;
/// Events that a reader may lag behind: several thousand machines booting at once.
const EVENTS: usize = 4096;
/// How long [`DhcpHandle::stop`] waits for the task before it is aborted: it never does anything long.
const STOP_TIME: Duration = Duration::from_secs(2);

/// Why DHCP cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The interface cannot be used.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another process has the port.
    #[error(
        "UDP port {port} is in use by {}: stop it, or run next to it with --dhcp off",
        owner.as_ref().map_or_else(|| "another process".to_owned(), ToString::to_string)
    )]
    PortInUse {
        /// The port.
        port: u16,
        /// Who has it, if that can be seen.
        owner: Option<PortOwner>,
    },
    /// The process may not do this.
    #[error("no permission to {what}: run as root, or with {capability}")]
    Permission {
        /// What was refused.
        what: &'static str,
        /// What allows it.
        capability: &'static str,
    },
    /// A socket failed otherwise.
    #[error("cannot {what} on {interface}")]
    Socket {
        /// What failed.
        what: &'static str,
        /// On which interface.
        interface: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The service has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the DHCP service has ended")]
pub struct Stopped;

enum Command {
    SetMembers(Vec<MemberId>),
    Merge(Vec<LeaseRecord>),
    AddressTaken(Ipv4Addr, Option<ClientKey>),
    Leases(oneshot::Sender<Vec<LeaseRecord>>),
    Records(Option<Holder>, oneshot::Sender<Vec<LeaseRecord>>),
    Counters(oneshot::Sender<Counters>),
    Responder(ClientKey, oneshot::Sender<MemberId>),
    Configure(Box<Config>, oneshot::Sender<Result<(), ConfigError>>),
    ClientAt(Ipv4Addr, oneshot::Sender<Option<KnownClient>>),
}

/// The running service. Dropping it stops the task without waiting.
#[derive(Debug)]
pub struct DhcpHandle {
    commands: mpsc::Sender<Command>,
    events: broadcast::Sender<BootEvent>,
    first_events: Option<broadcast::Receiver<BootEvent>>,
    sockets: Option<Sockets>,
    cancel: CancellationToken,
    task: Option<JoinHandle<()>>,
}

/// Records for all other nodes, to be sent at once.
pub type Replication = mpsc::Receiver<Vec<LeaseRecord>>;

/// Starts DHCP on an interface, inside a tokio runtime, in the calling thread's network namespace. The interface needs no
/// address yet; replies leave as soon as it has `config.server`. `sockets` are those of a predecessor process, or `None`
/// to bind new ones. The service ends when `cancel` is cancelled.
///
/// The second part of the result must be read and passed on to all other nodes; as long as it is not read, changes wait.
///
/// # Errors
/// [`DriverError`] says what to change.
pub fn start(
    interface: &str,
    config: Config,
    me: MemberId,
    sockets: Option<Sockets>,
    cancel: &CancellationToken,
) -> Result<(DhcpHandle, Replication), DriverError> {
    let interface = Interface::find(interface)?;
    let mode = config.mode;
    let core = Core::new(config, me)?;
    let sockets = match (mode, sockets) {
        (Mode::Off, _) => None,
        (_, Some(sockets)) => Some(sockets),
        (_, None) => Some(Sockets::bind(&interface)?),
    };
    let endpoints = sockets::Endpoints::open(&interface, sockets.as_ref(), mode)?;

    let (commands, command_receiver) = mpsc::channel(COMMANDS);
    let (records, replication) = mpsc::channel(REPLICATION);
    let (events, first_events) = broadcast::channel(EVENTS);
    let first_events = Some(first_events);
    let cancel = cancel.child_token();
    let task = task::Task::new(core, interface, endpoints, command_receiver, records, events.clone());
    let task = Some(tokio::spawn(task.run(cancel.clone())));
    Ok((DhcpHandle { commands, events, first_events, sockets, cancel, task }, replication))
}

impl DhcpHandle {
    /// Sets the live members; this node always counts.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn set_members(&self, members: Vec<MemberId>) -> Result<(), Stopped> {
        self.send(Command::SetMembers(members)).await
    }

    /// Takes in lease records of other nodes.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn merge(&self, records: Vec<LeaseRecord>) -> Result<(), Stopped> {
        self.send(Command::Merge(records)).await
    }

    /// Tells that an address is in use on the link, by this hardware address if it is known.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn address_taken(&self, address: Ipv4Addr, by: Option<ClientKey>) -> Result<(), Stopped> {
        self.send(Command::AddressTaken(address, by)).await
    }

    /// All leases that have time left, for the status page.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn leases(&self) -> Result<Vec<LeaseRecord>, Stopped> {
        self.ask(Command::Leases).await
    }

    /// One page of all records behind `after`, for a node that joins: ask again behind the last holder until it is empty.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn records(&self, after: Option<Holder>) -> Result<Vec<LeaseRecord>, Stopped> {
        self.ask(|answer| Command::Records(after, answer)).await
    }

    /// How often things happened since the start.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn counters(&self) -> Result<Counters, Stopped> {
        self.ask(Command::Counters).await
    }

    /// Goes on with other settings, see [`Core::configure`].
    ///
    /// # Errors
    /// [`Stopped`]; [`ConfigError`] if they contradict themselves, and nothing is changed then.
    pub async fn configure(&self, config: Config) -> Result<Result<(), ConfigError>, Stopped> {
        self.ask(|answer| Command::Configure(Box::new(config), answer)).await
    }

    /// The client that has a lease of this address.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn client_at(&self, address: Ipv4Addr) -> Result<Option<KnownClient>, Stopped> {
        self.ask(|answer| Command::ClientAt(address, answer)).await
    }

    /// The member that answers this client first.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn responder(&self, client: ClientKey) -> Result<MemberId, Stopped> {
        self.ask(|answer| Command::Responder(client, answer)).await
    }

    /// Events from now on. A reader that lags more than [`EVENTS`] behind loses the oldest and is told how many.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<BootEvent> {
        self.events.subscribe()
    }

    /// Events from the start on, which may say at once that the link has a server: the first time only.
    pub fn events_from_start(&mut self) -> broadcast::Receiver<BootEvent> {
        self.first_events.take().unwrap_or_else(|| self.events.subscribe())
    }

    /// The bound sockets, for a successor process; `None` in mode off.
    #[must_use]
    pub fn sockets(&self) -> Option<&Sockets> {
        self.sockets.as_ref()
    }

    /// Stops the service and waits for its task.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        if let Some(mut task) = self.task.take()
            && tokio::time::timeout(STOP_TIME, &mut task).await.is_err()
        {
            task.abort();
        }
    }

    async fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).await.map_err(|_| Stopped)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Stopped> {
        let (answer, reply) = oneshot::channel();
        self.send(command(answer)).await?;
        reply.await.map_err(|_| Stopped)
    }
}

impl Drop for DhcpHandle {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
