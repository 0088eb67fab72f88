//! `bootfabric image`: build, list, show, compare and remove images.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use fabric::trust::RootMode;

use super::output::{human_bytes, print_json, print_line};
use super::place::Place;
use crate::home;
use crate::image::build::{BuildRequest, Built, RootModules, build};
use crate::image::heads::{self, Image};
use crate::image::loaders::LoaderFile;
use crate::image::{KernelSource, RootSource, SETS};

mod diff;
pub(crate) mod install;
mod progress;
mod set;
mod uki;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build an image from a root filesystem and a kernel, and sign it
    Build(Box<BuildArgs>),
    /// List the images in the store
    Ls(ListArgs),
    /// Show what an image is made of
    Show(NameArgs),
    /// Tell what a node that holds image A would fetch to hold image B
    Diff(diff::DiffArgs),
    /// Install an image on a disk of this machine, which then starts from it without a network
    Install(install::InstallArgs),
    /// Boot an image another way: another root mode, other kernel arguments
    Set(set::SetArgs),
    /// Make one UEFI program of kernel, initramfs and command line, for firmware that needs no loader
    Uki(uki::UkiArgs),
    /// Remove an image, and the blobs that no other image uses and no pin keeps
    Rm(RemoveArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The root is a whole system for 64-bit x86 with an init; systemd is not needed. On Debian:
  mmdebstrap --variant=minbase --include=systemd-sysv,udev,dbus,iproute2,kmod,login bookworm root.tar
  apt-get download linux-image-amd64     (an empty package: download the one it depends on, linux-image-6.1.0-…-amd64)
  bootfabric image build --root root.tar --kernel linux-image-6.1.0-…-amd64_….deb --name debian --version 1

Building twice from the same parts gives the same blobs, and nodes fetch only what they lack. Needs mksquashfs (Debian
package squashfs-tools) and, unless --loader names others, iPXE (Debian package ipxe).")]
struct BuildArgs {
    /// The root filesystem: a directory, or a tar (plain, gzip, xz or zstd)
    #[arg(long, value_name = "DIR|TAR")]
    root: PathBuf,
    /// The kernel: a Debian package, a directory laid out like /, or a vmlinuz with --module-dir [default: the root's own]
    #[arg(long, value_name = "DEB|DIR|VMLINUZ")]
    kernel: Option<PathBuf>,
    /// The modules of a kernel that is a bare vmlinuz: lib/modules/VERSION
    #[arg(long, value_name = "DIR", requires = "kernel")]
    module_dir: Option<PathBuf>,
    /// Name of the image: a-z 0-9 . _ -
    #[arg(long)]
    name: String,
    /// Version of the image, for people
    #[arg(long)]
    version: String,
    /// Kernel arguments
    #[arg(long, default_value = "console=tty0 console=ttyS0,115200")]
    cmdline: String,
    /// How nodes hold the root: overlay (the image itself, and over it what is written), zram (unpacked into compressed RAM),
    /// tmpfs (unpacked into RAM); a node's kernel line can say otherwise
    #[arg(long, value_name = "MODE", default_value_t = RootMode::Overlay)]
    root_mode: RootMode,
    #[arg(long, value_name = "SETS", value_delimiter = ',', default_value = "pc", help = modules_help())]
    modules: Vec<String>,
    /// Do not add the kernel's modules to a root that has none for it (smaller; the booted system can load no more)
    #[arg(long)]
    no_root_modules: bool,
    /// A program to put into the first stage, with its libraries; may be repeated
    #[arg(long = "tool", value_name = "PATH")]
    tools: Vec<PathBuf>,
    /// Let machines install the image on their disks: takes mke2fs, GRUB and the drivers of disks into the first stage
    #[arg(long)]
    disk: bool,
    /// A boot loader beside, or instead of, undionly.kpxe and snponly.efi; may be repeated
    #[arg(long = "loader", value_name = "NAME=PATH")]
    loaders: Vec<LoaderFile>,
    /// The program that becomes the first stage's /init: a static build of bootfabric [default: this one]
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Leave busybox out of the first stage: no emergency shell
    #[arg(long)]
    no_shell: bool,
    #[command(flatten)]
    place: Place,
}

fn modules_help() -> String {
    let sets: Vec<_> = SETS.iter().map(|set| format!("`{}`: {}", set.name, set.about)).collect();
    format!(
        "Kernel modules for the first stage: sets, and single ones, which are then loaded in any case. {}",
        sets.join("; ")
    )
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
        Command::Build(args) => run_build(*args),
        Command::Ls(args) => list(&args),
        Command::Show(args) => show(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Install(args) => install::run(&args),
        Command::Set(args) => set::run(args),
        Command::Uki(args) => uki::run(args),
        Command::Rm(args) => remove(&args),
    }
}

fn run_build(args: BuildArgs) -> anyhow::Result<()> {
    let home = args.place.home()?;
    let operator = home.operator()?;
    let program = match args.program {
        Some(path) => path,
        None => {
            std::env::current_exe().context("cannot tell where this program is: name it with --program")?
        }
    };
    let kernel = args.kernel.as_deref().map(|path| KernelSource::detect(path, args.module_dir.as_deref()));
    let store = args.place.open(&home)?;
    let settings = home::settings(&store, &operator.trust_root())?;
    let request = BuildRequest {
        private: settings.is_some_and(|settings| settings.private),
        root: RootSource::detect(&args.root)?,
        kernel: kernel.transpose()?,
        name: args.name,
        version: args.version,
        cmdline: args.cmdline,
        root_mode: args.root_mode,
        modules: args.modules,
        root_modules: if args.no_root_modules { RootModules::Leave } else { RootModules::Add },
        tools: args.tools,
        disk: args.disk,
        loaders: args.loaders,
        program,
        shell: !args.no_shell,
    };
    let built = build(&request, &store, &operator, &progress::Bars::new())?;
    if args.place.json {
        return print_json(&built);
    }
    report(&built, &request.modules)
}

/// What was built, for people: the table on standard output, remarks on standard error.
fn report(built: &Built, asked: &[String]) -> anyhow::Result<()> {
    let release = &built.release;
    print_line(&format!("image {} {} (generation {})", release.name, release.version, release.generation))?;
    let modules_added = if built.modules_added_to_root { ", kernel modules added" } else { "" };
    row("root", release.root.size, &format!("squashfs{modules_added}"))?;
    row("kernel", release.kernel.size, &release.kernel_version)?;
    row("first stage", release.first_stage.size, &format!("{}, of which unpacked:", built.compression))?;
    for part in &built.first_stage {
        row("", part.bytes, &part.name)?;
    }
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
            asked.join(", "),
            absent.join(", ")
        );
    }
    if built.first_stage.iter().all(|part| !part.name.contains("shell")) {
        eprintln!("The first stage has no emergency shell (Debian package busybox-static provides one).");
    }
    Ok(())
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
    let image = heads::find(&args.place.read()?, &trust_root, &args.name)?;
    if args.place.json {
        return print_json(&image);
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
        "root mode    {}, {} MiB of memory needed",
        release.root_mode, release.memory_needed_mib
    ))?;
    let blobs = [("root", &release.root), ("kernel", &release.kernel), ("first stage", &release.first_stage)];
    let loaders = release.loaders.iter().map(|loader| (loader.name.as_str(), &loader.blob));
    for (name, blob) in blobs.into_iter().chain(loaders) {
        print_line(&format!("{name:<14} {:>10}  {}", human_bytes(blob.size), blob.blob))?;
    }
    Ok(())
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
