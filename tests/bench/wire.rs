//! The same runs over plain HTTP and over TLS, both ends in this process and unshaped: what the secrecy of a private fabric
//! costs. Nothing is hashed or written; the seeder reads from the page cache.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use fabric::exchange::http::Private;
use fabric::exchange::{ChunkSource, HttpSource};
use fabric::id::{BlobId, Hash};
use fabric::swarm::NodeKey;
use fabric::tls::{TlsClient, TlsServer};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use pxe::bind::{BindOptions, tcp};
use pxe::files::{BootFiles, DiskBody, FileError, FileRequest, ServedFile};
use pxe::http::{ByteStream, HttpConfig, HttpServer, Wrapper};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::measure::{median, spread, write_noise};

/// Bytes of one request, as the exchange asks.
const RUN: u64 = 1024 * 1024;
/// Requests under way at once.
const AHEAD: u64 = 4;

/// Runs both in turn and prints CPU seconds per GB, both ends together, and the ratio of pairs.
pub(crate) fn report(size: u64, runs: usize) {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("source");
    write_noise(&path, size);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cost = |tls| runtime.block_on(cost(&path, size, tls));
    let pairs: Vec<(f64, f64)> = (0..runs).map(|_| (cost(false), cost(true))).collect();
    let each = |get: fn(&(f64, f64)) -> f64| median(pairs.iter().map(get).collect());
    println!(
        "tls        CPU {} of plain HTTP ({:.2} and {:.2} s per GB here)",
        spread(&pairs.iter().map(|(plain, tls)| tls / plain).collect::<Vec<_>>()),
        each(|pair| pair.1),
        each(|pair| pair.0),
    );
}

async fn cost(path: &Path, size: u64, tls: bool) -> f64 {
    let key = NodeKey::generate();
    let wrapper = tls.then(|| Arc::new(OverTls(TlsServer::new(&key).unwrap())) as Arc<dyn Wrapper>);
    let stop = CancellationToken::new();
    let listener = tcp("127.0.0.1:0".parse().unwrap(), &BindOptions::default()).unwrap();
    let files = Arc::new(One(DiskBody::new(Arc::new(File::open(path).unwrap())).unwrap()));
    let config = HttpConfig { wrapper, ..HttpConfig::default() };
    let server = HttpServer::serve(listener, files, config, stop.clone()).unwrap();
    let source = source(server.local_addr(), tls.then_some(&key));
    // The handshake is not what is measured.
    let blob = BlobId(Hash::of(b"bench"));
    source.fetch(&blob, 0..1, &mut Vec::new()).await.unwrap();
    let (before, begun) = (own_cpu(), Instant::now());
    let mut lanes = Vec::new();
    for lane in 0..AHEAD {
        let source = Arc::clone(&source);
        lanes.push(tokio::spawn(async move {
            let mut sink = Vec::new();
            for run in (lane..size / RUN).step_by(usize::try_from(AHEAD).unwrap()) {
                sink.clear();
                source.fetch(&blob, run * RUN..(run + 1) * RUN, &mut sink).await.unwrap();
            }
        }));
    }
    for lane in lanes {
        lane.await.unwrap();
    }
    let cpu = (own_cpu() - before) / (size as f64 / 1e9);
    let rate = size as f64 / 1e6 / begun.elapsed().as_secs_f64();
    eprintln!("  {} {cpu:.2} CPU-s/GB at {rate:.0} MB/s", if tls { "tls  " } else { "plain" });
    stop.cancel();
    drop(source);
    server.stopped().await;
    cpu
}

fn source(address: SocketAddr, key: Option<&NodeKey>) -> Arc<HttpSource> {
    Arc::new(match key {
        None => HttpSource::new(address),
        Some(key) => {
            let secure = Arc::new(TlsClient::new(key.public()).unwrap());
            HttpSource::private(address, Private { secure, token: "bench".into() })
        }
    })
}

/// One file under every name.
struct One(DiskBody);

#[async_trait]
impl BootFiles for One {
    async fn open(&self, _: &FileRequest) -> Result<ServedFile, FileError> {
        Ok(ServedFile { content_type: None, etag: None, body: Arc::new(self.0.clone()) })
    }
}

struct OverTls(TlsServer);

#[async_trait]
impl Wrapper for OverTls {
    async fn wrap(&self, stream: TcpStream) -> std::io::Result<Box<dyn ByteStream>> {
        Ok(Box::new(self.0.accept(stream).await?))
    }
}

fn own_cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6
}
