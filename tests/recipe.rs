//! A recipe becomes an image: packages by mmdebstrap, files, commands and the kernel.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// A small system with a bit of everything.
const RECIPE: &str = r#"
name = "small"
suite = "bookworm"
packages = ["systemd-sysv"]
kernel = "linux-image-cloud-amd64"
commands = ["useradd -u 1234 worker", "cat /etc/motd > /srv/seen"]

[[files]]
path = "/etc/motd"
content = "it's a recipe\n"

[[files]]
path = "/usr/local/bin/tool"
source = "tool"
mode = "4750"
owner = "games:1000"
"#;

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(recipe: &str) -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        fs::write(bench.path("small.toml"), recipe).unwrap();
        fs::write(bench.path("tool"), "#!/bin/sh\n").unwrap();
        fs::write(bench.path("loader"), "loader").unwrap();
        let init = Command::new(env!("CARGO_BIN_EXE_bootfabric"))
            .args(["init", "--fabric"])
            .arg(bench.path("fabric"))
            .output()
            .unwrap();
        assert!(init.status.success(), "{init:?}");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn build(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bootfabric"));
        command.args(["image", "build"]).arg(self.path("small.toml")).args(more);
        command.args([
            "--json",
            "--modules",
            "virtio",
            "--no-shell",
            "--program",
            "/bin/busybox",
            "--fabric",
        ]);
        command.arg(self.path("fabric"));
        command.arg("--loader").arg(format!("snponly.efi={}", self.path("loader").display()));
        command.output().unwrap()
    }

    /// What unsquashfs says of the root that `output` tells of.
    fn root(&self, output: &Output, how: &[&str]) -> String {
        let built: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let store = self.path("fabric/store");
        let store =
            fabric::store::Store::open_reader(&store, fabric::store::StoreOptions::default()).unwrap();
        let blob = built["release"]["root"]["blob"].as_str().unwrap().parse().unwrap();
        let path = store.blob(&blob).unwrap().path().to_owned();
        let listed = Command::new("unsquashfs").args(how).arg(path).output().unwrap();
        String::from_utf8_lossy(&listed.stdout).into_owned()
    }
}

#[test]
fn a_recipe_becomes_an_image() {
    // Without root it takes a range of user ids, which not every machine that builds has.
    if !netlab::ready_or_skip().unwrap() {
        return;
    }
    let bench = Bench::new(RECIPE);
    let output = bench.build(&["--version", "1"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for step in ["fetching packages", "installing packages", "placing files", "packing the root"] {
        assert!(said.contains(step), "{said}");
    }
    let built: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&built["release"]["name"], &built["release"]["version"]), (&"small".into(), &"1".into()));
    let kernel = built["release"]["kernel_version"].as_str().unwrap();
    assert!(kernel.contains("cloud"), "{kernel}");
    let listing = bench.root(&output, &["-lln"]);
    let line = |name: &str| listing.lines().find(|line| line.ends_with(name)).unwrap_or_default();
    assert!(line("squashfs-root/usr/local/bin/tool").starts_with("-rwsr-x--- 5/1000"), "{listing}");
    assert!(line("squashfs-root/etc/motd").starts_with("-rw-r--r-- 0/0"), "{listing}");
    assert!(listing.contains(&format!("squashfs-root/usr/lib/modules/{kernel}/kernel")), "{listing}");
    for gone in ["bootfabric-", "squashfs-root/boot/vmlinuz", "squashfs-root/etc/hostname"] {
        assert!(!listing.contains(gone), "{gone}");
    }
    assert!(line("squashfs-root/srv/seen").contains(" 14 "), "what the file says: {listing}");
    assert_eq!(fs::read_dir(bench.path("fabric/store/tmp")).unwrap().count(), 0);
}

#[test]
fn what_is_wrong_is_told_before_anything_is_fetched() {
    let refused = |recipe: &str, more: &[&str]| {
        let bench = Bench::new(recipe);
        let output = bench.build(more);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(fs::read_dir(bench.path("fabric/store/tmp")).unwrap().count(), 0);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("fetching"), "{said}");
        said
    };
    let unknown = refused("suite = 'bookworm'\npakages = []", &[]);
    assert!(unknown.contains("small.toml is not right:\n  line 2: unknown field `pakages`"), "{unknown}");
    let version = refused("suite = 'bookworm'\nname = 'x'", &[]);
    assert!(version.contains("--version"), "{version}");
    let name = refused("suite = 'bookworm'\nname = 'NO!'\nversion = '1'", &[]);
    assert!(name.contains("name"), "{name}");
}

#[test]
fn what_mmdebstrap_says_is_repeated() {
    if !netlab::ready_or_skip().unwrap() {
        return;
    }
    let empty = tempfile::tempdir().unwrap();
    let mirror = empty.path().display();
    let bench =
        Bench::new(&format!("suite = 'nosuite'\nmirror = 'copy://{mirror}'\nname = 'x'\nversion = '1'\n"));
    let output = bench.build(&[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("`mmdebstrap` failed") && said.contains("nosuite"), "{said}");
    assert!(!said.contains("set -eu"), "{said}");
    assert_eq!(fs::read_dir(bench.path("fabric/store/tmp")).unwrap().count(), 0);
}

#[test]
#[ignore = "soak: installs a Debian twice"]
fn two_builds_of_a_recipe_are_one() {
    if !netlab::ready_or_skip().unwrap() {
        return;
    }
    let root = || {
        let bench = Bench::new(RECIPE);
        let output = bench.build(&["--version", "1"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let built: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        built["release"]["root"]["blob"].as_str().unwrap().to_owned()
    };
    assert_eq!(root(), root());
}
