//! The block before a member: its kind and its fields.

use super::BLOCK;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::image) enum Kind {
    File,
    HardLink,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
}

impl Kind {
    pub(super) fn flag(self) -> u8 {
        match self {
            Self::File => b'0',
            Self::HardLink => b'1',
            Self::Symlink => b'2',
            Self::Character => b'3',
            Self::Block => b'4',
            Self::Directory => b'5',
            Self::Fifo => b'6',
        }
    }
}

pub(super) fn flag(block: &[u8; BLOCK]) -> u8 {
    block.get(156).copied().unwrap_or(0)
}

pub(super) fn header_name(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(block.get(..100).unwrap_or_default());
    // POSIX archives have a prefix; GNU's use the place for something else.
    let prefix = match block.get(257..263) {
        Some(b"ustar\0") => until_nul(block.get(345..500).unwrap_or_default()),
        _ => &[],
    };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A number in a header: octal digits, or, with its first bit set, GNU's base 256.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if let Some(&first) = field.first().filter(|&&first| first & 0x80 != 0) {
        let (negative, digits) = (first & 0x40 != 0, field.get(1..)?);
        let start = if negative { i128::from(first) - 0x100 } else { i128::from(first & 0x7f) };
        let fold = |value: i128, &byte: &u8| value.checked_mul(256)?.checked_add(byte.into());
        return digits.iter().try_fold(start, fold).and_then(|value| i64::try_from(value).ok());
    }
    let text = field.split(|byte| matches!(byte, 0 | b' ')).find(|part| !part.is_empty());
    let Some(text) = text else { return Some(0) };
    i64::from_str_radix(std::str::from_utf8(text).ok()?, 8).ok().filter(|&value| value >= 0)
}

/// The sum of all bytes with the sum's own field as blanks; old programs added them as signed.
pub(super) fn checksum_holds(block: &[u8; BLOCK]) -> bool {
    let is_sum = |at: usize| (148..156).contains(&at);
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (at, &byte) in block.iter().enumerate() {
        let byte = if is_sum(at) { b' ' } else { byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    let stored = number(block.get(148..156).unwrap_or_default());
    stored == Some(unsigned) || stored == Some(signed)
}
