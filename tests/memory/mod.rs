//! What a machine's memory is used for, as its kernel tells it.

use anyhow::Context;

/// MiB that programs and the kernel hold, files in RAM included: what is neither free nor cached from elsewhere.
pub(crate) fn used_mib(meminfo: &str) -> anyhow::Result<u64> {
    let field = |name: &str| -> anyhow::Result<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line.context("no such field")?.trim().trim_end_matches(" kB").parse()?)
    };
    let cached = field("Cached")? + field("Buffers")? + field("SReclaimable")? - field("Shmem")?;
    Ok((field("MemTotal")? - field("MemFree")? - cached) / 1024)
}
