//! One seeder and one fetcher on loopback, against nginx, curl and b3sum in the same run: wall and CPU of both ends.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::crowd::program;
use crate::measure::{median, spread, start, usage, write_noise};

/// Wall and CPU seconds of both ends.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

/// Runs both in turn and prints the ratios of pairs.
pub(crate) fn report(size: u64, runs: usize) {
    let files = tempfile::tempdir().unwrap();
    let source = files.path().join("source");
    write_noise(&source, size);
    let pairs: Vec<(Cost, Cost)> =
        (0..runs).map(|_| (ours(files.path(), &source), theirs(files.path(), &source))).collect();
    for (ours, theirs) in &pairs {
        eprintln!("  ours {ours:?}  nginx + curl + b3sum {theirs:?}");
    }
    let ratio = |get: fn(&Cost) -> f64| pairs.iter().map(|(a, b)| get(a) / get(b)).collect::<Vec<_>>();
    println!(
        "pair       wall {}  CPU {} of nginx + curl + b3sum ({:.2} s wall, {:.2} s CPU here)",
        spread(&ratio(|cost| cost.wall)),
        spread(&ratio(|cost| cost.cpu)),
        median(pairs.iter().map(|pair| pair.0.wall).collect()),
        median(pairs.iter().map(|pair| pair.0.cpu).collect()),
    );
}

fn ours(dir: &Path, source: &Path) -> Cost {
    let mut command = Command::new(program());
    let mut seeder =
        start(command.arg("seed").arg(source).args(["--listen", "127.0.0.1"]), &dir.join("seed.log"));
    let mut ticket = String::new();
    BufReader::new(seeder.stdout.as_mut().unwrap()).read_line(&mut ticket).unwrap();
    let output = dir.join("ours");
    let (seeder_before, children, begun) = (usage(seeder.id()).cpu, children_cpu(), Instant::now());
    let mut fetch = Command::new(program());
    let done =
        fetch.arg("fetch").arg(ticket.trim()).arg("-o").arg(&output).stderr(Stdio::null()).status().unwrap();
    let wall = begun.elapsed().as_secs_f64();
    assert!(done.success());
    let cpu = children_cpu() - children + usage(seeder.id()).cpu - seeder_before;
    seeder.kill().unwrap();
    seeder.wait().unwrap();
    std::fs::remove_file(output).unwrap();
    Cost { wall, cpu }
}

fn theirs(dir: &Path, source: &Path) -> Cost {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (root, pid) = (source.parent().unwrap(), dir.join("nginx.pid"));
    let config = format!(
        "user root; worker_processes 1; daemon off; pid {}; error_log stderr; events {{}}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {dir}; proxy_temp_path {dir}; \
         fastcgi_temp_path {dir}; uwsgi_temp_path {dir}; scgi_temp_path {dir}; \
         server {{ listen 127.0.0.1:{port}; root {}; }} }}\n",
        pid.display(),
        root.display(),
        dir = dir.display(),
    );
    let path = dir.join("nginx.conf");
    std::fs::write(&path, config).unwrap();
    let mut nginx = Command::new("nginx").arg("-c").arg(&path).stderr(Stdio::null()).spawn().expect("nginx");
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    netlab::wait_until("nginx", std::time::Duration::from_secs(20), || TcpStream::connect(address).ok())
        .unwrap();
    let workers = children_of(nginx.id());
    let served = || workers.iter().map(|&pid| usage(pid).cpu).sum::<f64>() + usage(nginx.id()).cpu;
    let output = dir.join("theirs");
    let (nginx_before, children, begun) = (served(), children_cpu(), Instant::now());
    let url = format!("http://{address}/{}", source.file_name().unwrap().to_str().unwrap());
    assert!(Command::new("curl").args(["-sS", "-o"]).arg(&output).arg(url).status().unwrap().success());
    assert!(Command::new("b3sum").arg(&output).stdout(Stdio::null()).status().unwrap().success());
    let wall = begun.elapsed().as_secs_f64();
    let cpu = children_cpu() - children + served() - nginx_before;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(nginx.id().cast_signed()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    nginx.wait().unwrap();
    std::fs::remove_file(output).unwrap();
    Cost { wall, cpu }
}

/// CPU seconds of the children that have ended and were waited for.
fn children_cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
}

fn children_of(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
