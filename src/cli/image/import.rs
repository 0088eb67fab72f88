//! `bootfabric image import`: a root from wherever it is.

use super::parts::Parts;
use super::{progress, report};
use crate::cli::place::Place;
use crate::image::build::{Scratch, build};
use crate::image::oci::{self, ImageSource, ImportOptions};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A container image has no kernel: name one with --kernel. On Debian, `apt-get download linux-image-amd64` names the package to get.
  bootfabric image import docker://docker.io/library/debian:bookworm --kernel linux-image-6.1.0-…_amd64.deb --name debian --version 1

It also needs an init, which most container images lack: build one with systemd-sysv (or another init) in it.
Credentials for registries are those that `skopeo login`, `podman login` and `docker login` keep.")]
pub(super) struct ImportArgs {
    /// A directory or tar with a root; oci:DIR[:TAG]; oci-archive:FILE[:TAG]; docker-archive:FILE[:TAG];
    /// docker://[HOST[:PORT]/]NAME[:TAG|@DIGEST]
    #[arg(value_name = "SOURCE")]
    source: ImageSource,
    /// Speak HTTP without TLS to the registry (the default for one on this machine that no certificates are kept for)
    #[arg(long)]
    plain_http: bool,
    /// Name of the image: a-z 0-9 . _ -
    #[arg(long)]
    name: String,
    /// Version of the image, for people
    #[arg(long)]
    version: String,
    #[command(flatten)]
    parts: Parts,
    #[command(flatten)]
    place: Place,
}

pub(super) fn run(args: ImportArgs) -> anyhow::Result<()> {
    let home = args.place.home()?;
    let operator = home.operator()?;
    let store = args.place.open(&home)?;
    let bars = progress::Bars::new();
    let scratch = Scratch::new(&store)?;
    let options = ImportOptions { plain_http: args.plain_http };
    let root = oci::open(&args.source, scratch.path(), options, &bars)?;
    let request = args.parts.request(args.name, args.version, root, &store, &operator)?;
    let built = build(&request, &store, &operator, &bars)?;
    scratch.remove()?;
    report(&built, &request, args.place.json)
}
