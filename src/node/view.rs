//! What a node knows at this moment, shared by its services: its release, the fabric's settings, its neighbours.
//!
//! Owns plain values behind short locks; decides nothing. Written by the node's own tasks, read by whoever answers a
//! request.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use fabric::exchange::{ExchangeHandle, ShareReport};
use fabric::id::{BlobId, Hash, NodeId, ObjectId};
use fabric::store::Store;
use fabric::swarm::{Announcement, MemberInfo};
use fabric::trust::{Release, Settings};
use pxe::dhcp::driver::DhcpHandle;
use pxe::dhcp::event::Counters;
use pxe::http::{HttpCounters, HttpStats};
use pxe::tftp::{TftpCounters, TftpStats};
use tokio::sync::watch;

use super::boots::Boots;
use super::config::NodeConfig;
use super::heard::Heard;
use super::identity::Identity;
use super::not_admitted::NotAdmitted;
use super::status::{BanStatus, BlobStatus, LeaseStatus, PeerStatus, ReleaseStatus, Status};
use crate::machines::Machines;

/// A verified release and the id of the object it came in.
#[derive(Debug)]
pub(crate) struct KnownRelease {
    /// Id of the signed object.
    pub id: ObjectId,
    /// What it says.
    pub release: Release,
}

/// What the node knows.
pub(crate) struct View {
    node: NodeId,
    store: Store,
    state: RwLock<State>,
    /// The fabric's settings, once they are known.
    settings: watch::Sender<Option<Settings>>,
    /// What they say of machines.
    machines: RwLock<Option<Arc<Machines>>>,
    /// Held while settings are changed, and while the DHCP service starts by them.
    changing: tokio::sync::Mutex<()>,
    /// A release that a peer announced, not checked in any way.
    announced: watch::Sender<Option<ObjectId>>,
    /// The releases that peers announced.
    heard: Mutex<Heard>,
    /// How many nodes are connected.
    peers: watch::Sender<usize>,
    /// Why a private fabric turns this node away, since it last did.
    refused: watch::Sender<Option<NotAdmitted>>,
    /// Handles that exist once their service has started.
    services: Mutex<Services>,
    /// The blob of which a share is kept, and how that is.
    share: Mutex<Option<(BlobId, ShareReport)>>,
    /// The machines that boot from this node.
    boots: Arc<Boots>,
}

struct State {
    config: NodeConfig,
    /// The release that bare machines are booted with.
    current: Option<ObjectId>,
    /// Every release verified so far.
    releases: BTreeMap<ObjectId, Arc<KnownRelease>>,
    members: Vec<Member>,
    serves_boot: bool,
}

impl State {
    fn current(&self) -> Option<&Arc<KnownRelease>> {
        self.releases.get(&self.current?)
    }
}

/// A node in the live view.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    /// What it says of itself.
    pub info: MemberInfo,
    /// Whether there is a direct connection to it.
    pub connected: bool,
}

#[derive(Default)]
struct Services {
    exchange: Option<ExchangeHandle>,
    dhcp: Option<(Arc<DhcpHandle>, Identity)>,
    http: Option<Arc<HttpCounters>>,
    tftp: Option<Arc<TftpCounters>>,
}

impl View {
    pub(crate) fn new(node: NodeId, store: Store, config: NodeConfig) -> Self {
        let state = State {
            config,
            current: None,
            releases: BTreeMap::new(),
            members: Vec::new(),
            serves_boot: false,
        };
        let settings = watch::Sender::new(None);
        Self {
            node,
            store,
            state: RwLock::new(state),
            settings,
            machines: RwLock::default(),
            changing: tokio::sync::Mutex::default(),
            announced: watch::Sender::new(None),
            heard: Mutex::default(),
            peers: watch::Sender::new(0),
            refused: watch::Sender::new(None),
            services: Mutex::default(),
            share: Mutex::default(),
            boots: Arc::default(),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn services(&self) -> MutexGuard<'_, Services> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node's configuration as it is now (the address may have been taken since the start).
    pub(crate) fn config(&self) -> NodeConfig {
        self.read().config.clone()
    }

    /// The release that bare machines are booted with.
    pub(crate) fn release(&self) -> Option<Arc<KnownRelease>> {
        self.read().current().cloned()
    }

    /// A release by the id of its object.
    pub(crate) fn release_by_id(&self, id: ObjectId) -> Option<Release> {
        self.read().releases.get(&id).map(|known| known.release.clone())
    }

    /// Makes a verified release the one that bare machines are booted with.
    pub(crate) fn set_release(&self, id: ObjectId, release: Release) {
        let mut state = self.write();
        state.releases.insert(id, Arc::new(KnownRelease { id, release }));
        state.current = Some(id);
    }

    pub(crate) fn settings(&self) -> Option<Settings> {
        self.settings.borrow().clone()
    }

    /// The settings, waiting for them if they are not known yet.
    pub(crate) async fn wait_settings(&self) -> Option<Settings> {
        let mut changes = self.settings.subscribe();
        changes.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// A release that a peer announces, waiting for one if there is none yet.
    pub(crate) async fn wait_announced_release(&self) -> Option<ObjectId> {
        let mut changes = self.announced.subscribe();
        *changes.wait_for(Option::is_some).await.ok()?
    }

    /// Notes what a peer announces.
    pub(crate) fn set_announced_release(&self, announcement: &Announcement) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).add(announcement);
        self.announced.send_replace(Some(announcement.object));
    }

    /// Releases of the image `name` that peers announced, newest first, not checked in any way.
    pub(crate) fn heard_releases(&self, name: &str) -> Vec<Announcement> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).of(name)
    }

    /// Sets the settings and what they say of machines.
    pub(crate) fn set_settings(&self, settings: Settings, machines: impl Into<Arc<Machines>>) {
        *self.machines.write().unwrap_or_else(PoisonError::into_inner) = Some(machines.into());
        self.settings.send_replace(Some(settings));
    }

    /// What the settings say of machines, once they are known.
    pub(crate) fn machines(&self) -> Option<Arc<Machines>> {
        self.machines.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until nobody else changes the settings, and keeps others from it.
    pub(crate) async fn changing_settings(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Notes that a node was connected or lost.
    pub(crate) fn set_peers(&self, count: usize) {
        self.peers.send_replace(count);
    }

    /// How many nodes are connected, as it changes.
    pub(crate) fn watch_peers(&self) -> watch::Receiver<usize> {
        self.peers.subscribe()
    }

    /// Waits until a node is connected.
    pub(crate) async fn wait_peer(&self) {
        let mut changes = self.peers.subscribe();
        // The sender lives as long as the view.
        let _ = changes.wait_for(|count| *count > 0).await;
    }

    /// Notes that a private fabric turns this node away, or does not any more; true if that is news.
    pub(crate) fn set_refused(&self, refused: Option<NotAdmitted>) -> bool {
        self.refused.send_replace(refused) != refused
    }

    /// Waits until a private fabric turns this node away.
    pub(crate) async fn wait_refused(&self) -> NotAdmitted {
        let mut changes = self.refused.subscribe();
        loop {
            if let Some(refused) = *changes.borrow_and_update() {
                return refused;
            }
            if changes.changed().await.is_err() {
                // The sender lives as long as the view.
                return std::future::pending().await;
            }
        }
    }

    pub(crate) fn set_members(&self, members: Vec<Member>) {
        self.write().members = members;
    }

    pub(crate) fn members(&self) -> Vec<Member> {
        self.read().members.clone()
    }

    pub(crate) fn set_serves_boot(&self) {
        self.write().serves_boot = true;
    }

    pub(crate) fn set_exchange(&self, handle: ExchangeHandle) {
        self.services().exchange = Some(handle);
    }

    pub(crate) fn set_dhcp(&self, handle: Arc<DhcpHandle>, identity: Identity) {
        self.services().dhcp = Some((handle, identity));
    }

    pub(crate) fn set_http(&self, counters: Arc<HttpCounters>) {
        self.services().http = Some(counters);
    }

    pub(crate) fn set_tftp(&self, counters: Arc<TftpCounters>) {
        self.services().tftp = Some(counters);
    }

    /// Notes the share that is kept of a blob.
    pub(crate) fn set_share(&self, blob: BlobId, report: ShareReport) {
        *self.share.lock().unwrap_or_else(PoisonError::into_inner) = Some((blob, report));
    }

    pub(crate) fn boots(&self) -> &Arc<Boots> {
        &self.boots
    }

    pub(crate) fn serves_boot(&self) -> bool {
        self.read().serves_boot
    }

    /// The counters of the services that have started.
    pub(crate) async fn counters(&self) -> (Option<HttpStats>, Option<TftpStats>, Option<Counters>) {
        let (http, tftp, dhcp) = {
            let services = self.services();
            (
                services.http.clone(),
                services.tftp.clone(),
                services.dhcp.as_ref().map(|(dhcp, _)| Arc::clone(dhcp)),
            )
        };
        let dhcp = match dhcp {
            Some(dhcp) => dhcp.counters().await.ok(),
            None => None,
        };
        (http.map(|http| http.snapshot()), tftp.map(|tftp| tftp.snapshot()), dhcp)
    }

    /// The hardware address of who holds `address`, as far as the leases tell.
    pub(crate) async fn holder_of(&self, address: Ipv4Addr) -> Option<String> {
        let leases = self.dhcp()?.leases().await.ok()?;
        leases.iter().find(|lease| lease.address == address).map(|lease| lease.holder.to_string())
    }

    pub(crate) fn dhcp(&self) -> Option<Arc<DhcpHandle>> {
        self.services().dhcp.as_ref().map(|(dhcp, _)| Arc::clone(dhcp))
    }

    /// The DHCP service, and as what this node answers.
    pub(crate) fn dhcp_identity(&self) -> Option<(Arc<DhcpHandle>, Identity)> {
        self.services().dhcp.clone()
    }

    /// HTTP services that can boot `client`, in an order that differs from client to client and is the same on all
    /// nodes: the load spreads and the fallbacks agree.
    pub(crate) fn boot_peers(&self, client: Ipv4Addr) -> Vec<SocketAddrV4> {
        let members = self.members();
        let mut ranked: Vec<_> = members
            .iter()
            .filter(|member| member.info.boots)
            .map(|member| {
                let mut seed = member.info.node.0.as_bytes().to_vec();
                seed.extend(client.octets());
                (Hash::of(&seed), SocketAddrV4::new(member.info.address, member.info.http_port))
            })
            .collect();
        ranked.sort_by_key(|(hash, _)| std::cmp::Reverse(*hash));
        ranked.into_iter().map(|(_, address)| address).collect()
    }

    /// The node's state, as JSON.
    pub(crate) async fn status_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.status().await).unwrap_or_default()
    }

    /// The node's state.
    pub(crate) async fn status(&self) -> Status {
        let (exchange, dhcp) = {
            let services = self.services();
            (services.exchange.clone(), services.dhcp.as_ref().map(|(dhcp, _)| Arc::clone(dhcp)))
        };
        let report = match exchange {
            Some(exchange) => exchange.report().await,
            None => None,
        };
        let (peers, bans, routes) = match report {
            Some(report) => (report.peers, report.bans, report.routes),
            None => Default::default(),
        };
        let fetched: BTreeMap<_, _> = peers.into_iter().map(|peer| (peer.peer, peer.bytes)).collect();
        let leases = match dhcp {
            Some(dhcp) => dhcp.leases().await.unwrap_or_default().iter().map(LeaseStatus::from).collect(),
            None => Vec::new(),
        };
        let state = self.read();
        let release = state.current();
        let peers = state.members.iter().map(|member| PeerStatus {
            node: member.info.node,
            name: member.info.name.clone(),
            address: member.info.address,
            connected: member.connected,
            serves_boot: member.info.boots,
            fetched: fetched.get(&member.info.node).copied().unwrap_or(0),
            route: routes.get(&member.info.node).copied(),
        });
        let name = |node: NodeId| {
            let member = state.members.iter().find(|member| member.info.node == node)?;
            Some(member.info.name.clone())
        };
        let bans = bans.into_iter().map(|(node, ban)| BanStatus {
            node,
            name: name(node),
            why: ban.why,
            proof: ban.proof,
        });
        let share = *self.share.lock().unwrap_or_else(PoisonError::into_inner);
        let blobs = self.store.blobs().into_iter().map(|info| BlobStatus {
            role: release
                .and_then(|known| role(&known.release, info.reference.blob))
                .unwrap_or("other")
                .to_owned(),
            blob: info.reference.blob.0,
            size: info.reference.size,
            held: info.held_bytes,
            share: share.filter(|(blob, _)| *blob == info.reference.blob).map(|(_, report)| report.into()),
        });
        Status {
            node: self.node.0,
            name: state.config.name.clone(),
            interface: state.config.interface.clone(),
            mac: state.config.mac.clone(),
            address: state.config.address.map(|cidr| cidr.address),
            version: env!("CARGO_PKG_VERSION").into(),
            serves_boot: state.serves_boot,
            private: state.config.private,
            refused: self.refused.borrow().map(|refused| format!("{refused}; {}", refused.remedy())),
            release: release.map(|known| ReleaseStatus {
                id: known.id,
                name: known.release.name.clone(),
                version: known.release.version.clone(),
                generation: known.release.generation,
            }),
            peers: peers.collect(),
            bans: bans.collect(),
            blobs: blobs.collect(),
            leases,
            boots: self.boots.status(Instant::now()),
        }
    }
}

/// What a blob is in `release`.
pub(crate) fn role(release: &Release, blob: fabric::id::BlobId) -> Option<&str> {
    let fixed = [(&release.kernel, "kernel"), (&release.first_stage, "first-stage"), (&release.root, "root")];
    let fixed = fixed.into_iter().find(|(reference, _)| reference.blob == blob).map(|(_, role)| role);
    fixed.or_else(|| {
        release.loaders.iter().find(|loader| loader.blob.blob == blob).map(|loader| loader.name.as_str())
    })
}
