//! Digests of content (OCI image specification, "Digests"): SHA-256, and SHA-512 where somebody uses it.

use std::fmt;
use std::str::FromStr;

use ring::digest::{Algorithm, Context, SHA256, SHA512};
use serde::Deserialize;

use super::ImportError;

/// `sha256:…` or `sha512:…`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Digest {
    algorithm: Hash,
    hex: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha512,
}

/// Text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no digest: expected sha256: and 64 hexadecimal digits, or sha512: and 128")]
pub struct NoDigest(String);

impl Hash {
    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Sha256 => &SHA256,
            Self::Sha512 => &SHA512,
        }
    }
}

impl Digest {
    /// Algorithm and hexadecimal digits: the names of directory and file in an image layout.
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.algorithm.name(), self.hex)
    }

    /// Checks small content; `what` names it in the error.
    pub(super) fn check(&self, content: &[u8], what: &str) -> Result<(), ImportError> {
        let mut checker = self.checker();
        checker.update(content);
        checker.finish(what)
    }

    /// Checks content that comes in pieces.
    pub(super) fn checker(&self) -> Checker {
        Checker { context: Context::new(self.algorithm.algorithm()), expected: self.clone() }
    }
}

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let (name, hex) = text.split_once(':').unwrap_or_default();
        let algorithm = [Hash::Sha256, Hash::Sha512].into_iter().find(|hash| hash.name() == name);
        let algorithm = algorithm.filter(|hash| hash.algorithm().output_len() * 2 == hex.len());
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match algorithm {
            Some(algorithm) if hex.bytes().all(lower) => Ok(Self { algorithm, hex: hex.to_owned() }),
            _ => Err(NoDigest(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Digest {
    type Error = NoDigest;

    fn try_from(text: String) -> Result<Self, NoDigest> {
        text.parse()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

/// Hashes content and tells at its end whether it is what was expected.
pub(super) struct Checker {
    context: Context,
    expected: Digest,
}

impl Checker {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    pub(super) fn finish(self, what: &str) -> Result<(), ImportError> {
        let hex = hex::encode(self.context.finish());
        let found = Digest { algorithm: self.expected.algorithm, hex };
        if found == self.expected {
            return Ok(());
        }
        Err(ImportError::Digest { what: what.to_owned(), expected: self.expected, found })
    }
}
