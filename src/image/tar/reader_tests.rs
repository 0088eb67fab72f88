use proptest::prelude::*;

use super::super::writer::{END, NewMember, padding};
use super::*;

fn member(path: &[u8], content: &[u8]) -> Vec<u8> {
    let new = NewMember { size: content.len() as u64, ..NewMember::plain(path, Kind::File, 0o644) };
    [&new.header(), content, padding(new.size)].concat()
}

fn link(path: &[u8], kind: Kind, target: &[u8]) -> Vec<u8> {
    NewMember { link: target, ..NewMember::plain(path, kind, 0o777) }.header()
}

fn all(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, TarError> {
    let mut reader = TarReader::new(bytes);
    let mut members = Vec::new();
    while let Some(member) = reader.next()? {
        let mut content = Vec::new();
        reader.copy(&mut content)?;
        members.push((member, content));
    }
    Ok(members)
}

fn error(bytes: &[u8]) -> String {
    all(bytes).unwrap_err().to_string()
}

#[test]
fn what_is_written_is_read() {
    let long = [b"usr/", [b'x'; 150].as_slice()].concat();
    let bytes = [
        NewMember { mtime: -5, uid: u32::MAX, ..NewMember::plain(b"usr", Kind::Directory, 0o755) }.header(),
        member(&long, b"content"),
        link(b"bin", Kind::Symlink, b"/anywhere/../at all"),
        link(b"copy", Kind::HardLink, &long),
        END.to_vec(),
    ]
    .concat();
    let members = all(&bytes).unwrap();
    let seen: Vec<_> = members.iter().map(|(member, _)| (member.path.as_slice(), member.kind)).collect();
    assert_eq!(
        seen,
        [
            (b"usr".as_slice(), Kind::Directory),
            (&long, Kind::File),
            (b"bin", Kind::Symlink),
            (b"copy", Kind::HardLink)
        ]
    );
    assert_eq!((members[0].0.mtime, members[1].1.as_slice()), (-5, b"content".as_slice()));
}

#[test]
fn gnu_tar_reads_and_writes_the_same() {
    use std::process::{Command, Stdio};
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    std::fs::write(deep.join("f".repeat(90)), "deep").unwrap();
    std::fs::write(dir.path().join("plain"), vec![7; 1000]).unwrap();
    for format in ["gnu", "pax", "ustar"] {
        let made = Command::new("tar")
            .arg("-C")
            .arg(dir.path())
            .args(["--format", format, "-cf", "-", "."])
            .output();
        let made = made.unwrap();
        if format == "ustar" {
            assert!(!made.status.success() || all(&made.stdout).is_ok());
            continue;
        }
        let members = all(&made.stdout).unwrap();
        let find = |end: u8| members.iter().find(|(member, _)| member.path.last() == Some(&end));
        assert_eq!(find(b'f').unwrap().1, b"deep", "{format}");
        assert_eq!(find(b'n').unwrap().1.len(), 1000, "{format}");
    }
    let mut child =
        Command::new("tar").args(["-tvf", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let bytes = [member(&[b'y'; 200], b"x"), END.to_vec()].concat();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let listing = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    assert!(listing.contains(&"y".repeat(200)), "{listing}");
}

#[test]
fn members_that_lead_out_are_refused_by_name() {
    for path in ["../etc/passwd", "a/../../b", "/etc/passwd", "usr/..", "..//x"] {
        let bytes = [member(b"good", b""), member(path.as_bytes(), b"")].concat();
        let error = error(&bytes);
        assert!(error.contains(path) && error.contains("leads out"), "{error}");
    }
    let error = error(&link(b"innocent", Kind::HardLink, b"../../etc/shadow"));
    assert!(error.contains("innocent") && error.contains("../../etc/shadow"), "{error}");
    let long = [b"../".as_slice(), &[b'x'; 200]].concat();
    assert!(matches!(all(&member(&long, b"")), Err(TarError::Outside { .. })));
}

#[test]
fn other_files_and_cut_off_ones_are_told_apart() {
    assert!(matches!(all(b"#!/bin/sh\n"), Err(TarError::NotATar)));
    assert!(matches!(all(&[1; 4096]), Err(TarError::NotATar)));
    assert!(all(b"").unwrap().is_empty());
    let bytes = member(b"file", &[1; 700]);
    for cut in [600, 1300] {
        let error = error(&bytes[..cut]);
        assert!(error.contains("cut off after `file`"), "{error}");
    }
    let two = [bytes.clone(), member(b"next", b"")].concat();
    assert!(error(&two[..bytes.len() + 100]).contains("cut off"));
    let mut damaged = two;
    damaged[bytes.len()] ^= 1;
    assert!(error(&damaged).contains("check sum"));
}

#[test]
fn endless_headers_are_refused() {
    let records = [super::super::pax::record(b"comment", &vec![b'x'; 300 << 10])].concat();
    let one = {
        let xattrs = [(b"user.x".to_vec(), records)];
        NewMember { xattrs: &xattrs, ..NewMember::plain(b"f", Kind::File, 0o644) }.header()
    };
    // Header blocks of extended headers alone, again and again.
    let extended = &one[..one.len() - BLOCK];
    assert!(error(&extended.repeat(5)).contains("too long"));
}

proptest! {
    #[test]
    fn damage_never_panics(at in 0usize..3000, value: u8, cut in 0usize..3000) {
        let long = [b'x'; 150];
        let mut bytes = [member(&long, b"content"), member(b"b", &[2; 600]), END.to_vec()].concat();
        let at = at % bytes.len();
        bytes[at] = value;
        let _ = all(&bytes);
        let _ = all(&bytes[..cut.min(bytes.len())]);
    }

    #[test]
    fn damage_under_a_right_check_sum_never_panics(at in 0usize..512, value: u8) {
        let mut bytes = member(b"a", b"content");
        bytes[at] = value;
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes[..512].iter().map(|&byte| u32::from(byte)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let _ = all(&bytes);
    }
}

#[test]
fn holes_are_filled_however_they_were_stored() {
    use std::os::unix::fs::FileExt;
    use std::process::Command;
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(dir.path().join("fil\u{e9}")).unwrap();
    // More pieces than fit into a header, and a hole at the end.
    for at in 0..40u64 {
        file.write_at(format!("piece {at}").as_bytes(), at * 100_000).unwrap();
    }
    file.set_len(5_000_000).unwrap();
    let content = std::fs::read(dir.path().join("fil\u{e9}")).unwrap();
    let formats = ["--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"];
    for format in formats {
        let mut tar = Command::new("tar");
        tar.arg(format).args((format != "--format=gnu").then_some("--format=pax"));
        let output = tar.arg("-C").arg(dir.path()).args(["-Scf", "-", "fil\u{e9}"]).output().unwrap();
        assert!(output.stdout.len() < content.len(), "{format}: stored with its holes");
        let (member, read) = all(&output.stdout).unwrap().swap_remove(0);
        assert_eq!((member.path.as_slice(), member.size), ("fil\u{e9}".as_bytes(), 5_000_000), "{format}");
        assert!(read == content, "{format}");
        // What is passed on is a plain file.
        let mut reader = TarReader::new(output.stdout.as_slice());
        let member = reader.next().unwrap().unwrap();
        let passed = [reader.headers(&member, b"moved").as_ref(), &read, padding(member.size), &END].concat();
        let (member, again) = all(&passed).unwrap().swap_remove(0);
        assert!(member.path == b"moved" && again == content, "{format}");
    }
    let mut header = member(b"file", b"x");
    header[156] = b'S';
    header[148..156].fill(b' ');
    let sum: u64 = header[..BLOCK].iter().map(|&byte| u64::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert!(error(&header).contains("map of a sparse file"));
}
