//! Bulk tokens: what a peer shows to be given blobs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes of a token: not to be guessed.
const LEN: usize = 32;

/// Opens one node's blobs to one peer, for as long as the two are connected. Never in a log.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct BulkToken([u8; LEN]);

/// Text that is no bulk token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a bulk token")]
pub struct NotAToken;

impl BulkToken {
    /// A token of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; LEN]) -> Self {
        Self(bytes)
    }

    /// A new random token.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; LEN];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The token as hexadecimal digits, as it stands in a request.
    #[must_use]
    pub fn reveal(&self) -> String {
        hex::encode(self.0)
    }
}

impl FromStr for BulkToken {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let mut bytes = [0; LEN];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotAToken)?;
        Ok(Self(bytes))
    }
}

/// In constant time: how long it takes tells nothing of how much is right.
impl PartialEq for BulkToken {
    fn eq(&self, other: &Self) -> bool {
        blake3::Hash::from_bytes(self.0) == blake3::Hash::from_bytes(other.0)
    }
}

impl Eq for BulkToken {}

impl fmt::Debug for BulkToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BulkToken(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_is_not_shown() {
        let token = BulkToken::generate().unwrap();
        assert_eq!(token.reveal().parse(), Ok(token));
        assert_ne!(BulkToken::generate().unwrap(), token);
        assert!(!format!("{token:?}").contains(&token.reveal()[..8]));
        for bad in ["", "00", &"0".repeat(63), &"0".repeat(66), &"x".repeat(64)] {
            assert_eq!(bad.parse::<BulkToken>(), Err(NotAToken), "{bad}");
        }
    }
}
