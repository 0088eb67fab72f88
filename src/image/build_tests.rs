use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use fabric::store::StoreOptions;
use fabric::trust::KeyDir;
use tempfile::TempDir;

use super::super::kernel::sample_kernel;
use super::super::progress::Silent;
use super::*;

const KERNEL: &str = "6.1.0-1-amd64";

/// A root, a kernel and loaders, small and made up, with the keys of a fabric.
struct Bench {
    dir: TempDir,
    operator: Operator,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let file = |path: &str, content: &[u8]| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        file("root/sbin/init", b"#!/bin/sh\n");
        file("root/etc/os-release", b"ID=test\n");
        file("root/usr/lib/x", b"x");
        std::os::unix::fs::symlink("usr/lib", dir.path().join("root/lib")).unwrap();
        file(&format!("kernel/boot/vmlinuz-{KERNEL}"), &sample_kernel(KERNEL));
        let modules = format!("kernel/lib/modules/{KERNEL}");
        let dep = "kernel/loop.ko:\nkernel/squashfs.ko:\nkernel/net/virtio_net.ko: kernel/net/failover.ko\nkernel/net/failover.ko:\n";
        file(&format!("{modules}/modules.dep"), dep.as_bytes());
        file(&format!("{modules}/modules.builtin"), b"kernel/fs/overlay.ko\n");
        for module in ["loop", "squashfs", "net/virtio_net", "net/failover"] {
            file(&format!("{modules}/kernel/{module}.ko"), module.as_bytes());
        }
        file("loader", b"loader");
        let operator = KeyDir::new(dir.path().join("keys")).init("test").unwrap();
        Self { dir, operator }
    }

    fn request(&self) -> BuildRequest {
        let loader = |name: &str| LoaderFile { name: name.into(), path: self.dir.path().join("loader") };
        BuildRequest {
            root: RootSource::detect(&self.dir.path().join("root")).unwrap(),
            kernel: Some(KernelSource::Directory(self.dir.path().join("kernel"))),
            name: "test".into(),
            version: "1".into(),
            cmdline: "console=ttyS0".into(),
            root_mode: RootMode::Overlay,
            modules: vec!["virtio".into()],
            root_modules: RootModules::Add,
            firmware: FirmwareSource::Root,
            tools: Vec::new(),
            disk: false,
            loaders: vec![loader("undionly.kpxe"), loader("snponly.efi")],
            program: "/proc/self/exe".into(),
            private: false,
            shell: false,
        }
    }

    fn store(&self, name: &str) -> Store {
        Store::open(&self.dir.path().join(name), StoreOptions::default()).unwrap()
    }

    fn build(&self, request: &BuildRequest, store: &Store) -> Result<Built, BuildError> {
        build(request, store, &self.operator, &Silent)
    }
}

/// The first stage of `built`, unpacked: what a cpio reader says is in it, by name.
fn first_stage(store: &Store, built: &Built) -> BTreeMap<String, Vec<u8>> {
    let packed = fs::read(store.blob(&built.release.first_stage.blob).unwrap().path()).unwrap();
    let plain = zstd::decode_all(packed.as_slice()).unwrap();
    super::super::cpio::tests::read(&plain).into_iter().map(|(name, _, content)| (name, content)).collect()
}

#[test]
fn an_image_is_whole_signed_and_the_current_one() {
    let bench = Bench::new();
    let store = bench.store("store");
    let built = bench.build(&bench.request(), &store).unwrap();
    let images = heads::list(&store, &bench.operator.trust_root()).unwrap();
    assert_eq!(images.len(), 1);
    assert!(images[0].current && images[0].complete);
    assert_eq!((images[0].id, &images[0].release), (built.id, &built.release));
    assert_eq!(built.release.kernel_version, KERNEL);
    assert!(built.release.memory_needed_mib > 128);

    let files = first_stage(&store, &built);
    let root = bench.operator.trust_root();
    assert_eq!(files["etc/bootfabric/trust-root"], format!("{root}\n").as_bytes());
    assert_eq!(files["etc/bootfabric/modules"], b"loop\nsquashfs\n");
    assert_eq!(files["sbin/modprobe"], b"../init");
    assert_eq!(files[&format!("lib/modules/{KERNEL}/kernel/net/failover.ko")], b"net/failover");
    assert!(files["init"].starts_with(b"\x7fELF"));
}

#[test]
fn the_kernels_modules_join_a_root_that_has_none() {
    let bench = Bench::new();
    let store = bench.store("store");
    let listing = |request: &BuildRequest| {
        let built = bench.build(request, &store).unwrap();
        let path = store.blob(&built.release.root.blob).unwrap().path().to_owned();
        let output = Command::new("unsquashfs").arg("-l").arg(path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let with = listing(&bench.request());
    assert!(
        with.contains(&format!("squashfs-root/usr/lib/modules/{KERNEL}/kernel/net/virtio_net.ko")),
        "{with}"
    );
    let without = listing(&BuildRequest { root_modules: RootModules::Leave, ..bench.request() });
    assert!(!without.contains("virtio_net"), "{without}");
}

#[test]
fn the_same_parts_give_the_same_blobs_and_a_new_generation() {
    let bench = Bench::new();
    let (one, other) = (bench.store("one"), bench.store("other"));
    let first = bench.build(&bench.request(), &one).unwrap();
    let second = bench.build(&BuildRequest { version: "2".into(), ..bench.request() }, &one).unwrap();
    let elsewhere = bench.build(&bench.request(), &other).unwrap();
    let blobs = |built: &Built| built.release.blobs().copied().collect::<Vec<_>>();
    assert_eq!(blobs(&first), blobs(&second));
    assert_eq!(first.id, elsewhere.id);
    assert_eq!((first.release.generation, second.release.generation), (1, 2));
}

#[test]
fn removing_frees_what_nothing_else_uses_and_remembers_the_generation() {
    let bench = Bench::new();
    let store = bench.store("store");
    let root = bench.operator.trust_root();
    bench.build(&bench.request(), &store).unwrap();
    fs::write(bench.dir.path().join("root/etc/other"), "other").unwrap();
    let other = BuildRequest { name: "other".into(), ..bench.request() };
    let kept = bench.build(&other, &store).unwrap();

    assert!(matches!(heads::remove(&store, &root, "other", false), Err(HeadsError::Current { .. })));
    assert!(matches!(heads::remove(&store, &root, "lost", false), Err(HeadsError::Unknown { .. })));
    assert!(heads::remove(&store, &root, "test", false).unwrap() > 0);
    assert!(kept.release.blobs().all(|blob| store.blob(&blob.blob).is_some()));
    assert_eq!(heads::list(&store, &root).unwrap().len(), 1);
    assert_eq!(bench.build(&bench.request(), &store).unwrap().release.generation, 2);
    heads::remove(&store, &root, "test", true).unwrap();
    heads::remove(&store, &root, "other", true).unwrap();
    assert!(store.blobs().is_empty());
}

#[test]
fn what_cannot_become_an_image_is_refused_and_changes_nothing() {
    let bench = Bench::new();
    let store = bench.store("store");
    let refused = |request: BuildRequest| {
        let error = bench.build(&request, &store).unwrap_err();
        assert!(store.heads().unwrap().is_empty() && store.blobs().is_empty());
        assert_eq!(fs::read_dir(store.path().join("tmp")).unwrap().count(), 0);
        format!("{:#}", anyhow::Error::from(error))
    };
    let cases: [(&str, BuildRequest); 6] = [
        ("there is no kernel in the root", BuildRequest { kernel: None, ..bench.request() }),
        ("none of the network drivers", BuildRequest { modules: vec!["storage".into()], ..bench.request() }),
        ("`Test` must be", BuildRequest { name: "Test".into(), ..bench.request() }),
        ("not an ELF file", BuildRequest { program: bench.dir.path().join("loader"), ..bench.request() }),
        ("full path", BuildRequest { tools: vec!["ls".into()], ..bench.request() }),
        (
            "cannot read the boot loader",
            BuildRequest { loaders: vec!["snponly.efi=/lost".parse().unwrap()], ..bench.request() },
        ),
    ];
    for (expected, request) in cases {
        let error = refused(request);
        assert!(error.contains(expected), "{expected} not in: {error}");
    }
    fs::remove_file(bench.dir.path().join("root/sbin/init")).unwrap();
    let error = refused(bench.request());
    assert!(error.contains("no init"), "{error}");
}

#[test]
fn a_dynamic_program_is_no_first_stage() {
    let bench = Bench::new();
    let shell = fs::canonicalize("/bin/sh").unwrap();
    let request = BuildRequest { program: shell, ..bench.request() };
    match bench.build(&request, &bench.store("store")) {
        Err(BuildError::FirstStage(FirstStageError::Dynamic(_))) | Ok(_) => {}
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn tools_run_in_the_first_stage_alone() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: chroot needs root");
        return;
    }
    let bench = Bench::new();
    let store = bench.store("store");
    let tool = fs::canonicalize("/bin/ls").unwrap();
    let built = bench.build(&BuildRequest { tools: vec![tool], ..bench.request() }, &store).unwrap();
    let packed = fs::read(store.blob(&built.release.first_stage.blob).unwrap().path()).unwrap();
    let target = bench.dir.path().join("unpacked");
    fs::create_dir(&target).unwrap();
    let cpio =
        Command::new("cpio").args(["-idm", "--quiet"]).current_dir(&target).stdin(Stdio::piped()).spawn();
    let Ok(mut cpio) = cpio else {
        eprintln!("skipped: the program cpio is not installed");
        return;
    };
    zstd::stream::copy_decode(packed.as_slice(), cpio.stdin.take().unwrap()).unwrap();
    assert!(cpio.wait().unwrap().success());
    let output = Command::new("chroot").arg(&target).args(["/bin/ls", "/etc/bootfabric"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "image.json\nmodules\ntrust-root\n", "{output:?}");
}

/// With a distribution's kernel: every dependence of every module is there.
#[test]
fn the_modules_of_a_real_kernel_are_complete() {
    let assets = std::env::var_os("BOOTFABRIC_ASSETS").map_or_else(|| "target/assets".into(), PathBuf::from);
    let kernel = assets.join("kernel/current");
    if !kernel.exists() {
        eprintln!("skipped: no kernel in {} (tests/assets.sh makes it)", kernel.display());
        return;
    }
    let bench = Bench::new();
    let store = bench.store("store");
    for sets in [vec!["virtio".to_owned()], vec!["pc".to_owned(), "storage".to_owned()]] {
        let request = BuildRequest {
            kernel: Some(KernelSource::Directory(kernel.clone())),
            modules: sets,
            root_modules: RootModules::Leave,
            ..bench.request()
        };
        let built = bench.build(&request, &store).unwrap();
        let files = first_stage(&store, &built);
        let modules = format!("lib/modules/{}", built.release.kernel_version);
        let dep = String::from_utf8(files[&format!("{modules}/modules.dep")].clone()).unwrap();
        assert!(dep.contains("virtio_net.ko"));
        for path in dep.split([' ', ':', '\n']).filter(|path| !path.is_empty()) {
            assert!(files[&format!("{modules}/{path}")].starts_with(b"\x7fELF"), "{path}");
        }
        let in_dep = dep.lines().count();
        assert_eq!(files.keys().filter(|name| name.ends_with(".ko")).count(), in_dep);
    }
}

#[test]
fn firmware_that_modules_ask_for_is_in_the_first_stage() {
    let bench = Bench::new();
    let store = bench.store("store");
    let path = |path: &str| bench.dir.path().join(path);
    let module = super::super::firmware::tests::module(b"firmware=card.bin\0firmware=lost.bin\0");
    fs::write(path(&format!("kernel/lib/modules/{KERNEL}/kernel/net/virtio_net.ko")), module).unwrap();
    fs::create_dir_all(path("root/usr/lib/firmware")).unwrap();
    fs::write(path("root/usr/lib/firmware/card.bin"), "of the root").unwrap();
    fs::create_dir(path("own")).unwrap();
    fs::write(path("own/lost.bin"), "of a directory").unwrap();
    // A small program, as it is compressed each time.
    let request = |firmware| BuildRequest { firmware, program: "/bin/busybox".into(), ..bench.request() };

    let built = bench.build(&request(FirmwareSource::Root), &store).unwrap();
    assert_eq!(first_stage(&store, &built)["lib/firmware/card.bin"], b"of the root");
    assert_eq!(built.firmware.missing, ["lost.bin"]);
    let names: Vec<_> = built.first_stage.iter().map(|part| (part.name.as_str(), part.files)).collect();
    let expected = [
        ("program", 2),
        ("modules: network", 2),
        ("modules: other", 2),
        ("index of the modules", 4),
        ("firmware", 1),
    ];
    assert_eq!(names, expected);
    let both = bench.build(&request(FirmwareSource::Directory(path("own"))), &store).unwrap();
    assert_eq!(first_stage(&store, &both)["lib/firmware/lost.bin"], b"of a directory");
    assert!(both.firmware.missing.is_empty());
    let none = bench.build(&request(FirmwareSource::None), &store).unwrap();
    assert!(first_stage(&store, &none).keys().all(|name| !name.starts_with("lib/firmware")));
}
