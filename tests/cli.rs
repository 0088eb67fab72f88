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
