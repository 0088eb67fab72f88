//! What operators say of single machines: a text that the signed [`Settings`](super::Settings) name by its hash.
//!
//! What the text means is the program's business; it travels as it was written. The first line of the object says what it is.

use bytes::Bytes;

use super::error::TrustError;

const WHAT: &str = "settings of machines";
/// First line of the object.
const HEAD: &[u8] = b"bootfabric machines 1\n";

/// Longest text (bytes): some ten thousand machines with all that can be said of each.
pub const MAX_MACHINES: usize = 4 * 1024 * 1024;

/// The object that holds `text`.
///
/// # Errors
/// [`TrustError::TooLong`].
pub fn encode_machines(text: &str) -> Result<Bytes, TrustError> {
    if text.len() > MAX_MACHINES {
        return Err(TrustError::TooLong { what: WHAT, len: text.len(), max: MAX_MACHINES });
    }
    Ok([HEAD, text.as_bytes()].concat().into())
}

/// The text in `object`.
///
/// # Errors
/// [`TrustError::Malformed`] if the object is something else, [`TrustError::TooLong`].
pub fn decode_machines(object: &[u8]) -> Result<&str, TrustError> {
    let malformed = TrustError::Malformed { what: WHAT };
    let Some(text) = object.strip_prefix(HEAD) else { return Err(malformed) };
    if text.len() > MAX_MACHINES {
        return Err(TrustError::TooLong { what: WHAT, len: text.len(), max: MAX_MACHINES });
    }
    std::str::from_utf8(text).map_err(|_| malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_round_trips_names_no_blobs_and_nothing_else_is_one() {
        for text in ["", "strangers = false\n"] {
            let object = encode_machines(text).unwrap();
            assert_eq!(decode_machines(&object).unwrap(), text);
            assert_eq!(crate::trust::references(&object).unwrap(), []);
        }
        assert!(encode_machines(&"x".repeat(MAX_MACHINES + 1)).is_err());
        let bytes = [HEAD, &[0xff]].concat();
        for bad in [&b""[..], &HEAD[1..], &bytes] {
            assert!(decode_machines(bad).is_err());
        }
    }
}
