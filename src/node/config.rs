//! What a node is told when it starts: everything resolved, nothing left to look up.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use fabric::id::ObjectId;
use fabric::trust::{RootMode, TrustRoot};
use pxe::dhcp::Mode;
use pxe::dhcp::config::ProxyStyle;
use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::link::Cidr;
use crate::stage::config::StageConfig;
use crate::stage::{RootOptions, Seed};

/// How the node answers DHCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum DhcpMode {
    /// Gives addresses until a DHCP server of the site is found on the link, now or later; then boot files alone.
    Auto,
    /// Gives addresses of the fabric's pool and boot files.
    Full,
    /// Gives boot files alone, next to a DHCP server of the site.
    Proxy,
    /// The same, and makes firmware ask port 4011 for the file: for firmware that takes none from an offer.
    #[value(name = "proxy-4011")]
    #[serde(rename = "proxy-4011")]
    Proxy4011,
    /// Answers nobody.
    Off,
}

impl From<DhcpMode> for Mode {
    fn from(mode: DhcpMode) -> Self {
        match mode {
            DhcpMode::Auto => Self::Auto,
            DhcpMode::Full => Self::Full,
            DhcpMode::Proxy | DhcpMode::Proxy4011 => Self::Proxy,
            DhcpMode::Off => Self::Off,
        }
    }
}

impl From<DhcpMode> for ProxyStyle {
    fn from(mode: DhcpMode) -> Self {
        if mode == DhcpMode::Proxy4011 { Self::Port4011 } else { Self::Bypass }
    }
}

/// A node's configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeConfig {
    /// The interface of the boot link.
    pub interface: String,
    /// Its hardware address, `52:54:00:…`.
    pub mac: String,
    /// The node's address; `None` until it has taken one of the pool.
    pub address: Option<Cidr>,
    /// The node's name.
    pub name: String,
    /// The public key that everything is checked against.
    pub trust_root: TrustRoot,
    /// Directory of the control socket and of the node's key.
    pub state: PathBuf,
    /// Directory of the store.
    pub store: PathBuf,
    /// Peers to begin with.
    pub first_peers: Vec<Ipv4Addr>,
    /// Release to fetch; `None` to serve what the store holds.
    pub release: Option<ObjectId>,
    /// The rack that the machine stands in; empty if nobody said.
    #[serde(default)]
    pub rack: String,
    /// Whether to answer DHCP.
    pub dhcp: DhcpMode,
    /// Port of the HTTP service, where the settings' is not to be used or not known yet.
    pub http_port: Option<u16>,
    /// Port of the swarm, likewise.
    pub swarm_port: Option<u16>,
    /// What it may use of its machine and link.
    #[serde(default)]
    pub limits: Limits,
    /// How the root is held, as far as the machine's kernel line says.
    #[serde(default)]
    pub root: RootOptions,
    /// File or device that events go to as well.
    pub events: Option<PathBuf>,
    /// Directory of the operator's own boot files.
    #[serde(default)]
    pub files: Option<PathBuf>,
    /// Whether only members take part in the fabric.
    #[serde(default)]
    pub private: bool,
    /// Whether the store is in RAM and gone at power-off: no waiting for a disk then.
    pub volatile: bool,
    /// Whether the store is about to be another one: nothing is kept but the release. A little of its root is fetched, to see
    /// that it can be had.
    #[serde(default)]
    pub awaits_disk: bool,
}

impl NodeConfig {
    /// How this node holds the root of a release whose own way is `mode`.
    pub(crate) fn root_mode(&self, mode: RootMode) -> RootMode {
        self.root.mode.unwrap_or(mode)
    }

    /// Whether the blob of such a root is given back once it is unpacked.
    pub(crate) fn drops_root(&self, mode: RootMode) -> bool {
        self.root.seed == Seed::None && self.unpacks(mode)
    }

    /// On how many nodes each chunk of such a root's blob is to be, if this one keeps only a share of it once it is unpacked. What
    /// is on a disk takes no memory and stays.
    pub(crate) fn shares_root(&self, mode: RootMode) -> Option<u8> {
        match self.root.seed {
            Seed::Share { copies } if self.volatile && self.unpacks(mode) => Some(copies),
            Seed::Share { .. } | Seed::All | Seed::None => None,
        }
    }

    fn unpacks(&self, mode: RootMode) -> bool {
        matches!(self.root_mode(mode), RootMode::Zram | RootMode::Tmpfs)
    }
}

/// What the first stage says in the file at `path`.
pub(crate) fn from_first_stage(path: &Path) -> anyhow::Result<NodeConfig> {
    let said = StageConfig::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(NodeConfig {
        interface: said.interface,
        mac: said.mac,
        address: Some(&said.address).filter(|text| !text.is_empty()).map(|text| text.parse()).transpose()?,
        name: said.name,
        trust_root: said.trust_root.parse()?,
        state: said.state,
        store: said.store,
        first_peers: said.peers,
        release: Some(&said.release).filter(|text| !text.is_empty()).map(|text| text.parse()).transpose()?,
        rack: String::new(),
        dhcp: DhcpMode::Auto,
        http_port: Some(said.http_port),
        swarm_port: Some(said.swarm_port),
        limits: said.limits,
        root: said.root,
        events: said.events,
        files: None,
        private: said.private,
        volatile: !said.store_on_disk,
        awaits_disk: said.awaits_disk,
    })
}

#[cfg(test)]
impl NodeConfig {
    /// A configuration for tests that need any.
    pub(crate) fn example() -> Self {
        let root = fabric::trust::RootKey::generate().expect("random bytes");
        Self {
            interface: "eth0".into(),
            mac: "52:54:00:00:00:01".into(),
            address: "10.77.0.1/24".parse().ok(),
            name: "example".into(),
            trust_root: root.public(),
            state: "/run/bootfabric".into(),
            store: "/run/bootfabric/store".into(),
            first_peers: vec![],
            release: None,
            rack: String::new(),
            dhcp: DhcpMode::Full,
            http_port: None,
            swarm_port: None,
            limits: Limits::default(),
            root: RootOptions::default(),
            events: None,
            files: None,
            private: false,
            volatile: true,
            awaits_disk: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_unpacked_root_is_given_back_or_shared_and_only_if_it_is_not_kept() {
        let config = |mode, seed| NodeConfig {
            root: RootOptions { mode, seed, ..RootOptions::default() },
            ..NodeConfig::example()
        };
        let overlay = RootMode::Overlay;
        assert!(!config(None, Seed::None).drops_root(overlay));
        assert!(config(None, Seed::None).drops_root(RootMode::Tmpfs));
        assert!(config(Some(RootMode::Zram), Seed::None).drops_root(overlay));
        assert!(!config(Some(overlay), Seed::None).drops_root(RootMode::Zram));
        assert!(!config(Some(RootMode::Zram), Seed::All).drops_root(overlay));
        let share = Seed::Share { copies: 3 };
        assert!(!config(Some(RootMode::Zram), share).drops_root(overlay));
        assert_eq!(config(Some(RootMode::Zram), share).shares_root(overlay), Some(3));
        assert_eq!(config(None, share).shares_root(overlay), None);
        let disk = NodeConfig { volatile: false, ..config(None, share) };
        assert_eq!(disk.shares_root(RootMode::Tmpfs), None);
    }

    #[test]
    fn limits_are_kept_and_an_older_version_has_none() {
        let limits = Limits { upload_limit: "400mbit".parse().ok(), ..Limits::default() };
        let config = NodeConfig { limits, ..NodeConfig::example() };
        let mut written = serde_json::to_value(&config).unwrap();
        assert_eq!(serde_json::from_value::<NodeConfig>(written.clone()).unwrap().limits, limits);
        written.as_object_mut().unwrap().remove("limits").unwrap();
        assert_eq!(serde_json::from_value::<NodeConfig>(written).unwrap().limits, Limits::default());
    }
}
