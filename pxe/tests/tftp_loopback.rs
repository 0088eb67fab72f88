//! The TFTP service against real clients and hostile datagrams, over loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod file_service_support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use file_service_support::{Entry, TestFiles, finished, pattern, program, read, run, soon};
use pxe::bind::{BindOptions, udp};
use pxe::files::FileError;
use pxe::service_event::{EventBroadcast, Outcome};
use pxe::tftp::{TftpConfig, TftpServer};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

struct Lab {
    server: TftpServer,
    addr: SocketAddr,
    events: EventBroadcast,
    stop: CancellationToken,
}

fn serve(files: TestFiles, config: TftpConfig) -> Lab {
    serve_on("127.0.0.1:0", files, config)
}

fn serve_on(addr: &str, files: TestFiles, mut config: TftpConfig) -> Lab {
    let events = EventBroadcast::new();
    let stop = CancellationToken::new();
    let socket = udp(addr.parse().unwrap(), &BindOptions::default()).unwrap();
    config.events = Arc::new(events.clone());
    let server = TftpServer::serve(socket, Arc::new(files), config, stop.clone()).unwrap();
    let addr = server.local_addr();
    Lab { server, addr, events, stop }
}

fn rrq(name: &str, options: &[(&str, &str)]) -> Vec<u8> {
    let mut packet = vec![0, 1];
    let fields = [(name, "octet")];
    for (key, value) in fields.iter().chain(options) {
        packet.extend_from_slice(key.as_bytes());
        packet.push(0);
        packet.extend_from_slice(value.as_bytes());
        packet.push(0);
    }
    packet
}

/// A client that can misbehave.
struct Client {
    socket: UdpSocket,
    server: SocketAddr,
    /// The transfer's address, known from the first answer.
    peer: Option<SocketAddr>,
}

impl Client {
    async fn new(server: SocketAddr) -> Self {
        Self { socket: UdpSocket::bind("127.0.0.1:0").await.unwrap(), server, peer: None }
    }

    async fn ask(&self, packet: &[u8]) {
        self.socket.send_to(packet, self.server).await.unwrap();
    }

    async fn answer(&mut self) -> Vec<u8> {
        let mut buffer = [0; 65_536];
        let (len, from) = soon(self.socket.recv_from(&mut buffer)).await.unwrap();
        self.peer = Some(from);
        buffer[..len].to_vec()
    }

    async fn reply(&self, packet: &[u8]) {
        self.socket.send_to(packet, self.peer.unwrap()).await.unwrap();
    }

    async fn ack(&self, block: u16) {
        let [high, low] = block.to_be_bytes();
        self.reply(&[0, 4, high, low]).await;
    }

    /// Reads a whole file with `windowsize` blocks in flight, after the OACK if there is one.
    async fn download(&mut self, blksize: usize, windowsize: usize) -> Vec<u8> {
        let mut content = Vec::new();
        let (mut expected, mut since_ack) = (1u16, 0);
        loop {
            let packet = self.answer().await;
            match packet[..2] {
                [0, 6] => self.ack(0).await,
                [0, 3] => {
                    if packet[2..4] != expected.to_be_bytes() {
                        self.ack(expected.wrapping_sub(1)).await;
                        since_ack = 0;
                        continue;
                    }
                    content.extend_from_slice(&packet[4..]);
                    expected = expected.wrapping_add(1);
                    since_ack += 1;
                    let last = packet.len() < 4 + blksize;
                    if last || since_ack == windowsize {
                        self.ack(expected.wrapping_sub(1)).await;
                        since_ack = 0;
                    }
                    if last {
                        return content;
                    }
                }
                _ => panic!("{packet:?}"),
            }
        }
    }
}

#[tokio::test]
async fn curl_reads_files_of_all_shapes() {
    // No empty file: curl takes a tsize of 0 in the OACK for an error.
    let sizes = [1usize, 511, 512, 513, 1024, 100_000, 1_048_576];
    let files = sizes.iter().fold(TestFiles::default(), |files, size| {
        files.memory(&format!("m{size}"), pattern(*size)).disk(&format!("d{size}"), &pattern(*size))
    });
    let lab = serve(files, TftpConfig::default());
    for size in sizes {
        for (kind, blksize) in [("m", "512"), ("d", "1428"), ("m", "8"), ("d", "65464")] {
            if blksize == "8" && size > 100_000 {
                continue;
            }
            let Some(mut curl) = program("curl") else { return };
            let url = format!("tftp://{}/{kind}{size}", lab.addr);
            let (ok, out, err) = run(curl.args(["-sS", "--tftp-blksize", blksize, &url])).await;
            assert!(ok, "{url} blksize {blksize}: {err}");
            assert!(out == pattern(size), "{url} blksize {blksize}: wrong content");
        }
    }
}

#[tokio::test]
async fn t3_tftp_hpa_and_busybox_read_a_file() {
    let lab = serve(TestFiles::default().disk("boot/snponly.efi", &pattern(300_000)), TftpConfig::default());
    let dir = tempfile::tempdir().unwrap();
    let (host, port) = (lab.addr.ip().to_string(), lab.addr.port().to_string());
    if let Some(mut hpa) = program("tftp") {
        let target = dir.path().join("hpa");
        let args = ["-m", "binary", &host, &port, "-c", "get", "/boot/snponly.efi", target.to_str().unwrap()];
        let (ok, _, err) = run(hpa.args(args)).await;
        assert!(ok && read(&target).await == pattern(300_000), "{err}");
    }
    if let Some(mut busybox) = program("busybox") {
        let target = dir.path().join("busybox");
        let args = [
            "tftp",
            "-g",
            "-r",
            "boot/snponly.efi",
            "-l",
            target.to_str().unwrap(),
            "-b",
            "1468",
            &host,
            &port,
        ];
        let (ok, _, err) = run(busybox.args(args)).await;
        assert!(ok && read(&target).await == pattern(300_000), "{err}");
    }
}

#[tokio::test]
async fn t1_edk2_reads_twice_and_nothing_is_an_error() {
    let lab = serve(TestFiles::default().memory("uki.efi", pattern(100_000)), TftpConfig::default());
    let mut events = lab.events.subscribe();
    let mut probe = Client::new(lab.addr).await;
    probe.ask(&rrq("uki.efi", &[("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")])).await;
    assert_eq!(probe.answer().await, b"\0\x06tsize\x00100000\0blksize\x001468\0windowsize\x004\0");
    probe.reply(b"\0\x05\0\x08User aborted the transfer\0").await;
    let ended = finished(&mut events).await;
    assert_eq!((ended.outcome, ended.bytes, ended.status), (Outcome::Probe, 0, None));

    let mut client = Client::new(lab.addr).await;
    client.ask(&rrq("uki.efi", &[("blksize", "1468"), ("windowsize", "4")])).await;
    assert_eq!(client.answer().await, b"\0\x06blksize\x001468\0windowsize\x004\0");
    client.ack(0).await;
    assert!(client.download(1468, 4).await == pattern(100_000));
    let ended = finished(&mut events).await;
    assert_eq!((ended.outcome, ended.bytes), (Outcome::Complete, 100_000));
    assert_eq!(ended.transfer.name, "uki.efi");
    let stats = lab.server.counters().snapshot();
    assert_eq!((stats.probes, stats.complete, stats.failed, stats.bytes), (1, 1, 0, 100_000));
}

#[tokio::test]
async fn t4_thirty_two_clients_with_windows_all_finish() {
    let content = pattern(3_000_000);
    let lab = serve(TestFiles::default().disk("vmlinuz", &content), TftpConfig::default());
    let mut clients = tokio::task::JoinSet::new();
    for index in 0..32 {
        let (addr, content) = (lab.addr, content.clone());
        clients.spawn(async move {
            let windowsize = if index % 2 == 0 { 16 } else { 1 };
            let mut client = Client::new(addr).await;
            client
                .ask(&rrq("vmlinuz", &[("blksize", "1468"), ("windowsize", &windowsize.to_string())]))
                .await;
            assert!(client.download(1468, windowsize).await == content);
        });
    }
    while let Some(done) = soon(clients.join_next()).await {
        done.unwrap();
    }
}

#[tokio::test]
async fn t5_blocks_roll_over_on_the_wire() {
    let content = pattern(8 * 66_000 + 3);
    let lab = serve(TestFiles::default().memory("long", content.clone()), TftpConfig::default());
    let mut client = Client::new(lab.addr).await;
    client.ask(&rrq("long", &[("blksize", "8"), ("windowsize", "64")])).await;
    assert!(client.download(8, 64).await == content);
}

#[tokio::test]
async fn without_segmentation_offload_the_bytes_are_the_same() {
    let content = pattern(500_000);
    let config = TftpConfig { segmentation_offload: false, ..TftpConfig::default() };
    let lab = serve(TestFiles::default().disk("f", &content), config);
    let mut client = Client::new(lab.addr).await;
    client.ask(&rrq("f", &[("blksize", "1468"), ("windowsize", "16")])).await;
    assert!(client.download(1468, 16).await == content);
}

#[tokio::test]
async fn t5_an_empty_file_is_one_empty_block() {
    let lab = serve(TestFiles::default().memory("m", "").disk("d", b""), TftpConfig::default());
    for name in ["m", "d"] {
        let mut client = Client::new(lab.addr).await;
        client.ask(&rrq(name, &[("tsize", "0"), ("blksize", "1468")])).await;
        assert_eq!(client.answer().await, b"\0\x06tsize\x000\0blksize\x001468\0");
        client.ack(0).await;
        assert_eq!(client.answer().await, [0, 3, 0, 1]);
        client.ack(1).await;
    }
}

#[tokio::test]
async fn t7_single_port_mode_answers_from_the_listening_port() {
    let config = TftpConfig { single_port: true, ..TftpConfig::default() };
    let lab = serve_on("0.0.0.0:0", TestFiles::default().memory("f", pattern(5000)), config);
    let server = SocketAddr::from(([127, 0, 0, 1], lab.addr.port()));
    let (mut first, mut second) = (Client::new(server).await, Client::new(server).await);
    first.ask(&rrq("f", &[])).await;
    assert_eq!(first.answer().await[..4], [0, 3, 0, 1]);
    second.ask(&rrq("f", &[("windowsize", "4")])).await;
    assert!(second.download(512, 4).await == pattern(5000));
    assert_eq!((first.peer, second.peer), (Some(server), Some(server)));
    first.ack(0).await;
    first.ack(1).await;
    assert_eq!(first.answer().await[..4], [0, 3, 0, 2]);
}

#[tokio::test]
async fn d31_the_answer_comes_from_the_address_that_was_asked() {
    let lab = serve_on("0.0.0.0:0", TestFiles::default().memory("f", pattern(10)), TftpConfig::default());
    for ip in [[127, 0, 0, 1], [127, 0, 0, 9]] {
        let mut client = Client::new(SocketAddr::from((ip, lab.addr.port()))).await;
        client.ask(&rrq("f", &[])).await;
        assert!(client.download(512, 1).await == pattern(10));
        assert_eq!(client.peer.unwrap().ip(), std::net::IpAddr::from(ip));
        assert_ne!(client.peer.unwrap().port(), lab.addr.port());
    }
}

#[tokio::test]
async fn an_ipv6_socket_serves_both_families() {
    let lab = serve_on("[::]:0", TestFiles::default().memory("f", pattern(3000)), TftpConfig::default());
    for url in
        [format!("tftp://127.0.0.1:{}/f", lab.addr.port()), format!("tftp://[::1]:{}/f", lab.addr.port())]
    {
        let Some(mut curl) = program("curl") else { return };
        let (ok, out, err) = run(curl.args(["-sS", "-g", "--tftp-blksize", "1468", &url])).await;
        assert!(ok && out == pattern(3000), "{url}: {err}");
    }
}

#[tokio::test]
async fn what_is_not_served_is_refused_with_its_code() {
    let files = TestFiles::default()
        .memory("f", pattern(10))
        .with("broken", Entry::Error(FileError::Io("bad disk".into())));
    let lab = serve(files, TftpConfig::default());
    let mut wrq = rrq("f", &[]);
    wrq[1] = 2;
    for (packet, code) in [
        (rrq("missing", &[]), 1),
        (rrq("../f", &[]), 2),
        (rrq("a\\f", &[]), 2),
        (rrq("/a/../f", &[]), 2),
        (wrq, 2),
        (b"\0\x01f\0netascii\0".to_vec(), 4),
        (rrq("broken", &[]), 0),
    ] {
        let mut client = Client::new(lab.addr).await;
        client.ask(&packet).await;
        let answer = client.answer().await;
        assert_eq!(answer[..4], [0, 5, 0, code], "{}", String::from_utf8_lossy(&answer));
        assert!(answer.len() > 10 && answer.ends_with(&[0]), "an ERROR says why");
    }
}

#[tokio::test]
async fn t8_names_are_cleaned_of_what_roms_add() {
    let lab = serve(TestFiles::default().memory("pxelinux.0", pattern(10)), TftpConfig::default());
    let mut client = Client::new(lab.addr).await;
    client.ask(b"\0\x01//pxelinux.0\xff\0OCTET\0").await;
    assert!(client.download(512, 1).await == pattern(10));
}

#[tokio::test]
async fn requests_above_a_bound_wait_for_their_turn() {
    let config = TftpConfig { max_transfers: 1, ..TftpConfig::default() };
    let lab = serve(TestFiles::default().memory("f", pattern(10)), config);
    let mut events = lab.events.subscribe();
    let (mut first, mut second) = (Client::new(lab.addr).await, Client::new(lab.addr).await);
    first.ask(&rrq("f", &[("tsize", "0")])).await;
    first.answer().await;
    second.ask(&rrq("f", &[])).await;
    // The ERROR of the first goes to its transfer's socket; the second asks again once that is over.
    first.reply(b"\0\x05\0\0\0").await;
    assert_eq!(finished(&mut events).await.outcome, Outcome::Probe);
    // The place is given back just after the event.
    soon(async {
        while lab.server.counters().snapshot().active > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    second.ask(&rrq("f", &[])).await;
    assert!(second.download(512, 1).await == pattern(10));
    assert!(lab.server.counters().snapshot().over_bound >= 1);
}

#[tokio::test]
async fn a_lost_block_is_sent_again_and_the_end_until_it_is_acknowledged() {
    let lab = serve(TestFiles::default().memory("f", pattern(600)), TftpConfig::default());
    let mut client = Client::new(lab.addr).await;
    client.ask(&rrq("f", &[("timeout", "1")])).await;
    assert_eq!(client.answer().await, b"\0\x06timeout\x001\0");
    client.ack(0).await;
    assert_eq!(client.answer().await[..4], [0, 3, 0, 1]);
    assert_eq!(client.answer().await[..4], [0, 3, 0, 1]);
    client.ack(1).await;
    for _ in 0..3 {
        assert_eq!(client.answer().await[..4], [0, 3, 0, 2]);
    }
    client.ack(2).await;
}

#[tokio::test]
async fn a_client_with_a_fixed_port_may_begin_its_next_file() {
    let lab = serve(
        TestFiles::default().memory("a", pattern(2000)).memory("b", pattern(700)),
        TftpConfig::default(),
    );
    let mut client = Client::new(lab.addr).await;
    client.ask(&rrq("a", &[])).await;
    assert_eq!(client.answer().await[..4], [0, 3, 0, 1]);
    let of_a = client.peer;
    client.ask(&rrq("b", &[("tsize", "0")])).await;
    while client.peer == of_a {
        client.answer().await;
    }
    client.ack(0).await;
    assert!(client.download(512, 1).await == pattern(700));
}

#[tokio::test]
async fn t6_garbage_and_strangers_disturb_nobody() {
    let lab = serve(TestFiles::default().memory("f", pattern(2000)), TftpConfig::default());
    let mut client = Client::new(lab.addr).await;
    client.ask(&rrq("f", &[("blksize", "1000")])).await;
    assert_eq!(client.answer().await[..2], [0, 6]);
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for garbage in
        [&b""[..], b"\0", b"\0\x01", b"\0\x01f\0", b"\0\x04\0\0", b"\0\x05\0\x01no\0", b"\xff\xff\xff\xff"]
    {
        stranger.send_to(garbage, lab.addr).await.unwrap();
        let _ = stranger.send_to(garbage, client.peer.unwrap()).await;
        if !garbage.starts_with(b"\0\x05") {
            client.reply(garbage).await;
        }
    }
    client.ack(0).await;
    assert!(client.download(1000, 1).await == pattern(2000));
}

#[tokio::test]
async fn a_stop_waits_for_transfers_under_way() {
    let lab = serve(TestFiles::default().memory("f", pattern(2000)), TftpConfig::default());
    let mut client = Client::new(lab.addr).await;
    client.ask(&rrq("f", &[])).await;
    assert_eq!(client.answer().await[..4], [0, 3, 0, 1]);
    lab.stop.cancel();
    client.ack(1).await;
    for block in 2..=4 {
        while client.answer().await[2..4] != [0, block] {}
        client.ack(block.into()).await;
    }
    soon(lab.server.stopped()).await;
}

/// With a window of 1 the transfer runs on a thread of its own, above that on the runtime; more clients than threads mix both.
#[tokio::test]
async fn a_client_that_floods_its_own_transfer_gets_the_lost_block_again() {
    for window in ["1", "4"] {
        let lab = serve(TestFiles::default().memory("f", pattern(5000)), TftpConfig::default());
        let mut client = Client::new(lab.addr).await;
        client.ask(&rrq("f", &[("timeout", "1"), ("windowsize", window)])).await;
        assert_eq!(client.answer().await[..2], [0, 6]);
        client.ack(0).await;
        assert_eq!(client.answer().await[..4], [0, 3, 0, 1]);
        let mut repeated = false;
        let (socket, peer) = (&client.socket, client.peer.unwrap());
        soon(async {
            let mut buffer = [0; 600];
            while !repeated {
                // Noise, and ACKs of what was never sent.
                for noise in [&[0, 4, 0x77, 0x77][..], b"\0\x09noise", b""] {
                    socket.send_to(noise, peer).await.unwrap();
                }
                while let Ok((_, from)) = socket.try_recv_from(&mut buffer) {
                    assert_eq!(from, peer);
                    repeated |= buffer[..4] == [0, 3, 0, 1];
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn more_lock_step_clients_than_threads_all_finish() {
    let lab = serve(TestFiles::default().disk("f", &pattern(100_000)), TftpConfig::default());
    let mut tasks = tokio::task::JoinSet::new();
    let addr = lab.addr;
    for _ in 0..40 {
        tasks.spawn(async move {
            let mut client = Client::new(addr).await;
            client.ask(&rrq("f", &[])).await;
            client.download(512, 1).await == pattern(100_000)
        });
    }
    while let Some(whole) = tasks.join_next().await {
        assert!(whole.unwrap());
    }
    soon(async {
        while lab.server.counters().snapshot().complete < 40 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_flood_from_one_address_is_bounded_and_others_are_served() {
    let files = TestFiles::default().memory("f", pattern(3000));
    let lab = serve_on("0.0.0.0:0", files, TftpConfig::default());
    let addr: SocketAddr = ([127, 0, 0, 1], lab.addr.port()).into();
    let mut sockets = Vec::new();
    for _ in 0..300 {
        let socket = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        for _ in 0..5 {
            socket.send_to(&rrq("f", &[]), addr).await.unwrap();
        }
        sockets.push(socket);
    }
    // As firmware does: the flood may have filled the socket's buffer when the request came.
    let mut client = Client::new(addr).await;
    let mut first = [0; 600];
    client.peer = soon(async {
        loop {
            client.ask(&rrq("f", &[])).await;
            let answer = client.socket.recv_from(&mut first);
            if let Ok(answer) = tokio::time::timeout(Duration::from_millis(200), answer).await {
                return Some(answer.unwrap().1);
            }
        }
    })
    .await;
    assert_eq!(first[..4], [0, 3, 0, 1]);
    client.ack(1).await;
    for block in 2..=6 {
        while client.answer().await[2..4] != [0, block] {}
        client.ack(block.into()).await;
    }
    let stats = lab.server.counters().snapshot();
    let bound = TftpConfig::default().max_transfers_per_client as u64;
    assert!(stats.active <= bound + 1 && stats.over_bound > 0, "{stats:?}");
}
