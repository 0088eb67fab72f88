//! `bootfabric image shell`: a root to work in, and a new version of what was done to it.

use anyhow::ensure;

use super::super::output::{print_json, print_line};
use super::super::place::Place;
use super::inside::Inside;
use super::progress::Bars;
use super::tree::Tree;
use crate::human::human_bytes;
use crate::image::build::Scratch;
use crate::image::changed::{Changes, changes, next_version, release_with_root};
use crate::image::heads;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
  bootfabric image shell debian                               a shell in the image's root
  bootfabric image shell debian -- apt-get -y upgrade         one command
When it ends with 0, what it changed becomes a new version of the image, with the same kernel and first stage, and machines
boot that from then on. When it ends otherwise, or with --discard, nothing is kept. It has this machine's network, but its own
processes and mounts. Needs root: a squashfs cannot be mounted without.")]
pub(super) struct ShellArgs {
    /// The image: NAME (its newest version), NAME@VERSION or NAME#GENERATION
    #[arg(value_name = "IMAGE")]
    name: String,
    /// The new version [default: the last number in the old one, one higher]
    #[arg(long, conflicts_with = "discard")]
    version: Option<String>,
    /// Keep nothing of what is changed
    #[arg(long)]
    discard: bool,
    /// What to run instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(args: ShellArgs) -> anyhow::Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "a root can only be mounted by root: use sudo");
    let home = args.place.home()?;
    let operator = home.operator()?;
    let store = args.place.open(&home)?;
    let found = heads::find(&store, &operator.trust_root(), &args.name)?;
    let blob = store.blob(&found.release.root.blob).filter(|blob| blob.is_complete());
    let blob = blob.ok_or_else(|| anyhow::anyhow!("the store does not hold all of {}", args.name))?;
    let scratch = Scratch::new(&store)?;
    let tree = Tree::on_disk(blob.path(), &scratch.path().join("tree"))?;
    let root = tree.root();
    let status = Inside::prepare(&root)?.run(&args.command)?;
    ensure!(status.success(), "the command failed ({status}): nothing of what it did is kept");
    let changes = changes(&tree.upper(), &tree.lower())?;
    if args.discard || changes == Changes::default() {
        drop(tree);
        scratch.remove()?;
        return report_nothing(&args, &changes);
    }
    let version = args.version.unwrap_or_else(|| next_version(&found.release.version));
    let (id, release) = release_with_root(&store, &operator, &found.release, version, &root, &Bars::new())?;
    drop(tree);
    scratch.remove()?;
    if args.place.json {
        return print_json(&serde_json::json!({ "id": id, "release": release, "changes": changes }));
    }
    print_line(&format!("{changes} in {}", args.name))?;
    print_line(&format!("image {} {} (generation {})", release.name, release.version, release.generation))?;
    print_line(&format!("  root {}", human_bytes(release.root.size)))?;
    print_line(&format!("  release {id}"))
}

fn report_nothing(args: &ShellArgs, changes: &Changes) -> anyhow::Result<()> {
    if args.place.json {
        return print_json(&serde_json::json!({ "changes": changes }));
    }
    let what = if args.discard { "nothing is kept" } else { "there is no new version" };
    print_line(&format!("{changes} in {}: {what}", args.name))
}
