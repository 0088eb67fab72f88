//! `bootfabric fetch`.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Duration;

use super::output::print_line;
use super::transfer_bar::TransferBar;
use crate::event::Events;
use crate::human::human_bytes;
use crate::limits::Rate;
use crate::share::Ticket;
use crate::share::address::ListenAt;
use crate::share::fetch::{Plan, fetch};
use crate::share::station::Setup;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The file is fetched from whoever has parts of it: the machines that the ticket names, and all others that are fetching it,
which are found through them. Each chunk is checked before it is kept, and given on at once. FILE appears when it is complete
and verified, never before. What has arrived is kept beside it (.FILE.bootfabric) when the command is stopped: the same
command goes on from there.

Exit status 0 only when FILE is complete and verified. Needs no root and no fabric.")]
pub(crate) struct Args {
    /// What `bootfabric seed` printed
    #[arg(value_name = "TICKET")]
    ticket: Ticket,
    /// Where the file is to be
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Another machine to ask first, A.B.C.D:PORT (may be repeated)
    #[arg(long = "peer", value_name = "ADDR")]
    peers: Vec<SocketAddrV4>,
    /// Where to listen for the others: an address, :PORT, or both [default: everywhere, any port]
    #[arg(long, value_name = "ADDR", default_value_t, hide_default_value = true)]
    listen: ListenAt,
    /// The most that leaves this machine for others, as in 400mbit or 50MB [default: no limit]
    #[arg(long, value_name = "RATE")]
    upload_limit: Option<Rate>,
    /// Go on serving when the file is complete; the line `done` on standard output says that it is
    #[arg(long)]
    seed_after: bool,
    /// Give up when nothing came for so long
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
    /// Rack that this machine stands in: what other racks have is fetched about once for all of the rack
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, value_parser = super::rack)]
    rack: String,
    /// Print JSON, one object a line: `progress`, and `done` at the end
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    super::share_runtime()?.block_on(run_async(args))
}

async fn run_async(args: Args) -> anyhow::Result<()> {
    let events = Events::new();
    if args.json {
        events.add_sink(Box::new(std::io::stdout()));
    }
    let total = args.ticket.blob.size;
    let name = args.output.display().to_string();
    let bar = TransferBar::new(&format!("fetching {name}"), total);
    let peers: Vec<SocketAddrV4> = args.peers.into_iter().chain(args.ticket.peers.iter().copied()).collect();
    let plan = Plan {
        setup: Setup {
            listen: args.listen,
            own: args.listen.own(&peers),
            peers,
            upload_limit: args.upload_limit,
            rack: args.rack,
        },
        ticket: args.ticket,
        output: args.output,
        patience: Duration::from_secs(args.patience.max(1)),
    };
    let watch = |progress| bar.update(progress);
    let arrived = fetch(&plan, &events, &watch).await?;
    drop(bar);
    eprintln!("{name}: {}, complete and verified", human_bytes(total));
    if args.seed_after {
        if !args.json {
            print_line("done")?;
        }
        super::until_stopped(std::future::pending()).await?;
    }
    arrived.stop().await;
    Ok(())
}
