use super::*;
use crate::id::{BlobId, Hash, ObjectId};

fn blob(seed: u8) -> BlobRef {
    BlobRef { blob: BlobId(Hash::of(&[seed])), size: 1000, index: ObjectId(Hash::of(&[seed, 1])) }
}

fn release() -> Release {
    Release {
        name: "debian".into(),
        version: "13.2-1".into(),
        generation: 3,
        arch: Arch::X86_64,
        kernel: blob(1),
        kernel_version: "6.12.57+deb13-amd64".into(),
        first_stage: blob(2),
        root: blob(3),
        root_format: RootFormat::Squashfs,
        loaders: vec![Loader { name: "undionly.kpxe".into(), blob: blob(4) }],
        cmdline: "console=ttyS0 quiet".into(),
        root_mode: RootMode::Overlay,
        memory_needed_mib: 1024,
    }
}

#[test]
fn payload_round_trips_with_boot_blobs_first() {
    let release = release();
    assert_eq!(Release::from_payload(1, &release.to_payload().unwrap()).unwrap(), release);
    assert_eq!(release.blobs().copied().collect::<Vec<_>>(), [blob(4), blob(1), blob(2), blob(3)]);
}

#[test]
fn what_nodes_would_refuse_is_not_signed() {
    type Spoil = fn(&mut Release);
    let spoiled: [(&str, Spoil); 9] = [
        ("name", |r| r.name = "../etc".into()),
        ("version", |r| r.version = "1 2".into()),
        ("kernel version", |r| r.kernel_version = String::new()),
        ("command line", |r| r.cmdline = "quiet\nboot".into()),
        ("command line", |r| r.cmdline = "a".repeat(1025)),
        ("generation", |r| r.generation = 0),
        ("two loaders", |r| r.loaders.push(r.loaders[0].clone())),
        ("loaders", |r| r.loaders = vec![r.loaders[0].clone(); 17]),
        ("bytes", |r| r.root.size = 0),
    ];
    for (word, spoil) in spoiled {
        let mut release = release();
        spoil(&mut release);
        let error = release.to_payload().unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn unknown_words_are_named() {
    let error = "nfs".parse::<RootMode>().unwrap_err().to_string();
    assert_eq!(
        error,
        "the root mode is not valid: `nfs` is unknown; this program knows: overlay, zram, tmpfs"
    );
    assert!("riscv64".parse::<Arch>().is_err() && "ext4".parse::<RootFormat>().is_err());
}
