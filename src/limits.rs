//! What a node may use of its machine and link: bounds that an operator sets, on the command line or on the kernel line.
//!
//! Owns their form and the checks that make them usable. What keeps to them are the services.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Below this a peer waits for its run for longer than it takes it to think that this node is dead.
const LEAST_RATE: u64 = 125_000;

/// Bytes per second: `400mbit`, `50MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(u64);

/// Why a rate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Not a number with a unit.
    #[error(
        "`{0}` is no rate: a number with a unit is expected, kbit, mbit or gbit, or kB, MB or GB for bytes in a second, \
         as in 400mbit or 50MB"
    )]
    Form(String),
    /// Too low to be of use.
    #[error("a rate of at least 1mbit is expected: below it peers take this node for dead")]
    TooLow,
}

impl Rate {
    /// Bytes in a second.
    #[must_use]
    pub fn bytes_per_second(self) -> u64 {
        self.0
    }
}

/// Units and the bytes in a second that one of each is. The first of equal ones is how a rate is written.
const UNITS: [(&str, u64); 6] = [
    ("gbit", 125_000_000),
    ("mbit", 125_000),
    ("kbit", 125),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
];

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let error = || RateError::Form(text.chars().take(40).collect());
        let bare = text.strip_suffix("/s").unwrap_or(text);
        let digits = bare.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = bare.split_at(digits);
        // `Mbit` and `mbit` are the same; `Mb` may be meant as either of two things, so it is neither.
        let (_, factor) = UNITS
            .into_iter()
            .find(|(name, _)| unit == *name || (name.ends_with("bit") && unit.eq_ignore_ascii_case(name)))
            .ok_or_else(error)?;
        let bytes =
            number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(error)?;
        if bytes < LEAST_RATE { Err(RateError::TooLow) } else { Ok(Self(bytes)) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Every rate that can be read is a whole number of the smallest unit that is taken here.
        match UNITS.into_iter().find(|(_, factor)| self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{} bytes/s", self.0),
        }
    }
}

impl TryFrom<String> for Rate {
    type Error = RateError;

    fn try_from(text: String) -> Result<Self, RateError> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

/// The bounds of one node; without a value the services' own apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(rename_all = "kebab-case", default)]
pub struct Limits {
    /// The most that leaves this node for others, over HTTP and the swarm's streams together: 400mbit, 50MB [default: no limit]
    #[arg(long, value_name = "RATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_limit: Option<Rate>,
    /// HTTP connections served at once; those above are told to come back [default: 1024]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Kernels and images that firmware loads over HTTP at once; others wait their turn [default: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_downloads: Option<u32>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_are_read_in_bits_and_bytes() {
        for (text, bytes) in [
            ("1mbit", 125_000),
            ("400mbit", 50_000_000),
            ("400Mbit/s", 50_000_000),
            ("1gbit", 125_000_000),
            ("1000kbit", 125_000),
            ("50MB", 50_000_000),
            ("50MB/s", 50_000_000),
            ("125kB", 125_000),
            ("2GB", 2_000_000_000),
        ] {
            assert_eq!(text.parse::<Rate>().map(Rate::bytes_per_second), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_may_mean_two_things_or_nothing_is_refused() {
        for text in
            ["", "50", "50Mb", "50mb", "MB", "-1MB", "+1MB", "1.5gbit", "5 MB", "99999999999GB", "9MBit/h"]
        {
            assert!(matches!(text.parse::<Rate>(), Err(RateError::Form(_))), "{text}");
        }
        for text in ["0MB", "999kbit", "124kB"] {
            assert_eq!(text.parse::<Rate>(), Err(RateError::TooLow), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number in 1_u64..100_000, unit in 0_usize..6) {
            let text = format!("{number}{}", UNITS[unit].0);
            if let Ok(rate) = text.parse::<Rate>() {
                prop_assert_eq!(rate.to_string().parse::<Rate>(), Ok(rate));
            }
        }

        #[test]
        fn no_text_is_too_odd(text in "\\PC*") {
            let _ = text.parse::<Rate>();
        }
    }

    #[test]
    fn limits_of_an_older_version_are_none() {
        assert_eq!(serde_json::from_str::<Limits>("{}").unwrap(), Limits::default());
        let limits = Limits { upload_limit: "400mbit".parse().ok(), ..Limits::default() };
        assert_eq!(serde_json::to_string(&limits).unwrap(), r#"{"upload-limit":"400mbit"}"#);
    }
}
