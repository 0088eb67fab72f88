//! Container images become images: layouts and archives that Debian's tools make, and a registry with a password.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod parts;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use netlab::wait_until;
use parts::run;

/// `user` and `pass word`, by the registry's only kind of hash.
const PASSWORDS: &str = "user:$2b$04$DTHJlzVdltkPB3OHN0QxPeDxE9efSZTSY8Shd269RNI5Gc.43e33y\n";
/// The same as container tools keep them.
const AUTH: &str = "dXNlcjpwYXNzIHdvcmQ=";

/// A fabric, the parts of an image beside its root, and a container image with two layers in a layout.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        parts::make(bench.dir.path());
        run(&mut bench.bootfabric(&["init"]));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn bootfabric(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bootfabric"));
        command.args(args).arg("--json").arg("--fabric").arg(self.path("fabric"));
        command.env("REGISTRY_AUTH_FILE", self.path("auth.json")).env("HOME", self.path("home"));
        command
    }

    fn import(&self, source: &str) -> Command {
        let mut command = self.bootfabric(&["image", "import", source, "--name", "test", "--version", "1"]);
        command.args(["--modules", "virtio", "--no-root-modules", "--no-shell"]);
        command.arg("--loader").arg(format!("snponly.efi={}", self.path("loader").display()));
        // Any static program, a small one.
        command.arg("--kernel").arg(self.path("kernel")).args(["--program", "/bin/busybox"]);
        command
    }

    /// Imports `source`; the id of the root's blob.
    fn imported(&self, source: &str) -> String {
        let output = run(&mut self.import(source));
        let built: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        built["release"]["root"]["blob"].as_str().unwrap().to_owned()
    }

    /// What is said when `source` is refused; the store has no image and no scratch files then.
    fn refused(&self, source: &str) -> String {
        let output = self.import(source).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let images = run(&mut self.bootfabric(&["image", "ls"]));
        assert_eq!(String::from_utf8_lossy(&images.stdout).trim(), "[]");
        assert_eq!(fs::read_dir(self.path("fabric/store/tmp")).unwrap().count(), 0);
        String::from_utf8(output.stderr).unwrap()
    }

    /// What unsquashfs lists of the root `blob`.
    fn listing(&self, blob: &str) -> String {
        let store = self.path("fabric/store");
        let store =
            fabric::store::Store::open_reader(&store, fabric::store::StoreOptions::default()).unwrap();
        let path = store.blob(&blob.parse().unwrap()).unwrap().path().to_owned();
        let output = run(Command::new("unsquashfs").args(["-UTC", "-lln"]).arg(path));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A container image of two layers as umoci makes it: the second removes, replaces and adds.
    fn layout(&self) -> String {
        let layout = self.path("layout");
        let image = format!("{}:test", layout.display());
        let umoci = |args: &[&str]| drop(run(Command::new("umoci").args(args)));
        umoci(&["init", "--layout", layout.to_str().unwrap()]);
        umoci(&["new", "--image", &image]);
        let (first, second) = (self.path("first"), self.path("second"));
        umoci(&["unpack", "--image", &image, first.to_str().unwrap()]);
        let root = first.join("rootfs");
        for dir in ["sbin", "etc", "old/deep", "usr/lib", "srv"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for file in ["sbin/init", "etc/kept", "etc/removed", "old/deep/file", "usr/lib/a", "srv/owned"] {
            fs::write(root.join(file), file).unwrap();
        }
        fs::hard_link(root.join("usr/lib/a"), root.join("usr/lib/b")).unwrap();
        std::os::unix::fs::chown(root.join("srv/owned"), Some(1000), Some(50)).unwrap();
        run(Command::new("mknod").arg(root.join("srv/device")).args(["c", "1", "3"]));
        umoci(&["repack", "--image", &image, first.to_str().unwrap()]);

        umoci(&["unpack", "--image", &image, second.to_str().unwrap()]);
        let root = second.join("rootfs");
        fs::remove_file(root.join("etc/removed")).unwrap();
        fs::remove_dir_all(root.join("old")).unwrap();
        fs::write(root.join("old"), "a file now").unwrap();
        fs::write(root.join("usr/lib/a"), "content that only one name has").unwrap();
        umoci(&["repack", "--image", &image, second.to_str().unwrap()]);
        format!("oci:{image}")
    }
}

fn skopeo(from: &str, to: &str, more: &[&str]) {
    run(Command::new("skopeo").args(["--insecure-policy", "copy", "-q"]).args(more).args([from, to]));
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Debian's docker-registry, ended with the test.
struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    /// The registry of the directory `dir`, with `http`, lines of its configuration.
    fn start(dir: &Path, http: &str) -> Self {
        fs::write(dir.join("passwords"), PASSWORDS).unwrap();
        let port = free_port();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {dir}/registry\nhttp:\n  addr: 127.0.0.1:{port}\n{http}auth:\n  htpasswd:\n    realm: test\n    path: {dir}/passwords\n",
            dir = dir.display()
        );
        fs::write(dir.join("registry.yml"), config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.join("registry.yml")).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let connect = || TcpStream::connect(("127.0.0.1", port)).ok();
        wait_until("the registry answers", Duration::from_secs(20), connect).unwrap();
        Self { child, port }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn an_image_is_the_same_from_wherever_it_comes() {
    // umoci keeps owners and devices only as root, which the lab needs too.
    if !netlab::ready_or_skip().unwrap() {
        return;
    }
    let bench = Bench::new();
    let layout = bench.layout();
    let registry = Registry::start(bench.dir.path(), "");
    let at = |name: &str| format!("docker://127.0.0.1:{}/{name}", registry.port);
    skopeo(&layout, &at("some/test:1"), &["--dest-tls-verify=false", "--dest-creds=user:pass word"]);
    // Nobody's credentials, then a repository that is not there.
    let denied = bench.refused(&at("some/test:1"));
    assert!(denied.contains("no credentials are kept") && denied.contains("login"), "{denied}");
    let auth = format!(r#"{{ "auths": {{ "127.0.0.1:{}": {{ "auth": "{AUTH}" }} }} }}"#, registry.port);
    fs::write(bench.path("auth.json"), auth).unwrap();
    let lost = bench.refused(&at("some/other"));
    assert!(lost.contains("has no `127.0.0.1") && lost.contains("some/other:latest"), "{lost}");

    let root = bench.imported(&layout);
    let listing = bench.listing(&root);
    for gone in ["etc/removed", "old/deep", ".wh."] {
        assert!(!listing.contains(gone), "{gone} in {listing}");
    }
    for there in ["etc/kept", "/old\n", "1000/50", "/srv/device"] {
        assert!(listing.contains(there), "{there} not in {listing}");
    }
    assert_eq!(bench.imported(&at("some/test:1")), root);
    for kind in ["oci-archive", "docker-archive"] {
        let archive = format!("{kind}:{}", bench.path(kind).display());
        skopeo(&layout, &format!("{archive}:a:test"), &[]);
        assert_eq!(bench.imported(&archive), root, "{kind}");
    }

    // What the registry's disk made of its layers.
    run(bench.bootfabric(&["image", "rm", "test", "--force"]).stdout(Stdio::null()));
    let blobs = bench.path("registry/docker/registry/v2/blobs");
    let found = run(Command::new("find").arg(blobs).args(["-name", "data"]));
    for path in String::from_utf8(found.stdout).unwrap().lines() {
        let mut bytes = fs::read(path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(path, bytes).unwrap();
        }
    }
    let damaged = bench.refused(&at("some/test:1"));
    assert!(damaged.contains("should be sha256:"), "{damaged}");
}

#[test]
fn what_is_no_image_is_refused_with_nothing_left_behind() {
    // umoci keeps owners and devices only as root, which the lab needs too.
    if !netlab::ready_or_skip().unwrap() {
        return;
    }
    let bench = Bench::new();
    let layout = bench.layout();
    let other = bench.path("arm");
    run(Command::new("cp").arg("-a").arg(bench.path("layout")).arg(&other));
    let image = format!("{}:test", other.display());
    run(Command::new("umoci").args(["config", "--architecture", "arm64", "--image", &image]));
    let arm = bench.refused(&format!("oci:{image}"));
    assert!(arm.contains("no variant for linux/amd64") && arm.contains("linux/arm64"), "{arm}");
    let source = bench.import("htp://x/y").output().unwrap();
    assert!(String::from_utf8_lossy(&source.stderr).contains("is no source"), "{source:?}");
    let unreachable = bench.refused(&format!("docker://127.0.0.1:{}/x", free_port()));
    assert!(unreachable.contains("cannot get `http://127.0.0.1"), "{unreachable}");
    let mut no_kernel = bench.bootfabric(&["image", "import", &layout, "--name", "test", "--version", "1"]);
    let output = no_kernel.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("no kernel"), "{output:?}");
    assert_eq!(fs::read_dir(bench.path("fabric/store/tmp")).unwrap().count(), 0);
}

/// Makes a certificate of 127.0.0.1 that is its own authority, `NAME.crt`, and its key, `NAME.key`, in `dir`.
fn certificate(dir: &Path, name: &str) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj"]);
    command.arg(format!("/CN={name}")).args(["-addext", "subjectAltName=IP:127.0.0.1"]).current_dir(dir);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    run(command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")]));
}

#[test]
fn a_registry_with_certificates_of_its_own_is_believed_as_container_tools_do() {
    // umoci keeps owners and devices only as root, which the lab needs too.
    if !netlab::ready_or_skip().unwrap() {
        return;
    }
    let bench = Bench::new();
    let layout = bench.layout();
    for name in ["server", "client", "stranger"] {
        certificate(bench.dir.path(), name);
    }
    let dir = bench.dir.path().display();
    let http = format!(
        "  tls:\n    certificate: {dir}/server.crt\n    key: {dir}/server.key\n    clientcas: [{dir}/client.crt]\n"
    );
    let registry = Registry::start(bench.dir.path(), &http);
    let image = format!("docker://127.0.0.1:{}/test:1", registry.port);
    let kept = bench.path(&format!("home/.config/containers/certs.d/127.0.0.1:{}", registry.port));
    let keep = |from: &str, to: &str| assert_ne!(fs::copy(bench.path(from), kept.join(to)).unwrap(), 0);
    fs::create_dir_all(&kept).unwrap();
    keep("stranger.crt", "ca.crt");
    let unknown = bench.refused(&image);
    assert!(unknown.contains("its authority is not known here"), "{unknown}");
    keep("server.crt", "ca.crt");
    let anonymous = bench.refused(&image);
    assert!(anonymous.contains("wants a certificate"), "{anonymous}");
    keep("client.crt", "client.cert");
    keep("client.key", "client.key");
    skopeo(&layout, &image, &["--dest-creds=user:pass word", "--dest-cert-dir", kept.to_str().unwrap()]);
    let auth = format!(r#"{{ "auths": {{ "127.0.0.1:{}": {{ "auth": "{AUTH}" }} }} }}"#, registry.port);
    fs::write(bench.path("auth.json"), auth).unwrap();
    let root = bench.imported(&image);
    assert_eq!(bench.imported(&layout), root);
}

#[test]
fn an_image_is_the_same_whoever_builds_it() {
    // Making devices and becoming somebody else takes root, which the lab needs too.
    if !netlab::ready_or_skip().unwrap() {
        return;
    }
    let bench = Bench::new();
    let tree = bench.path("tree");
    for dir in ["sbin", "srv/deep"] {
        fs::create_dir_all(tree.join(dir)).unwrap();
    }
    fs::write(tree.join("sbin/init"), "init").unwrap();
    std::os::unix::fs::chown(tree.join("srv/deep"), Some(1000), Some(50)).unwrap();
    run(Command::new("mknod").arg(tree.join("srv/device")).args(["c", "1", "3"]));
    let tar = bench.path("root.tar");
    run(Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&tree).args(["sbin", "srv"]));
    let ours = bench.imported(tar.to_str().unwrap());
    assert!(bench.listing(&ours).contains("drwxr-xr-x 0/0"));

    // A program that others can reach, and a directory of theirs.
    let program = bench.path("bootfabric");
    fs::copy(env!("CARGO_BIN_EXE_bootfabric"), &program).unwrap();
    let home = bench.path("nobody");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(65534), Some(65534)).unwrap();
    fs::set_permissions(bench.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let fabric = home.join("fabric");
    let nobody = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).args(args);
        command.arg("--fabric").arg(&fabric).env("TMPDIR", &home);
        command
    };
    run(&mut nobody(&["init"]));
    let mut import = nobody(&["image", "import", tar.to_str().unwrap(), "--name", "test", "--version", "1"]);
    import.args(["--modules", "virtio", "--no-root-modules", "--no-shell", "--program", "/bin/busybox"]);
    import.arg("--loader").arg(format!("snponly.efi={}", bench.path("loader").display()));
    let output = run(import.arg("--kernel").arg(bench.path("kernel")).arg("--json"));
    let built: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(built["release"]["root"]["blob"].as_str().unwrap(), ours);
}
