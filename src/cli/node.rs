//! `bootfabric node`: what is done to the machine that the command runs on.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use fabric::id::BlobId;

use super::output::print_line;
use super::status::{DEFAULT_STATE, runtime};
use super::up::run_node;
use crate::event::Events;
use crate::kexec::{self, Restart, restart, restart_at_once};
use crate::node::Start;
use crate::node::control::{Request, ask_line_within, served_by, socket_path};
use crate::node::next_boot::{Answer, Asked, HeldFile, NextBoot, PATIENCE};
use crate::stage::config::PROGRAM;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start this machine anew: with a root in RAM it comes back as its release says, whatever was done to it
    Reboot(RebootArgs),
    /// Start the newest release of this machine's image, without firmware
    #[command(after_help = "\
The node on this machine finds the newest release that the fabric has of the image, checks its signature, and fetches
its kernel and first stage if it does not hold them. They are hashed once more and loaded with the kernel line that a boot script would
have now; the address stays. Then init ends everything in good order, and the loaded kernel starts. A root in RAM is gone
then, as after any reboot.

Not for machines with their root on a disk. Where the kernel takes no other one (Secure Boot, kexec_load_disabled), the
error says so; `bootfabric node reboot` does the same through the firmware.")]
    Kexec(KexecArgs),
    /// Make the running node go on as this program
    #[command(after_help = "\
Run the new program: `./bootfabric-new node upgrade`. It takes sockets, identity, leases and store over and serves in the
node's place until the transfers that were running have ended; then the node's process, which stays the same one for systemd and for a
terminal, becomes the new program and takes over again. Downloads of other machines go on (for
15 minutes at most), nothing is fetched again, and the command ends when all of that is done.

In a booted machine the new program takes the place of /run/bootfabric/bin/bootfabric; elsewhere it must stay where it is.")]
    Upgrade(UpgradeArgs),
}

/// How long a node may take from becoming another program to serving.
const STARTED_AGAIN: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
struct UpgradeArgs {
    /// The node's state directory
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE)]
    state: PathBuf,
}

#[derive(Debug, clap::Args)]
struct RebootArgs {
    /// Without firmware, as `bootfabric node kexec`
    #[arg(long)]
    kexec: bool,
    #[command(flatten)]
    options: KexecArgs,
}

/// How it ends.
#[derive(Debug, Clone, Copy, clap::Args)]
struct End {
    /// At once, without asking init and programs: for a root that is too damaged to end by itself
    #[arg(short, long)]
    force: bool,
}

impl End {
    fn restart(self, how: Restart) -> anyhow::Result<()> {
        if self.force { restart_at_once(how) } else { restart(how) }
    }
}

#[derive(Debug, clap::Args)]
struct KexecArgs {
    /// Another image than the one that runs
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// Only load it; `systemctl kexec` starts it
    #[arg(long)]
    load: bool,
    #[command(flatten)]
    end: End,
    /// The node's state directory
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE)]
    state: PathBuf,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Reboot(args) if args.kexec => kexec(args.options),
        Command::Reboot(args) => {
            ensure!(
                args.options.image.is_none() && !args.options.load,
                "--image and --load go with --kexec: the firmware boots what the fabric gives it"
            );
            args.options.end.restart(Restart::Firmware)
        }
        Command::Kexec(args) => kexec(args),
        Command::Upgrade(args) => upgrade(args),
    }
}

fn kexec(args: KexecArgs) -> anyhow::Result<()> {
    let request = Request::NextBoot(Asked { image: args.image });
    let line = runtime()?.block_on(ask_line_within(&socket_path(&args.state), &request, PATIENCE))?;
    let answer = serde_json::from_str(&line).context("the node is of another version than this command")?;
    let next: NextBoot = match answer {
        Answer::Next(next) => *next,
        Answer::Refused(why) => bail!("{why}"),
    };
    let (kernel, first_stage) = (verified(&next.kernel)?, verified(&next.first_stage)?);
    kexec::load(&kernel, &first_stage, &next.line)
        .context("`bootfabric node reboot` starts the machine through its firmware instead")?;
    let NextBoot { name, version, generation, .. } = &next;
    let again = if next.runs { ", the release that runs: none newer is known" } else { "" };
    print_line(&format!("{name} {version} (generation {generation}) is loaded{again}"))?;
    print_line(&format!("  arguments {}", next.line))?;
    if args.load { Ok(()) } else { args.end.restart(Restart::Kexec) }
}

fn upgrade(args: UpgradeArgs) -> anyhow::Result<()> {
    let socket = socket_path(&args.state);
    let node = served_by(&socket)?;
    let running =
        std::fs::read_link(format!("/proc/{node}/exe")).context("cannot tell the node's program")?;
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let program = if running.as_path() == Path::new(PROGRAM) {
        // The service starts it from there, should it ever have to.
        let next = running.with_extension("new");
        std::fs::copy(&own, &next).with_context(|| format!("cannot make {}", next.display()))?;
        std::fs::rename(&next, &running).with_context(|| format!("cannot replace {}", running.display()))?;
        running
    } else {
        own
    };
    run_node(Start::Relieve(args.state, program.clone()), Events::new())?;
    // Answered once the node has taken over again; until then its clients wait.
    runtime()?
        .block_on(ask_line_within(&socket, &Request::Status, STARTED_AGAIN))
        .context("the node did not take over again: see what its log says")?;
    let now = served_by(&socket)?;
    ensure!(now == node, "process {now} serves now, not {node}: see what the node's log says");
    print_line(&format!("process {node} goes on as {}", program.display()))
}

/// Opens a blob and hashes it: memory may have gone bad since it came.
fn verified(held: &HeldFile) -> anyhow::Result<File> {
    let path = held.path.display();
    let file = File::open(&held.path).with_context(|| format!("cannot open {path}"))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&file).with_context(|| format!("cannot read {path}"))?;
    let computed = BlobId(hasher.finalize().into());
    ensure!(computed == held.blob, "{path} hashes to {computed}: the store or the memory is damaged");
    Ok(file)
}
