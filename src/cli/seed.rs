//! `bootfabric seed`.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use fabric::content::BlobRef;
use fabric::store::{LockMode, Store, StoreOptions};

use super::output::print_line;
use super::transfer_bar::TransferBar;
use crate::event::{Event, Events};
use crate::human::human_bytes;
use crate::limits::Rate;
use crate::share::Ticket;
use crate::share::address::ListenAt;
use crate::share::station::{Setup, Station};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The first line on standard output is the ticket of the first FILE; each further FILE has a line of its own. Whoever has a
ticket fetches that file with `bootfabric fetch TICKET -o FILE`, from this machine and from all others that fetch it. Files
stay where they are; do not change them while they are served. The line `every chunk has left once` on standard error (the
event `first-copy-out` with --json) says that the others have the whole file among them: from then on this machine may go.

Needs no root and no fabric. Serves until it is stopped.")]
pub(crate) struct Args {
    /// Files to serve
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where to listen: an address, :PORT, or both; the port after it serves the bytes [default: everywhere, any port]
    #[arg(long, value_name = "ADDR", default_value_t, hide_default_value = true)]
    listen: ListenAt,
    /// The most that leaves this machine, as in 400mbit or 50MB [default: no limit]
    #[arg(long, value_name = "RATE")]
    upload_limit: Option<Rate>,
    /// Rack that this machine stands in: what other racks have is fetched about once for all of the rack
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, value_parser = super::rack)]
    rack: String,
    /// Print JSON, one object a line: first `seeding` with the ticket, then what happens
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    super::share_runtime()?.block_on(seed(args))
}

async fn seed(args: &Args) -> anyhow::Result<()> {
    let events = Events::new();
    let mut told = events.subscribe();
    if args.json {
        events.add_sink(Box::new(std::io::stdout()));
    }
    let scratch =
        tempfile::Builder::new().prefix("bootfabric-seed-").tempdir().context("cannot make a directory")?;
    let options = StoreOptions { durable: false, lock: LockMode::Fail, ..StoreOptions::default() };
    let store = Store::open(scratch.path(), options)?;
    let mut files = Vec::new();
    for file in &args.files {
        files.push(index(&store, file).await?);
    }
    let (listen, upload_limit) = (args.listen, args.upload_limit);
    let setup =
        Setup { listen, own: listen.own(&[]), peers: Vec::new(), upload_limit, rack: args.rack.clone() };
    let station = Station::start(&setup, store.clone(), &events).await?;
    let peers = args.listen.reachable(station.port())?;
    for (file, indexed) in args.files.iter().zip(files) {
        serve(args, &station, &store, file, indexed, &peers, &events).await?;
    }
    super::until_stopped(async {
        while let Ok(record) = told.recv().await {
            if !args.json && matches!(record.event, Event::FirstCopyOut { .. }) {
                eprintln!("every chunk has left once: this machine may go");
            }
        }
    })
    .await?;
    station.stop().await;
    Ok(())
}

/// A file that has been read and hashed.
struct Indexed {
    reference: BlobRef,
    millis: u64,
}

async fn index(store: &Store, file: &Path) -> anyhow::Result<Indexed> {
    let begun = Instant::now();
    let metadata = std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(
        metadata.is_file(),
        "{} is not a file: pack a directory first, for example with tar",
        file.display()
    );
    let bar = TransferBar::new(&format!("indexing {}", file.display()), metadata.len());
    let (store, path) = (store.clone(), file.to_owned());
    let reference =
        tokio::task::spawn_blocking(move || store.lend_file(&path, &|bytes| bar.at(bytes))).await??;
    let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Indexed { reference, millis })
}

async fn serve(
    args: &Args,
    station: &Station,
    store: &Store,
    file: &Path,
    indexed: Indexed,
    peers: &[SocketAddrV4],
    events: &Events,
) -> anyhow::Result<()> {
    let Indexed { reference, millis } = indexed;
    let index: Arc<_> = store.index(&reference).context("the index is gone")?;
    station.objects.insert(reference.index, index.encode().into());
    station.exchange.seed(&reference.blob).await?;
    let ticket = Ticket { blob: reference, peers: peers.to_vec() };
    let name = file.display().to_string();
    eprintln!("serving {name}, {}, indexed in {millis} ms", human_bytes(reference.size));
    events.emit(Event::Seeding {
        ticket: ticket.to_string(),
        file: name,
        blob: reference.blob.to_string(),
        bytes: reference.size,
        index_millis: millis,
    });
    if args.json { Ok(()) } else { print_line(&ticket.to_string()) }
}
