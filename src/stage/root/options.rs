//! What a person can say of a node's root on the kernel line.

use std::fmt;
use std::str::FromStr;

use fabric::trust::RootMode;
use serde::{Deserialize, Serialize};

use crate::stage::value::ValueError;

/// What is said of the root; what is not said is the release's business, or follows from the machine's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootOptions {
    /// How it is held.
    pub mode: Option<RootMode>,
    /// How large what can be written to may become.
    pub size: Option<RootSize>,
    /// How zram compresses.
    pub compression: Option<Compression>,
    /// What is kept of the blob once it is unpacked.
    pub seed: Seed,
}

/// The size of a file-system in RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootSize {
    /// This many bytes.
    Bytes(u64),
    /// This part of the memory that is there when the root is made, in percent.
    Percent(u8),
}

/// The least that is taken for a size: a file-system needs some room for itself.
const LEAST: u64 = 16 << 20;

impl RootSize {
    /// In bytes, on a machine with so much `memory`.
    pub(super) fn of(self, memory: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => memory / 100 * u64::from(percent),
        }
        .max(LEAST)
    }
}

impl FromStr for RootSize {
    type Err = ValueError;

    /// `512M`, `2G` (powers of 1024), `40%`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let number: u64 = digits.parse().map_err(|_| ValueError::Size)?;
        let shift = match unit.to_ascii_lowercase().as_str() {
            "%" => {
                let percent = u8::try_from(number).ok().filter(|percent| (1..=95).contains(percent));
                return percent.map(Self::Percent).ok_or(ValueError::Size);
            }
            "k" => 10,
            "m" | "mib" => 20,
            "g" | "gib" => 30,
            _ => return Err(ValueError::Size),
        };
        let bytes = number.checked_mul(1 << shift).filter(|bytes| (LEAST..1 << 44).contains(bytes));
        bytes.map(Self::Bytes).ok_or(ValueError::Size)
    }
}

/// The compressors of zram (linux/drivers/block/zram).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// The densest of them.
    Zstd,
    /// The quickest to read.
    Lz4,
    /// What most kernels take of themselves.
    LzoRle,
}

impl Compression {
    /// The kernel's name for it.
    pub(in crate::stage) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::LzoRle => "lzo-rle",
        }
    }
}

impl FromStr for Compression {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        [Self::Zstd, Self::Lz4, Self::LzoRle]
            .into_iter()
            .find(|known| known.name() == text)
            .ok_or(ValueError::Compression)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a node keeps of a blob that it has unpacked, for its neighbours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seed {
    /// All of it.
    #[default]
    All,
    /// A part, so that each chunk is on this many of the nodes that keep a part. A store on a disk keeps all.
    Share {
        /// How many nodes.
        copies: u8,
    },
    /// Nothing: its memory is given back. Boot blobs are kept always.
    None,
}

/// How many nodes keep each chunk where nothing else is said: one may die.
const COPIES: u8 = 2;

/// More copies than that are more than any number of nodes that die at once.
const MAX_COPIES: u8 = 16;

impl FromStr for Seed {
    type Err = ValueError;

    /// `all`, `none`, `share`, `share:3`.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.split_once(':') {
            None if text == "all" => Ok(Self::All),
            None if text == "none" => Ok(Self::None),
            None if text == "share" => Ok(Self::Share { copies: COPIES }),
            Some(("share", copies)) => {
                let copies = copies.parse().ok().filter(|copies| (1..=MAX_COPIES).contains(copies));
                copies.map(|copies| Self::Share { copies }).ok_or(ValueError::Seed)
            }
            _ => Err(ValueError::Seed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_a_part_of_memory() {
        let size = |text: &str| text.parse::<RootSize>();
        assert_eq!(size("512M"), Ok(RootSize::Bytes(512 << 20)));
        assert_eq!(size("2g"), Ok(RootSize::Bytes(2 << 30)));
        assert_eq!(size("524288k"), Ok(RootSize::Bytes(512 << 20)));
        assert_eq!(size("40%").unwrap().of(1 << 30), (1 << 30) / 100 * 40);
        assert_eq!(size("1%").unwrap().of(1 << 30), LEAST);
        for text in
            ["", "512", "1M", "0%", "96%", "300%", "-1M", "M", "9999999999999999999G", "99999999999G", "1.5G"]
        {
            assert_eq!(size(text), Err(ValueError::Size), "{text}");
        }
    }

    #[test]
    fn words_are_the_kernel_s_and_ours() {
        assert_eq!("lzo-rle".parse(), Ok(Compression::LzoRle));
        assert_eq!("gzip".parse::<Compression>(), Err(ValueError::Compression));
        assert_eq!(("all".parse(), "none".parse()), (Ok(Seed::All), Ok(Seed::None)));
        assert_eq!(
            ("share".parse(), "share:3".parse()),
            (Ok(Seed::Share { copies: 2 }), Ok(Seed::Share { copies: 3 }))
        );
        for bad in ["some", "share:", "share:0", "share:17", "share:300", "all:2", "none:1", ""] {
            assert_eq!(bad.parse::<Seed>(), Err(ValueError::Seed), "{bad}");
        }
    }
}
