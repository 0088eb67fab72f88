//! Ed25519 keys: secrets, and the public keys that name a fabric and an operator.
//!
//! All verification is strict (`verify_strict`): no small-order keys, no second signature made from a first.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::error::TrustError;
use super::text;

/// Length of keys (bytes).
pub(super) const KEY: usize = 32;
/// Length of signatures (bytes).
pub(super) const SIGNATURE: usize = 64;

/// Checks `signature` by the public key `key` over `message`.
fn verify(key: [u8; KEY], message: &[u8], signature: &[u8; SIGNATURE]) -> bool {
    VerifyingKey::from_bytes(&key)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

macro_rules! public_key {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; KEY]);

        impl $name {
            /// A public key from its 32 bytes, which only a verification checks.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; KEY]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes of the public key.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; KEY] {
                &self.0
            }

            /// A short name for people and protocol names: 16 hexadecimal digits of the key's hash.
            #[must_use]
            pub fn fingerprint(&self) -> String {
                hex::encode(blake3::hash(&self.0).as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]))
            }

            pub(super) fn verifies(&self, message: &[u8], signature: &[u8; SIGNATURE]) -> bool {
                verify(self.0, message, signature)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.fingerprint())
            }
        }

        impl FromStr for $name {
            type Err = TrustError;

            fn from_str(text: &str) -> Result<Self, TrustError> {
                let mut bytes = [0; KEY];
                let valid = hex::decode_to_slice(text, &mut bytes).is_ok()
                    && VerifyingKey::from_bytes(&bytes).is_ok_and(|key| !key.is_weak());
                let text = || text::shorten(text);
                if valid { Ok(Self(bytes)) } else { Err(TrustError::ParseKey { what: $what, text: text() }) }
            }
        }

        // Text in human-readable formats, 32 raw bytes elsewhere.
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; KEY]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

public_key! {
    /// The public key that everything in a fabric is trusted from: the fabric's identity.
    TrustRoot, "trust root"
}
public_key! {
    /// The public key of an operator.
    OperatorId, "operator key"
}

macro_rules! secret_key {
    ($(#[$doc:meta])* $name:ident, $public:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(SigningKey);

        impl $name {
            /// A new key.
            ///
            /// # Errors
            /// [`TrustError::Random`] if the system gives no random bytes.
            pub fn generate() -> Result<Self, TrustError> {
                let mut seed = [0; KEY];
                getrandom::fill(&mut seed).map_err(TrustError::Random)?;
                Ok(Self::from_bytes(&seed))
            }

            /// The key of this secret seed (RFC 8032, 5.1.5).
            #[must_use]
            pub fn from_bytes(seed: &[u8; KEY]) -> Self {
                Self(SigningKey::from_bytes(seed))
            }

            pub(super) fn seed(&self) -> &[u8; KEY] {
                self.0.as_bytes()
            }

            /// The public half.
            #[must_use]
            pub fn public(&self) -> $public {
                $public(self.0.verifying_key().to_bytes())
            }

            pub(super) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE] {
                self.0.sign(message).to_bytes()
            }
        }

        // The secret never reaches a log.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}, secret)"), self.public().fingerprint())
            }
        }
    };
}

secret_key! {
    /// The secret half of the trust root. It only grants operator keys, and may live offline.
    RootKey, TrustRoot
}
secret_key! {
    /// The secret key of an operator: with a [`Grant`](super::Grant) it signs statements.
    OperatorKey, OperatorId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_rejects_garbage() {
        let root = RootKey::from_bytes(&[7; 32]).public();
        assert_eq!(root.to_string().parse::<TrustRoot>().unwrap(), root);
        assert_eq!(root.fingerprint().len(), 16);
        // The last is a point of small order.
        for bad in ["", "00", &"zz".repeat(32), &"00".repeat(32)] {
            assert!(bad.parse::<TrustRoot>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_secret_is_not_shown() {
        let key = OperatorKey::from_bytes(&[0x5a; 32]);
        assert!(!format!("{key:?}").contains("5a5a"));
    }

    #[test]
    fn keys_differ() {
        assert_ne!(RootKey::generate().unwrap().public(), RootKey::generate().unwrap().public());
    }
}
