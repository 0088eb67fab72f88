//! `bootfabric image uki`.

use std::path::PathBuf;

use anyhow::Context;

use crate::cli::output::print_line;
use crate::human::human_bytes;
use crate::image::uki::{STUB, Uki};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
UEFI firmware that boots from the network starts the program by itself, without iPXE: put it into the directory of `up --files`
under the name that the firmware is told (snponly.efi). Needs systemd's stub (Debian: apt install systemd-boot-efi).")]
pub(super) struct UkiArgs {
    /// The kernel (vmlinuz)
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The initramfs
    #[arg(long, value_name = "FILE")]
    initrd: PathBuf,
    /// Kernel arguments
    #[arg(long, default_value = "console=tty0 console=ttyS0,115200")]
    cmdline: String,
    /// The UEFI program that starts them
    #[arg(long, value_name = "FILE", default_value = STUB)]
    stub: PathBuf,
    /// Where to write it
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(super) fn run(args: UkiArgs) -> anyhow::Result<()> {
    let UkiArgs { kernel, initrd, cmdline, stub, output } = args;
    let program = Uki { stub, kernel, initrd, cmdline }.build()?;
    std::fs::write(&output, &program).with_context(|| format!("cannot write {}", output.display()))?;
    print_line(&format!("{}  {}", output.display(), human_bytes(program.len() as u64)))
}
