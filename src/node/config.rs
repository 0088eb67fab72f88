//! What a node is told when it starts: everything resolved, nothing left to look up.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use fabric::id::ObjectId;
use fabric::trust::TrustRoot;
use serde::{Deserialize, Serialize};

use crate::link::Cidr;

/// Whether the node answers DHCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum DhcpMode {
    /// Answers with addresses of the fabric's pool.
    Full,
    /// Answers nobody.
    Off,
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
    /// Whether to answer DHCP.
    pub dhcp: DhcpMode,
    /// Port of the HTTP service.
    pub http_port: u16,
    /// Port of the swarm.
    pub swarm_port: u16,
    /// Whether the store is in RAM and gone at power-off: no waiting for a disk then.
    pub volatile: bool,
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
            trust_root: root.trust_root(),
            state: "/run/bootfabric".into(),
            store: "/run/bootfabric/store".into(),
            first_peers: vec![],
            release: None,
            dhcp: DhcpMode::Full,
            http_port: 80,
            swarm_port: 7744,
            volatile: true,
        }
    }
}
