//! `bootfabric image install`, and the hidden `bootfabric disk-install` of the first stage.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::super::output::{print_json, print_line};
use super::super::place::Place;
use super::tree::Tree;
use crate::disk::{DiskName, Image, Request, Step, check, install};
use crate::image::{grub, heads};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The disk is named by its node, by its serial number (serial:S4EWNX0R) or by the PCI address of its controller
(pci:0000:00:1f.2). It must not be in use, and it must hold nothing but zeros unless --wipe is given.

It gets a GPT partition table, GRUB for BIOS and for UEFI, the image's kernel and first stage, a store with the image, and
the root. The machine then starts with no network at all, and wherever there is one it is a node that boots others.
Needs root, and on Debian the packages e2fsprogs, grub-common, grub-pc-bin and grub-efi-amd64-bin. The image must have been
built with --disk, or its first stage has no drivers for disks.")]
pub(crate) struct InstallArgs {
    /// The image: NAME (its newest version), NAME@VERSION or NAME#GENERATION
    #[arg(value_name = "IMAGE")]
    name: String,
    /// The disk: /dev/NAME, serial:NUMBER or pci:ADDRESS
    #[arg(long, value_name = "DISK")]
    disk: DiskName,
    /// Take away what the disk holds
    #[arg(long)]
    wipe: bool,
    /// Leave the root out: the machine starts from the disk, but runs from memory
    #[arg(long)]
    no_root: bool,
    /// More kernel arguments, behind those of the image
    #[arg(long, default_value = "", hide_default_value = true)]
    cmdline: String,
    #[command(flatten)]
    place: Place,
}

/// Runs what was typed.
pub(crate) fn run(args: &InstallArgs) -> anyhow::Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "installing on a disk needs root");
    check(&args.disk, args.wipe)?;
    let home = args.place.home()?;
    let store = args.place.path()?;
    let found = heads::find(&args.place.read()?, &home.trust_root()?, &args.name)?;
    ensure!(found.complete, "the store does not hold all of {}", args.name);
    let image = Image::of(&found.id.to_string(), &found.release);
    // Beside the store, where a link to a blob costs nothing.
    let beside = store.parent().unwrap_or(Path::new("/"));
    let work =
        tempfile::tempdir_in(beside).with_context(|| format!("cannot work in {}", beside.display()))?;
    let loader = work.path().join("loader");
    std::fs::create_dir(&loader)?;
    for (name, bytes) in grub::parts()? {
        std::fs::write(loader.join(name), bytes)?;
    }
    let blob = store.join("blobs").join(&image.root);
    // Goes before the directory does.
    let root = if args.no_root { None } else { Some(Tree::in_memory(&blob, &work.path().join("root"))?) };
    let request = Request {
        disk: args.disk.to_string(),
        wipe: args.wipe,
        line: format!("{} {}", found.release.cmdline, args.cmdline),
        image,
        store,
        loader,
        root: root.as_ref().map(Tree::root),
        scratch: work.path().join("scratch"),
    };
    let done = install(&request, &|step| eprintln!("writing: {step}"))?;
    if args.place.json {
        return print_json(&done);
    }
    let what = if done.root.is_some() { "starts from it" } else { "starts from it and runs from memory" };
    print_line(&format!("{} on {}: the machine {what}", request.image.title, done.disk.display()))
}

#[derive(Debug, clap::Args)]
pub(crate) struct StepArgs {
    /// What to do, as JSON
    #[arg(value_name = "FILE")]
    step: PathBuf,
}

/// Does what the first stage says.
pub(crate) fn run_step(args: &StepArgs) -> anyhow::Result<()> {
    let text = std::fs::read(&args.step).with_context(|| format!("cannot read {}", args.step.display()))?;
    let step: Step = serde_json::from_slice(&text).context("the step is of another version")?;
    step.run(&|what| println!("       writing: {what}"))?;
    Ok(())
}
