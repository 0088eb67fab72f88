//! A node's key as TLS wants it: signing with it, and taking exactly one for the other end.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::{
    CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime, alg_id,
};
use tokio_rustls::rustls::sign::{CertifiedKey, Signer, SigningKey, public_key_to_spki};
use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureAlgorithm, SignatureScheme,
};

use crate::swarm::{NodeKey, NodePublicKey};

/// The key with the public half that is shown: a `SubjectPublicKeyInfo` where others have a certificate (RFC 7250
/// section 3).
pub(super) fn certified(key: &NodeKey) -> CertifiedKey {
    pretending(key, key.public())
}

pub(super) fn pretending(key: &NodeKey, shown: NodePublicKey) -> CertifiedKey {
    let shown = CertificateDer::from(spki(shown).as_ref().to_vec());
    CertifiedKey::new(vec![shown], Arc::new(NodeSigner(key.clone())))
}

/// RFC 8410 section 4.
fn spki(key: NodePublicKey) -> SubjectPublicKeyInfoDer<'static> {
    public_key_to_spki(&alg_id::ED25519, key.as_bytes())
}

#[derive(Clone)]
struct NodeSigner(NodeKey);

impl SigningKey for NodeSigner {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let offered = offered.contains(&SignatureScheme::ED25519);
        offered.then(|| -> Box<dyn Signer> { Box::new(self.clone()) })
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(spki(self.0.public()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for NodeSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.sign(message).map_err(|error| Error::General(error.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

impl fmt::Debug for NodeSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Takes one key for the other end.
#[derive(Debug)]
pub(super) struct Pinned(pub(super) NodePublicKey);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if shown.as_ref() == spki(self.0).as_ref() {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General("the other end has not the key of the peer that it should be".into()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        _: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // The key shown was compared with the pinned one before.
        if signed.scheme == SignatureScheme::ED25519 && self.0.verifies(message, signed.signature()) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        Err(CertificateError::BadSignature.into())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
