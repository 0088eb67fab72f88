//! The `bootfabric` program.
//!
//! The same file is three things: the command line, the agent of a booted machine, and `/init` of the first stage.
//! Which one is decided here, once.

use std::process::ExitCode;

// musl's own allocator costs half the throughput of the swarm.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let called_as = std::env::args_os().next().map(std::path::PathBuf::from);
    let called_as = called_as.as_deref().and_then(|path| path.file_name()).and_then(|name| name.to_str());
    match called_as {
        Some("init") if std::process::id() == 1 => bootfabric::stage::main(),
        Some("modprobe") => bootfabric::stage::modprobe_main(std::env::args_os().skip(1)),
        _ => bootfabric::cli::main(),
    }
}
