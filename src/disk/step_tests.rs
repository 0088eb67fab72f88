//! The two steps of the first stage, between which the disk is filled: what ends one of them, and disks that fail.

use super::*;
use crate::disk::Prepared;
use crate::disk::probe::{MARK, MARK_AT};
use crate::disk::step::{Sizes, Step};

/// A disk that is prepared and filled, with its filesystems mounted, as they are in the first stage.
struct Filled {
    // First to go, as the disk is busy while they are there.
    root: Mounted,
    _store: Mounted,
    disk: Loop,
    material: Material,
    prepared: Prepared,
    finish: Step,
}

fn prepare(request: &Request, answer: &Path, root: u64) -> Step {
    Step::Prepare {
        disk: request.disk.clone(),
        wipe: false,
        sizes: Sizes { boot: 4 << 20, blobs: 4 << 20, root: Some(root) },
        loader: request.loader.clone(),
        answer: answer.into(),
    }
}

fn part(disk: &Loop, number: u32) -> String {
    format!("{}p{number}", disk.node())
}

fn prepared(answer: &Path) -> Prepared {
    serde_json::from_slice(&fs::read(answer).unwrap()).unwrap()
}

impl Filled {
    fn new() -> Option<Self> {
        Loop::with(1024, &["--partscan"]).map(Self::on)
    }

    fn on(disk: Loop) -> Self {
        let material = Material::new();
        let request = material.request(&disk.path);
        let answer = material.directory.path().join("answer");
        prepare(&request, &answer, 1 << 20).run(&quiet).unwrap();
        let prepared = prepared(&answer);
        let (store, root) = (Mounted::writable(&part(&disk, 3)), Mounted::writable(&part(&disk, 4)));
        for name in ["blobs", "indexes"] {
            run("cp", &["-r", request.store.join(name).to_str().unwrap(), store.0.path().to_str().unwrap()]);
        }
        fs::write(root.0.path().join("program"), "x").unwrap();
        let finish = Step::Finish {
            prepared: Box::new(prepared.clone()),
            image: request.image.clone(),
            line: request.line.clone(),
            loader: request.loader.clone(),
            store: store.0.path().into(),
            root: Some(root.0.path().into()),
        };
        Self { root, _store: store, disk, material, prepared, finish }
    }

    fn installed(&self) -> Option<Installed> {
        installed(&self.disk.node().parse().unwrap(), &self.material.release).unwrap()
    }

    /// Writes to the disk beneath all filesystems.
    fn write(&self, bytes: &[u8], at: u64) {
        let file = fs::File::options().write(true).open(&self.disk.path).unwrap();
        file.write_all_at(bytes, at).unwrap();
        file.sync_all().unwrap();
    }
}

#[test]
fn a_disk_is_filled_between_two_steps_and_starts_after_the_second() {
    let Some(disk) = Loop::with(1024, &["--partscan"]) else { return };
    let material = Material::new();
    let request = material.request(&disk.path);
    let answer = material.directory.path().join("answer");
    let error = prepare(&request, &answer, 2 << 30).run(&quiet).unwrap_err();
    assert!(matches!(error, InstallError::TooSmall { .. }) && disk.is_zero(), "{error}");

    // Power that goes in between leaves a disk that starts nothing, and may be prepared again.
    prepare(&request, &answer, 1 << 20).run(&quiet).unwrap();
    let name: DiskName = request.disk.parse().unwrap();
    assert_eq!(installed(&name, &material.release).unwrap(), None);
    let mut head = vec![0; 1 << 10];
    disk.file.as_file().read_exact_at(&mut head, 0).unwrap();
    assert!(head.iter().all(|byte| *byte == 0), "no table yet");
    let first = prepared(&answer);

    let filled = Filled::on(disk);
    let Filled { root, disk, prepared, finish, .. } = &filled;
    assert_ne!(first.store(), prepared.store(), "prepared anew");
    for (number, uuid) in [(3, prepared.store()), (4, prepared.root().unwrap())] {
        let found = ext(&fs::File::open(part(disk, number)).unwrap()).unwrap().unwrap();
        assert_eq!(found.uuid, uuid);
    }
    finish.run(&quiet).unwrap();
    assert!(fs::read_to_string(root.0.path().join("etc/fstab")).unwrap().contains(prepared.root().unwrap()));
    let done = filled.installed().unwrap();
    assert_eq!((done.root.as_deref(), done.store.as_str()), (prepared.root(), prepared.store()));
    assert!(run("sfdisk", &["--verify", disk.node()]).contains("No errors"));
    let tag = ["--probe", "--match-tag", "PART_ENTRY_NAME", "--output", "value", &part(disk, 3)];
    assert_eq!(run("blkid", &tag).trim(), "bootfabric store", "the kernel's partitions are the table's");
}

/// Processes that are killed cannot say what they have done.
#[test]
fn the_second_step_goes_on_from_wherever_another_was_ended() {
    let Some(filled) = Filled::new() else { return };
    let finish = &filled.finish;
    finish.run(&quiet).unwrap();
    let done = filled.installed();
    assert!(done.is_some());
    // After its last write: nothing is left to do.
    finish.run(&|step| panic!("{step}")).unwrap();
    // Before it, with the table written: until the loader is there again, it is not.
    filled.write(MARK, MARK_AT);
    let loader = |step: &str| {
        if step == "boot loader" {
            assert_eq!(filled.installed(), None);
        }
    };
    finish.run(&loader).unwrap();
    assert_eq!(filled.installed(), done);
    // Somebody else's table.
    filled.write(&[0; 512], 512);
    let error = finish.run(&quiet).unwrap_err();
    assert!(matches!(error, InstallError::Changed(_)), "{error}");
}

#[test]
fn a_filesystem_that_was_damaged_while_it_was_filled_does_not_start() {
    let Some(filled) = Filled::new() else { return };
    let device = part(&filled.disk, 4).replace("/dev/", "");
    fs::write(Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error"), "on purpose").unwrap();
    for _ in 0..2 {
        let error = filled.finish.run(&quiet).unwrap_err();
        assert!(matches!(error, InstallError::Damaged(_)), "{error}");
        assert_eq!(filled.installed(), None);
    }
}

/// A file as a disk on a filesystem that is full: what the kernel writes there in the background fails, and the writer never hears.
#[test]
fn data_that_the_disk_did_not_take_are_missed_in_the_end() {
    if !netlab::ready_or_skip().unwrap() {
        return;
    }
    let memory = Mounted::memory(128);
    let disk = Loop::of(tempfile::NamedTempFile::new_in(memory.0.path()).unwrap(), 1024, &["--partscan"]);
    let filled = Filled::on(disk);
    run("sync", &[]);
    let ballast = memory.0.path().join("ballast");
    let written = std::io::copy(&mut std::io::repeat(1), &mut fs::File::create(&ballast).unwrap());
    assert!(written.is_err(), "memory is full");
    fs::write(filled.root.0.path().join("large"), vec![7; 8 << 20]).unwrap();
    let error = filled.finish.run(&quiet).unwrap_err();
    assert!(matches!(error, InstallError::Write { .. }), "{error}");
    assert_eq!(filled.installed(), None);
}
