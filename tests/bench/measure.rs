//! What a process has used, and medians.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time, seconds.
    pub(crate) cpu: f64,
    /// Largest resident memory that no file backs, MiB; as sampled.
    pub(crate) anonymous_mib: f64,
}

/// Reads what the living process `pid` has used.
pub(crate) fn usage(pid: u32) -> Usage {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Fields after the name in parentheses, which may hold spaces: 12 and 13 are user and system time in ticks.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    let kib = anonymous.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap_or(0.0);
    Usage { cpu: (ticks(11) + ticks(12)) / 100.0, anonymous_mib: kib / 1024.0 }
}

/// Bytes that do not compress or repeat, in a new file.
pub(crate) fn write_noise(path: &Path, size: u64) {
    let mut reader = blake3::Hasher::new().update(b"bench").finalize_xof();
    let mut file = std::fs::File::create(path).unwrap();
    let mut buffer = vec![0; 1024 * 1024];
    let mut left = size;
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        reader.fill(&mut buffer[..take]);
        file.write_all(&buffer[..take]).unwrap();
        left -= take as u64;
    }
}

/// Starts `command` with its standard output on a pipe and its words in `log`.
pub(crate) fn start(command: &mut Command, log: &Path) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap()
}

/// The middle of `values`; of two, the lower.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len().max(1) - 1) / 2).copied().unwrap_or(f64::NAN)
}

/// `low median high`.
pub(crate) fn spread(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{:.3} ({low:.3}–{high:.3})", median(values.to_vec()))
}
