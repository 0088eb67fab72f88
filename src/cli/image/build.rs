//! `bootfabric image build`: an image of a recipe, or of a root that is there.

use std::path::PathBuf;

use anyhow::Context;

use super::parts::Parts;
use super::progress::Bars;
use super::report;
use crate::cli::place::Place;
use crate::image::build::{Scratch, build, check};
use crate::image::recipe::{Recipe, make};
use crate::image::{KernelSource, RootSource};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A recipe is a small file that names a Debian or Ubuntu, what is installed in it, and its kernel (docs/images.md):
  suite = \"bookworm\"
  packages = [\"systemd-sysv\", \"udev\", \"dbus\", \"iproute2\", \"kmod\", \"openssh-server\"]
  kernel = \"linux-image-amd64\"
  commands = [\"systemctl enable ssh\"]
  bootfabric image build node.toml --name node --version 1
It needs mmdebstrap (Debian package mmdebstrap), and root or user namespaces (Debian package uidmap).

A root with --root is a whole system for 64-bit x86 with an init; systemd is not needed. The kernel is a package of its own:
  apt-get download linux-image-amd64     (an empty package: download the one it depends on, linux-image-6.1.0-…-amd64)
  bootfabric image build --root root.tar --kernel linux-image-6.1.0-…-amd64_….deb --name debian --version 1

Building twice from the same parts gives the same blobs, and nodes fetch only what they lack. Needs mksquashfs (Debian
package squashfs-tools) and, unless --loader names others, iPXE (Debian package ipxe).")]
pub(super) struct BuildArgs {
    /// What to build, in a file
    #[arg(value_name = "RECIPE", required_unless_present = "root", conflicts_with = "root")]
    recipe: Option<PathBuf>,
    /// The root filesystem: a directory, or a tar (plain, gzip, xz or zstd)
    #[arg(long, value_name = "DIR|TAR")]
    root: Option<PathBuf>,
    /// Name of the image: a-z 0-9 . _ - [default: the recipe's]
    #[arg(long, required_unless_present = "recipe")]
    name: Option<String>,
    /// Version of the image, for people [default: the recipe's]
    #[arg(long, required_unless_present = "recipe")]
    version: Option<String>,
    #[command(flatten)]
    parts: Parts,
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(args: BuildArgs) -> anyhow::Result<()> {
    let home = args.place.home()?;
    let operator = home.operator()?;
    let recipe = args.recipe.as_deref().map(Recipe::open).transpose()?;
    let of_recipe = |field: fn(&Recipe) -> Option<&String>| recipe.as_ref().and_then(field).cloned();
    let name = args.name.or_else(|| of_recipe(|recipe| recipe.name.as_ref()));
    let name = name.context("the recipe has no `name` for the image: add one, or use --name")?;
    let version = args.version.or_else(|| of_recipe(|recipe| recipe.version.as_ref()));
    let version = version.context("the recipe has no `version` for the image: add one, or use --version")?;
    let named_kernel = args.parts.names_kernel();
    let store = args.place.open(&home)?;
    let bars = Bars::new();
    let scratch = Scratch::new(&store)?;
    let root = match &args.root {
        Some(path) => RootSource::detect(path)?,
        // What the recipe will have made.
        None => RootSource::Tar(scratch.path().join("root.tar")),
    };
    let mut request = args.parts.request(name, version, root, &store, &operator)?;
    if let Some(mut recipe) = recipe {
        if named_kernel {
            recipe.kernel = None;
        }
        // Installing takes minutes: what is wrong with the rest is told before.
        check(&request)?;
        let made = make(&recipe, scratch.path(), &bars)?;
        request.root = RootSource::Tar(made.root);
        request.kernel = request.kernel.or(made.kernel.map(KernelSource::Directory));
    }
    let built = build(&request, &store, &operator, &bars)?;
    scratch.remove()?;
    report(&built, &request, args.place.json)
}
