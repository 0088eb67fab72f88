//! Installing on loop devices, which to the kernel are disks like any other. Needs root.

use std::io::Read as _;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use fabric::store::{Store, StoreOptions};

use super::*;
use crate::disk::check::{check, installed};
use crate::disk::device::{DeviceError, Disk};
use crate::disk::probe::{self, Content, ext};
use crate::disk::{ROOT_LABEL, STORE_LABEL};

#[path = "step_tests.rs"]
mod steps;

/// A file as a disk; gone when dropped.
struct Loop {
    path: PathBuf,
    file: tempfile::NamedTempFile,
}

impl Loop {
    /// `None` where what needs root is to be skipped.
    fn new(mib: u64) -> Option<Self> {
        Self::with(mib, &[])
    }

    fn with(mib: u64, options: &[&str]) -> Option<Self> {
        netlab::ready_or_skip()
            .unwrap()
            .then(|| Self::of(tempfile::NamedTempFile::new().unwrap(), mib, options))
    }

    fn of(file: tempfile::NamedTempFile, mib: u64, options: &[&str]) -> Self {
        file.as_file().set_len(mib << 20).unwrap();
        let arguments = [options, &["--find", "--show", file.path().to_str().unwrap()]].concat();
        let path = run("losetup", &arguments);
        Self { path: path.trim().into(), file }
    }

    fn table(&self) -> crate::disk::gpt::Table {
        let Disk { file, size, block, .. } =
            Disk::look(&self.path.display().to_string().parse().unwrap()).unwrap();
        match probe::content(&file, size, block).unwrap() {
            Content::Installed(table) => table,
            other => panic!("{other:?}"),
        }
    }

    /// A partition as a device of its own, whether or not this kernel reads such tables.
    fn part(&self, number: usize) -> Loop {
        let table = self.table();
        let part = &table.partitions[number - 1];
        let (start, length) = (part.start.to_string(), part.length.to_string());
        let file = tempfile::NamedTempFile::new().unwrap();
        let whole = self.path.to_str().unwrap();
        let path = run("losetup", &["--find", "--show", "--offset", &start, "--sizelimit", &length, whole]);
        Loop { path: path.trim().into(), file }
    }

    fn node(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn is_zero(&self) -> bool {
        run("sync", &[]);
        std::fs::read(self.file.path()).unwrap().iter().all(|byte| *byte == 0)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", self.path.to_str().unwrap()]);
    }
}

/// A mount; gone when dropped.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(device: &str) -> Self {
        Self::with(device, "ro")
    }

    fn writable(device: &str) -> Self {
        Self::with(device, "rw")
    }

    /// So many MiB of memory.
    fn memory(mib: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        run(
            "mount",
            &["-t", "tmpfs", "-o", &format!("size={mib}m"), "none", directory.path().to_str().unwrap()],
        );
        Self(directory)
    }

    fn with(device: &str, options: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        run("mount", &["-o", options, device, directory.path().to_str().unwrap()]);
        Self(directory)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[self.0.path().to_str().unwrap()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(program).args(arguments).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

/// A store with an image of a few bytes, GRUB's parts, and a small tree with everything that is easily lost.
struct Material {
    directory: tempfile::TempDir,
    blobs: Vec<String>,
    release: String,
}

impl Material {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let store =
            Store::open(&path("store"), StoreOptions { durable: false, ..StoreOptions::default() }).unwrap();
        let blob = |bytes: &[u8]| store.add_bytes(bytes).unwrap().blob.to_string();
        let blobs = vec![blob(b"a kernel"), blob(&vec![7; 3 << 20])];
        let other = store.add_bytes(b"of another image").unwrap();
        assert!(path("store/blobs").join(other.blob.to_string()).exists());
        let release = store.put_object(b"release").unwrap().to_string();
        fs::create_dir(path("grub")).unwrap();
        for (name, bytes) in crate::image::grub::parts().unwrap() {
            fs::write(path("grub").join(name), bytes).unwrap();
        }
        let tree = path("tree");
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::write(tree.join("etc/fstab"), "# the image's\n/dev/root / auto defaults 0 0\ntmpfs /tmp tmpfs\n")
            .unwrap();
        fs::write(tree.join("program"), "x").unwrap();
        std::os::unix::fs::chown(tree.join("program"), Some(1000), Some(7)).unwrap();
        fs::set_permissions(tree.join("program"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(tree.join("program"), tree.join("same")).unwrap();
        symlink("/nowhere", tree.join("link")).unwrap();
        run("mknod", &[tree.join("null").to_str().unwrap(), "c", "1", "3"]);
        let hole = fs::File::create(tree.join("hole")).unwrap();
        hole.write_all_at(b"end", 32 << 20).unwrap();
        xattr::set(tree.join("hole"), "user.kept", b"yes").unwrap();
        drop(store);
        Self { directory, blobs, release }
    }

    fn request(&self, disk: &Path) -> Request {
        let path = |name: &str| self.directory.path().join(name);
        Request {
            disk: disk.display().to_string(),
            wipe: false,
            image: Image {
                release: self.release.clone(),
                title: "small 1".into(),
                kernel: self.blobs[0].clone(),
                first_stage: self.blobs[1].clone(),
                root: self.blobs[1].clone(),
                blobs: self.blobs.clone(),
            },
            line: "console=ttyS0 quiet".into(),
            store: path("store"),
            loader: path("grub"),
            root: Some(path("tree")),
            scratch: path("scratch"),
        }
    }
}

fn quiet(_: &str) {}

#[test]
fn an_empty_disk_gets_all_its_parts() {
    let Some(disk) = Loop::new(1024) else { return };
    let material = Material::new();
    let request = material.request(&disk.path);
    let done = install(&request, &quiet).unwrap();
    assert!(run("sfdisk", &["--verify", disk.path.to_str().unwrap()]).contains("No errors"));
    let parts: Vec<_> = (1..=4).map(|number| disk.part(number)).collect();
    let node = |number: usize| parts[number - 1].node();
    run("fsck.vfat", &["-n", node(2)]);
    for (part, label, uuid) in [(3, STORE_LABEL, Some(&done.store)), (4, ROOT_LABEL, done.root.as_ref())] {
        run("fsck.ext4", &["-fn", node(part)]);
        let found = ext(&fs::File::open(node(part)).unwrap()).unwrap().unwrap();
        assert_eq!((found.label.as_str(), Some(&found.uuid)), (label, uuid));
    }

    let root = Mounted::new(node(4));
    let at = |name: &str| root.0.path().join(name);
    let program = fs::metadata(at("program")).unwrap();
    assert_eq!((program.mode(), program.uid(), program.gid(), program.nlink()), (0o10_4755, 1000, 7, 2));
    assert_eq!(program.ino(), fs::metadata(at("same")).unwrap().ino());
    assert_eq!(
        program.mtime(),
        fs::metadata(material.directory.path().join("tree/program")).unwrap().mtime()
    );
    assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("/nowhere"));
    assert_eq!(fs::metadata(at("null")).unwrap().rdev(), nix::sys::stat::makedev(1, 3));
    let hole = fs::metadata(at("hole")).unwrap();
    assert!(hole.len() == (32 << 20) + 3 && hole.blocks() < 64, "{} blocks", hole.blocks());
    assert_eq!(xattr::get(at("hole"), "user.kept").unwrap().unwrap(), b"yes");
    let uuid = done.root.as_ref().unwrap();
    assert_eq!(
        fs::read_to_string(at("etc/fstab")).unwrap(),
        format!("UUID={uuid} / ext4 errors=remount-ro 0 1\n# the image's\ntmpfs /tmp tmpfs\n")
    );

    let kept = Mounted::new(node(3));
    let store = Store::open_reader(kept.0.path(), StoreOptions::default()).unwrap();
    let mut blobs: Vec<_> = store.blobs().into_iter().map(|info| info.reference.blob.to_string()).collect();
    blobs.sort();
    let mut wanted = material.blobs.clone();
    wanted.sort();
    assert_eq!(blobs, wanted, "the image, and no other");
    assert_eq!(store.head(RELEASE).unwrap().unwrap().to_string(), material.release);

    let efi = fatfs::FileSystem::new(
        fs::File::options().read(true).write(true).open(node(2)).unwrap(),
        fatfs::FsOptions::new().update_accessed_date(false),
    );
    let efi = efi.unwrap();
    let read = |name: &str| {
        let mut bytes = Vec::new();
        efi.root_dir().open_file(name).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let config = String::from_utf8(read("boot/grub.cfg")).unwrap();
    let line = format!("console=ttyS0 quiet bootfabric.root=disk:{uuid} bootfabric.store={}", done.store);
    assert!(config.contains(&line), "{config}");
    assert_eq!(read("boot/initrd"), vec![7; 3 << 20]);
    // As the boot loader itself sees it.
    let seen = run("grub-fstest", &[disk.node(), "cat", "(loop0,gpt2)/boot/grub.cfg"]);
    assert_eq!(seen, config);
    assert!(!material.directory.path().join("scratch").exists());
}

const RELEASE: &str = crate::home::RELEASE_HEAD;

#[test]
fn what_is_installed_is_known_and_kept_unless_told_otherwise() {
    let Some(disk) = Loop::new(1024) else { return };
    let material = Material::new();
    let mut request = material.request(&disk.path);
    let first = install(&request, &quiet).unwrap();
    let name: DiskName = request.disk.parse().unwrap();
    assert_eq!(installed(&name, &material.release).unwrap(), Some(first.clone()));
    assert_eq!(installed(&name, &"0".repeat(64)).unwrap(), None);
    let refused = install(&request, &quiet).unwrap_err().to_string();
    assert!(
        refused.contains(&format!("holds an installation of the release {}", &material.release[..16])),
        "{refused}"
    );
    request.wipe = true;
    let second = install(&request, &quiet).unwrap();
    assert_ne!(first.root, second.root);
    assert_eq!(installed(&name, &material.release).unwrap(), Some(second));
}

#[test]
fn a_disk_that_is_too_small_foreign_or_in_use_is_left_as_it_is() {
    let Some(disk) = Loop::new(256) else { return };
    let material = Material::new();
    let request = material.request(&disk.path);
    let error = install(&request, &quiet).unwrap_err();
    assert!(matches!(error, InstallError::TooSmall { .. }), "{error}");
    assert!(disk.is_zero());

    run("mke2fs", &["-q", "-t", "ext4", disk.path.to_str().unwrap()]);
    let error = install(&request, &quiet).unwrap_err().to_string();
    assert!(error.contains("holds an ext filesystem; nothing was written"), "{error}");
    let mounted = Mounted::new(disk.path.to_str().unwrap());
    let error = install(&Request { wipe: true, ..request }, &quiet).unwrap_err();
    assert!(matches!(error, InstallError::Device(DeviceError::Busy(_))), "{error}");
    drop(mounted);
    run("fsck.ext4", &["-fn", disk.path.to_str().unwrap()]);
}

/// The power goes while the disk is being filled: it starts nothing, and may be filled again without a flag.
#[test]
fn an_installation_that_was_interrupted_is_done_again() {
    let Some(disk) = Loop::new(1024) else { return };
    let material = Material::new();
    let mut request = material.request(&disk.path);
    request.root = Some(material.directory.path().join("no such tree"));
    assert!(install(&request, &quiet).is_err());
    assert!(disk.is_zero(), "what cannot be read is found before anything is written");
    request.root = None;
    let stopped = std::panic::catch_unwind(|| install(&request, &|step| assert_ne!(step, "boot loader")));
    assert!(stopped.is_err() && !disk.is_zero());
    let name: DiskName = request.disk.parse().unwrap();
    assert_eq!(installed(&name, &material.release).unwrap(), None);
    assert!(check(&name, false).is_ok());
    let done = install(&request, &quiet).unwrap();
    assert_eq!(done.root, None);
    assert_eq!(installed(&name, &"0".repeat(64)).unwrap(), Some(done));
    assert!(matches!(check(&name, false), Err(InstallError::Holds { .. })));
    assert_eq!(disk.table().partitions.len(), 3);
}
