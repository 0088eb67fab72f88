//! What firmware, loaders and enemies send to TFTP and HTTP, byte for byte (`tests/corpora/`), and thousands of
//! damaged copies of it: each is understood or refused, none leads out of the boot files, none panics.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;

use pxe::files::boot_file_name;
use pxe::http::head::{MAX_HEAD, Parsed, parse};
use pxe::tftp::negotiate::{Limits, negotiate};
use pxe::tftp::packet::Packet;

/// Damaged copies of each entry.
const COPIES: u64 = 1500;

fn corpus(kind: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpora").join(kind);
    let mut entries: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    entries.sort();
    assert!(entries.len() > 20, "the corpus of {kind} is not there");
    entries
}

/// xorshift64*: the same copies on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}

/// A copy with some bytes changed, cut, doubled, or replaced by a part of another entry.
fn damaged(entry: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut copy = entry.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(copy.len() + 1);
        match random.below(5) {
            0 => copy.truncate(at),
            1 => copy.insert(at, random.below(256) as u8),
            2 if at < copy.len() => {
                copy[at] = [0, b'%', b'/', b'.', 0xff, b'\r', b'\n', b' '][random.below(8)];
            }
            3 => {
                drop(copy.splice(at..at, other.iter().copied().skip(random.below(other.len() + 1)).take(40)));
            }
            _ if at < copy.len() => copy[at] ^= 1 << random.below(8),
            _ => {}
        }
    }
    copy
}

fn each_copy(kind: &str, mut check: impl FnMut(&str, &[u8])) {
    let entries = corpus(kind);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (name, entry) in &entries {
        for end in 0..=entry.len() {
            check(name, &entry[..end]);
        }
        for _ in 0..COPIES {
            let other = &entries[random.below(entries.len())].1;
            check(name, &damaged(entry, other, &mut random));
        }
    }
}

#[test]
fn t6_t8_tftp_datagrams_are_understood_or_refused() {
    let limits = Limits { blksize: 1468, windowsize: 64 };
    let mut requests = 0;
    each_copy("tftp", |name, datagram| {
        let Ok(Packet::Rrq(request)) = Packet::parse(datagram) else { return };
        requests += 1;
        let agreed = negotiate(&request.options, 100_000, limits);
        assert!(
            (8..=1468).contains(&agreed.blksize) && (1..=64).contains(&agreed.windowsize),
            "{name}: {agreed:?}"
        );
        if let Ok(file) = boot_file_name(request.name) {
            assert!(!file.starts_with('/') && file.split('/').all(|part| part != ".."), "{name}: {file}");
        }
    });
    assert!(requests > 10_000, "only {requests} copies were requests");
}

#[test]
fn h6_http_heads_are_understood_or_refused() {
    let mut requests = 0;
    each_copy("http", |name, head| match parse(head) {
        Parsed::Request { head: request, consumed } => {
            requests += 1;
            assert!(consumed <= head.len() && consumed <= MAX_HEAD, "{name}");
            let file = &request.name;
            assert!(!file.starts_with('/') && file.split('/').all(|part| part != ".."), "{name}: {file}");
            assert!(!file.contains(|c: char| c.is_control() || c == '\\'), "{name}: {file:?}");
        }
        Parsed::Incomplete => assert!(head.len() < MAX_HEAD, "{name}: a head without end"),
        Parsed::Refused(refusal) => assert!(refusal.status.code() >= 400, "{name}"),
    });
    assert!(requests > 4_000, "only {requests} copies were requests");
}
