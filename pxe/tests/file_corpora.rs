//! What firmware, loaders and enemies send to TFTP and HTTP, byte for byte (`tests/corpora/`), and thousands of
//! damaged copies of it: each is understood or refused, none leads out of the boot files, none panics.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../src/damage.rs"]
mod damage;

use std::path::Path;

use damage::{Random, damaged};
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
