//! `bootfabric image export`: an image, or a part of it, as a file for other tools.

use std::path::PathBuf;

use super::super::output::{print_json, print_line};
use super::super::place::Place;
use super::progress::Bars;
use crate::human::human_bytes;
use crate::image::export::{export_blob, export_root};
use crate::image::heads;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
  bootfabric image export debian -o debian.tar.zst            the root, with owners, attributes, devices and hard links
  bootfabric image export debian@1 --blob kernel -o vmlinuz   one of its blobs as it is
A root needs sqfs2tar (Debian package squashfs-tools-ng).")]
pub(super) struct ExportArgs {
    /// The image: NAME (its newest version), NAME@VERSION or NAME#GENERATION
    #[arg(value_name = "IMAGE")]
    name: String,
    /// The file to write; of a root a tar: .tar, .tar.zst, .tar.gz or .tar.xz
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Write a blob as it is instead: root (the squashfs), kernel, first-stage, or a loader by its name
    #[arg(long, value_name = "NAME")]
    blob: Option<String>,
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(args: &ExportArgs) -> anyhow::Result<()> {
    let trust_root = args.place.home()?.trust_root()?;
    let store = args.place.read()?;
    let release = heads::find(&store, &trust_root, &args.name)?.release;
    let bars = Bars::new();
    let bytes = match &args.blob {
        Some(blob) => export_blob(&store, &release, blob, &args.output, &bars)?,
        None => export_root(&store, &release, &args.output, &bars)?,
    };
    if args.place.json {
        let file = args.output.display().to_string();
        return print_json(&serde_json::json!({ "file": file, "bytes": bytes }));
    }
    let what = args.blob.as_deref().unwrap_or("root");
    let title = format!("{} {}", release.name, release.version);
    print_line(&format!("{what} of {title}: {}, {}", args.output.display(), human_bytes(bytes)))
}
