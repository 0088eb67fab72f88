//! `bootfabric store`: look at a store, check it, keep things in it, tidy it up.

use std::path::PathBuf;

use clap::Subcommand;
use fabric::store::{Item, StoreError};

use super::output::{print_json, print_line};
use super::place::Place;
use super::status::DEFAULT_STATE;

mod change;
mod list;
mod size;
mod verify;
mod what;

use change::State;
use size::Limit;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A store keeps what has a name. Heads are names that the program gives: `release` is what bare machines are booted with,
`release.NAME` the newest version of each image, `earlier.…` the few before it. Pins are names that you give. What they lead to is
kept: a release with its blobs, a blob with its index. All else is garbage; it stays until `gc` removes it, or until something
new needs the room below the limit.

`ls`, `verify` and `gc --dry-run` work beside a running node. `gc`, `pin`, `unpin` and `limit` are done by the node if one has
the store open (name its state directory with --state if it has another than usual).")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List blobs, heads and pins, and what keeps each blob
    Ls(ListArgs),
    /// Hash everything that is held
    Verify(VerifyArgs),
    /// Remove what neither a head nor a pin leads to
    Gc(GcArgs),
    /// Keep an image, a blob or an object, whatever becomes of its name
    Pin(PinArgs),
    /// Remove a pin; what it kept stays until `gc`
    Unpin(UnpinArgs),
    /// Show or set how much the store may hold
    Limit(LimitArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Damaged blobs become incomplete and keep their good chunks, damaged objects are removed: both are fetched again by the next `up`
with a peer, or by building the image again. Where a node has the store open, damage is only reported; the node repairs it when
it is started again.

Exit status: 0 all is well; 1 something is damaged, or could not be read.")]
struct VerifyArgs {
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct GcArgs {
    /// Only tell what would be removed
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    state: State,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
WHAT is the name of an image, the name of a head, or the hash of a blob or an object (its first digits are enough, if no
other has them). Pinning an image keeps the version that it has now: build it again, and both are kept.")]
struct PinArgs {
    /// An image, a head, or a hash
    what: String,
    /// Name of the pin [default: WHAT, a hash shortened]
    #[arg(long)]
    name: Option<String>,
    /// Why it is kept, for whoever lists the pins later
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    #[command(flatten)]
    state: State,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct UnpinArgs {
    /// Name of the pin
    name: String,
    #[command(flatten)]
    state: State,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The limit is kept in the store. What would exceed it removes garbage first, and fails if that is not enough; blobs that are being
fetched count as a whole from the start. Lowering it removes nothing by itself.")]
struct LimitArgs {
    /// 20GB, 500MiB, a number of bytes, or `none`; nothing shows the limit
    size: Option<Limit>,
    #[command(flatten)]
    state: State,
    #[command(flatten)]
    place: Place,
}

/// Runs what was typed.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Ls(args) => list::run(&args.place),
        Command::Verify(args) => verify::run(&args.place),
        Command::Gc(args) => change::collect(&args.place, &args.state, args.dry_run),
        Command::Pin(args) => change::pin(args),
        Command::Unpin(args) => change::unpin(&args),
        Command::Limit(args) => change::limit(&args),
    }
}

/// An item for people.
fn words(item: &Item) -> String {
    match item {
        Item::Blob(blob) => format!("blob    {blob}"),
        Item::Object(object) => format!("object  {object}"),
    }
}
