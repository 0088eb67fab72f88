//! Who holds a port, as far as `/proc` tells.

use std::fmt;
use std::fs;
use std::path::Path;

use super::Transport;

/// A process that holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortOwner {
    /// Its process id.
    pub pid: u32,
    /// Its command name (`/proc/PID/comm`).
    pub command: String,
}

impl fmt::Display for PortOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.command, self.pid)
    }
}

impl PortOwner {
    /// The first process found that listens on `port` in this network namespace. `None` where there is none or where
    /// we may not look (processes of other users without root).
    #[must_use]
    pub fn find(transport: Transport, port: u16) -> Option<Self> {
        let tables = match transport {
            Transport::Tcp => ["tcp", "tcp6"],
            Transport::Udp => ["udp", "udp6"],
        };
        let inodes: Vec<u64> = tables
            .iter()
            .filter_map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok())
            .flat_map(|text| listening_inodes(transport, &text, port))
            .collect();
        if inodes.is_empty() {
            return None;
        }
        fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            holds_socket(&entry.path(), &inodes).then(|| Self { pid, command: command(&entry.path()) })
        })
    }
}

/// The socket inodes of the lines of `/proc/net/{tcp,udp}` that listen on `port` (proc(5)).
fn listening_inodes(transport: Transport, table: &str, port: u16) -> Vec<u64> {
    // 0A is TCP_LISTEN, 07 TCP_CLOSE, which UDP sockets without a peer are shown in.
    let listening = match transport {
        Transport::Tcp => "0A",
        Transport::Udp => "07",
    };
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let local_port = u16::from_str_radix(fields.nth(1)?.rsplit(':').next()?, 16).ok()?;
            let state = fields.nth(1)?;
            let inode = fields.nth(5)?.parse().ok()?;
            (local_port == port && state == listening).then_some(inode)
        })
        .collect()
}

fn holds_socket(process: &Path, inodes: &[u64]) -> bool {
    fs::read_dir(process.join("fd")).is_ok_and(|fds| {
        fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok()).any(|link| {
            link.to_str()
                .and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
                .is_some_and(|inode: u64| inodes.contains(&inode))
        })
    })
}

fn command(process: &Path) -> String {
    fs::read_to_string(process.join("comm"))
        .map_or_else(|_| "a process".into(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0045 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:0045 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0
   2: garbage
";

    #[test]
    fn only_listeners_of_the_port_count() {
        assert_eq!(listening_inodes(Transport::Tcp, TABLE, 0x45), [4711]);
        assert!(listening_inodes(Transport::Tcp, TABLE, 0x46).is_empty());
        assert!(listening_inodes(Transport::Udp, TABLE, 0x45).is_empty());
    }
}
