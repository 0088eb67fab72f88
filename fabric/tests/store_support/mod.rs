//! What the store's tests share: content that is the same in every run, an independent check of what a store claims to
//! hold, and children that are killed or confined.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fabric::content::{BlobIndex, BlobRef, index_bytes};
use fabric::exchange::message::Run;
use fabric::store::{Blob, Store, StoreOptions};

/// The environment variable through which a child learns its directory.
pub(crate) const CHILD_DIR: &str = "STORE_TEST_DIR";

/// Bytes that look random but are the same in every run.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A blob and its index.
pub(crate) fn blob(seed: u64, len: usize) -> (Vec<u8>, BlobIndex) {
    let bytes = noise(seed, len);
    let index = index_bytes(&bytes).unwrap();
    (bytes, index)
}

pub(crate) fn open(dir: &Path) -> Store {
    Store::open(dir, StoreOptions::default()).unwrap()
}

/// Without flushing, for tests that write thousands of times.
pub(crate) fn open_fast(dir: &Path) -> Store {
    Store::open(dir, fast()).unwrap()
}

/// Options for tests that write thousands of times: without flushing, and objects name what [`naming`] says.
pub(crate) fn fast() -> StoreOptions {
    StoreOptions { durable: false, references: named_by, ..Default::default() }
}

/// An object of the tests' own kind, which names blobs.
pub(crate) fn naming<'a>(label: &str, blobs: impl IntoIterator<Item = &'a BlobRef>) -> Vec<u8> {
    let lines = blobs.into_iter().map(|one| format!("{} {} {}\n", one.blob, one.size, one.index));
    format!("{NAMING}{label}\n{}", lines.collect::<String>()).into_bytes()
}

const NAMING: &str = "names ";

fn named_by(object: &[u8]) -> Result<Vec<BlobRef>, Box<dyn std::error::Error + Send + Sync>> {
    let text = std::str::from_utf8(object)?.strip_prefix(NAMING).ok_or("not an object of these tests")?;
    let blob = |line: &str| {
        let [blob, size, index] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err("a strange line".into());
        };
        Ok(BlobRef { blob: blob.parse()?, size: size.parse()?, index: index.parse()? })
    };
    text.lines().skip(1).map(blob).collect()
}

/// The bytes of `count` chunks from `first` on.
pub(crate) fn run_bytes<'a>(bytes: &'a [u8], index: &BlobIndex, first: u32, count: u32) -> &'a [u8] {
    let range = index.byte_range(Run { first, count }).unwrap();
    &bytes[range.start as usize..range.end as usize]
}

/// Reads every chunk that `blob` claims to hold and compares it with the truth.
pub(crate) fn assert_claims_hold(blob: &Blob, truth: &[u8]) {
    let have = blob.have();
    let mut held = 0;
    for (number, chunk) in (0..).zip(blob.index().chunks()) {
        if have.has(number) {
            let mut bytes = vec![0; chunk.len as usize];
            blob.file().read_exact_at(&mut bytes, chunk.offset).unwrap();
            let range = chunk.range();
            assert!(bytes == truth[range.start as usize..range.end as usize], "chunk {number} is wrong");
            held += u64::from(chunk.len);
        }
    }
    assert_eq!(blob.held_bytes(), held);
    assert_eq!(blob.is_complete(), have.is_full());
    assert!(blob.path().exists());
    assert_eq!(blob.path().parent().unwrap().ends_with("blobs"), blob.is_complete());
}

/// Runs the ignored test `name` of this program as a process of its own, below `wrapper`.
pub(crate) fn child(wrapper: &[&str], name: &str, dir: &Path) -> Child {
    let this = std::env::current_exe().unwrap();
    let mut words = wrapper.iter().map(|word| (*word).to_owned()).chain([this.to_str().unwrap().to_owned()]);
    Command::new(words.next().unwrap())
        .args(words)
        .args(["--ignored", "--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// The wrapper of a child that mounts something.
pub(crate) fn own_mounts() -> &'static [&'static str] {
    if nix::unistd::geteuid().is_root() {
        &["unshare", "--mount"]
    } else {
        &["unshare", "--user", "--map-root-user", "--mount"]
    }
}

/// Waits for a child that must end well, and returns what it printed.
pub(crate) fn finish(mut child: Child) -> String {
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    text
}

/// The directory of this child; `None` if somebody ran the ignored test by hand.
pub(crate) fn child_dir() -> Option<std::path::PathBuf> {
    std::env::var_os(CHILD_DIR).map(Into::into)
}
