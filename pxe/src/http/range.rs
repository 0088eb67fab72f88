//! Byte ranges (RFC 9110 section 14).

use std::ops::Range;

/// The single range of a `Range` header, before the file's length is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeSpec {
    /// `first-last`, both included.
    Between(u64, u64),
    /// `first-`.
    From(u64),
    /// `-length`: the end of the file.
    Last(u64),
}

impl RangeSpec {
    /// Reads a `Range` value. `None` for another unit, several ranges, or what is no range: the header is then
    /// ignored and the whole file sent, as RFC 9110 sections 14.2 allows.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = std::str::from_utf8(value).ok()?;
        let (unit, range) = value.split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = range.trim().split_once('-')?;
        match (first, last) {
            ("", length) => Some(Self::Last(number(length)?)),
            (first, "") => Some(Self::From(number(first)?)),
            (first, last) => Some((number(first)?, number(last)?))
                .filter(|(first, last)| first <= last)
                .map(|(first, last)| Self::Between(first, last)),
        }
    }

    /// The bytes meant in a file of `len` bytes; `None` if it has none of them.
    #[must_use]
    pub fn within(self, len: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::Between(first, last) => first..last.saturating_add(1).min(len),
            Self::From(first) => first..len,
            Self::Last(length) => len.saturating_sub(length)..len,
        };
        (range.start < range.end).then_some(range)
    }
}

/// Digits only: `str::parse` would take a sign.
fn number(text: &str) -> Option<u64> {
    Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn single_ranges() {
        assert_eq!(RangeSpec::parse(b"bytes=0-99"), Some(RangeSpec::Between(0, 99)));
        assert_eq!(RangeSpec::parse(b"Bytes = 5-"), Some(RangeSpec::From(5)));
        assert_eq!(RangeSpec::parse(b"bytes=-7"), Some(RangeSpec::Last(7)));
        for value in
            ["bytes=9-8", "bytes=0-1,4-5", "lines=1-2", "bytes=", "bytes=-", "bytes=+1-2", "bytes=a-", "0-1"]
        {
            assert_eq!(RangeSpec::parse(value.as_bytes()), None, "{value}");
        }
        assert_eq!(RangeSpec::parse(b"bytes=99999999999999999999-"), None);
    }

    #[test]
    fn against_a_length() {
        assert_eq!(RangeSpec::Between(0, u64::MAX).within(10), Some(0..10));
        assert_eq!(RangeSpec::Between(9, 9).within(10), Some(9..10));
        assert_eq!(RangeSpec::From(10).within(10), None);
        assert_eq!(RangeSpec::Last(3).within(10), Some(7..10));
        assert_eq!(RangeSpec::Last(30).within(10), Some(0..10));
        assert_eq!(RangeSpec::Last(0).within(10), None);
        assert_eq!(RangeSpec::From(0).within(0), None);
    }

    proptest! {
        #[test]
        fn never_outside_the_file(value in "bytes=[0-9]{0,21}-[0-9]{0,21}", len in any::<u64>()) {
            if let Some(range) = RangeSpec::parse(value.as_bytes()).and_then(|spec| spec.within(len)) {
                prop_assert!(range.start < range.end && range.end <= len);
            }
        }
    }
}
