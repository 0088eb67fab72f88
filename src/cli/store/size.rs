//! Sizes as people write them.

use std::str::FromStr;

/// The most bytes that a store may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit(pub(super) Option<u64>);

/// Units, and the bytes in each. The short ones are decimal, as everywhere in this program.
const UNITS: [(&str, u64); 13] = [
    ("", 1),
    ("b", 1),
    ("k", 1_000),
    ("kb", 1_000),
    ("m", 1_000_000),
    ("mb", 1_000_000),
    ("g", 1_000_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start().to_ascii_lowercase();
        let unit = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| bytes);
        let bytes =
            number.parse().ok().zip(unit).and_then(|(number, unit): (u64, _)| number.checked_mul(*unit));
        bytes.map(|bytes| Self(Some(bytes))).ok_or_else(|| {
            "a size is a number with or without kB, MB, GB, TB, KiB, MiB, GiB or TiB, or `none`".into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let sizes = [
            ("none", None),
            ("0", Some(0)),
            ("4096", Some(4096)),
            ("20GB", Some(20_000_000_000)),
            ("20 g", Some(20_000_000_000)),
            ("500MiB", Some(500 << 20)),
            ("1tib", Some(1 << 40)),
        ];
        for (text, bytes) in sizes {
            assert_eq!(text.parse(), Ok(Limit(bytes)), "{text}");
        }
        for bad in ["", "GB", "-1", "1.5GB", "1 parsec", "99999999999TB", "None", "1é"] {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
    }
}
