//! `bootfabric machines`: what an operator says of subnets, groups and nodes.
//!
//! The operator's key signs here; a running node obeys what was signed, and passes it on. Without a running node the settings in the
//! fabric's store are changed.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Subcommand;
use fabric::id::{Hash, ObjectId};
use fabric::trust::{Settings, SignedSettings, TrustRoot, encode_machines};

use super::desk::{Desk, Place};
use super::output::{print_json, print_line};
use crate::home;
use crate::machines::{Machines, Problems};
use crate::node::control::Request;
use crate::node::machines::{self, Held};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sign a file and hand it to the fabric: all nodes obey it, those that are booted later too
    #[command(after_help = "\
An example; docs/dhcp.md has all of it:

  strangers = \"yes\"                     # answer machines that are not named here
  [all]
  options.ntp-servers = [\"10.77.0.1\"]  # DHCP options by name or number
  [subnet.\"10.88.0.0/24\"]              # behind a relay
  pools = [\"10.88.0.10-10.88.0.250\"]
  routers = [\"10.88.0.1\"]
  [group.compute]
  kernel-args = \"bootfabric.root=zram\"
  loaders.uefi-http-16 = \"http:uki.efi\"
  [node.n1]
  mac = \"52:54:00:00:00:01\"            # or uuid, or client-id
  address = \"10.77.0.10\"
  group = \"compute\"

The file replaces the one before; an empty one takes everything back.")]
    Set(SetArgs),
    /// Check a file and change nothing
    Check(SetArgs),
    /// Print the file that holds now
    Show(Place),
}

#[derive(Debug, clap::Args)]
struct SetArgs {
    /// The file, in TOML
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Set(args) => set(args, true),
        Command::Check(args) => set(args, false),
        Command::Show(place) => show(place),
    }
}

/// The settings, and what they say of machines.
fn held(desk: &Desk, trust_root: &TrustRoot) -> anyhow::Result<(Settings, String)> {
    match desk {
        Desk::Running(node) => {
            let held: Held = node.ask(&Request::Machines)?;
            ensure!(!held.settings.is_empty(), "the node knows no settings of its fabric yet: try again");
            Ok((SignedSettings::decode(&held.settings)?.verify(trust_root)?, held.machines))
        }
        Desk::Store(store) => {
            let known = home::settings(store, trust_root)?
                .context("there are no settings: make a fabric with `bootfabric init`")?;
            let text = home::machines_text(store, &known)?;
            Ok((known, text))
        }
    }
}

/// Checks a file and, if `really`, signs it.
fn set(args: &SetArgs, really: bool) -> anyhow::Result<()> {
    let file = &args.file;
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let home = args.place.home()?;
    let desk = Desk::open(&args.place)?;
    let known = held(&desk, &home.trust_root()?)?.0;
    let machines = read(file, &text, &known)?;
    let generation = if really { known.generation + 1 } else { known.generation };
    if really {
        let object = encode_machines(&text)?;
        let settings = Settings { generation, machines: Some(ObjectId(Hash::of(&object))), ..known };
        let signed = SignedSettings::sign(&home.operator()?, &settings)?;
        match desk {
            Desk::Running(node) => {
                node.give(&Request::Configure { settings: signed.bytes().to_vec(), machines: text })?;
            }
            Desk::Store(store) => machines::keep(&store, signed.bytes(), &settings, &text)?,
        }
    }
    if args.place.json {
        return print_json(
            &serde_json::json!({ "generation": generation, "set": really, "nodes": machines.len() }),
        );
    }
    let what =
        if really { format!("settings {generation} hold now") } else { "the file is right".to_owned() };
    print_line(&format!("{what}: {} machines named", machines.len()))
}

/// Reads a file; what is wrong with it is told as compilers do.
fn read(file: &Path, text: &str, settings: &Settings) -> anyhow::Result<Machines> {
    Machines::read(text, settings).map_err(|error| match error.downcast::<Problems>() {
        Ok(problems) => {
            let lines = problems.0.iter().map(|problem| format!("\n  {problem}"));
            anyhow::anyhow!("{} is not right:{}", file.display(), lines.collect::<String>())
        }
        Err(other) => other,
    })
}

fn show(place: &Place) -> anyhow::Result<()> {
    let (settings, text) = held(&Desk::open(place)?, &place.home()?.trust_root()?)?;
    if !place.json {
        return print_line(text.trim_end());
    }
    let said: serde_json::Value =
        toml::from_str(&text).context("this program does not understand the file")?;
    print_json(&serde_json::json!({ "generation": settings.generation, "machines": said, "text": text }))
}
