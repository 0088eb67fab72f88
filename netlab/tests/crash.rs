//! What a killed lab leaves behind is taken away by the next one.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use common::{LONG, two_hosts};
use netlab::{Lab, Result, ready_or_skip, sweep_stale, wait_until};

/// Tells the test program below that it is the one to be killed.
const VICTIM: &str = "NETLAB_TEST_VICTIM";

#[test]
fn leftovers_of_a_killed_process_are_swept() -> Result<()> {
    if !ready_or_skip()? {
        return Ok(());
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .env(VICTIM, "1")
        .env_remove("NETLAB_KEEP")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(std::result::Result::ok);
    let made = lines.find_map(|line| line.split_once("MADE ").map(|(_, rest)| rest.to_owned())).unwrap();
    let words: Vec<_> = made.split(' ').collect();
    let [id, directory, pid] = words[..] else { panic!("{made}") };
    let left = || -> Vec<_> {
        std::fs::read_dir("/run/netns")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect()
    };
    let of_victim = |names: Vec<String>| names.into_iter().filter(|name| name.starts_with(id)).count();

    // A living lab is left alone.
    let swept = sweep_stale();
    let alive = of_victim(left());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!swept?.labs.contains(&id.to_owned()));
    assert_eq!(alive, 3);

    // Another test process may sweep at the same moment, so only the result counts.
    sweep_stale()?;
    wait_until("the namespaces to be gone", LONG, || (of_victim(left()) == 0).then_some(()))?;
    wait_until("the manifest and the files to be gone", LONG, || {
        let gone = |path: &str| !std::path::Path::new(path).exists();
        (gone(directory) && gone(&format!("/run/netlab/{id}.json")) && gone(&format!("/run/netlab/{id}")))
            .then_some(())
    })?;
    wait_until("its process to be gone", LONG, || {
        (!std::path::Path::new("/proc").join(pid).exists()).then_some(())
    })?;
    Ok(())
}

/// Not a test: the process that the test above kills.
#[test]
#[ignore = "run by the other test"]
fn victim() -> Result<()> {
    if std::env::var_os(VICTIM).is_none() {
        return Ok(());
    }
    let lab = Lab::new("victim")?;
    let switch = lab.switch("sw0")?;
    let (a, _b) = two_hosts(&lab, &switch)?;
    let process = a.spawn("sleeper", a.command("sleep").arg("1000"))?;
    println!("MADE {} {} {}", lab.id(), lab.directory().display(), process.pid());
    // Ends only when it is killed, or when its killer is gone.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    Ok(())
}
