//! TFTP and HTTP on loopback, against nginx, atftpd and tftpd-hpa where they are installed.
//!
//! Run with `cargo bench -p pxe --bench file_services`. The environment variables `NGINX`, `ATFTPD` and `TFTPD_HPA` name
//! programs outside the search path; `ONLY` runs the scenarios that contain its text, `ROUNDS` times (9). In each round the
//! servers take turns. A line is one scenario with one server: medians of the throughput by the wall clock and of the CPU
//! seconds of the server alone per GB, their ranges, and the medians of the ratios, round by round, of ours to that server's.
//! The clients are the same for all servers. Figures of one run may be compared, those of two may not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a benchmark stops where it cannot go on"
)]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pxe::bind::{BindOptions, tcp, udp};
use pxe::files::{BootFiles, DiskBody, FileError, FileRequest, ServedFile};
use pxe::http::{HttpConfig, HttpServer};
use pxe::tftp::{TftpConfig, TftpServer};
use tokio_util::sync::CancellationToken;

/// What the program is built with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SMALL: &str = "boot.img";
const SMALL_BYTES: usize = 30 << 20;
const LARGE: &str = "root.img";
const LARGE_BYTES: usize = 1 << 30;
const RUN: usize = 1 << 20;
const ROUNDS: usize = 9;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("serve") => serve(Path::new(arguments.get(2).expect("a directory"))),
        _ => compare(),
    }
}

/// The child: both services over the files of `dir`, until stdin closes.
fn serve(dir: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let open = |name: &str| (name.to_owned(), Arc::new(File::open(dir.join(name)).unwrap()));
        let files: Arc<dyn BootFiles> = Arc::new(Directory([open(SMALL), open(LARGE)].into()));
        let stop = CancellationToken::new();
        let any = "127.0.0.1:0".parse().unwrap();
        let options = BindOptions::default();
        let http = HttpServer::serve(
            tcp(any, &options).unwrap(),
            Arc::clone(&files),
            // As nginx does it: all at once.
            HttpConfig { max_downloads: None, ..HttpConfig::default() },
            stop.clone(),
        )
        .unwrap();
        let tftp =
            TftpServer::serve(udp(any, &options).unwrap(), files, TftpConfig::default(), stop).unwrap();
        println!("{} {}", http.local_addr(), tftp.local_addr());
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
            .await
            .unwrap()
            .unwrap();
    });
}

struct Directory(HashMap<String, Arc<File>>);

#[async_trait]
impl BootFiles for Directory {
    async fn open(&self, request: &FileRequest) -> Result<ServedFile, FileError> {
        let file = self.0.get(&request.name).ok_or(FileError::NotFound)?;
        Ok(ServedFile { content_type: None, etag: None, body: Arc::new(DiskBody::new(Arc::clone(file))?) })
    }
}

fn compare() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(dir.path().join(SMALL), noise(SMALL_BYTES)).unwrap();
    fs::write(dir.path().join(LARGE), noise(LARGE_BYTES)).unwrap();
    let mut ours = Command::new(std::env::current_exe().unwrap())
        .arg("serve")
        .arg(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(ours.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (http, tftp) = line.trim().split_once(' ').unwrap();
    let mut servers =
        vec![Server { name: "ours", http: http.parse().ok(), tftp: tftp.parse().ok(), process: ours }];
    servers.extend(nginx(dir.path()));
    servers.extend(atftpd(dir.path()));
    servers.extend(tftpd_hpa(dir.path()));

    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let only = std::env::var("ONLY").unwrap_or_default();
    println!(
        "{:<36} {:<10} {:>18} {:>20} {:>8} {:>8}",
        "scenario", "server", "MB/s", "CPU-s per GB", "ours x", "CPU x"
    );
    for (name, run) in SCENARIOS {
        if name.contains(&only) {
            scenario(name, *run, &servers, rounds);
        }
    }
}

/// Bytes read from a server; `None` if it does not serve this.
type Run = fn(&Server) -> Option<usize>;

const SCENARIOS: &[(&str, Run)] = &[
    ("HTTP 1 GiB, 1 MiB ranges, 1 client", |server| server.http.map(ranges)),
    ("HTTP 30 MiB, 1 client, 16 times", |server| server.http.map(|addr| (0..16).map(|_| whole(addr)).sum())),
    ("HTTP 30 MiB, 32 clients", |server| server.http.map(|addr| crowd(32, move || whole(addr)))),
    ("TFTP windowsize 1, 1 client", |server| {
        server.tftp.map(|addr| (0..2).map(|_| read_tftp(addr, 1)).sum())
    }),
    ("TFTP windowsize 16, 1 client", |server| {
        server.windowed().map(|addr| (0..4).map(|_| read_tftp(addr, 16)).sum())
    }),
    ("TFTP windowsize 16, 32 clients", |server| {
        server.windowed().map(|addr| crowd(32, move || read_tftp(addr, 16)))
    }),
];

fn scenario(name: &str, run: Run, servers: &[Server], rounds: usize) {
    let mut figures: Vec<Vec<Figure>> = servers.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        // Nobody is always the first.
        for at in (0..servers.len()).map(|at| (at + round) % servers.len()) {
            figures[at].extend(servers[at].measure(run));
        }
    }
    for (server, of) in servers.iter().zip(&figures) {
        if of.is_empty() {
            continue;
        }
        let show = |value: fn(&Figure) -> f64, digits| {
            let values = sorted(of.iter().map(value));
            let (least, most) = (values[0], values[values.len() - 1]);
            format!("{:.digits$} ({least:.digits$}-{most:.digits$})", values[values.len() / 2])
        };
        let ratio = |value: fn(&Figure) -> f64| {
            let values = sorted(figures[0].iter().zip(of).map(|(ours, other)| value(ours) / value(other)));
            values[values.len() / 2]
        };
        println!(
            "{name:<36} {:<10} {:>18} {:>20} {:>8.2} {:>8.2}",
            server.name,
            show(|figure| figure.rate, 0),
            show(|figure| figure.cpu, 2),
            ratio(|figure| figure.rate),
            ratio(|figure| figure.cpu),
        );
    }
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// One measurement: MB/s by the wall clock, CPU seconds of the server per GB.
struct Figure {
    rate: f64,
    cpu: f64,
}

struct Server {
    name: &'static str,
    http: Option<SocketAddr>,
    tftp: Option<SocketAddr>,
    process: Child,
}

impl Server {
    fn measure(&self, run: Run) -> Option<Figure> {
        let cpu = self.cpu();
        let started = Instant::now();
        let bytes = run(self)? as f64;
        let wall = started.elapsed().as_secs_f64();
        // Below a tick nothing is counted; half a tick is as good a guess.
        let cpu = (self.cpu() - cpu).max(0.005);
        Some(Figure { rate: bytes / wall / 1e6, cpu: cpu / (bytes / 1e9) })
    }

    /// Where it serves TFTP with windows, if it does.
    fn windowed(&self) -> Option<SocketAddr> {
        self.tftp.filter(|_| self.name != "tftpd-hpa")
    }

    /// CPU seconds of the process and its children, those that ended included.
    fn cpu(&self) -> f64 {
        let own = self.process.id();
        let stats = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (pid, rest) = stat.split_once(" (")?;
            let fields: Vec<u64> =
                rest.rsplit_once(") ")?.1.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
            let mine = pid.parse() == Ok(own) || fields[1] == u64::from(own);
            mine.then(|| fields[11..15].iter().sum::<u64>())
        });
        stats.sum::<u64>() as f64 / 100.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM, so that nginx ends its workers.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

fn find(variable: &str, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::var_os(variable)
        .map(PathBuf::from)
        .or_else(|| std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.exists()));
    if found.is_none() {
        eprintln!("skipped: {name} is not installed; {variable} may name it");
    }
    found
}

fn nginx(dir: &Path) -> Option<Server> {
    let program = find("NGINX", "nginx")?;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = dir.join("nginx.conf");
    let text = format!(
        "daemon off; worker_processes auto; pid {dir}/nginx.pid; error_log /dev/null; events {{ worker_connections 1024; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000; client_body_temp_path {dir}/b;\n\
         proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
         server {{ listen {port}; root {dir}; }} }}\n",
        dir = dir.display()
    );
    fs::write(&config, text).unwrap();
    let process = Command::new(program).arg("-c").arg(&config).stderr(Stdio::null()).spawn().unwrap();
    wait_for(|| TcpStream::connect(port).is_ok());
    Some(Server { name: "nginx", http: Some(port), tftp: None, process })
}

fn atftpd(dir: &Path) -> Option<Server> {
    let program = find("ATFTPD", "atftpd")?;
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let process = Command::new(program)
        .args([
            "--daemon",
            "--no-fork",
            "--bind-address",
            "127.0.0.1",
            "--port",
            &port.port().to_string(),
            "--logfile",
            "/dev/null",
        ])
        .arg(dir)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(|| answers(port));
    Some(Server { name: "atftpd", http: None, tftp: Some(port), process })
}

fn tftpd_hpa(dir: &Path) -> Option<Server> {
    // atftpd installs itself under the same name, and the packages exclude each other: setup.sh unpacks this one.
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tftpd-hpa/usr/sbin/in.tftpd");
    let program = if unpacked.exists() { unpacked } else { find("TFTPD_HPA", "in.tftpd")? };
    let version = Command::new(&program).arg("--version").output().ok()?;
    if !String::from_utf8_lossy(&version.stdout).contains("tftp-hpa") {
        eprintln!("skipped: {} is not tftpd-hpa; TFTPD_HPA may name it", program.display());
        return None;
    }
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let process = Command::new(program)
        .args(["--foreground", "--secure", "--user", "root", "--address", &port.to_string()])
        .arg(dir)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(|| answers(port));
    Some(Server { name: "tftpd-hpa", http: None, tftp: Some(port), process })
}

/// Whether a TFTP server says anything to a request for a missing file.
fn answers(addr: SocketAddr) -> bool {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket.send_to(b"\0\x01missing\0octet\0", addr).is_ok() && socket.recv_from(&mut [0; 600]).is_ok()
}

fn wait_for(mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !ready() {
        assert!(Instant::now() < deadline, "a server did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn noise(len: usize) -> Vec<u8> {
    (0u64..).flat_map(|index| index.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).take(len).collect()
}

fn crowd(clients: usize, client: impl Fn() -> usize + Send + Copy + 'static) -> usize {
    let threads: Vec<_> = (0..clients).map(|_| std::thread::spawn(client)).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).sum()
}

fn whole(addr: SocketAddr) -> usize {
    let mut connection = BufReader::with_capacity(256 << 10, TcpStream::connect(addr).unwrap());
    get(&mut connection, SMALL, "")
}

fn ranges(addr: SocketAddr) -> usize {
    let mut connection = BufReader::with_capacity(256 << 10, TcpStream::connect(addr).unwrap());
    (0..LARGE_BYTES / RUN)
        .map(|run| {
            get(&mut connection, LARGE, &format!("Range: bytes={}-{}\r\n", run * RUN, (run + 1) * RUN - 1))
        })
        .sum()
}

fn get(connection: &mut BufReader<TcpStream>, name: &str, fields: &str) -> usize {
    // In one write: pieces would wait for each other's acknowledgement.
    connection
        .get_mut()
        .write_all(format!("GET /{name} HTTP/1.1\r\nHost: bench\r\n{fields}\r\n").as_bytes())
        .unwrap();
    let mut length = 0;
    loop {
        let mut line = String::new();
        connection.read_line(&mut line).unwrap();
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let read = std::io::copy(&mut connection.by_ref().take(length as u64), &mut std::io::sink()).unwrap();
    assert_eq!(read, length as u64);
    length
}

fn read_tftp(addr: SocketAddr, windowsize: u16) -> usize {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let window = if windowsize > 1 { format!("windowsize\0{windowsize}\0") } else { String::new() };
    let request = format!("\0\x01{SMALL}\0octet\0blksize\x001468\0{window}");
    socket.send_to(request.as_bytes(), addr).unwrap();
    let (mut bytes, mut expected, mut since_ack) = (0, 0u16, 0);
    let mut buffer = [0; 2048];
    loop {
        let Ok((len, peer)) = socket.recv_from(&mut buffer) else {
            panic!("{addr} fell silent after {bytes} bytes")
        };
        let ack = |block: u16| socket.send_to(&[&[0, 4][..], &block.to_be_bytes()].concat(), peer).unwrap();
        match (buffer[1], u16::from_be_bytes([buffer[2], buffer[3]])) {
            (6, _) => drop(ack(0)),
            (3, block) if block == expected.wrapping_add(1) => {
                expected = block;
                bytes += len - 4;
                since_ack += 1;
                let last = len < 1472;
                if last || since_ack == windowsize {
                    ack(block);
                    since_ack = 0;
                }
                if last {
                    return bytes;
                }
            }
            (3, _) => {
                ack(expected);
                since_ack = 0;
            }
            _ => panic!("{}", String::from_utf8_lossy(&buffer[..len])),
        }
    }
}
