//! What PID 1 tells the agent: the file between the two halves of the first stage.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::stage::root::options::RootOptions;

/// The file-system of the fabric's own things, a tmpfs without an inode limit; it moves into the booted system with `/run`.
pub const STATE: &str = "/run/bootfabric";

/// The store, in [`STATE`].
pub const STORE: &str = "/run/bootfabric/store";

/// Where [`StageConfig`] is written.
pub const CONFIG: &str = "/run/bootfabric/stage.json";

/// Where the program is kept for the booted system.
pub const PROGRAM: &str = "/run/bootfabric/bin/bootfabric";

/// All that the agent of the first stage, and after it the agent of the booted system, needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageConfig {
    /// Name of the interface that the machine boots over. It stays the same in the booted system.
    pub interface: String,
    /// Hardware address of that interface: `52:54:00:12:34:56`.
    pub mac: String,
    /// Address and prefix of that interface: `10.77.0.23/24`; empty: the agent takes one of the pool.
    pub address: String,
    /// First peers, best first.
    pub peers: Vec<Ipv4Addr>,
    /// Object id of the signed release to boot: 64 hexadecimal digits; empty: the one in the store.
    pub release: String,
    /// The node's name.
    pub name: String,
    /// The trust root that the first stage carries: 64 hexadecimal digits.
    pub trust_root: String,
    /// Port of the nodes' HTTP service.
    pub http_port: u16,
    /// Port of the swarm.
    pub swarm_port: u16,
    /// What the node may use of its machine and link.
    #[serde(default)]
    pub limits: Limits,
    /// How the root is held, as far as the kernel line says.
    #[serde(default)]
    pub root: RootOptions,
    /// Directory of the store; the blob with id `<hex>` is the file `blobs/<hex>` in it.
    pub store: PathBuf,
    /// Whether the store outlives power.
    #[serde(default)]
    pub store_on_disk: bool,
    /// Whether the store is about to move to a disk: until then nothing is kept but the release.
    #[serde(default)]
    pub awaits_disk: bool,
    /// Directory of everything else that must outlive the hand-over.
    pub state: PathBuf,
    /// The device that event lines go to. PID 1 writes them there while it is the first stage; afterwards it is the
    /// agent's.
    pub events: Option<PathBuf>,
    /// Whether only members take part in the fabric, as the first stage says.
    #[serde(default)]
    pub private: bool,
}

impl StageConfig {
    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// Those of writing and renaming.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        let next = path.with_extension("new");
        std::fs::write(&next, text)?;
        std::fs::rename(next, path)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// Those of reading; `InvalidData` if it is not such a file.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::root::options::Seed;

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stage.json");
        let config = StageConfig {
            interface: "eth0".into(),
            mac: "52:54:00:12:34:56".into(),
            address: "10.77.0.23/24".into(),
            peers: vec![Ipv4Addr::new(10, 77, 0, 1)],
            release: "ab".repeat(32),
            name: "node-525400123456".into(),
            trust_root: "cd".repeat(32),
            http_port: 80,
            swarm_port: 7744,
            limits: Limits {
                upload_limit: "400mbit".parse().ok(),
                max_connections: Some(9),
                max_downloads: None,
            },
            root: RootOptions { seed: Seed::None, ..RootOptions::default() },
            store: STORE.into(),
            store_on_disk: true,
            awaits_disk: false,
            state: STATE.into(),
            events: None,
            private: true,
        };
        config.write(&path).unwrap();
        assert_eq!(StageConfig::read(&path).unwrap(), config);
        std::fs::write(&path, "{}").unwrap();
        assert!(StageConfig::read(&path).is_err());
    }
}
