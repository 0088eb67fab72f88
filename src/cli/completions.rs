//! `bootfabric completions SHELL`.

use std::io::Write;

use anyhow::Context;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "bootfabric", &mut text);
    std::io::stdout().write_all(&text).context("cannot write the completions to standard output")
}
