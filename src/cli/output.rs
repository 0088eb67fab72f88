//! Words on standard error, data on standard output.

use std::io::Write;

use anyhow::Context;
use serde::Serialize;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// Starts the log on standard error: warnings, and more for every `-v`. `RUST_LOG` takes precedence: `TARGET=LEVEL,…`.
pub(crate) fn start_log(verbose: u8) {
    let quiet = LevelFilter::WARN;
    let usual = match verbose {
        0 => Targets::new().with_default(quiet),
        1 => Targets::new().with_default(LevelFilter::INFO).with_target("libp2p", quiet),
        _ => Targets::new().with_default(LevelFilter::DEBUG),
    };
    let asked = std::env::var("RUST_LOG").ok().and_then(|text| text.parse().ok());
    let words =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(asked.unwrap_or(usual));
    // A second start (in tests) keeps the first log.
    let _ = tracing_subscriber::registry().with(words).try_init();
}

/// Prints `value` as one JSON document on standard output.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot turn the result into JSON")?;
    print_line(&text)
}

/// Prints a line on standard output; a closed pipe is the reader's choice, not an error.
pub(crate) fn print_line(line: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}
