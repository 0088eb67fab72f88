use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

/// A slow, plain reader: name, mode and content of each entry.
pub(in crate::image) fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let mut entries = Vec::new();
    loop {
        assert_eq!(&bytes[..6], MAGIC.as_bytes());
        let field = |at: usize| {
            let text = std::str::from_utf8(&bytes[6 + at * 8..14 + at * 8]).unwrap();
            u32::from_str_radix(text, 16).unwrap()
        };
        let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
        let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).unwrap();
        let start = (110 + name_size).next_multiple_of(4);
        let content = bytes[start..start + size].to_vec();
        bytes = &bytes[(start + size).next_multiple_of(4)..];
        if name == TRAILER {
            assert!(bytes.is_empty());
            return entries;
        }
        entries.push((name, mode, content));
    }
}

fn bytes(archive: &Archive) -> Vec<u8> {
    let mut out = Vec::new();
    archive.write(&mut out).unwrap();
    out
}

fn sample() -> Archive {
    let mut archive = Archive::default();
    archive.file("init", 0o755, b"#!".to_vec()).unwrap();
    archive.file("etc/bootfabric/trust-root", 0o644, b"00\n".to_vec()).unwrap();
    archive.symlink("bin/sh", "busybox").unwrap();
    archive.directory("proc").unwrap();
    archive.character_device("dev/console", 0o600, (5, 1)).unwrap();
    archive
}

#[test]
fn entries_are_sorted_below_their_directories() {
    let names: Vec<_> = read(&bytes(&sample())).into_iter().map(|(name, ..)| name).collect();
    let expected = [
        "bin",
        "bin/sh",
        "dev",
        "dev/console",
        "etc",
        "etc/bootfabric",
        "etc/bootfabric/trust-root",
        "init",
        "proc",
    ];
    assert_eq!(names, expected);
}

#[test]
fn the_order_of_adding_does_not_matter() {
    let mut other = Archive::default();
    other.character_device("dev/console", 0o600, (5, 1)).unwrap();
    other.directory("proc").unwrap();
    other.symlink("bin/sh", "busybox").unwrap();
    other.directory("etc/bootfabric").unwrap();
    other.file("etc/bootfabric/trust-root", 0o644, b"00\n".to_vec()).unwrap();
    other.file("init", 0o755, b"#!".to_vec()).unwrap();
    assert_eq!(bytes(&other), bytes(&sample()));
}

#[test]
fn cpio_itself_can_read_it() {
    let Ok(mut child) = Command::new("cpio")
        .args(["--list", "--verbose", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
    else {
        eprintln!("skipped: the program cpio is not installed");
        return;
    };
    child.stdin.take().unwrap().write_all(&bytes(&sample())).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let listing = String::from_utf8(output.stdout).unwrap();
    for expected in
        ["-rwxr-xr-x   1 root", "drwxr-xr-x   2 root", "crw-------", "bin/sh -> busybox", "5,   1"]
    {
        assert!(listing.contains(expected), "{expected} not in\n{listing}");
    }
}

#[test]
fn bad_names_and_clashes_are_refused() {
    for name in ["", "/etc", "a//b", "a/../b", "./a", "a/", "nul\0", TRAILER, &"x".repeat(5000)] {
        assert!(matches!(Archive::default().file(name, 0, Vec::new()), Err(CpioError::Name(_))), "{name:?}");
    }
    let mut archive = sample();
    assert_eq!(archive.file("init", 0o755, Vec::new()), Err(CpioError::Twice("init".into())));
    assert_eq!(archive.file("init/x", 0, Vec::new()), Err(CpioError::NotADirectory("init".into())));
}

proptest! {
    #[test]
    fn any_names_round_trip(files in prop::collection::btree_map("[a-z.\u{e4} -]{1,9}(/[a-z.]{1,5}){0,3}", prop::collection::vec(any::<u8>(), 0..9), 0..9)) {
        let mut archive = Archive::default();
        let mut kept = Vec::new();
        for (name, content) in &files {
            if archive.file(name, 0o644, content.clone()).is_ok() {
                kept.push((name.clone(), FILE | 0o644, content.clone()));
            }
        }
        let found: Vec<_> = read(&bytes(&archive)).into_iter().filter(|(_, mode, _)| mode & TYPE == FILE).collect();
        prop_assert_eq!(found, kept);
    }

    #[test]
    fn hostile_names_never_panic(name in any::<String>()) {
        let mut archive = Archive::default();
        let _ = archive.file(&name, 0o644, Vec::new());
        let _ = archive.directory(&name);
    }
}
