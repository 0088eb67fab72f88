//! Images go out again as they came in, and become new versions by work done inside of them.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod parts;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use netlab::wait_until;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use parts::{KERNEL, run};

/// What is waited for comes at once, or not at all.
const DEADLINE: Duration = Duration::from_secs(20);

/// A fabric with the image `test`, made of a small tree with one of everything.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        parts::make(bench.dir.path());
        for dir in ["dev", "proc", "run", "sys", "tmp", "etc", "srv/deep/er"] {
            fs::create_dir_all(bench.path("root").join(dir)).unwrap();
        }
        let file = |path: &str, content: &[u8]| {
            let path = bench.path("root").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        file("bin/busybox", &fs::read("/bin/busybox").unwrap());
        file("sbin/init", b"#!/bin/sh\n");
        file("etc/one", b"one");
        file("srv/deep/er/file", b"file");
        bench.special();
        run(&mut bench.bootfabric(&["init"]));
        let mut build = bench.bootfabric(&["image", "build", "--name", "test", "--version", "1"]);
        build.args(["--modules", "virtio", "--no-root-modules", "--no-shell", "--program", "/bin/busybox"]);
        build.arg("--loader").arg(format!("snponly.efi={}", bench.path("loader").display()));
        run(build.arg("--root").arg(bench.path("root")).arg("--kernel").arg(bench.path("kernel")));
        bench
    }

    /// What a plain copy would lose.
    fn special(&self) {
        let root = self.path("root");
        fs::set_permissions(root.join("bin/busybox"), PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
        fs::hard_link(root.join("etc/one"), root.join("srv/two")).unwrap();
        std::os::unix::fs::chown(root.join("srv/deep"), Some(1000), Some(50)).unwrap();
        fs::set_permissions(root.join("srv/deep/er"), PermissionsExt::from_mode(0o2770)).unwrap();
        for args in [["srv/null", "c", "1", "3"], ["srv/disk", "b", "8", "0"]] {
            run(Command::new("mknod").current_dir(&root).args(args));
        }
        run(Command::new("mkfifo").arg(root.join("srv/fifo")));
        xattr::set(root.join("etc/one"), "user.note", b"kept").unwrap();
        // cap_net_raw=ep (linux/capability.h: revision 2, effective, little endian).
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        xattr::set(root.join("sbin/init"), "security.capability", &capability).unwrap();
        run(Command::new("touch").args(["-d", "2001-02-03 04:05:06Z"]).arg(root.join("etc/one")));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn bootfabric(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bootfabric"));
        command.args(args).arg("--json").arg("--fabric").arg(self.path("fabric"));
        command
    }

    fn export(&self, args: &[&str], file: &str) -> Command {
        let mut command = self.bootfabric(&[&["image", "export"], args].concat());
        command.arg("-o").arg(self.path(file));
        command
    }

    /// Runs `script` in the newest version of the image.
    fn shell(&self, options: &[&str], script: &str) -> Output {
        let mut command = self.bootfabric(&[&["image", "shell", "test"], options].concat());
        command.args(["--", "/bin/busybox", "sh", "-euc", script]).output().unwrap()
    }

    /// The images in the store, as told.
    fn images(&self) -> String {
        String::from_utf8(run(&mut self.bootfabric(&["image", "ls"])).stdout).unwrap()
    }

    fn scratch_files(&self) -> usize {
        fs::read_dir(self.path("fabric/store/tmp")).unwrap().count()
    }
}

/// Everything below `root` with all that is known of it, by name; files of several names by the number of these.
fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let kind = metadata.file_type();
            let content = if kind.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            let link = if kind.is_symlink() { fs::read_link(&path).unwrap() } else { PathBuf::new() };
            let names = if kind.is_dir() { 0 } else { metadata.nlink() };
            let attributes: BTreeMap<_, _> = xattr::list(&path)
                .unwrap()
                .map(|name| (name.clone(), xattr::get(&path, &name).unwrap()))
                .collect();
            let mode = (metadata.mode(), metadata.uid(), metadata.gid(), metadata.mtime());
            let what = (mode, metadata.rdev(), names, link, content.len(), attributes);
            found.insert(path.strip_prefix(root).unwrap().to_owned(), format!("{what:?} {content:?}"));
            if kind.is_dir() {
                open.push(path);
            }
        }
    }
    found
}

#[test]
fn a_root_comes_out_as_it_went_in() {
    // Devices and owners take root, which the lab needs too.
    if !netlab::ready_or_skip().unwrap() {
        return;
    }
    let bench = Bench::new();
    let before = tree(&bench.path("root"));
    for file in ["out.tar", "out.tar.zst"] {
        run(&mut bench.export(&["test"], file));
        let out = bench.path(&format!("{file}.d"));
        fs::create_dir(&out).unwrap();
        let mut tar = Command::new("tar");
        tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]);
        run(tar.arg(bench.path(file)).arg("-C").arg(&out));
        assert_eq!(tree(&out), before, "{file}");
    }

    let shown = run(&mut bench.bootfabric(&["image", "show", "test"]));
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let parts: Vec<_> = shown["first_stage"].as_array().unwrap().iter().map(|part| &part["name"]).collect();
    assert_eq!(parts, ["program", "index of the modules", "modules: other"]);

    run(&mut bench.export(&["test@1", "--blob", "kernel"], "vmlinuz"));
    let kernel = fs::read(bench.path(&format!("kernel/boot/vmlinuz-{KERNEL}"))).unwrap();
    assert_eq!(fs::read(bench.path("vmlinuz")).unwrap(), kernel);
    run(&mut bench.export(&["test", "--blob", "snponly.efi"], "loader.out"));
    assert_eq!(fs::read(bench.path("loader.out")).unwrap(), b"loader");
    run(&mut bench.export(&["test", "--blob", "root"], "root.squashfs"));

    let refused = |args: &[&str], file: &str| {
        let output = bench.export(args, file).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused(&["test"], "out.tar").contains("is there already"));
    assert!(refused(&["test"], "out.zip").contains("names no tar"));
    assert!(refused(&["test", "--blob", "core"], "x").contains("has root, kernel, first-stage, "));
    let blobs = bench.path("fabric/store/blobs");
    let squashfs = fs::read(bench.path("root.squashfs")).unwrap();
    let held = fs::read_dir(blobs).unwrap().map(|entry| entry.unwrap().path());
    let held = held.filter(|path| path.is_file()).find(|path| fs::read(path).unwrap() == squashfs).unwrap();
    let mut damaged = squashfs;
    damaged[5000] ^= 1;
    fs::set_permissions(&held, PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(held, damaged).unwrap();
    assert!(refused(&["test"], "damaged.tar").contains("is damaged in the store"));
    assert!(!bench.path("damaged.tar").exists());
}

#[test]
fn work_in_a_root_becomes_a_version() {
    // Mounting takes root, which the lab needs too.
    if !netlab::ready_or_skip().unwrap() {
        return;
    }
    let bench = Bench::new();
    let json = |output: &Output| -> serde_json::Value {
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    // Fails, is discarded, changes nothing: no version.
    let failed = bench.shell(&[], "rm /etc/one; exit 3");
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("nothing of what it did is kept"));
    let discarded = json(&bench.shell(&["--discard"], "rm /etc/one"));
    assert_eq!(discarded["changes"]["removed"], 1);
    let idle = "test -c /dev/null && test -d /proc/1 && test -d /sys/class && test $$ = 1 && /bin/busybox touch /tmp/x /run/x";
    assert_eq!(json(&bench.shell(&[], idle))["release"], serde_json::Value::Null);

    let script = "
        echo new > /etc/new; mkdir /etc/dir; echo in > /etc/dir/file
        echo two > /etc/one; busybox chown 7:8 /srv/deep
        rm /srv/null /srv/fifo; rm -r /srv/deep/er; mkdir /srv/deep/er
        (while :; do :; done) &
    ";
    let script = script.replace("busybox ", "/bin/busybox ").replace("rm ", "/bin/busybox rm ");
    let script = script.replace("mkdir ", "/bin/busybox mkdir ");
    let made = json(&bench.shell(&[], &script));
    assert_eq!(made["release"]["version"], "2");
    assert_eq!(made["release"]["generation"], 2);
    let changes = (&made["changes"]["added"], &made["changes"]["changed"], &made["changes"]["removed"]);
    // /srv/deep/er comes back with another mode, and without its file.
    assert_eq!(changes, (&3.into(), &3.into(), &3.into()));

    run(&mut bench.export(&["test"], "out.tar"));
    let out = bench.path("out");
    fs::create_dir(&out).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]);
    run(tar.arg(bench.path("out.tar")).arg("-C").arg(&out));
    let (before, after) = (tree(&bench.path("root")), tree(&out));
    let gone = |path: &str| !after.contains_key(Path::new(path));
    assert!(
        ["srv/null", "srv/fifo", "srv/deep/er/file", "etc/resolv.conf", "tmp/x"]
            .iter()
            .all(|path| gone(path))
    );
    assert_eq!(fs::read(out.join("etc/dir/file")).unwrap(), b"in\n");
    assert_eq!(fs::read(out.join("etc/one")).unwrap(), b"two\n");
    let deep = out.join("srv/deep").metadata().unwrap();
    assert_eq!((deep.uid(), deep.gid()), (7, 8));
    for kept in ["srv/disk", "bin/busybox", "bin/sh", "sbin/init"] {
        assert_eq!(after[Path::new(kept)], before[Path::new(kept)], "{kept}");
    }
    // The version before is what it was.
    run(&mut bench.export(&["test@1"], "first.tar"));
    let listed = run(Command::new("tar").arg("-tf").arg(bench.path("first.tar")));
    assert!(String::from_utf8_lossy(&listed.stdout).contains("srv/deep/er/file"));
    assert_eq!(bench.scratch_files(), 0);
}

/// Names in the directory `path`.
fn names(path: &Path) -> Vec<String> {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

/// Mounts a tmpfs of `size` at `path` that this thread and what it starts see alone.
fn small_disk(path: &Path, size: &str) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    fs::create_dir(path).unwrap();
    let size = format!("size={size}");
    mount(Some("test"), path, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).unwrap();
}

#[test]
fn an_export_that_is_killed_leaves_nothing() {
    // Devices and owners take root, which the lab needs too.
    if !netlab::ready_or_skip().unwrap() {
        return;
    }
    let bench = Bench::new();
    for dir in ["tools", "out"] {
        fs::create_dir(bench.path(dir)).unwrap();
    }
    // A tar without end.
    let (tool, pid) = (bench.path("tools/sqfs2tar"), bench.path("pid"));
    fs::write(&tool, format!("#!/bin/sh\necho $$ > {0}.part\nmv {0}.part {0}\nexec yes\n", pid.display()))
        .unwrap();
    fs::set_permissions(&tool, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bench.path("tools").display(), std::env::var("PATH").unwrap());
    let mut export = bench.export(&["test"], "out/test.tar");
    let mut export = export.env("PATH", path).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let written = || {
        let pid = fs::read_to_string(&pid).ok()?;
        let io = fs::read_to_string(format!("/proc/{}/io", pid.trim())).ok()?;
        let written = io.lines().find_map(|line| line.strip_prefix("wchar: "))?.parse::<u64>().ok()?;
        (written > 1 << 20).then(|| pid.trim().to_owned())
    };
    let tool = wait_until("a part is written", DEADLINE, written).unwrap();
    export.kill().unwrap();
    export.wait().unwrap();
    let ended = || (!Path::new(&format!("/proc/{tool}")).exists()).then_some(());
    wait_until("what wrote it ends", DEADLINE, ended).unwrap();
    assert_eq!(names(&bench.path("out")), Vec::<String>::new());
    run(&mut bench.export(&["test"], "out/test.tar"));
    assert_eq!(names(&bench.path("out")), ["test.tar"]);
    let mode = bench.path("out/test.tar").metadata().unwrap().mode();
    assert_eq!(mode & 0o7777, 0o666 & !umask());
}

/// The umask of this process (proc(5)).
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(umask.trim(), 8).unwrap()
}

#[test]
fn an_export_to_a_full_disk_leaves_nothing() {
    if !netlab::ready_or_skip().unwrap() {
        return;
    }
    let bench = Bench::new();
    small_disk(&bench.path("small"), "64k");
    for (args, file) in [
        (["test"].as_slice(), "small/test.tar"),
        (&["test"], "small/test.tar.zst"),
        (&["test", "--blob", "root"], "small/root"),
    ] {
        let output = bench.export(args, file).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(&format!("cannot write `{}`", bench.path(file).display())), "{told}");
        assert!(told.contains("No space left on device"), "{told}");
        assert_eq!(names(&bench.path("small")), Vec::<String>::new());
    }
}

#[test]
fn a_shell_that_is_killed_leaves_nothing() {
    if !netlab::ready_or_skip().unwrap() {
        return;
    }
    let bench = Bench::new();
    let before = bench.images();
    let time = format!("{}", 1_000_000 + std::process::id());
    let script = format!("echo > /etc/new; /bin/busybox touch /srv/ready; exec /bin/busybox sleep {time}");
    let mut shell = bench.bootfabric(&["image", "shell", "test"]);
    shell.args(["--", "/bin/busybox", "sh", "-euc", &script]);
    let mut shell = shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Who sleeps inside, by the last word of its command.
    let sleeping = || {
        fs::read_dir("/proc").unwrap().find_map(|entry| {
            let path = entry.ok()?.path();
            let line = fs::read(path.join("cmdline")).ok()?;
            let is_it = line.ends_with(format!("sleep\0{time}\0").as_bytes());
            is_it.then_some(path)
        })
    };
    let inside = wait_until("the command sleeps", DEADLINE, sleeping).unwrap();
    let blob = Command::new("losetup").args(["-l", "-n", "-O", "BACK-FILE"]).output().unwrap().stdout;
    let own = |list: &[u8]| String::from_utf8_lossy(list).contains(bench.dir.path().to_str().unwrap());
    assert!(own(&blob) && inside.join("root/srv/ready").exists());
    shell.kill().unwrap();
    shell.wait().unwrap();
    wait_until("it ends", DEADLINE, || sleeping().is_none().then_some(())).unwrap();
    let released = || {
        let list = Command::new("losetup").args(["-l", "-n", "-O", "BACK-FILE"]).output().unwrap().stdout;
        (!own(&list)).then_some(())
    };
    wait_until("the loop device goes", DEADLINE, released).unwrap();
    assert_eq!(bench.images(), before);
    let next = bench.shell(&["--discard"], "test ! -e /etc/new");
    assert!(next.status.success(), "{next:?}");
    assert_eq!(bench.scratch_files(), 0);
    assert_eq!(bench.images(), before);
}

#[test]
fn a_shell_on_a_full_disk_leaves_nothing() {
    if !netlab::ready_or_skip().unwrap() {
        return;
    }
    let bench = Bench::new();
    let small = bench.path("small");
    small_disk(&small, "24m");
    run(Command::new("cp").arg("-a").arg(bench.path("fabric")).arg(&small));
    let fabric = small.join("fabric");
    let state = || {
        let mut ls = Command::new(env!("CARGO_BIN_EXE_bootfabric"));
        let images = run(ls.args(["image", "ls", "--json", "--fabric"]).arg(&fabric)).stdout;
        let mut files = Vec::new();
        let mut open = vec![fabric.clone()];
        while let Some(dir) = open.pop() {
            for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() { open.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        (String::from_utf8(images).unwrap(), files)
    };
    let before = state();
    // The first finds no room for what it writes, the second leaves too little for the new version.
    let dd = "/bin/busybox dd if=/dev/urandom of=/srv/noise bs=1M";
    for (script, said) in [
        (format!("{dd} count=100"), "nothing of what it did is kept"),
        (format!("{dd} count=12"), "No space left on device"),
    ] {
        let mut shell = Command::new(env!("CARGO_BIN_EXE_bootfabric"));
        shell.args(["image", "shell", "test", "--fabric"]).arg(&fabric);
        let output = shell.args(["--", "/bin/busybox", "sh", "-euc", &script]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(said), "{told}");
        assert_eq!(state(), before, "{script}");
    }
}
