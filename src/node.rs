//! The agent: store, swarm, exchange and boot services put together as one node.
//!
//! One program run is one node. It begins in one of three ways ([`Start`]): an operator's `up`, the first stage of a bare
//! machine, or the service of a booted system, which takes over from the first stage's agent. From then on all are
//! equal: hold the release, boot blobs first; serve; boot others.
//!
//! | part | owns |
//! |---|---|
//! | [`config`], [`status`] | what a node is told, and what it tells |
//! | [`begin`] | the three ways to begin |
//! | [`view`], [`heard`] | what it knows at the moment, releases that peers announced among it |
//! | [`join`] | coming to hold a release |
//! | [`arriving_root`], [`unpack`], [`given_back`] | the root while it arrives; unpacking it meanwhile; its blob, given back then |
//! | [`files`], [`own_files`], [`script`], [`arriving`] | what it serves |
//! | [`boots`], [`boot_steps`], [`metrics`] | how far each machine has come, and counters |
//! | [`machines`] | newer settings of the fabric |
//! | [`next_boot`] | what this machine starts next, if it starts without its firmware |
//! | [`members`], [`not_admitted`] | its part in a private fabric |
//! | [`services`], [`boot`], [`identity`] | HTTP, TFTP and DHCP in this program |
//! | [`sharing`] | the share of the root's blob that a node keeps which has unpacked it |
//! | [`bulk`] | runs from and for peers: HTTP, or the swarm where it cannot be reached |
//! | [`neighbours`] | the swarm's events, carried to exchange, DHCP and view |
//! | [`control`] | the socket for the command line and for the next agent |
//! | [`told`] | what it is told while it runs |
//! | [`own_address`] | an address on a switch where nobody gives one |
//!
//! # Tasks and the order of their end
//! [`run`] owns everything. On a signal it cancels DHCP first (nobody new boots from a node that goes), then the swarm
//! (peers hear it at once), then drains HTTP and TFTP within their own deadlines. On a take-over the same happens, except
//! that the sockets go on living in the next agent. What was verified is in the store already.

mod arriving;
mod arriving_root;
mod begin;
mod boot;
mod boot_steps;
mod boots;
pub(crate) mod bulk;
pub mod config;
pub(crate) mod control;
pub(crate) mod files;
mod given_back;
mod heard;
mod identity;
mod join;
pub(crate) mod machines;
pub(crate) mod members;
mod metrics;
pub(crate) mod neighbours;
pub(crate) mod next_boot;
mod not_admitted;
mod own_address;
mod own_files;
mod script;
mod services;
mod sharing;
pub mod status;
mod told;
mod unpack;
mod view;

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use fabric::codec;
use fabric::exchange::{Exchange, ExchangeConfig};
use fabric::id::ObjectId;
use fabric::store::Store;
use fabric::swarm::{FabricTag, MemberInfo, NodeKey, ObjectSource, Swarm, SwarmConfig, SwarmHandle};
use pxe::dhcp::driver::DhcpHandle;
use pxe::dhcp::{ClientKey, LeaseRecord};
use pxe::files::BootFiles;
use pxe::http::{HttpServer, UploadLimit};
use pxe::tftp::TftpServer;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::event::{Event, Events};
use crate::home::{self, RELEASE_HEAD};
pub use begin::Start;
use begin::{Beginning, LEASES, begin, check_store, open_store, write_config};
use bulk::StoredRuns;
use config::DhcpMode;
use control::{Asked, Legacy, SocketRole};
use files::NodeFiles;
use identity::Identity;
use join::Join;
use own_files::OwnFiles;
use services::Sockets;
use told::{commands, next_command};
use view::View;

/// How long the transfers of a node that another one relieved may go on: a root of a gigabyte at 10 Mbit/s. A client that takes
/// nothing is given up long before.
const LAST_TRANSFERS: Duration = Duration::from_secs(15 * 60);

/// How a node ended.
#[derive(Debug)]
pub enum Ended {
    /// It was told to, or the next agent took over.
    Done,
    /// Another process serves in its place: this one is to become `program`, and to take over from the state directory `state`.
    Becomes {
        /// The program.
        program: PathBuf,
        /// The node's state directory.
        state: PathBuf,
    },
}

/// Runs a node until it is told to end or another agent takes over.
///
/// # Errors
/// If the node cannot start; the message says what to do.
pub async fn run(start: Start, events: Events) -> anyhow::Result<Ended> {
    let commands = matches!(start, Start::FirstStage(_)).then(commands);
    let beginning = begin(start).await?;
    events.set_from(&beginning.config.name);
    if let Some(path) = &beginning.config.events
        && commands.is_none()
    {
        events.add_file(path)?;
    }
    let mut node = Node::assemble(beginning, events).await?;
    node.serve(commands).await
}

struct Node {
    view: Arc<View>,
    store: Store,
    key: NodeKey,
    events: Events,
    swarm: SwarmHandle,
    me: MemberInfo,
    join: Join,
    http: Option<HttpServer>,
    /// Of a private fabric, for its members.
    bulk: Option<HttpServer>,
    tftp: Option<TftpServer>,
    dhcp: Option<Arc<DhcpHandle>>,
    files: Arc<dyn BootFiles>,
    sockets: Sockets,
    leases: Vec<LeaseRecord>,
    takes_over: bool,
    requests: mpsc::Receiver<Asked>,
    stop_swarm: CancellationToken,
    stop_services: CancellationToken,
    stop_dhcp: CancellationToken,
}

/// The store as the swarm's source of objects.
struct StoredObjects(Store);

impl ObjectSource for StoredObjects {
    fn object(&self, id: &ObjectId) -> Option<bytes::Bytes> {
        self.0.object(id)
    }
}

impl Node {
    async fn assemble(beginning: Beginning, events: Events) -> anyhow::Result<Self> {
        let Beginning { mut config, key, leases, mut sockets, operator, by_hand, takes_over } = beginning;
        let socket = control::socket_path(&config.state);
        let control = sockets.control(&socket, takes_over)?;
        let own_files = config.files.as_deref().map(OwnFiles::below).transpose()?;
        let store = open_store(&config, takes_over)?;
        if !config.volatile && !takes_over {
            check_store(&store, &config, by_hand).await?;
        }
        let settings = home::settings(&store, &config.trust_root)?;
        if let Some(settings) = &settings {
            config.private = settings.private;
        }
        let said = match &settings {
            Some(settings) => Some(machines::stored(&store, settings, &events)?),
            None => None,
        };
        if let Some(operator) = operator.filter(|_| config.private) {
            members::admit_self(&store, &operator, &config.name, key.node_id())?;
        }
        ensure!(
            config.release.is_some() || store.head(RELEASE_HEAD)?.is_some() || !config.first_peers.is_empty(),
            "there is no image in {}: `bootfabric image build` makes one, or name a node that has one with --peer",
            config.store.display()
        );
        if !config.volatile {
            // An operator hears of a port in use now, not when the first machine powers on.
            sockets.bind_boot(&config)?;
        }
        if config.address.is_none() {
            let said =
                said.as_ref().context("no settings in the store: make a fabric with `bootfabric init`")?;
            let address = own_address::take(&config.interface, said.link()).await?;
            events.emit(Event::AddressTaken { address: address.address });
            config.address = Some(address);
        }
        let address = config.address.context("the node has no address")?.address;
        let http_port = config.http_port.or(settings.as_ref().map(|known| known.http_port)).unwrap_or(80);
        let swarm_port =
            config.swarm_port.or(settings.as_ref().map(|known| known.swarm_port)).unwrap_or(7744);
        write_config(&config)?;

        let view = Arc::new(View::new(key.node_id(), store.clone(), config.clone()));
        if let (Some(settings), Some(said)) = (settings, said) {
            view.set_settings(settings, said);
        }
        tokio::spawn(boot_steps::follow(Arc::clone(&view), events.subscribe(), events.clone()));
        let files: Arc<dyn BootFiles> = Arc::new(NodeFiles::new(store.clone(), Arc::clone(&view), own_files));
        let stop_services = CancellationToken::new();
        let at = SocketAddrV4::new(address, http_port);
        let upload =
            config.limits.upload_limit.map(|rate| Arc::new(UploadLimit::new(rate.bytes_per_second())));
        let bounds = services::Bounds { limits: config.limits, upload: upload.clone() };
        let http = services::Http { role: SocketRole::Http, at, files: Arc::clone(&files), wrapper: None };
        let http = http.start(&mut sockets, &bounds, &events, stop_services.child_token())?;
        view.set_http(Arc::clone(http.counters()));

        let stop_swarm = CancellationToken::new();
        let me = MemberInfo {
            http_port,
            swarm_port,
            mac: mac_bytes(&config.mac),
            rack: config.rack.clone(),
            ..MemberInfo::new(config.name.clone(), address)
        };
        let swarm_config = SwarmConfig {
            key: key.clone(),
            fabric: FabricTag::of(config.trust_root.as_bytes()),
            listen: vec![(address, swarm_port).into()],
            first_peers: config.first_peers.iter().map(|peer| (*peer, swarm_port).into()).collect(),
            mdns: true,
            me: me.clone(),
            objects: Arc::new(StoredObjects(store.clone())),
            shutdown: stop_swarm.clone(),
        };
        let (swarm, swarm_events, bulk) = if config.private {
            let stop = stop_services.child_token();
            let started = members::start(swarm_config, &config, &store, &mut sockets, &bounds, &events, stop);
            let members::Started { swarm, events, bulk } = started.await?;
            (swarm, events, Some(bulk))
        } else {
            let (swarm, events) = Swarm::start(swarm_config).await?;
            (swarm, events, None)
        };
        swarm.serve_bulk(Arc::new(StoredRuns::new(store.clone(), upload)));
        let exchange_config = ExchangeConfig::random().context("the system has no random numbers")?;
        let (exchange, messages) = Exchange::start(store.clone(), exchange_config);
        view.set_exchange(exchange.clone());
        let join = Join {
            store: store.clone(),
            view: Arc::clone(&view),
            swarm: swarm.clone(),
            exchange,
            events: events.clone(),
            trust_root: config.trust_root,
            arriving: Arc::default(),
            sharing: Arc::default(),
        };
        neighbours::spawn(swarm_events, messages, &join);
        Ok(Self {
            view,
            store,
            key,
            events,
            swarm,
            me,
            join,
            http: Some(http),
            bulk,
            tftp: None,
            dhcp: None,
            files,
            sockets,
            leases,
            takes_over,
            requests: control::listen(control),
            stop_swarm,
            stop_services,
            stop_dhcp: CancellationToken::new(),
        })
    }

    /// Holds the release and serves until the end.
    async fn serve(&mut self, mut commands: Option<mpsc::Receiver<String>>) -> anyhow::Result<Ended> {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let (booting, mut boot) = mpsc::channel(1);
        let holding = tokio::spawn(self.join.clone().hold(self.view.config(), self.takes_over, booting));
        let ended = loop {
            tokio::select! {
                _ = terminate.recv() => break Ok(Ended::Done),
                _ = interrupt.recv() => break Ok(Ended::Done),
                Some(()) = boot.recv() => {
                    if let Err(error) = self.boot_others().await {
                        break Err(error);
                    }
                }
                Some(asked) = self.requests.recv() => {
                    if let Some((successor, program)) = self.answer(asked).await {
                        holding.abort();
                        tokio::select! {
                            left = self.bequeath(successor) => left?,
                            // Whoever wants it gone does not wait for slow clients.
                            _ = terminate.recv() => return Ok(Ended::Done),
                            _ = interrupt.recv() => return Ok(Ended::Done),
                        }
                        let state = self.view.config().state;
                        return Ok(program.map_or(Ended::Done, |program| Ended::Becomes { program, state }));
                    }
                }
                Some(line) = next_command(&mut commands) => self.obey(&line),
            }
        };
        holding.abort();
        self.end().await;
        ended
    }

    /// Starts what boots others.
    async fn boot_others(&mut self) -> anyhow::Result<()> {
        let config = self.view.config();
        let files = Arc::clone(&self.files);
        let stop = self.stop_services.child_token();
        let interface = &config.interface;
        let tftp = services::start_tftp(&mut self.sockets, interface, files, &self.events, stop)?;
        self.view.set_tftp(Arc::clone(tftp.counters()));
        self.tftp = Some(tftp);
        if config.dhcp != DhcpMode::Off {
            let own =
                mac_bytes(&config.mac).context("the interface's hardware address is not an Ethernet one")?;
            let identity = Identity {
                mode: config.dhcp.into(),
                proxy_style: config.dhcp.into(),
                fabric: *FabricTag::of(config.trust_root.as_bytes()).as_bytes(),
                own: ClientKey::ethernet(own),
                address: self.me.address,
                http_port: self.me.http_port,
            };
            let view = Arc::clone(&self.view);
            let changes = view.changing_settings().await;
            let machines = view.machines().context("the fabric's settings are not known")?;
            let dhcp = boot::Dhcp {
                interface,
                config: identity.config(&machines),
                swarm: self.swarm.clone(),
                events: self.events.clone(),
            };
            let handle = dhcp.start(&mut self.sockets, &self.stop_dhcp).await?;
            handle.merge(std::mem::take(&mut self.leases)).await?;
            self.view.set_dhcp(Arc::clone(&handle), identity);
            drop(changes);
            self.me.boots = true;
            self.swarm.update_me(self.me.clone()).await?;
            handle.set_members(boot::responders(&self.view.members())).await?;
            self.dhcp = Some(handle);
        }
        self.view.set_serves_boot();
        self.events.emit(Event::NodeStarted {
            node: self.swarm.node().to_string(),
            name: config.name,
            address: self.me.address,
            http_port: self.me.http_port,
        });
        Ok(())
    }

    /// Ends: nobody new, peers told, transfers drained.
    async fn end(&mut self) {
        self.stop_dhcp.cancel();
        self.stop_swarm.cancel();
        self.swarm.stopped().await;
        self.stop_services.cancel();
        self.join.exchange.shutdown().await;
        if let Some(tftp) = self.tftp.take() {
            tftp.stopped().await;
        }
        for http in [self.http.take(), self.bulk.take()].into_iter().flatten() {
            http.stopped().await;
        }
    }

    /// Leaves everything to the next agent and ends when the running transfers have.
    async fn bequeath(&mut self, successor: tokio::net::UnixStream) -> anyhow::Result<()> {
        let leases = match &self.dhcp {
            Some(dhcp) => dhcp.leases().await.unwrap_or_default(),
            None => std::mem::take(&mut self.leases),
        };
        self.requests.close();
        self.stop_dhcp.cancel();
        self.stop_services.cancel();
        self.stop_swarm.cancel();
        self.swarm.stopped().await;
        self.join.exchange.shutdown().await;
        self.store.release_lock();
        let (roles, sockets): (Vec<SocketRole>, Vec<_>) = std::mem::take(&mut self.sockets).bequeath();
        let legacy = Legacy {
            config: self.view.config(),
            key: self.key.to_bytes().to_vec(),
            leases: codec::encode(LEASES, &leases)?,
            sockets: roles,
        };
        control::bequeath(successor, &legacy, &sockets).await?;
        drop(sockets);
        // Somebody serves already: who is slow is not cut.
        let servers = [self.http.take(), self.bulk.take()].into_iter().flatten();
        let http = servers.map(|http| http.stopped_within(LAST_TRANSFERS));
        let tftp = self.tftp.take().map(|tftp| tftp.stopped_within(LAST_TRANSFERS));
        tokio::join!(futures::future::join_all(http), futures::future::OptionFuture::from(tftp));
        Ok(())
    }
}

fn mac_bytes(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}
