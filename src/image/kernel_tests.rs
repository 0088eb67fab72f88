use super::bzimage::tests::sample;
use super::*;

/// A directory laid out like `/` with kernels of these versions.
fn tree(versions: &[&str]) -> TempDir {
    let root = TempDir::new().unwrap();
    fs::create_dir_all(root.path().join("boot")).unwrap();
    for version in versions {
        fs::write(root.path().join(format!("boot/vmlinuz-{version}")), sample(version)).unwrap();
        let modules = root.path().join("usr/lib/modules").join(version);
        fs::create_dir_all(modules.join("kernel")).unwrap();
        fs::write(modules.join("modules.dep"), "").unwrap();
    }
    root
}

#[test]
fn the_newest_of_several_is_taken() {
    let root = tree(&["6.1.0-9-amd64", "6.1.0-40-amd64"]);
    let kernel = Kernel::open(&KernelSource::Directory(root.path().into())).unwrap();
    assert_eq!((kernel.version.as_str(), kernel.others), ("6.1.0-40-amd64", vec!["6.1.0-9-amd64".into()]));
    assert_eq!(kernel.unpacks_zstd, None);
}

#[test]
fn the_configuration_says_what_the_kernel_unpacks() {
    let root = tree(&["6.1"]);
    fs::write(root.path().join("boot/config-6.1"), "CONFIG_X=y\nCONFIG_RD_ZSTD=y\n").unwrap();
    assert_eq!(Kernel::in_directory(root.path(), "here").unwrap().unpacks_zstd, Some(true));
    fs::write(root.path().join("boot/config-6.1"), "# CONFIG_RD_ZSTD is not set\n").unwrap();
    assert_eq!(Kernel::in_directory(root.path(), "here").unwrap().unpacks_zstd, Some(false));
}

#[test]
fn a_bare_kernel_needs_its_modules() {
    let root = tree(&["6.1"]);
    let vmlinuz = root.path().join("boot/vmlinuz-6.1");
    assert!(matches!(KernelSource::detect(&vmlinuz, None), Err(KernelError::NoModuleDirectory(_))));
    for modules in ["usr/lib/modules/6.1", "usr/lib/modules", ""] {
        let source = KernelSource::detect(&vmlinuz, Some(&root.path().join(modules))).unwrap();
        assert_eq!(Kernel::open(&source).unwrap().version, "6.1");
    }
    let source = KernelSource::detect(&vmlinuz, Some(&root.path().join("boot"))).unwrap();
    assert!(matches!(Kernel::open(&source), Err(KernelError::NoModules { .. })));
}

#[test]
fn errors_name_what_is_missing() {
    let empty = TempDir::new().unwrap();
    let error = Kernel::in_directory(empty.path(), "the root").unwrap_err().to_string();
    assert!(error.contains("no kernel in the root") && error.contains("--kernel"), "{error}");
    let root = tree(&["6.1"]);
    fs::write(root.path().join("boot/vmlinuz-6.1"), sample("6.2")).unwrap();
    assert!(matches!(Kernel::in_directory(root.path(), ""), Err(KernelError::OtherVersion { .. })));
    fs::write(root.path().join("boot/vmlinuz-6.1"), "text").unwrap();
    assert!(matches!(Kernel::in_directory(root.path(), ""), Err(KernelError::Image { .. })));
    fs::write(root.path().join("boot/vmlinuz-6.1"), sample("6.1")).unwrap();
    fs::remove_dir_all(root.path().join("usr")).unwrap();
    assert!(matches!(Kernel::in_directory(root.path(), ""), Err(KernelError::NoModules { .. })));
}
