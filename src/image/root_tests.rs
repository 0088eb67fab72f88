use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::super::progress::Silent;
use super::super::tar::{END, Kind, NewMember, padding};
use super::*;

/// A small root with all that is odd about roots.
fn tree(names_backwards: bool) -> TempDir {
    let dir = TempDir::new().unwrap();
    let root = dir.path();
    let mut dirs = ["etc", "proc", "sbin", "usr", "usr/lib", "var", "var/lib", "var/lib/bootfabric", "dev"];
    let mut files = vec![
        ("sbin/init", "#!"),
        ("etc/hostname", "x\n"),
        ("proc/leftover", "no"),
        ("var/lib/bootfabric/leftover", "no"),
        ("usr/lib/large", ""),
    ];
    for dir in dirs {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    if names_backwards {
        files.reverse();
        dirs.reverse();
    }
    let large = "content that repeats\n".repeat(20_000);
    for (name, content) in files {
        let content = if name.ends_with("large") { &large } else { content };
        fs::write(root.join(name), content).unwrap();
    }
    fs::hard_link(root.join("etc/hostname"), root.join("etc/same")).unwrap();
    symlink("/nowhere/../at/all", root.join("etc/link")).unwrap();
    fs::set_permissions(root.join("sbin/init"), fs::Permissions::from_mode(0o4755)).unwrap();
    drop(xattr::set(root.join("sbin/init"), "user.test", b"kept"));
    // Symbolic links' times are set with `-h`.
    let touched = Command::new("find")
        .arg(root)
        .args(["-exec", "touch", "-h", "-d", "@1000000000", "{}", "+"])
        .status();
    assert!(touched.unwrap().success());
    dir
}

pub(super) fn pack(source: &Path, out: &Path) -> Result<Vec<u8>, RootError> {
    let source = RootSource::detect(source)?;
    Root::survey(&source, false, Path::new("/nowhere"), &Silent)?.pack(None, out, &Silent)?;
    Ok(fs::read(out).unwrap())
}

fn list(squashfs: &Path) -> String {
    let output = Command::new("unsquashfs").args(["-UTC", "-lls"]).arg(squashfs).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_directory_is_packed_without_what_belongs_to_a_running_system() {
    let (root, out) = (tree(false), TempDir::new().unwrap());
    let squashfs = out.path().join("root");
    pack(root.path(), &squashfs).unwrap();
    let listing = list(&squashfs);
    for expected in [
        "-rwsr-xr-x",
        "squashfs-root/etc/link -> /nowhere/../at/all",
        "2001-09-09 01:46",
        "squashfs-root/tmp",
        "drwxrwxrwt",
    ] {
        assert!(listing.contains(expected), "{expected} not in\n{listing}");
    }
    assert!(!listing.contains("leftover"), "{listing}");
    assert!(listing.contains("squashfs-root/var/lib/bootfabric\n"), "{listing}");
}

#[test]
fn the_same_root_gives_the_same_bytes_in_whatever_order_it_was_made() {
    let out = TempDir::new().unwrap();
    let (one, other) = (tree(false), tree(true));
    let first = pack(one.path(), &out.path().join("1")).unwrap();
    assert_eq!(first, pack(other.path(), &out.path().join("2")).unwrap());
    // One processor instead of all.
    let affinity = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    let mut single = nix::sched::CpuSet::new();
    let cpu = (0..nix::sched::CpuSet::count()).find(|&cpu| affinity.is_set(cpu).unwrap()).unwrap();
    single.set(cpu).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &single).unwrap();
    assert_eq!(first, pack(one.path(), &out.path().join("3")).unwrap());
}

#[test]
fn a_root_written_in_this_second_is_dated_by_its_newest_file() {
    let (root, out) = (tree(false), TempDir::new().unwrap());
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    // As archives round it up.
    let newest = SystemTime::UNIX_EPOCH + Duration::from_secs(now + 1);
    fs::File::open(root.path().join("etc")).unwrap().set_modified(newest).unwrap();
    let (squashfs, unpacked) = (out.path().join("root"), out.path().join("unpacked"));
    pack(root.path(), &squashfs).unwrap();
    let status = Command::new("unsquashfs").args(["-q", "-n", "-d"]).arg(&unpacked).arg(&squashfs).status();
    assert!(status.unwrap().success());
    assert_eq!(fs::metadata(&unpacked).unwrap().modified().unwrap(), newest);
}

#[test]
fn a_tar_gives_what_the_directory_gives_however_it_is_compressed() {
    let (root, out) = (tree(false), TempDir::new().unwrap());
    let tar = out.path().join("root.tar");
    let options = ["--sort=name", "--xattrs", "--format=pax", "-C"];
    let made = Command::new("tar").args(options).arg(root.path()).arg("-cf").arg(&tar).arg(".").status();
    assert!(made.unwrap().success());
    let plain = pack(&tar, &out.path().join("plain")).unwrap();
    assert_eq!(list(&out.path().join("plain")).lines().count(), {
        pack(root.path(), &out.path().join("dir")).unwrap();
        list(&out.path().join("dir")).lines().count()
    });
    for program in ["gzip", "xz", "zstd"] {
        let packed = out.path().join(program);
        let status = Command::new(program)
            .arg("-c")
            .arg(&tar)
            .stdout(fs::File::create(&packed).unwrap())
            .stderr(std::process::Stdio::null())
            .status();
        if status.is_ok_and(|status| status.success()) {
            assert_eq!(pack(&packed, &out.path().join("out")).unwrap(), plain, "{program}");
        }
    }
}

fn member(path: &str, content: &[u8]) -> Vec<u8> {
    let new =
        NewMember { size: content.len() as u64, ..NewMember::plain(path.as_bytes(), Kind::File, 0o644) };
    [&new.header(), content, padding(new.size)].concat()
}

#[test]
fn bad_archives_are_refused_before_anything_is_made() {
    let out = TempDir::new().unwrap();
    let (tar, squashfs) = (out.path().join("tar"), out.path().join("squashfs"));
    let refused = |bytes: &[u8]| {
        fs::write(&tar, bytes).unwrap();
        let error = pack(&tar, &squashfs).unwrap_err();
        assert!(!squashfs.exists());
        let mut words = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            words = format!("{words}: {error}");
            cause = error.source();
        }
        words
    };
    let hostile = refused(&[member("sbin/init", b"x"), member("../../evil", b"x"), END.to_vec()].concat());
    assert!(hostile.contains("../../evil"), "{hostile}");
    let no_init = refused(&[member("etc/passwd", b"x"), END.to_vec()].concat());
    assert!(no_init.contains("no init") && no_init.contains("usr/lib/systemd/systemd"), "{no_init}");
    assert!(refused(b"just text").contains("not a tar archive"));
    let cut = refused(&member("sbin/init", &[0; 5000])[..3000]);
    assert!(cut.contains("cut off after `sbin/init`"), "{cut}");
    let whole = [member("sbin/init", &[0; 5000]), END.to_vec()].concat();
    let packed = zstd::encode_all(whole.as_slice(), 1).unwrap();
    assert!(refused(&packed[..packed.len() - 5]).contains("it is cut off"));
    let gzip = refused(&[0x1f, 0x8b, 8, 0, 0, 0]);
    assert!(gzip.contains("gzip"), "{gzip}");
}

#[test]
fn a_root_for_another_machine_is_refused() {
    let out = TempDir::new().unwrap();
    let mut program = vec![0; 64];
    program[..6].copy_from_slice(b"\x7fELF\x02\x01");
    program[18] = 183;
    fs::write(
        out.path().join("tar"),
        [member("sbin/init", b"#!"), member("bin/bash", &program), END.to_vec()].concat(),
    )
    .unwrap();
    let root = out.path().join("root");
    fs::create_dir_all(root.join("sbin")).unwrap();
    fs::write(root.join("sbin/init"), &program).unwrap();
    for source in ["tar", "root"] {
        let error = pack(&out.path().join(source), &out.path().join("squashfs")).unwrap_err().to_string();
        assert!(error.contains("64-bit ARM") && error.contains("amd64"), "{error}");
    }
    assert!(!out.path().join("squashfs").exists());
}

#[test]
fn the_kernel_of_a_tar_is_kept_on_request() {
    let out = TempDir::new().unwrap();
    let tar = out.path().join("tar");
    let members = [
        member("sbin/init", b"x"),
        member("./boot/vmlinuz-6.1", b"kernel"),
        member("usr/lib/modules/6.1/kernel/a.ko", b"a"),
    ];
    fs::write(&tar, [members.concat(), END.to_vec()].concat()).unwrap();
    let root = Root::survey(&RootSource::Tar(tar), true, Path::new("/nowhere"), &Silent).unwrap();
    assert_eq!(fs::read(root.kernel_directory().join("boot/vmlinuz-6.1")).unwrap(), b"kernel");
    assert!(root.has_modules("6.1") && !root.has_modules("6.2"));
    assert!(!root.kernel_directory().join("sbin").exists());
}

/// Members in an order and at names that only following links and keeping count makes a root of.
#[test]
fn members_behind_links_and_after_their_children_find_their_place() {
    let out = TempDir::new().unwrap();
    let link = |path: &str, kind, to: &str| {
        NewMember { link: to.as_bytes(), ..NewMember::plain(path.as_bytes(), kind, 0o777) }.header()
    };
    let members = [
        member("usr/lib/first", b"1"),
        link("lib", Kind::Symlink, "usr/lib"),
        member("lib/second", b"2"),
        link("usr/lib/third", Kind::HardLink, "lib/second"),
        NewMember::plain(b"usr/lib", Kind::Directory, 0o711).header(),
        member("sbin/init", b"old"),
        member("sbin/init", b"newer"),
    ];
    fs::write(out.path().join("tar"), [members.concat(), END.to_vec()].concat()).unwrap();
    let squashfs = out.path().join("root");
    pack(&out.path().join("tar"), &squashfs).unwrap();
    let listing = list(&squashfs);
    for expected in
        ["drwx--x--x root/root", "/usr/lib/second\n", "/usr/lib/third\n", "/usr/lib/first\n", " 5 1970"]
    {
        assert!(listing.contains(expected), "{expected} not in\n{listing}");
    }
    assert!(!listing.contains("root/lib/") && listing.contains("root/lib -> usr/lib"), "{listing}");
    assert_eq!(listing.matches("sbin/init").count(), 1);
}

#[test]
fn the_store_is_not_packed_into_its_own_image() {
    let (root, out) = (tree(false), TempDir::new().unwrap());
    let store = root.path().join("srv");
    fs::create_dir(&store).unwrap();
    fs::write(store.join("blob"), "x").unwrap();
    let source = RootSource::detect(root.path()).unwrap();
    let squashfs = out.path().join("root");
    Root::survey(&source, false, &store, &Silent).unwrap().pack(None, &squashfs, &Silent).unwrap();
    assert!(!list(&squashfs).contains("srv"));
}
