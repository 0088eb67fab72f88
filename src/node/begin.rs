//! How a node begins, and what it begins with.
//!
//! Owns the three ways to begin, the files in the state directory that a later beginning reads, and the checks that an
//! operator should hear of at once. Starts no service.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use fabric::codec;
use fabric::store::{LockMode, Store, StoreOptions};
use fabric::swarm::NodeKey;
use fabric::trust::Operator;
use pxe::dhcp::LeaseRecord;

use super::config::NodeConfig;
use super::control::{self, Legacy, Request, SocketRole};
use super::services::Sockets;
use crate::link;

/// How a node begins.
#[derive(Debug)]
pub enum Start {
    /// An operator said `up`; with the operator's key, if it is there, the node is made a member of a private fabric.
    Operator(NodeConfig, Option<Box<Operator>>),
    /// The first stage of a bare machine; commands come on standard input.
    FirstStage(NodeConfig),
    /// The service of a booted system, over the state in this directory.
    TakeOver(PathBuf),
    /// In the place of the running node with this state directory, until its process has become the program.
    Relieve(PathBuf, PathBuf),
}

/// How long a successor waits for its predecessor to let go of the store.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// File in the state directory with the configuration, for a service that has to start without a predecessor.
const CONFIG_FILE: &str = "node.json";
/// File in the state directory with the node's key.
const KEY_FILE: &str = "node.key";
/// What lease records are called in errors.
pub(super) const LEASES: &str = "leases";

/// What a node begins with, however it begins.
pub(super) struct Beginning {
    pub(super) config: NodeConfig,
    pub(super) key: NodeKey,
    pub(super) leases: Vec<LeaseRecord>,
    pub(super) sockets: Sockets,
    /// Who makes the node a member, if it is none.
    pub(super) operator: Option<Operator>,
    /// Whether a person started it, who hears of what is wrong.
    pub(super) by_hand: bool,
    /// Whether an agent before has held everything already.
    pub(super) takes_over: bool,
}

/// Finds out what the node begins with.
pub(super) async fn begin(start: Start) -> anyhow::Result<Beginning> {
    let by_hand = matches!(start, Start::Operator(..));
    let (config, operator) = match start {
        Start::Operator(config, operator) => (config, operator.map(|operator| *operator)),
        Start::FirstStage(config) => (config, None),
        Start::TakeOver(state) => return take_over(&state).await,
        Start::Relieve(state, program) => {
            let request = Request::Relieve { program };
            return inherited(control::inherit(&control::socket_path(&state), &request).await?);
        }
    };
    let state = &config.state;
    std::fs::create_dir_all(state).with_context(|| format!("cannot make {}", state.display()))?;
    let key = NodeKey::load_or_create(&state.join(KEY_FILE))?;
    Ok(Beginning {
        config,
        key,
        leases: vec![],
        sockets: Sockets::default(),
        operator,
        by_hand,
        takes_over: false,
    })
}

/// What the agent before leaves.
async fn take_over(state: &Path) -> anyhow::Result<Beginning> {
    match control::inherit(&control::socket_path(state), &Request::TakeOver).await {
        Ok(legacy) => inherited(legacy),
        // The agent before is gone already: its files are here.
        Err(error) => {
            tracing::warn!("{error:#}; going on from the files in {}", state.display());
            let text = std::fs::read(state.join(CONFIG_FILE))
                .context("nothing to take over, and no configuration")?;
            let config: NodeConfig =
                serde_json::from_slice(&text).context("the configuration is of another version")?;
            taken_over(config, NodeKey::load_or_create(&state.join(KEY_FILE))?, vec![], Sockets::default())
        }
    }
}

fn inherited((legacy, sockets): (Legacy, Vec<(SocketRole, OwnedFd)>)) -> anyhow::Result<Beginning> {
    let key = NodeKey::from_bytes(&legacy.key)?;
    taken_over(legacy.config, key, codec::decode(LEASES, &legacy.leases)?, Sockets::inherited(sockets))
}

fn taken_over(
    mut config: NodeConfig,
    key: NodeKey,
    leases: Vec<LeaseRecord>,
    sockets: Sockets,
) -> anyhow::Result<Beginning> {
    // The booted system may have renamed the interface.
    if let Some(name) = link::by_hardware_address(&config.mac)? {
        config.interface = name;
    }
    Ok(Beginning { config, key, leases, sockets, operator: None, by_hand: false, takes_over: true })
}

/// Opens the store that `config` names.
pub(super) fn open_store(config: &NodeConfig, takes_over: bool) -> anyhow::Result<Store> {
    let lock = if takes_over { LockMode::Wait(LOCK_PATIENCE) } else { LockMode::Fail };
    // Who waits for a disk wants to see some of the root, which may be larger than its memory.
    let whole = !config.awaits_disk;
    let options = StoreOptions { durable: !config.volatile, lock, whole, ..StoreOptions::default() };
    Ok(Store::open(&config.store, options)?)
}

/// Hashes what the store holds: what is damaged is fetched from peers, and without any it is an error now, not when a machine
/// waits for it. A machine that nobody watches goes on with what is whole: peers may come.
pub(super) async fn check_store(store: &Store, config: &NodeConfig, by_hand: bool) -> anyhow::Result<()> {
    let checked = store.clone();
    let report = tokio::task::spawn_blocking(move || checked.verify(&|_| ())).await??;
    let damage: Vec<_> = report.damaged.iter().map(ToString::to_string).collect();
    ensure!(
        report.is_clean() || !config.first_peers.is_empty() || !by_hand,
        "the store in {} is damaged and there is no --peer to repair it from; building the image again repairs it too: {}",
        config.store.display(),
        if damage.is_empty() { "signed objects are damaged".to_owned() } else { damage.join("; ") },
    );
    Ok(())
}

/// Keeps the configuration where a service that has to start without a predecessor finds it.
pub(super) fn write_config(config: &NodeConfig) -> anyhow::Result<()> {
    let path = config.state.join(CONFIG_FILE);
    let write = || std::fs::write(&path, serde_json::to_vec_pretty(config)?);
    write().with_context(|| format!("cannot write {}", path.display()))
}
