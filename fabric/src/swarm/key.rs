//! The key by which the swarm knows a node.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use libp2p::PeerId;
use libp2p::identity::{self, Keypair, PublicKey, ed25519};

use crate::id::{Hash, NodeId};

/// Bytes of an Ed25519 secret key (RFC 8032 section 5.1.5).
const SECRET_LEN: usize = 32;

/// A node's secret Ed25519 key.
#[derive(Clone)]
pub struct NodeKey(Keypair);

/// Why a node's key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file exists but cannot be read.
    #[error("cannot read the node key {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A new key cannot be written.
    #[error("cannot write a new node key to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file holds no key.
    #[error("{path} holds no node key; remove it to have a new one made (the node will then count as new)")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// Bytes that are no Ed25519 secret key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 secret key: {SECRET_LEN} bytes are needed")]
pub struct MalformedKey;

impl NodeKey {
    /// A new random key.
    #[must_use]
    pub fn generate() -> Self {
        Self(Keypair::generate_ed25519())
    }

    /// The key with these 32 secret bytes.
    ///
    /// # Errors
    /// [`MalformedKey`] if there are not 32 of them.
    pub fn from_bytes(secret: &[u8]) -> Result<Self, MalformedKey> {
        Keypair::ed25519_from_bytes(secret.to_vec()).map(Self).map_err(|_| MalformedKey)
    }

    /// The 32 secret bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SECRET_LEN] {
        let mut secret = [0; SECRET_LEN];
        if let Ok(pair) = self.0.clone().try_into_ed25519() {
            secret.copy_from_slice(pair.secret().as_ref());
        }
        secret
    }

    /// The key in the file at `path`, which is made (mode 0600) with a new key if there is none.
    ///
    /// # Errors
    /// [`KeyError`] if the file cannot be read or written, or holds something else.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match fs::read(path) {
            Ok(bytes) => Self::from_bytes(&bytes).map_err(|_| KeyError::Malformed { path: path.into() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Self::generate();
                write_secret(path, &key.to_bytes())
                    .map_err(|source| KeyError::Write { path: path.into(), source })?;
                Ok(key)
            }
            Err(source) => Err(KeyError::Read { path: path.into(), source }),
        }
    }

    /// The name of the node that has this key.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        node_id(&self.0.public().to_peer_id())
    }

    /// The public half, by which others know it is this node.
    #[must_use]
    pub fn public(&self) -> NodePublicKey {
        NodePublicKey(self.public_bytes())
    }

    pub(crate) fn keypair(&self) -> &Keypair {
        &self.0
    }

    pub(crate) fn public_bytes(&self) -> [u8; 32] {
        self.0.public().try_into_ed25519().map(|key| key.to_bytes()).unwrap_or_default()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, identity::SigningError> {
        self.0.sign(message)
    }
}

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeKey({:?})", self.node_id())
    }
}

/// A node's public Ed25519 key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodePublicKey([u8; 32]);

impl NodePublicKey {
    /// The 32 bytes (RFC 8032 section 5.1.5).
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key of the peer that Noise proved to be at the other end; `None` if it is not of the kind that nodes have. A
    /// peer id contains so short a key whole.
    pub(crate) fn of_peer(peer: &PeerId) -> Option<Self> {
        let key = PublicKey::try_decode_protobuf(peer.as_ref().digest()).ok()?;
        key.try_into_ed25519().ok().map(|key| Self(key.to_bytes()))
    }

    /// The name of the node that has this key; `None` if it is no key.
    #[must_use]
    pub fn node_id(&self) -> Option<NodeId> {
        Some(node_id(&public_key(&self.0)?.to_peer_id()))
    }

    /// Whether the node signed these bytes.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        public_key(&self.0).is_some_and(|key| key.verify(message, signature))
    }
}

// A crash leaves either no key or a whole one.
fn write_secret(path: &Path, secret: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(secret)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

/// The name of the node with this peer id.
pub(crate) fn node_id(peer: &PeerId) -> NodeId {
    NodeId(Hash::of(&peer.to_bytes()))
}

/// The public key with these bytes, if they are one.
pub(crate) fn public_key(bytes: &[u8; 32]) -> Option<PublicKey> {
    ed25519::PublicKey::try_from_bytes(bytes).ok().map(PublicKey::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        let made = NodeKey::load_or_create(&path).unwrap();
        assert_eq!(NodeKey::load_or_create(&path).unwrap().node_id(), made.node_id());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(NodeKey::from_bytes(&made.to_bytes()).unwrap().node_id(), made.node_id());
    }

    #[test]
    fn a_peer_id_gives_the_key_back() {
        let key = NodeKey::generate();
        let public = NodePublicKey::of_peer(&key.keypair().public().to_peer_id()).unwrap();
        assert_eq!((public, public.node_id()), (key.public(), Some(key.node_id())));
        assert!(public.verifies(b"words", &key.sign(b"words").unwrap()));
        assert!(!public.verifies(b"other words", &key.sign(b"words").unwrap()));
    }

    #[test]
    fn a_damaged_file_is_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        fs::write(&path, b"short").unwrap();
        assert!(matches!(NodeKey::load_or_create(&path), Err(KeyError::Malformed { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"short");
    }
}
