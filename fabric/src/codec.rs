//! The one wire encoding: postcard, with the strictness that it lacks by itself.
//!
//! Postcard accepts over-long integers and ignores what follows a value. Everything hashed or signed is therefore
//! hashed and signed as received, never encoded again, and decoding refuses trailing bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes are not the value they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes do not hold such a value.
    #[error("malformed {what}")]
    Malformed {
        /// What was to be decoded.
        what: &'static str,
    },
    /// Bytes follow the value.
    #[error("{extra} bytes follow the {what}")]
    Trailing {
        /// What was decoded.
        what: &'static str,
        /// How many bytes are too many.
        extra: usize,
    },
    /// The value cannot be encoded.
    #[error("cannot encode {what}")]
    Encode {
        /// What was to be encoded.
        what: &'static str,
    },
}

/// Encodes `value`; `what` names it in errors.
///
/// # Errors
/// [`CodecError::Encode`] for values postcard cannot represent (sequences of unknown length).
pub fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, CodecError> {
    postcard::to_stdvec(value).map_err(|_| CodecError::Encode { what })
}

/// Decodes a value that must fill `bytes` exactly; `what` names it in errors.
///
/// # Errors
/// [`CodecError::Malformed`] or [`CodecError::Trailing`].
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    let (value, rest) = postcard::take_from_bytes(bytes).map_err(|_| CodecError::Malformed { what })?;
    if rest.is_empty() { Ok(value) } else { Err(CodecError::Trailing { what, extra: rest.len() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode("pair", &(7u32, "x")).unwrap();
        assert_eq!(decode::<(u32, String)>("pair", &bytes), Ok((7, "x".into())));
        bytes.push(0);
        assert_eq!(
            decode::<(u32, String)>("pair", &bytes),
            Err(CodecError::Trailing { what: "pair", extra: 1 })
        );
        assert_eq!(decode::<(u32, String)>("pair", &[7]), Err(CodecError::Malformed { what: "pair" }));
    }
}
