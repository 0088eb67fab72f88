//! The HTTP service against curl, torn and hostile requests, and slow clients, over loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod file_service_support;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use file_service_support::{Entry, TestFiles, finished, pattern, program, run, soon};
use pxe::bind::{BindOptions, tcp};
use pxe::files::{Bearer, FileBody, FileError, ServedFile, Slice};
use pxe::http::{ByteStream, HttpConfig, HttpServer, LARGE_DOWNLOAD, UploadLimit, Wrapper};
use pxe::service_event::{EventBroadcast, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

struct Lab {
    server: HttpServer,
    addr: SocketAddr,
    events: EventBroadcast,
    files: Arc<TestFiles>,
    stop: CancellationToken,
}

fn serve(files: TestFiles, mut config: HttpConfig) -> Lab {
    let events = EventBroadcast::new();
    let stop = CancellationToken::new();
    let listener = tcp("127.0.0.1:0".parse().unwrap(), &BindOptions::default()).unwrap();
    config.events = Arc::new(events.clone());
    let files = Arc::new(files);
    let server = HttpServer::serve(listener, Arc::clone(&files) as _, config, stop.clone()).unwrap();
    Lab { addr: server.local_addr(), server, events, files, stop }
}

impl Lab {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }
}

/// A head and its fields, as text.
async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn content_length(head: &str) -> usize {
    head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap()
}

/// One answer: its head and its content.
async fn read_answer(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let head = read_head(stream).await;
    let mut content = vec![0; content_length(&head)];
    soon(stream.read_exact(&mut content)).await.unwrap();
    (head, content)
}

async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = soon(stream.read_to_end(&mut bytes)).await;
    bytes
}

fn get(path: &str, fields: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: node\r\n{fields}\r\n").into_bytes()
}

/// A body relayed from elsewhere.
struct Relay {
    len: u64,
    source: std::sync::Mutex<Option<DuplexStream>>,
}

#[async_trait]
impl FileBody for Relay {
    fn len(&self) -> u64 {
        self.len
    }

    async fn slice(&self, _range: Range<u64>) -> Result<Slice, FileError> {
        let source = self.source.lock().unwrap().take().ok_or(FileError::NotHeld)?;
        Ok(Slice::Stream(Box::new(source)))
    }
}

fn relay(len: u64) -> (DuplexStream, Entry) {
    let (near, far) = tokio::io::duplex(1024);
    let body = Relay { len, source: std::sync::Mutex::new(Some(far)) };
    (near, Entry::File(ServedFile { content_type: None, etag: None, body: Arc::new(body) }))
}

#[tokio::test]
async fn curl_reads_whole_files_and_ranges() {
    let content = pattern(3_000_001);
    let lab = serve(
        TestFiles::default().disk("disk", &content).memory("memory", content.clone()),
        HttpConfig::default(),
    );
    for path in ["/disk", "/memory"] {
        for (range, expected) in [
            (None, 0..3_000_001),
            (Some("0-0"), 0..1),
            (Some("1000000-1999999"), 1_000_000..2_000_000),
            (Some("2999999-"), 2_999_999..3_000_001),
            (Some("-500"), 2_999_501..3_000_001),
        ] {
            let Some(mut curl) = program("curl") else { return };
            curl.args(["-sSf", &lab.url(path)]).args(range.map(|range| format!("-r{range}")));
            let (ok, out, err) = run(&mut curl).await;
            assert!(ok && out == content[expected], "{path} {range:?}: {err}");
        }
    }
}

#[tokio::test]
async fn curl_reuses_its_connection_and_resumes() {
    let content = pattern(200_000);
    let lab = serve(TestFiles::default().disk("vmlinuz", &content), HttpConfig::default());
    let Some(mut curl) = program("curl") else { return };
    let url = lab.url("/vmlinuz");
    let (ok, out, err) = run(curl.args(["-sS", "-r0-99", &url, "-r100-", &url, &url])).await;
    assert!(ok && !out.is_empty(), "{err}");
    assert_eq!(lab.server.counters().snapshot().connections, 1);
    let Some(mut curl) = program("curl") else { return };
    let (ok, out, err) = run(curl.args(["-sSI", "--http1.0", &url])).await;
    let head = String::from_utf8(out).unwrap();
    assert!(
        ok && head.starts_with("HTTP/1.1 200 OK\r\n") && content_length(&head) == 200_000,
        "{head} {err}"
    );
}

#[tokio::test]
async fn thirty_two_clients_at_once() {
    let content = Arc::new(pattern(5_000_000));
    let lab = serve(TestFiles::default().disk("initrd", &content), HttpConfig::default());
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (mut stream, content) = (lab.connect().await, Arc::clone(&content));
        clients.spawn(async move {
            for run in 0..5 {
                let (first, last) = (run * 1_000_000, run * 1_000_000 + 999_999);
                stream.write_all(&get("/initrd", &format!("Range: bytes={first}-{last}\r\n"))).await.unwrap();
                let (head, bytes) = read_answer(&mut stream).await;
                assert!(head.contains(&format!("Content-Range: bytes {first}-{last}/5000000\r\n")), "{head}");
                assert!(bytes == content[first..=last]);
            }
        });
    }
    while let Some(done) = soon(clients.join_next()).await {
        done.unwrap();
    }
    // The last answer is counted just after its last byte.
    soon(async {
        while lab.server.counters().snapshot().complete < 160 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let stats = lab.server.counters().snapshot();
    assert_eq!((stats.ok, stats.complete, stats.bytes, stats.active), (160, 160, 160_000_000, 0));
}

#[tokio::test]
async fn h5_uefi_heads_then_gets_on_one_connection() {
    let lab = serve(TestFiles::default().memory("uki.efi", pattern(5000)), HttpConfig::default());
    let mut stream = lab.connect().await;
    stream.write_all(b"HEAD /uki.efi HTTP/1.1\r\nHost: 192.0.2.1\r\nAccept: */*\r\n\r\n").await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nContent-Type: application/efi\r\n"),
        "{head}"
    );
    stream.write_all(&get("/uki.efi", "")).await.unwrap();
    assert!(read_answer(&mut stream).await.1 == pattern(5000));
}

#[tokio::test]
async fn pipelined_and_torn_requests_are_answered_in_order() {
    let lab = serve(TestFiles::default().memory("a", "first").disk("b", b"second"), HttpConfig::default());
    let mut stream = lab.connect().await;
    let mut bytes =
        [get("/a", ""), get("/b", ""), get("/none", ""), get("/a", "Range: bytes=1-2\r\n")].concat();
    bytes.extend(get("/b", "Connection: close\r\n"));
    for byte in bytes {
        stream.write_all(&[byte]).await.unwrap();
    }
    assert_eq!(read_answer(&mut stream).await.1, b"first");
    assert_eq!(read_answer(&mut stream).await.1, b"second");
    assert!(read_answer(&mut stream).await.0.starts_with("HTTP/1.1 404 "));
    assert_eq!(read_answer(&mut stream).await.1, b"ir");
    let (head, content) = read_answer(&mut stream).await;
    assert!(head.contains("Connection: close\r\n") && content == b"second");
    assert!(read_to_end(&mut stream).await.is_empty());
}

#[tokio::test]
async fn peers_can_tell_not_held_from_not_found_from_busy() {
    let files = TestFiles::default()
        .with("elsewhere", Entry::Error(FileError::NotHeld))
        .with("busy", Entry::Error(FileError::Busy { retry_after: 9 }))
        .with("broken", Entry::Error(FileError::Io("bad sector".into())));
    let lab = serve(files, HttpConfig::default());
    let mut stream = lab.connect().await;
    for (path, status, text) in [
        ("/nothing", "404", "no file"),
        ("/elsewhere", "409", "ask another node"),
        ("/busy", "503", "after 9 s"),
        ("/broken", "500", "bad sector"),
    ] {
        stream.write_all(&get(path, "")).await.unwrap();
        let (head, content) = read_answer(&mut stream).await;
        assert_eq!(&head[9..12], status);
        assert!(String::from_utf8(content).unwrap().contains(text));
        assert_eq!(head.contains("Retry-After: 9\r\n"), status == "503");
    }
}

#[tokio::test]
async fn pages_made_on_the_fly_see_name_query_and_addresses() {
    let lab = serve(TestFiles::default().with("boot.ipxe", Entry::Echo), HttpConfig::default());
    let mut stream = lab.connect().await;
    stream.write_all(&get("/boot.ipxe?mac=52:54:00&n=%31", "")).await.unwrap();
    let (head, content) = read_answer(&mut stream).await;
    let expected =
        format!("boot.ipxe?mac=52:54:00&n=%31 from {} to {}", stream.local_addr().unwrap(), lab.addr);
    assert_eq!(String::from_utf8(content).unwrap(), expected);
    assert!(head.contains("Content-Type: text/plain\r\n") && !head.contains("ETag"));
}

#[tokio::test]
async fn conditional_requests() {
    let lab = serve(TestFiles::default().memory("f", "content"), HttpConfig::default());
    let mut stream = lab.connect().await;
    stream.write_all(&get("/f", "If-None-Match: \"tag-of-f\"\r\n")).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 304 ") && head.contains("ETag: \"tag-of-f\"\r\n"), "{head}");
    stream.write_all(&get("/f", "Range: bytes=0-1\r\nIf-Range: \"other\"\r\n")).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.1, b"content");
}

#[tokio::test]
async fn hostile_requests_get_an_error_and_the_service_lives() {
    let lab = serve(TestFiles::default().memory("f", "content"), HttpConfig::default());
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000));
    for (request, status) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], "400"),
        (b"GET /../etc/shadow HTTP/1.1\r\nHost: h\r\n\r\n", "400"),
        (b"GET /%2e%2e/etc/shadow HTTP/1.1\r\nHost: h\r\n\r\n", "400"),
        (b"GET /f HTTP/1.1\r\n\r\n", "400"),
        (b"PUT /f HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "405"),
        (b"GET /f HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "413"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
        (many.as_bytes(), "431"),
        (long.as_bytes(), "431"),
    ] {
        let mut stream = lab.connect().await;
        // The service may close before it has read all of it.
        let _ = stream.write_all(request).await;
        let answer = String::from_utf8(read_to_end(&mut stream).await).unwrap();
        assert_eq!(answer.get(9..12), Some(status), "{answer:?} to {}", String::from_utf8_lossy(request));
        assert!(answer.contains("\r\nConnection: close\r\n"));
    }
    let mut stream = lab.connect().await;
    stream.write_all(&get("/f", "")).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.1, b"content");
}

#[tokio::test]
async fn a_trickling_head_is_cut_at_its_deadline() {
    let config = HttpConfig { head_deadline: Duration::from_millis(50), ..HttpConfig::default() };
    let lab = serve(TestFiles::default(), config);
    let mut stream = lab.connect().await;
    stream.write_all(b"GET / HT").await.unwrap();
    assert!(String::from_utf8(read_to_end(&mut stream).await).unwrap().starts_with("HTTP/1.1 408 "));
}

#[tokio::test]
async fn silent_and_stalled_clients_are_closed() {
    let short = Duration::from_millis(50);
    let lab = serve(TestFiles::default(), HttpConfig { idle: short, ..HttpConfig::default() });
    assert!(read_to_end(&mut lab.connect().await).await.is_empty());
    let config = HttpConfig { stall: short, ..HttpConfig::default() };
    let lab = serve(TestFiles::default().disk("big", &pattern(30_000_000)), config);
    let mut events = lab.events.subscribe();
    let mut stream = lab.connect().await;
    stream.write_all(&get("/big", "")).await.unwrap();
    let ended = finished(&mut events).await;
    assert!(
        matches!(&ended.outcome, Outcome::ClientLeft(reason) if reason.contains("took nothing")),
        "{ended:?}"
    );
    assert!(ended.bytes > 0 && ended.bytes < 30_000_000 && ended.status == Some(200));
}

#[tokio::test]
async fn a_reset_in_the_middle_is_the_clients_choice() {
    let lab = serve(TestFiles::default().disk("big", &pattern(30_000_000)), HttpConfig::default());
    let mut events = lab.events.subscribe();
    let mut stream = lab.connect().await;
    stream.write_all(&get("/big", "")).await.unwrap();
    read_head(&mut stream).await;
    // Closing with unread bytes sends RST, as OVMF does.
    drop(stream);
    assert!(matches!(finished(&mut events).await.outcome, Outcome::ClientLeft(_)));
    assert_eq!(lab.server.counters().snapshot().failed, 0);
}

#[tokio::test]
async fn relayed_bytes_are_served_while_they_arrive() {
    let (mut source, entry) = relay(200_000);
    let lab = serve(TestFiles::default().with("relayed", entry), HttpConfig::default());
    let mut stream = lab.connect().await;
    stream.write_all(&get("/relayed", "")).await.unwrap();
    assert_eq!(content_length(&read_head(&mut stream).await), 200_000);
    let feeder = tokio::spawn(async move { source.write_all(&pattern(200_000)).await });
    let mut content = vec![0; 200_000];
    soon(stream.read_exact(&mut content)).await.unwrap();
    assert!(content == pattern(200_000));
    feeder.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_relay_that_ends_early_closes_the_connection() {
    let (mut source, entry) = relay(1000);
    let lab = serve(TestFiles::default().with("relayed", entry), HttpConfig::default());
    let mut events = lab.events.subscribe();
    let mut stream = lab.connect().await;
    stream.write_all(&get("/relayed", "")).await.unwrap();
    source.write_all(b"only this").await.unwrap();
    drop(source);
    assert!(read_to_end(&mut stream).await.ends_with(b"\r\n\r\nonly this"));
    let ended = finished(&mut events).await;
    assert_eq!((ended.outcome, ended.bytes), (Outcome::Failed("the source ended early".into()), 9));
}

#[tokio::test]
async fn connections_above_the_bound_are_told_to_come_back() {
    let config = HttpConfig { max_connections_per_client: 1, ..HttpConfig::default() };
    let lab = serve(TestFiles::default().memory("f", "content"), config);
    let mut first = lab.connect().await;
    first.write_all(&get("/f", "")).await.unwrap();
    read_answer(&mut first).await;
    let mut second = lab.connect().await;
    second.write_all(&get("/f", "")).await.unwrap();
    let answer = String::from_utf8(read_to_end(&mut second).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 2\r\n"), "{answer}");
    first.write_all(&get("/f", "")).await.unwrap();
    assert_eq!(read_answer(&mut first).await.1, b"content");
}

#[tokio::test]
async fn large_downloads_above_the_bound_are_told_to_come_back() {
    let large = usize::try_from(LARGE_DOWNLOAD).unwrap() * 4;
    let config = HttpConfig { max_downloads: Some(1), ..HttpConfig::default() };
    let lab = serve(TestFiles::default().disk("kernel", &pattern(large)).memory("script", "#!ipxe"), config);
    let (mut first, mut second) = (lab.connect().await, lab.connect().await);
    first.write_all(&get("/kernel", "")).await.unwrap();
    read_head(&mut first).await;
    second.write_all(&get("/kernel", "")).await.unwrap();
    assert!(read_answer(&mut second).await.0.starts_with("HTTP/1.1 503 "));
    second.write_all(&get("/script", "")).await.unwrap();
    assert_eq!(read_answer(&mut second).await.1, b"#!ipxe");
    soon(first.read_exact(&mut vec![0; large])).await.unwrap();
    // The place is given back just after the last byte.
    soon(async {
        loop {
            second.write_all(&get("/kernel", "")).await.unwrap();
            if read_answer(&mut second).await.0.starts_with("HTTP/1.1 200 ") {
                break;
            }
        }
    })
    .await;
}

fn limited(bytes_per_second: u64) -> HttpConfig {
    HttpConfig { upload_limit: Some(Arc::new(UploadLimit::new(bytes_per_second))), ..HttpConfig::default() }
}

#[tokio::test]
async fn connections_share_an_upload_limit_evenly() {
    const LEN: usize = 8_000_000;
    let lab = serve(TestFiles::default().disk("d", &pattern(2 * LEN)), limited(40_000_000));
    let (mut one, mut other) = (lab.connect().await, lab.connect().await);
    for stream in [&mut one, &mut other] {
        stream.write_all(&get("/d", "")).await.unwrap();
        read_head(stream).await;
    }
    // When one has got its first half, the other has got about as much.
    let (mut got, mut buffer, mut more) = ((0, 0), vec![0; 65_536], vec![0; 65_536]);
    while got.0.max(got.1) < LEN {
        tokio::select! {
            read = soon(one.read(&mut buffer)) => got.0 += read.unwrap(),
            read = soon(other.read(&mut more)) => got.1 += read.unwrap(),
        }
    }
    assert!(got.0.min(got.1) * 2 > got.0.max(got.1), "{got:?}");
}

#[tokio::test]
async fn an_upload_limit_changes_no_byte() {
    let content = pattern(300_000);
    let lab =
        serve(TestFiles::default().disk("d", &content).memory("m", content.clone()), limited(20_000_000));
    let mut stream = lab.connect().await;
    for path in ["/d", "/m"] {
        stream.write_all(&get(path, "")).await.unwrap();
        assert!(read_answer(&mut stream).await.1 == content);
    }
}

#[tokio::test]
async fn a_stop_finishes_answers_and_closes_idle_connections() {
    let (mut source, entry) = relay(6);
    let lab = serve(TestFiles::default().with("relayed", entry), HttpConfig::default());
    let mut idle = lab.connect().await;
    let mut busy = lab.connect().await;
    busy.write_all(&get("/relayed", "")).await.unwrap();
    read_head(&mut busy).await;
    lab.stop.cancel();
    assert!(read_to_end(&mut idle).await.is_empty());
    source.write_all(b"answer").await.unwrap();
    assert_eq!(read_to_end(&mut busy).await, b"answer");
    soon(lab.server.stopped()).await;
    assert!(TcpStream::connect(lab.addr).await.is_err());
}

#[tokio::test]
async fn a_stop_cuts_what_outlasts_the_drain_deadline() {
    let (_source, entry) = relay(6);
    let config = HttpConfig { drain: Duration::from_millis(10), ..HttpConfig::default() };
    let lab = serve(TestFiles::default().with("relayed", entry), config);
    let mut busy = lab.connect().await;
    busy.write_all(&get("/relayed", "")).await.unwrap();
    read_head(&mut busy).await;
    lab.stop.cancel();
    soon(lab.server.stopped()).await;
}

#[tokio::test]
async fn events_tell_name_range_bytes_and_status() {
    let lab = serve(TestFiles::default().disk("f", &pattern(1000)), HttpConfig::default());
    let mut events = lab.events.subscribe();
    let mut stream = lab.connect().await;
    stream.write_all(&get("/f", "Range: bytes=100-299\r\n")).await.unwrap();
    read_answer(&mut stream).await;
    let ended = finished(&mut events).await;
    assert_eq!((ended.status, ended.bytes, ended.outcome), (Some(206), 200, Outcome::Complete));
    let transfer = ended.transfer;
    assert_eq!((transfer.name.as_str(), transfer.offset, transfer.length), ("f", 100, 200));
    assert_eq!((transfer.client, transfer.local), (stream.local_addr().unwrap(), lab.addr));
    assert_eq!(lab.files.requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_body_of_another_length_than_promised_is_no_success() {
    struct Liar;
    #[async_trait]
    impl FileBody for Liar {
        fn len(&self) -> u64 {
            100
        }
        async fn slice(&self, _range: Range<u64>) -> Result<Slice, FileError> {
            Ok(Slice::Bytes(Bytes::from_static(b"short")))
        }
    }
    let file = ServedFile { content_type: None, etag: None, body: Arc::new(Liar) };
    let lab = serve(TestFiles::default().with("liar", Entry::File(file)), HttpConfig::default());
    let mut events = lab.events.subscribe();
    let mut stream = lab.connect().await;
    stream.write_all(&get("/liar", "")).await.unwrap();
    assert!(read_to_end(&mut stream).await.is_empty());
    assert!(matches!(finished(&mut events).await.outcome, Outcome::Failed(_)));
}

/// Shakes hands with a word: what follows is the connection as it was, which is enough to tell who wraps it.
struct Word;

#[async_trait]
impl Wrapper for Word {
    async fn wrap(&self, mut stream: TcpStream) -> std::io::Result<Box<dyn ByteStream>> {
        let mut word = [0; 4];
        stream.read_exact(&mut word).await?;
        if &word != b"open" {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        // Small, so that every answer is written in many steps.
        let (near, far) = tokio::io::duplex(1000);
        tokio::spawn(async move {
            let mut far = far;
            tokio::io::copy_bidirectional(&mut stream, &mut far).await
        });
        Ok(Box::new(near))
    }
}

#[tokio::test]
async fn a_wrapped_connection_serves_the_same() {
    let content = pattern(300_000);
    let files = TestFiles::default().disk("disk", &content).memory("memory", content.clone());
    let files = files.with("closed", Entry::Error(FileError::Forbidden("not for you".into())));
    let config = HttpConfig { wrapper: Some(Arc::new(Word)), ..HttpConfig::default() };
    let lab = serve(files, config);
    let mut stream = lab.connect().await;
    stream.write_all(b"open").await.unwrap();
    for (name, range) in [("disk", 7..250_000), ("memory", 0..300_000), ("disk", 299_999..300_000)] {
        let (first, last) = (range.start, range.end - 1);
        let request = format!(
            "GET /{name} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer t0k\r\nRange: bytes={first}-{last}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 206"), "{head}");
        let mut body = vec![0; content_length(&head)];
        soon(stream.read_exact(&mut body)).await.unwrap();
        assert!(body == content[range], "{name}");
    }
    assert_eq!(lab.files.requests.lock().unwrap()[0].bearer, Some(Bearer::new("t0k")));
    stream.write_all(b"GET /closed HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");

    // Who does not know the word gets not a byte, and nobody else is held up.
    let mut stranger = lab.connect().await;
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    assert_eq!(soon(stranger.read(&mut [0; 100])).await.unwrap_or(0), 0);
    lab.stop.cancel();
    drop(stream);
    soon(lab.server.stopped()).await;
}

#[tokio::test]
async fn a_handshake_has_a_deadline() {
    let config = HttpConfig {
        wrapper: Some(Arc::new(Word)),
        head_deadline: Duration::from_millis(50),
        ..HttpConfig::default()
    };
    let lab = serve(TestFiles::default().memory("f", "f"), config);
    let mut silent = lab.connect().await;
    silent.write_all(b"op").await.unwrap();
    assert_eq!(soon(silent.read(&mut [0; 100])).await.unwrap_or(0), 0);
    lab.stop.cancel();
    soon(lab.server.stopped()).await;
}
