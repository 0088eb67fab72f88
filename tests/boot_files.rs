//! Boot files as clients see them: an operator's own files, counters, and a crowd at one node's link.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use async_trait::async_trait;
use bootfabric::lab::assets::{Assets, RootKind};
use bootfabric::lab::cluster::{BOOT_DEADLINE, Boot, Cluster, HostNode, Options, STEP_DEADLINE};
use bootfabric::lab::scenario::mac_answered_by;
use bootfabric::node::status::BootStatus;
use netlab::pcap::DhcpKind;
use netlab::{Cidr, Firmware, Host, HostSpec, Lab, LinkShape, MachineSpec, Uefi, UefiBoot, wait_until};
use pxe::bind::{BindOptions, tcp};
use pxe::files::{BootFiles, DiskBody, FileError, FileRequest, ServedFile};
use pxe::http::{HttpConfig, HttpServer, MAX_DOWNLOADS};
use tokio_util::sync::CancellationToken;

/// What a client's command printed; `None` if it failed.
fn output(command: &mut Command) -> anyhow::Result<Option<Vec<u8>>> {
    let output = command.output().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    Ok(output.status.success().then_some(output.stdout))
}

#[test]
fn own_files_are_served_over_both_services_and_nothing_else_is() -> anyhow::Result<()> {
    if !netlab::ready_or_skip()? {
        return Ok(());
    }
    let assets = Assets::find(Path::new(env!("CARGO_BIN_EXE_bootfabric")))?;
    let options = Options { name: "ownfiles", root: RootKind::Busybox, boot: Boot::Bios, keep: None };
    let cluster = Cluster::new(assets, options)?;
    let files = cluster.lab().directory().join("files");
    std::fs::create_dir_all(files.join("deep"))?;
    std::fs::write(files.join("deep/grub.cfg"), "menu")?;
    std::fs::write(files.join("snponly.efi"), "of the operator")?;
    std::fs::write(cluster.lab().directory().join("secret"), "secret")?;
    std::os::unix::fs::symlink("../secret", files.join("out"))?;
    std::os::unix::fs::symlink("deep/grub.cfg", files.join("in"))?;
    let directory = files.to_str().context("an odd path")?;
    let origin = cluster.start_host("origin", cluster.make_home("origin")?, &["--files", directory])?;
    let client = cluster
        .lab()
        .host_with(&HostSpec::new("client").address("10.77.3.250/22".parse::<Cidr>()?), cluster.switch())?;
    let node = origin.node.address;
    let http = |path: &str| {
        output(client.command("curl").args(["-sSf", "--path-as-is", &format!("http://{node}/{path}")]))
    };
    let tftp = |path: &str| output(client.command("curl").args(["-sS", &format!("tftp://{node}//{path}")]));
    for (path, content) in [("deep/grub.cfg", "menu"), ("in", "menu"), ("snponly.efi", "of the operator")] {
        assert_eq!(http(path)?.as_deref(), Some(content.as_bytes()), "{path}");
        assert_eq!(tftp(path)?.as_deref(), Some(content.as_bytes()), "{path}");
    }
    ensure!(tftp("52:54:00:00:00:01/undionly.kpxe.0")?.is_some(), "the image's loader is not served");
    for path in [
        "out",
        "deep",
        "../secret",
        "deep/../../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "deep/%2e%2e/%2e%2e/secret",
        "%2fetc/passwd",
        "/etc/passwd",
        "..%5csecret",
        "in%00",
        "%252e%252e/secret",
    ] {
        ensure!(http(path)?.is_none(), "{path} was served over HTTP");
    }
    for path in ["out", "deep", "../secret", "deep/../../secret", "/etc/passwd"] {
        ensure!(tftp(path)?.is_none_or(|got| got.is_empty()), "{path} was served over TFTP");
    }
    let metrics = String::from_utf8(http("metrics")?.context("no metrics")?)?;
    for line in ["bootfabric_serves_boot 1", "# TYPE bootfabric_http_answers_total counter"] {
        ensure!(metrics.lines().any(|told| told == line), "{line} is missing in {metrics}");
    }
    let complete = metrics.lines().find_map(|line| {
        line.strip_prefix("bootfabric_tftp_transfers_total{outcome=\"complete\"} ")?.parse::<u64>().ok()
    });
    ensure!(complete >= Some(4), "{complete:?} transfers are counted");
    Ok(())
}

/// What the first peer sends before it goes silent: well into the kernel.
const BEFORE_SILENCE: u64 = 3_000_000;

/// The loader holds half a kernel of a peer that says nothing any more, not even that it is gone.
#[test]
fn x3_x6_a_machine_whose_peer_falls_silent_in_the_kernel_boots_from_the_next() -> anyhow::Result<()> {
    if !netlab::ready_or_skip()? {
        return Ok(());
    }
    let assets = Assets::find(Path::new(env!("CARGO_BIN_EXE_bootfabric")))?;
    let keep = std::env::var_os("NETLAB_KEEP").map(Into::into);
    let options = Options { name: "silent", root: RootKind::Busybox, boot: Boot::Bios, keep };
    let cluster = Cluster::new(assets, options)?;
    let one = cluster.start_host("one", cluster.make_home("one")?, &[])?;
    let peer = one.node.address.to_string();
    let two = cluster.start_host("two", cluster.make_home("two")?, &["--peer", &peer])?;
    wait_until("the nodes see each other", STEP_DEADLINE, || {
        let sees = |node: &HostNode| {
            node.status().is_ok_and(|status| status.peers.iter().any(|peer| peer.serves_boot))
        };
        (sees(&one) && sees(&two)).then_some(())
    })?;
    one.host.port().shape(LinkShape::rate(8_000_000))?;
    let mac = mac_answered_by(&one.node, &[&one.node, &two.node])?;
    let before = one.host.port().counters()?;
    let machine = cluster.power_on("a", Some(mac))?;
    wait_until("half a kernel from the first peer", BOOT_DEADLINE, || {
        let now = one.host.port().counters().ok()?;
        (now.from_node.bytes - before.from_node.bytes > BEFORE_SILENCE).then_some(())
    })?;
    one.host.port().down()?;
    machine.booted(cluster.root())?;
    let address = machine.started()?.address;
    // No third round of DHCP: Linux has the address of the loader.
    let trace = cluster.capture().trace()?;
    let requests = trace.dhcp_of(mac).filter(|message| message.kind == DhcpKind::Discover).count();
    ensure!(requests <= 3, "{requests} DISCOVERs: firmware alone sends no more than that");
    let status = two.status()?;
    let boot = status
        .boots
        .iter()
        .find(|boot| boot.mac == mac.to_string())
        .context("node two does not know the machine")?;
    ensure!(boot.address == Some(address) && boot.stage == "node", "{boot:?}");
    Ok(())
}

/// What the machine that boots without a loader says from its userspace.
const UKI_UP: &str = "userspace of the unified kernel";

/// An initramfs that says [`UKI_UP`] on the console and stays.
fn small_initrd(directory: &Path) -> anyhow::Result<std::path::PathBuf> {
    let tree = directory.join("initrd");
    for name in ["bin", "dev"] {
        std::fs::create_dir_all(tree.join(name))?;
    }
    std::fs::copy("/bin/busybox", tree.join("bin/busybox"))?;
    let init = format!(
        "#!/bin/busybox sh\n/bin/busybox mount -t devtmpfs dev /dev\necho '{UKI_UP}' >/dev/ttyS0\nexec /bin/busybox sleep 3600\n"
    );
    std::fs::write(tree.join("init"), init)?;
    std::fs::set_permissions(tree.join("init"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let archive = directory.join("initrd.cpio");
    let pack = format!("cd {} && find . | cpio -o -H newc --quiet >{}", tree.display(), archive.display());
    ensure!(Command::new("sh").args(["-c", &pack]).status()?.success(), "cpio failed");
    Ok(archive)
}

/// A machine whose firmware starts kernel and initramfs by itself, from what an operator put into `--files`.
fn uki(name: &'static str, boot: UefiBoot, class: &str) -> anyhow::Result<()> {
    if !netlab::ready_or_skip()? {
        return Ok(());
    }
    let program = Path::new(env!("CARGO_BIN_EXE_bootfabric"));
    let assets = Assets::find(program)?;
    let keep = std::env::var_os("NETLAB_KEEP").map(Into::into);
    let cluster = Cluster::new(assets, Options { name, root: RootKind::Busybox, boot: Boot::Uefi, keep })?;
    let directory = cluster.lab().directory().join("files");
    std::fs::create_dir(&directory)?;
    let assets = std::env::var_os("BOOTFABRIC_ASSETS")
        .map_or_else(|| "target/assets".into(), std::path::PathBuf::from);
    let kernel = std::fs::read_dir(assets.join("kernel/current/boot"))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
        .context("the assets have no kernel")?;
    let mut make = Command::new(program);
    make.args(["image", "uki", "--cmdline", "console=ttyS0 mitigations=off", "--kernel"]).arg(kernel);
    make.arg("--initrd")
        .arg(small_initrd(cluster.lab().directory())?)
        .arg("-o")
        .arg(directory.join("snponly.efi"));
    ensure!(make.status()?.success(), "no unified kernel image was made");
    let files = directory.to_str().context("an odd path")?;
    let origin = cluster.start_host("origin", cluster.make_home("origin")?, &["--files", files])?;
    let firmware = Firmware::Uefi(Uefi { boot, ..Uefi::default() });
    let spec = MachineSpec::new("a", firmware).memory_mib(512);
    let machine = cluster.lab().machine(&spec, cluster.switch())?;
    machine.console().wait_for(UKI_UP, BOOT_DEADLINE)?;
    let boots = origin.status()?.boots;
    let size = std::fs::metadata(directory.join("snponly.efi"))?.len();
    let loaded = |boot: &BootStatus| boot.class == class && boot.stage == "loader" && boot.bytes >= size;
    ensure!(boots.iter().any(loaded), "{boots:?}");
    Ok(())
}

#[test]
fn t1_t4_firmware_starts_a_unified_kernel_by_tftp() -> anyhow::Result<()> {
    uki("ukitftp", UefiBoot::PxeV4, "uefi-pxe-7")
}

#[test]
fn h3_h4_h5_h6_firmware_starts_a_unified_kernel_by_http() -> anyhow::Result<()> {
    uki("ukihttp", UefiBoot::HttpV4, "uefi-http-16")
}

/// Link of the node in the crowd.
const LINK_BIT: u64 = 200_000_000;
const CROWD: u8 = 64;
const DEADLINE: Duration = Duration::from_secs(300);

/// One file in the page cache.
struct OneFile(Arc<std::fs::File>);

#[async_trait]
impl BootFiles for OneFile {
    async fn open(&self, _: &FileRequest) -> Result<ServedFile, FileError> {
        let body = Arc::new(DiskBody::new(Arc::clone(&self.0))?);
        Ok(ServedFile { content_type: None, etag: None, body })
    }
}

/// How one client of the crowd fared, since the crowd began.
#[derive(Debug, Clone, Copy)]
struct Fared {
    asked: Duration,
    first_byte: Duration,
    done: Duration,
}

#[test]
fn a_crowd_at_one_link_is_served_in_turn() -> anyhow::Result<()> {
    crowd("crowd", 5_000_000)
}

#[test]
#[ignore = "soak: the link alone needs 77 s"]
fn a_crowd_with_full_boot_files_at_one_link_is_served_in_turn() -> anyhow::Result<()> {
    crowd("bigcrowd", 30_000_000)
}

/// Machines powered on together ask one node for `bytes` each, the way the boot script does.
fn crowd(name: &str, bytes: u64) -> anyhow::Result<()> {
    if !netlab::ready_or_skip()? {
        return Ok(());
    }
    let lab = Lab::new(name)?;
    let switch = lab.switch("sw0")?;
    let at = |last: u8| Cidr { address: Ipv4Addr::new(10, 9, 0, last).into(), prefix: 24 };
    let server = lab.host_with(&HostSpec::new("server").address(at(1)), &switch)?;
    let clients = lab.host_with(&HostSpec::new("clients").address(at(2)), &switch)?;
    for last in 0..CROWD {
        clients.add_address(at(100 + last))?;
    }
    let file = tempfile::tempfile()?;
    file.set_len(bytes)?;
    server.port().shape(LinkShape::rate(LINK_BIT))?;
    let (runtime, http) = serve(&server, file)?;
    let address = http.local_addr();

    let (began, mut most) = (Instant::now(), 0);
    let fared: anyhow::Result<Vec<Fared>> = std::thread::scope(|scope| {
        let mut running = Vec::new();
        for last in 0..CROWD {
            let source = Ipv4Addr::new(10, 9, 0, 100 + last);
            let (clients, (heard, first_answer)) = (&clients, std::sync::mpsc::channel());
            running
                .push(scope.spawn(move || clients.run_in(|| boot(source, address, bytes, began, &heard))?));
            // One after the other, so that their order is known. An error is told by the client itself.
            let _ = first_answer.recv();
        }
        while running.iter().any(|client| !client.is_finished()) {
            most = most.max(http.counters().snapshot().downloads);
            std::thread::yield_now();
        }
        running
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|_| bail!("a client panicked")))
            .collect()
    });
    drop(runtime);
    let mut fared = fared?;
    let total = fared.iter().map(|one| one.done).max().context("nobody finished")?;
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let share = (bytes * u64::from(CROWD) * 8) as f64 / (LINK_BIT as f64 * total.as_secs_f64());
    let waited = fared.iter().map(|one| one.first_byte - one.asked).max().unwrap_or_default();
    println!(
        "{CROWD} clients, {bytes} bytes each: {total:.1?}, {:.1} % of the link, at most {most} at once, longest wait {waited:.1?}",
        share * 100.0
    );
    ensure!(most == MAX_DOWNLOADS as u64, "{most} downloads at once");
    ensure!(share >= 0.9, "only {:.1} % of the link were used", share * 100.0);
    for one in &fared {
        let others = total.saturating_sub(one.done - one.first_byte);
        ensure!(
            one.first_byte - one.asked <= others,
            "{one:?} waited longer than the others took, {others:?}"
        );
    }
    // Who asked first is served first, but for those that are served at once.
    fared.sort_by_key(|one| one.asked);
    let mut order: Vec<_> = (0..fared.len()).collect();
    order.sort_by_key(|&at| fared.get(at).map(|one| one.first_byte));
    let displaced = order.iter().enumerate().map(|(served, &asked)| served.abs_diff(asked)).max();
    ensure!(displaced <= Some(MAX_DOWNLOADS), "a client was {displaced:?} places from its turn");
    Ok(())
}

/// Starts the service in the namespace of `host`.
fn serve(host: &Host, file: std::fs::File) -> anyhow::Result<(tokio::runtime::Runtime, HttpServer)> {
    host.run_in(|| {
        // Its threads are begun here and so belong to the namespace.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let http = runtime.block_on(async {
            let listener = tcp("10.9.0.1:80".parse()?, &BindOptions::default())?;
            let files = Arc::new(OneFile(Arc::new(file)));
            anyhow::Ok(HttpServer::serve(listener, files, HttpConfig::default(), CancellationToken::new())?)
        })?;
        anyhow::Ok((runtime, http))
    })?
}

/// What the boot script does at one peer: asks once, then waits for its turn, pausing in between.
fn boot(
    source: Ipv4Addr,
    server: SocketAddr,
    bytes: u64,
    began: Instant,
    heard: &Sender<()>,
) -> anyhow::Result<Fared> {
    let asked = began.elapsed();
    let mut query = "";
    let mut pause = 0;
    while began.elapsed() < DEADLINE {
        let (status, mut answer) = ask(source, server, query)?;
        let _ = heard.send(());
        match status.as_str() {
            "200" => {
                let first_byte = began.elapsed();
                let got = std::io::copy(&mut answer.by_ref().take(bytes), &mut std::io::sink())?;
                ensure!(got == bytes, "only {got} bytes came");
                return Ok(Fared { asked, first_byte, done: began.elapsed() });
            }
            "503" if query.is_empty() => query = "?wait=25",
            "503" => {
                pause = (pause * 2).clamp(1, 8);
                // The script's own pause, part of what is tested: the server must keep the link busy meanwhile.
                std::thread::sleep(Duration::from_secs(pause));
            }
            other => bail!("status {other}"),
        }
    }
    bail!("not served within {DEADLINE:?}")
}

fn ask(source: Ipv4Addr, server: SocketAddr, query: &str) -> anyhow::Result<(String, BufReader<TcpStream>)> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&server.into())?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(stream, "GET /kernel{query} HTTP/1.1\r\nHost: node\r\nUser-Agent: iPXE/1.0.0+\r\n\r\n")?;
    let mut answer = BufReader::with_capacity(256 * 1024, stream);
    let mut line = String::new();
    answer.read_line(&mut line)?;
    let status = line.split(' ').nth(1).context("no status")?.to_owned();
    while line != "\r\n" {
        line.clear();
        ensure!(answer.read_line(&mut line)? > 0, "the head broke off");
    }
    Ok((status, answer))
}
