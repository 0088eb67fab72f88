//! The cryptography of TLS, cut to what nodes use: X25519 and two ciphers from *ring*, which Noise brings anyway; signatures
//! are made and checked by the node's own key (`super::key`). What is not named here is not in the program.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring::{cipher_suite, kx_group};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, WebPkiSupportedAlgorithms,
};
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::sign::SigningKey;
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::{Error, SupportedCipherSuite};

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: cipher_suites(has_aes()),
        kx_groups: vec![kx_group::X25519],
        signature_verification_algorithms: WebPkiSupportedAlgorithms { all: &[], mapping: &[] },
        secure_random: &System,
        key_provider: &NoFiles,
    })
}

/// The client's first choice is taken. Without instructions for it AES costs several times what ChaCha20 does.
fn cipher_suites(aes: bool) -> Vec<SupportedCipherSuite> {
    let mut suites =
        vec![cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    if !aes {
        suites.reverse();
    }
    suites
}

#[cfg(target_arch = "x86_64")]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

#[derive(Debug)]
struct System;

impl SecureRandom for System {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        getrandom::fill(bytes).map_err(|_| GetRandomFailed)
    }
}

/// Keys come from nodes, never from files of other programs.
#[derive(Debug)]
struct NoFiles;

impl KeyProvider for NoFiles {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::General("keys are not read from files".into()))
    }
}

/// Machines boot with dead clocks, and nothing here expires.
#[derive(Debug)]
pub(super) struct NoClock;

impl TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ciphers_are_offered_the_cheaper_first() {
        let [with, without] = [true, false]
            .map(|aes| cipher_suites(aes).first().map(tokio_rustls::rustls::SupportedCipherSuite::suite));
        assert_ne!(with, without);
        assert_eq!(cipher_suites(true).len(), 2);
    }
}
