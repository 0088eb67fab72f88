//! `bootfabric image diff`: what a node that holds one image would fetch to hold another.

use serde::Serialize;

use super::super::output::{print_json, print_line};
use super::Place;
use crate::human::human_bytes;
use crate::image::diff::{ImageDiff, Moves, diff};
use crate::image::heads::{self, Image};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What moves is counted in chunks: `moves` are the bytes of the chunks of B that no blob of A has, and of the indexes, which are
fetched too. A node copies the rest from what it holds.")]
pub(super) struct DiffArgs {
    /// The image that a node holds: NAME, NAME@VERSION or NAME#GENERATION
    #[arg(value_name = "A")]
    from: String,
    /// The image that it is to hold
    #[arg(value_name = "B")]
    to: String,
    #[command(flatten)]
    place: Place,
}

/// The whole, for scripts.
#[derive(Serialize)]
struct Document<'a> {
    from: Side<'a>,
    to: Side<'a>,
    #[serde(flatten)]
    diff: &'a ImageDiff,
}

/// Which image.
#[derive(Serialize)]
struct Side<'a> {
    release: fabric::id::ObjectId,
    name: &'a str,
    version: &'a str,
    generation: u64,
}

pub(super) fn run(args: &DiffArgs) -> anyhow::Result<()> {
    let home = args.place.home()?;
    let (store, trust_root) = (args.place.read()?, home.trust_root()?);
    let from = heads::find(&store, &trust_root, &args.from)?;
    let to = heads::find(&store, &trust_root, &args.to)?;
    let diff = diff(&store, &from.release, &to.release)?;
    if args.place.json {
        return print_json(&Document { from: side(&from), to: side(&to), diff: &diff });
    }
    print_line(&format!("from {} to {}", label(&from), label(&to)))?;
    print_line(&format!(
        "{:<14} {:>10} {:>8} {:>10} {:>8} {:>7}",
        "BLOB", "SIZE", "CHUNKS", "MOVES", "CHUNKS", "SHARED"
    ))?;
    for blob in &diff.blobs {
        row(&blob.role, &blob.moves)?;
    }
    row("total", &diff.total)
}

fn row(what: &str, moves: &Moves) -> anyhow::Result<()> {
    let Moves { difference, moved_bytes, shared_percent, .. } = moves;
    print_line(&format!(
        "{what:<14} {:>10} {:>8} {:>10} {:>8} {shared_percent:>5.1} %",
        human_bytes(difference.bytes),
        difference.chunks,
        human_bytes(*moved_bytes),
        difference.fetched_chunks
    ))
}

fn side(image: &Image) -> Side<'_> {
    let release = &image.release;
    Side { release: image.id, name: &release.name, version: &release.version, generation: release.generation }
}

fn label(image: &Image) -> String {
    let release = &image.release;
    format!("{} {} (generation {})", release.name, release.version, release.generation)
}
