//! The command line as a person and a script meet it: clear errors, JSON, exit status.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::path::Path;
use std::process::{Command, Output};

fn bootfabric(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bootfabric")).args(args).output().unwrap()
}

fn errors(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "exit status of a failure");
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn init(home: &Path) -> serde_json::Value {
    let output = bootfabric(&["init", "--json", "--fabric", home.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_fabric_is_made_once_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("fabric");
    let made = init(&home);
    assert_eq!(made["trust_root"].as_str().unwrap().len(), 64);
    let again = bootfabric(&["init", "--fabric", home.to_str().unwrap()]);
    assert!(errors(&again).contains("root.key"), "{again:?}");
}

#[test]
fn members_are_admitted_and_revoked_without_a_node_too() {
    let dir = tempfile::tempdir().unwrap();
    let (home, state) = (dir.path().join("fabric"), dir.path().join("state"));
    let member = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bootfabric"));
        command.arg("member").args(args).arg("--json").arg("--fabric").arg(&home).arg("--state").arg(&state);
        command.output().unwrap()
    };
    let json = |output: Output| -> serde_json::Value {
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let init = bootfabric(&["init", "--private", "--json", "--fabric", home.to_str().unwrap()]);
    assert_eq!(json(init)["settings"]["private"], true);
    let id = "ab".repeat(32);
    assert!(errors(&member(&["admit", &id])).contains("--name"));
    assert!(errors(&member(&["admit", &id, "--name", "No Name"])).contains("No Name"));
    assert!(errors(&member(&["admit", "--waiting"])).contains("no machine waits"));
    assert_eq!(json(member(&["admit", &id, "--name", "rack1"]))[0]["node"], *id);
    assert_eq!(json(member(&["ls"]))["members"][0]["name"], "rack1");
    assert_eq!(json(member(&["revoke", &id]))[0]["name"], "rack1");
    let listed = json(member(&["ls"]));
    assert_eq!((&listed["members"][0]["node"], &listed["members"][0]["generation"]), (&().into(), &2.into()));
    assert!(errors(&member(&["revoke", "rack1"])).contains("member ls"));

    let open = dir.path().join("open");
    self::init(&open);
    let open =
        bootfabric(&["member", "ls", "--fabric", open.to_str().unwrap(), "--state", state.to_str().unwrap()]);
    assert!(errors(&open).contains("not private"), "{open:?}");
}

#[test]
fn a_pool_outside_of_its_subnet_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("fabric");
    let args = [
        "init",
        "--subnet",
        "10.1.0.0/24",
        "--pool",
        "10.2.0.1-10.2.0.9",
        "--fabric",
        home.to_str().unwrap(),
    ];
    assert!(errors(&bootfabric(&args)).contains("pool"));
    assert!(!home.join("keys").exists(), "nothing is half done");
}

#[test]
fn a_limit_that_is_none_is_told_with_what_would_be_one() {
    for (limit, expected) in [("50Mb", "400mbit"), ("9kB", "at least 1mbit")] {
        let output = bootfabric(&["up", "--interface", "lo", "--upload-limit", limit]);
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(limit) && text.contains(expected), "{text}");
    }
    assert_eq!(bootfabric(&["up", "--interface", "lo", "--max-connections", "0"]).status.code(), Some(2));
}

#[test]
fn an_unknown_interface_is_named_with_those_there_are() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let args = ["up", "--interface", "nope0", "--fabric", dir.path().to_str().unwrap()];
    let text = errors(&bootfabric(&args));
    assert!(text.contains("nope0") && text.contains("this machine has"), "{text}");
}

#[test]
fn without_a_fabric_the_next_step_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for args in [["up", "--interface", "lo"], ["image", "ls", "--json"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_bootfabric"))
            .args(args)
            .args(["--fabric", dir.path().to_str().unwrap()])
            .output()
            .unwrap();
        assert!(errors(&output).contains("bootfabric init"), "{output:?}");
    }
}

#[test]
fn without_an_image_the_next_step_is_told() {
    if !netlab::ready_or_skip().unwrap() {
        return;
    }
    let lab = netlab::Lab::new("noimage").unwrap();
    let switch = lab.switch("sw0").unwrap();
    let host = lab.host("origin", &switch).unwrap();
    let home = lab.directory().join("home");
    init(&home);
    let mut command = host.command(env!("CARGO_BIN_EXE_bootfabric"));
    command
        .args(["up", "--interface", "eth0", "--fabric"])
        .arg(&home)
        .arg("--state")
        .arg(lab.directory().join("state"));
    assert!(errors(&command.output().unwrap()).contains("bootfabric image build"));
}

#[test]
fn a_port_in_use_is_told_with_its_owner() {
    if !netlab::ready_or_skip().unwrap() {
        return;
    }
    let lab = netlab::Lab::new("inuse").unwrap();
    let switch = lab.switch("sw0").unwrap();
    let host = lab.host("origin", &switch).unwrap();
    let home = lab.directory().join("home");
    init(&home);
    let mut command = host.command(env!("CARGO_BIN_EXE_bootfabric"));
    // A peer instead of an image: the ports are looked at before anything else is waited for.
    command
        .args(["up", "--interface", "eth0", "--peer", "10.77.0.250", "--address", "10.77.0.1/22", "--fabric"])
        .arg(&home);
    command.arg("--state").arg(lab.directory().join("state"));
    let text = host
        .run_in(|| {
            let _owner = std::net::UdpSocket::bind("0.0.0.0:67").unwrap();
            errors(&command.output().unwrap())
        })
        .unwrap();
    assert!(
        text.contains("67") && text.contains("in use") && text.contains(&std::process::id().to_string()),
        "{text}"
    );
}

#[test]
fn status_without_a_node_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let text = errors(&bootfabric(&["status", "--state", dir.path().to_str().unwrap()]));
    assert!(text.contains("bootfabric up"), "{text}");
}

#[test]
fn completions_and_help_need_nothing() {
    assert!(bootfabric(&["completions", "bash"]).stdout.starts_with(b"_bootfabric"));
    let help = bootfabric(&["--help"]);
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("Getting started"));
    assert_eq!(bootfabric(&["no-such-command"]).status.code(), Some(2));
}

/// A store with an image of the fabric in `home`; nothing of it boots.
fn image(home: &bootfabric::home::Home, name: &str) -> fabric::trust::Release {
    use fabric::trust::{Arch, Release, RootFormat, RootMode, SignedRelease};
    let store = home.store().unwrap();
    let add = |part: &str| store.add_bytes(format!("{part} of {name}").repeat(10_000).as_bytes()).unwrap();
    let release = Release {
        name: name.into(),
        version: "1".into(),
        generation: 1,
        arch: Arch::X86_64,
        kernel: store.add_bytes(b"a kernel that all share").unwrap(),
        kernel_version: "6.1".into(),
        first_stage: add("first stage"),
        root: add("root"),
        root_format: RootFormat::Squashfs,
        loaders: Vec::new(),
        cmdline: String::new(),
        root_mode: RootMode::Overlay,
        memory_needed_mib: 1,
    };
    let signed = SignedRelease::sign(&home.operator().unwrap(), &release).unwrap();
    let id = store.put_object(signed.bytes()).unwrap();
    store.set_head(&format!("release.{name}"), &id).unwrap();
    store.set_head("release", &id).unwrap();
    release
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A fabric with the images `old` and `new`, and how to run commands on its store.
fn fabric_with_images() -> (tempfile::TempDir, bootfabric::home::Home, impl Fn(&[&str]) -> Output) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fabric");
    init(&path);
    let home = bootfabric::home::Home::at(Some(&path)).unwrap();
    image(&home, "old");
    image(&home, "new");
    // A state directory without a node.
    let state = dir.path().to_str().unwrap().to_owned();
    let run = move |args: &[&str]| {
        let mut args = args.to_vec();
        args.extend(["--fabric", path.to_str().unwrap()]);
        if matches!(args[..2], ["store", "gc" | "pin" | "unpin" | "limit"]) {
            args.extend(["--state", &state]);
        }
        bootfabric(&args)
    };
    (dir, home, run)
}

#[test]
fn a_store_is_listed_pinned_collected_and_limited() {
    let (_dir, home, run) = fabric_with_images();
    let listing = json(&run(&["store", "ls", "--json"]));
    assert_eq!(
        (listing["blobs"].as_array().unwrap().len(), &listing["limit"]),
        (5, &serde_json::Value::Null)
    );
    let pinned = json(&run(&["store", "pin", "old", "--reason", "the last that works", "--json"]));
    assert_eq!((&pinned["name"], &pinned["item"]["kind"]), (&"old".into(), &"object".into()));
    assert!(run(&["image", "rm", "old"]).status.success());
    let listing = run(&["store", "ls"]);
    let text = String::from_utf8_lossy(&listing.stdout);
    assert!(
        text.contains("blobs (5)") && text.contains("pin `old`") && text.contains("the last that works"),
        "{text}"
    );
    assert_eq!(json(&run(&["store", "gc", "--json"]))["freed"], serde_json::json!([]));

    // A blob by the first digits of its hash.
    let root = image(&home, "new").root.blob.to_string();
    let pinned = json(&run(&["store", "pin", &root[..10], "--json"]));
    assert_eq!((&pinned["name"], &pinned["item"]["id"]), (&root[..16].into(), &root.as_str().into()));
    assert!(errors(&run(&["store", "pin", "no-such-thing"])).contains("store ls"));
    assert!(errors(&run(&["store", "unpin", "never"])).contains("there are"));
    assert!(run(&["store", "unpin", "old"]).status.success());
    let plan = json(&run(&["store", "gc", "--dry-run", "--json"]));
    assert_eq!(json(&run(&["store", "gc", "--json"])), plan);
    let blobs = plan["freed"].as_array().unwrap().iter().filter(|freed| freed["kind"] == "blob").count();
    assert_eq!(blobs, 2, "root and first stage of the old image: {plan}");

    assert_eq!(run(&["store", "limit", "much"]).status.code(), Some(2));
    assert_eq!(json(&run(&["store", "limit", "1MB", "--json"]))["limit"], 1_000_000);
    let error = home.store().unwrap().add_bytes(&vec![7; 1_000_000]).unwrap_err().to_string();
    assert!(error.contains("1000000 bytes") && error.contains("store limit"), "{error}");
    assert_eq!(json(&run(&["store", "limit", "none", "--json"]))["limit"], serde_json::Value::Null);
}

#[test]
fn a_store_that_somebody_has_open_can_be_read() {
    let (_dir, home, run) = fabric_with_images();
    let store = home.store().unwrap();
    let images = json(&run(&["image", "ls", "--json"]));
    assert_eq!(images.as_array().unwrap().len(), 2);
    assert_eq!(json(&run(&["image", "show", "old", "--json"]))["complete"], true);
    assert_eq!(json(&run(&["store", "ls", "--json"]))["blobs"].as_array().unwrap().len(), 5);
    assert_eq!(json(&run(&["store", "gc", "-n", "--json"]))["freed"], serde_json::json!([]));
    let verified = run(&["store", "verify", "--json"]);
    assert!(String::from_utf8_lossy(&verified.stderr).contains("left as it is"), "{verified:?}");
    assert_eq!(json(&verified)["blobs"], 5);
    for args in [
        &["store", "gc"][..],
        &["store", "pin", "old"],
        &["store", "unpin", "old"],
        &["store", "limit", "1GB"],
    ] {
        let text = errors(&run(args));
        assert!(
            text.contains(&format!("process {}", std::process::id())) && text.contains("--state"),
            "{text}"
        );
    }
    assert!(store.pins().unwrap().is_empty());
}

#[test]
fn damage_in_a_store_is_told_and_put_aside() {
    use std::os::unix::fs::{FileExt, PermissionsExt};
    let (_dir, home, run) = fabric_with_images();
    assert!(run(&["store", "verify"]).status.success());
    let store = home.store().unwrap();
    let damaged = store.blobs().into_iter().max_by_key(|info| info.reference.size).unwrap();
    std::fs::set_permissions(&damaged.path, std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::File::options().write(true).open(&damaged.path).unwrap().write_all_at(b"spoilt", 9).unwrap();
    for (open, words) in [(Some(store), "Nothing was changed"), (None, "no longer counts as held")] {
        let output = run(&["store", "verify", "--json"]);
        assert!(errors(&output).contains(words), "{output:?}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["damaged"][0]["blob"], damaged.reference.blob.to_string());
        drop(open);
    }
    let left = home.store().unwrap().blob(&damaged.reference.blob).unwrap();
    assert!(!left.is_complete());
    let elsewhere = home.path().join("nothing-here");
    let text = errors(&bootfabric(&["store", "gc", "--store", elsewhere.to_str().unwrap()]));
    assert!(text.contains("no store") && !elsewhere.exists(), "{text}");
}
