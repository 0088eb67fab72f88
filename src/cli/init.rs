//! `bootfabric init`.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use fabric::trust::{Settings, Subnet};

use super::output::{print_json, print_line};
use crate::home::Home;
use crate::link::Cidr;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A fabric is all nodes that share one trust root: a public key that is made here. Its secret part stays in the directory;
whoever has it can sign images for all nodes. Move keys/root.key to a safe place if you like: the operator key next to it
is enough for daily work.

The pool is where bare machines get their addresses from. On a switch with nothing else the default fits; on a network
with fixed addresses give a subnet and a pool that is free.

In a private fabric (--private) roots are moved over TLS between members only. Whether a fabric is private never changes.
Kernel, first stage and loaders stay public, because firmware cannot show who it is: put no secrets there.")]
pub(crate) struct Args {
    /// Directory to make the fabric in [default: /var/lib/bootfabric for root, else ~/.local/share/bootfabric]
    #[arg(long, value_name = "DIR")]
    fabric: Option<PathBuf>,
    /// Name of the fabric, for people
    #[arg(long, default_value = "fabric")]
    name: String,
    /// The subnet of the boot link
    #[arg(long, value_name = "A.B.C.D/N", requires = "pool")]
    subnet: Option<Cidr>,
    /// The addresses for machines, first and last
    #[arg(long, value_name = "FIRST-LAST", requires = "subnet", value_parser = parse_pool)]
    pool: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Give images to machines that were admitted by name and to nobody else; see `bootfabric member`
    #[arg(long)]
    private: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn parse_pool(text: &str) -> Result<(Ipv4Addr, Ipv4Addr), String> {
    let error = || format!("`{text}` is not a range of addresses, like 10.77.0.16-10.77.0.239");
    let (first, last) = text.split_once('-').ok_or_else(error)?;
    Ok((first.trim().parse().map_err(|_| error())?, last.trim().parse().map_err(|_| error())?))
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let home = Home::at(args.fabric.as_deref())?;
    let mut settings = Settings::default_for_bare_switch(&args.name);
    if let (Some(subnet), Some((first, last))) = (args.subnet, args.pool) {
        let mask = u32::MAX.checked_shl(32 - u32::from(subnet.prefix)).unwrap_or(0);
        let network = Ipv4Addr::from(u32::from(subnet.address) & mask);
        settings.subnet = Subnet { network, prefix: subnet.prefix };
        (settings.pool_first, settings.pool_last) = (first, last);
    }
    settings.private = args.private;
    let trust_root = home.init(&settings)?;
    if args.json {
        return print_json(
            &serde_json::json!({ "fabric": home.path(), "trust_root": trust_root, "settings": settings }),
        );
    }
    print_line(&format!("fabric `{}` made in {}", settings.name, home.path().display()))?;
    print_line(&format!("trust root  {trust_root}"))?;
    print_line(&format!(
        "addresses   {} to {} in {} ({} machines)",
        settings.pool_first,
        settings.pool_last,
        settings.subnet,
        settings.pool_size()
    ))?;
    if settings.private {
        print_line(
            "members     only machines that `bootfabric member admit` names, for as long as the fabric lives",
        )?;
    }
    print_line("Next: `bootfabric image build` makes an image, `bootfabric up` boots machines with it.")
}
