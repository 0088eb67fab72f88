use fabric::content::BlobRef;
use fabric::store::StoreOptions;
use fabric::trust::{Arch, KeyDir, Loader, Operator, RootFormat, RootMode};
use tempfile::TempDir;

use super::super::diff::diff;
use super::*;

/// A store and an operator; images are made of a few bytes.
struct Bench {
    store: Store,
    operator: Operator,
    trust_root: TrustRoot,
    _dir: TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let operator = KeyDir::new(dir.path().join("keys")).init("test").unwrap();
        let options = StoreOptions { durable: false, ..StoreOptions::default() };
        let store = Store::open(&dir.path().join("store"), options).unwrap();
        Self { store, trust_root: operator.trust_root(), operator, _dir: dir }
    }

    fn blob(&self, content: &str) -> BlobRef {
        self.store.add_bytes(content.as_bytes()).unwrap()
    }

    /// An image whose root is of its own, and whose other blobs all images have.
    fn publish(&self, name: &str, version: &str) -> Release {
        let generation = next_generation(&self.store, &self.trust_root, name).unwrap();
        let release = Release {
            name: name.into(),
            version: version.into(),
            generation,
            arch: Arch::X86_64,
            kernel: self.blob("kernel"),
            kernel_version: "6.1".into(),
            first_stage: self.blob("first stage"),
            root: self.blob(&format!("root of {name} {version} {generation}")),
            root_format: RootFormat::Squashfs,
            loaders: vec![Loader { name: "undionly.kpxe".into(), blob: self.blob("loader") }],
            cmdline: String::new(),
            root_mode: RootMode::Overlay,
            memory_needed_mib: 1,
        };
        let signed = SignedRelease::sign(&self.operator, &release).unwrap();
        publish(&self.store, &self.trust_root, name, &signed).unwrap();
        release
    }

    fn generation(&self, selector: &str) -> Result<u64, HeadsError> {
        find(&self.store, &self.trust_root, selector).map(|image| image.release.generation)
    }

    fn remove(&self, selector: &str, force: bool) -> Result<u64, HeadsError> {
        remove(&self.store, &self.trust_root, selector, force)
    }

    fn has_root(&self, release: &Release) -> bool {
        self.store.blob(&release.root.blob).is_some()
    }

    /// Name, generation, newest, current.
    fn states(&self) -> Vec<(String, u64, bool, bool)> {
        let images = list(&self.store, &self.trust_root).unwrap();
        assert!(images.iter().all(|image| image.complete));
        let state =
            |image: Image| (image.release.name, image.release.generation, image.newest, image.current);
        images.into_iter().map(state).collect()
    }
}

fn state(name: &str, generation: u64, newest: bool, current: bool) -> (String, u64, bool, bool) {
    (name.into(), generation, newest, current)
}

#[test]
fn versions_are_named_and_the_oldest_go() {
    let bench = Bench::new();
    bench.publish("test.2", "1");
    let versions = ["1", "2", "2", "3"].map(|version| bench.publish("test", version));
    let expected = [
        state("test", 4, true, true),
        state("test", 3, false, false),
        state("test", 2, false, false),
        state("test.2", 1, true, false),
    ];
    assert_eq!(bench.states(), expected);
    for (selector, generation) in [("test", 4), ("test@2", 3), ("test#2", 2), ("test@3", 4), ("test.2", 1)] {
        assert_eq!(bench.generation(selector).unwrap(), generation, "{selector}");
    }
    for absent in ["test@1", "test#1", "test#", "test@", "tes", "test.2@2", "test#02", "@1", ""] {
        assert!(matches!(bench.generation(absent), Err(HeadsError::Unknown { .. })), "{absent}");
    }
    // What only the one that went used is gone.
    assert_eq!(versions.each_ref().map(|release| bench.has_root(release)), [false, true, true, true]);
    assert!(versions[0].boot_blobs().all(|blob| bench.store.blob(&blob.blob).is_some()));
    let text = bench.generation("other").unwrap_err().to_string();
    assert!(text.contains("(it has test@3, test@2, test.2@1)"), "{text}");
}

#[test]
fn one_version_goes_or_all() {
    let bench = Bench::new();
    let [one, two, three] = ["1", "2", "3"].map(|version| bench.publish("test", version));
    let other = bench.publish("other", "1");
    // The newest goes: the one before it takes its place, and its generation is not given again.
    assert_eq!(bench.remove("test@3", false).unwrap(), three.root.size);
    assert_eq!(bench.states()[1..], [state("test", 2, true, false), state("test", 1, false, false)]);
    let four = bench.publish("test", "4");
    assert_eq!(four.generation, 4);
    assert!(matches!(bench.remove("test", false), Err(HeadsError::Current { .. })));
    assert_eq!(bench.remove("test#1", false).unwrap(), one.root.size);
    assert_eq!(bench.remove("test", true).unwrap(), two.root.size + four.root.size);
    assert_eq!(bench.states(), [state("other", 1, true, false)]);
    assert_eq!(bench.publish("test", "5").generation, 5);
    bench.remove("test", true).unwrap();
    bench.remove("other", false).unwrap();
    assert!(bench.store.blobs().is_empty() && !bench.has_root(&other));
    let heads: Vec<String> = bench.store.heads().unwrap().into_iter().map(|(head, _)| head).collect();
    assert_eq!(heads, ["removed.other", "removed.test"]);
}

#[test]
fn what_machines_are_booted_with_is_never_dropped() {
    let bench = Bench::new();
    let booted = bench.publish("test", "1");
    bench.publish("test", "2");
    // Machines are booted with the one before, as after a step back.
    let id = find(&bench.store, &bench.trust_root, "test@1").unwrap().id;
    bench.store.set_head(CURRENT, &id).unwrap();
    assert!(matches!(bench.remove("test@1", false), Err(HeadsError::Current { .. })));
    bench.store.remove_head(&earlier_name(&booted)).unwrap();
    bench.remove("test", false).unwrap();
    assert!(booted.blobs().all(|blob| bench.store.blob(&blob.blob).is_some()));
}

#[test]
fn a_kill_between_two_heads_leaves_one_image() {
    let bench = Bench::new();
    let release = bench.publish("test", "1");
    let id = bench.store.head(&newest_name("test")).unwrap().unwrap();
    bench.store.set_head(&earlier_name(&release), &id).unwrap();
    assert_eq!(bench.states(), [state("test", 1, true, true)]);
    bench.publish("test", "2");
    assert_eq!(bench.states(), [state("test", 2, true, true), state("test", 1, false, false)]);
}

#[test]
fn a_diff_tells_what_moves_for_each_blob() {
    let bench = Bench::new();
    let (one, two) = (bench.publish("test", "1"), bench.publish("test", "2"));
    let moved = diff(&bench.store, &one, &two).unwrap();
    let roles: Vec<_> = moved.blobs.iter().map(|blob| blob.role.as_str()).collect();
    assert_eq!(roles, ["undionly.kpxe", "kernel", "first-stage", "root"]);
    let (root, boot) = moved.blobs.split_last().unwrap();
    assert!(boot.iter().all(|blob| blob.moves.moved_bytes == 0 && blob.moves.shared_percent > 99.9));
    let index = bench.store.index(&two.root).unwrap().encode().len() as u64;
    assert_eq!(root.moves.moved_bytes, two.root.size + index);
    assert_eq!(moved.total.moved_bytes, root.moves.moved_bytes);
    assert_eq!(moved.total.difference.bytes, two.blobs().map(|blob| blob.size).sum::<u64>());
    bench.store.forget(&two.root.blob).unwrap();
    let lost = diff(&bench.store, &one, &two).unwrap_err().to_string();
    assert!(lost.contains("(root)"), "{lost}");
}
