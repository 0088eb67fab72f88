//! `bootfabric image set`: the same image, booted another way.

use fabric::trust::RootMode;

use super::super::output::{print_json, print_line};
use super::super::place::Place;
use crate::image::again::{Changes, release_again};

/// What was typed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The image's blobs stay what they are, so nodes that hold them fetch nothing; machines boot the new way from their next
start on. One machine alone is told on its kernel line: bootfabric.root=zram (docs/kernel-line.md).")]
pub(super) struct SetArgs {
    /// The image: NAME (its newest version), NAME@VERSION or NAME#GENERATION
    #[arg(value_name = "IMAGE")]
    name: String,
    /// How nodes hold the root: overlay, zram, tmpfs
    #[arg(long, value_name = "MODE", required_unless_present = "cmdline")]
    root_mode: Option<RootMode>,
    /// Kernel arguments, instead of those the image has
    #[arg(long)]
    cmdline: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// Does it.
pub(super) fn run(args: SetArgs) -> anyhow::Result<()> {
    let home = args.place.home()?;
    let operator = home.operator()?;
    let store = args.place.open(&home)?;
    let changes = Changes { root_mode: args.root_mode, cmdline: args.cmdline };
    let (id, release) = release_again(&store, &operator, &args.name, changes)?;
    if args.place.json {
        return print_json(&serde_json::json!({ "id": id, "release": release }));
    }
    print_line(&format!("image {} {} (generation {})", release.name, release.version, release.generation))?;
    print_line(&format!(
        "  root mode {}, needs {} MiB of memory beside the 120 to 160 of kernel and first stage",
        release.root_mode, release.memory_needed_mib
    ))?;
    print_line(&format!("  arguments {}", release.cmdline))?;
    print_line(&format!("  release {id}"))
}
