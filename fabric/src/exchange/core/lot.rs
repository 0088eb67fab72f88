//! Lots: nodes that know each other's names agree on an order among themselves without a word, another one for each thing that is
//! to be shared out.

use super::PeerKey;

/// A node's name in the lots.
pub(crate) fn name(key: PeerKey) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *key.0.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The lot that a node draws for a cell, a part of a blob, or another node.
pub(crate) fn lot(name: u64, cell: u32) -> u64 {
    // The finisher of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
    let mut z = name ^ u64::from(cell).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
