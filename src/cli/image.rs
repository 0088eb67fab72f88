//! `bootfabric image`: build, import, list, show, compare, change, export and remove images.

use clap::Subcommand;

use super::output::{print_json, print_line};
use super::place::Place;
use crate::human::human_bytes;
use crate::image::Part;
use crate::image::build::{BuildRequest, Built};
use crate::image::heads::{self, Image};
use crate::image::inventory::inventory;

mod build;
mod diff;
mod export;
mod import;
mod inside;
pub(crate) mod install;
mod parts;
mod progress;
mod set;
mod shell;
mod tree;
mod uki;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build an image from a recipe, or from a root filesystem and a kernel, and sign it
    Build(Box<build::BuildArgs>),
    /// Make an image of a container image, a tar or a directory, and sign it
    Import(Box<import::ImportArgs>),
    /// List the images in the store
    Ls(ListArgs),
    /// Show what an image is made of
    Show(NameArgs),
    /// Tell what a node that holds image A would fetch to hold image B
    Diff(diff::DiffArgs),
    /// Install an image on a disk of this machine, which then starts from it without a network
    Install(install::InstallArgs),
    /// Write an image's root as a tar, or one of its blobs as a file
    Export(export::ExportArgs),
    /// Work in an image's root; what was changed becomes a new version
    Shell(shell::ShellArgs),
    /// Boot an image another way: another root mode, other kernel arguments
    Set(set::SetArgs),
    /// Make one UEFI program of kernel, initramfs and command line, for firmware that needs no loader
    Uki(uki::UkiArgs),
    /// Remove an image, and the blobs that no other image uses and no pin keeps
    Rm(RemoveArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct NameArgs {
    /// The image: NAME (its newest version), NAME@VERSION or NAME#GENERATION
    #[arg(value_name = "IMAGE")]
    name: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// The image: NAME (all its versions), NAME@VERSION or NAME#GENERATION
    #[arg(value_name = "IMAGE")]
    name: String,
    /// Remove it even if bare machines are booted with it
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    place: Place,
}

/// Runs what was typed.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Build(args) => build::run(*args),
        Command::Import(args) => import::run(*args),
        Command::Ls(args) => list(&args),
        Command::Show(args) => show(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Install(args) => install::run(&args),
        Command::Export(args) => export::run(&args),
        Command::Shell(args) => shell::run(args),
        Command::Set(args) => set::run(args),
        Command::Uki(args) => uki::run(args),
        Command::Rm(args) => remove(&args),
    }
}

/// What was built, for people: the table on standard output, remarks on standard error.
fn report(built: &Built, asked: &BuildRequest, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(built);
    }
    let release = &built.release;
    print_line(&format!("image {} {} (generation {})", release.name, release.version, release.generation))?;
    let modules_added = if built.modules_added_to_root { ", kernel modules added" } else { "" };
    row("root", release.root.size, &format!("squashfs{modules_added}"))?;
    row("kernel", release.kernel.size, &release.kernel_version)?;
    row("first stage", release.first_stage.size, &format!("{}, of which unpacked:", built.compression))?;
    print_parts(&built.first_stage)?;
    for loader in &release.loaders {
        row("loader", loader.blob.size, &loader.name)?;
    }
    print_line(&format!(
        "  machines need {} MiB of free memory in the first stage",
        release.memory_needed_mib
    ))?;
    print_line(&format!("  release {}", built.id))?;
    if !built.other_kernels.is_empty() {
        eprintln!("The newest kernel was taken; there are also {}.", built.other_kernels.join(", "));
    }
    if !built.absent_modules.is_empty() {
        let absent: Vec<_> = built.absent_modules.iter().map(|absent| absent.module.as_str()).collect();
        eprintln!(
            "This kernel does not have all of {}: {} are missing.",
            asked.modules.join(", "),
            absent.join(", ")
        );
    }
    for (files, why) in [(&built.firmware.missing, "not there"), (&built.firmware.too_large, "too large")] {
        if let Some(first) = files.first() {
            let others =
                if files.len() > 1 { format!(" and {} others", files.len() - 1) } else { String::new() };
            eprintln!(
                "Firmware that the first stage's modules may ask for is {why}: {first}{others} (--json lists them)."
            );
        }
    }
    if asked.shell && built.first_stage.iter().all(|part| !part.name.contains("shell")) {
        eprintln!("The first stage has no emergency shell (Debian package busybox-static provides one).");
    }
    Ok(())
}

fn print_parts(parts: &[Part]) -> anyhow::Result<()> {
    for part in parts {
        let files = if part.files == 1 { String::new() } else { format!(", {} files", part.files) };
        row("", part.bytes, &format!("{}{files}", part.name))?;
    }
    if parts.is_empty() { Ok(()) } else { row("", parts.iter().map(|part| part.bytes).sum(), "in all") }
}

fn row(what: &str, bytes: u64, note: &str) -> anyhow::Result<()> {
    print_line(&format!("  {what:<12}{:>10}  {note}", human_bytes(bytes)))
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let home = args.place.home()?;
    let trust_root = home.trust_root()?;
    let images = heads::list(&args.place.read()?, &trust_root)?;
    if args.place.json {
        return print_json(&images);
    }
    if images.is_empty() {
        eprintln!("There are no images: `bootfabric image build` makes one.");
        return Ok(());
    }
    print_line(&format!(
        "{:<20} {:<12} {:>10} {:>10}  {}",
        "NAME", "VERSION", "GENERATION", "SIZE", "STATE"
    ))?;
    for image in images {
        let release = &image.release;
        print_line(&format!(
            "{:<20} {:<12} {:>10} {:>10}  {}",
            release.name,
            release.version,
            release.generation,
            human_bytes(image.bytes),
            state(&image)
        ))?;
    }
    Ok(())
}

fn state(image: &Image) -> &'static str {
    match (image.current, image.complete) {
        (true, true) => "machines boot it",
        (true, false) => "machines boot it, incomplete here",
        (false, true) if image.newest => "kept",
        (false, true) => "earlier version",
        (false, false) => "incomplete here",
    }
}

fn show(args: &NameArgs) -> anyhow::Result<()> {
    let home = args.place.home()?;
    let trust_root = home.trust_root()?;
    let store = args.place.read()?;
    let image = heads::find(&store, &trust_root, &args.name)?;
    let first_stage = store.blob(&image.release.first_stage.blob).filter(|blob| blob.is_complete());
    // One that an older or another program made is shown without.
    let parts = first_stage.and_then(|blob| inventory(blob.path()).ok()).unwrap_or_default();
    if args.place.json {
        let mut value = serde_json::to_value(&image)?;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("first_stage".into(), serde_json::to_value(&parts)?);
        }
        return print_json(&value);
    }
    let release = &image.release;
    print_line(&format!(
        "{} {} (generation {}), {}",
        release.name,
        release.version,
        release.generation,
        state(&image)
    ))?;
    print_line(&format!("release      {}", image.id))?;
    print_line(&format!("kernel       {} for {}", release.kernel_version, release.arch))?;
    print_line(&format!("arguments    {}", release.cmdline))?;
    print_line(&format!(
        "root mode    {}, needs {} MiB of memory beside the 120 to 160 of kernel and first stage",
        release.root_mode, release.memory_needed_mib
    ))?;
    let blobs = [("root", &release.root), ("kernel", &release.kernel), ("first stage", &release.first_stage)];
    let loaders = release.loaders.iter().map(|loader| (loader.name.as_str(), &loader.blob));
    for (name, blob) in blobs.into_iter().chain(loaders) {
        print_line(&format!("{name:<14} {:>10}  {}", human_bytes(blob.size), blob.blob))?;
    }
    if !parts.is_empty() {
        print_line("in the first stage, unpacked:")?;
    }
    print_parts(&parts)
}

fn remove(args: &RemoveArgs) -> anyhow::Result<()> {
    let home = args.place.home()?;
    let store = args.place.open(&home)?;
    let freed = heads::remove(&store, &home.trust_root()?, &args.name, args.force)?;
    if args.place.json {
        return print_json(&serde_json::json!({ "removed": args.name, "freed": freed }));
    }
    print_line(&format!("{} removed, {} freed", args.name, human_bytes(freed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::SETS;

    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_command_line_is_sound_and_help_names_all_sets() {
        use clap::CommandFactory;
        let mut command = Alone::command();
        command.build();
        command.clone().debug_assert();
        let build = command.find_subcommand_mut("build").unwrap();
        let help = build.render_long_help().to_string();
        assert!(SETS.iter().all(|set| help.contains(set.name)), "{help}");
    }
}
