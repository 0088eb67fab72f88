//! The iPXE boot script.
//!
//! Renders text from plain values; knows nothing of sockets or stores. The script names several peers, tries them in
//! turn for ever, and hands the first stage all it needs on the kernel line, so that Linux asks no DHCP server again.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use fabric::id::ObjectId;

/// Peers a script names: enough to survive several deaths, few enough for a kernel line of 2048 bytes.
pub(crate) const MAX_SCRIPT_PEERS: usize = 5;
/// Longest pause between two rounds over all peers, seconds.
const MAX_PAUSE: u32 = 8;

/// What a script is made from.
#[derive(Debug, Clone)]
pub(crate) struct Script<'a> {
    /// The release to boot.
    pub release: ObjectId,
    /// What people call it.
    pub title: String,
    /// Kernel arguments of the release.
    pub cmdline: &'a str,
    /// The address the client holds.
    pub client: Ipv4Addr,
    /// Length of the subnet prefix.
    pub prefix: u8,
    /// HTTP services to load from, best first; at most [`MAX_SCRIPT_PEERS`] are used.
    pub peers: Vec<SocketAddrV4>,
    /// Port of the swarm.
    pub swarm_port: u16,
}

impl Script<'_> {
    /// The script's text.
    pub(crate) fn render(&self) -> String {
        let peers: Vec<_> = self.peers.iter().take(MAX_SCRIPT_PEERS).collect();
        let mut text = format!("#!ipxe\n# bootfabric: {}\n", printable(&self.title));
        let kernel_line = self.kernel_line(&peers);
        // A round over all peers, then a pause that differs between clients, growing to its bound; for ever.
        let jitter = u32::from(self.client.octets()[3]) % 3;
        for round in 0.. {
            let pause = (1u32 << round) + jitter;
            for (n, peer) in peers.iter().enumerate() {
                let next =
                    if n + 1 < peers.len() { format!("r{round}p{}", n + 1) } else { format!("r{round}end") };
                let _ = writeln!(text, ":r{round}p{n}\nset base http://{peer}/boot/{}", self.release);
                let _ = writeln!(text, "set next {next}\ngoto load");
            }
            let last = pause >= MAX_PAUSE;
            let following = if last { round } else { round + 1 };
            let _ = writeln!(text, ":r{round}end\necho No peer answered, trying again in {pause} s");
            let _ = writeln!(text, "sleep {pause}\ngoto r{following}p0");
            if last {
                break;
            }
        }
        let _ = writeln!(text, ":load\nimgfree");
        let _ = writeln!(text, "kernel ${{base}}/kernel {kernel_line} || goto ${{next}}");
        let _ = writeln!(text, "initrd ${{base}}/first-stage || goto ${{next}}");
        let _ = writeln!(text, "boot || goto ${{next}}");
        text
    }

    fn kernel_line(&self, peers: &[&SocketAddrV4]) -> String {
        let hosts: Vec<_> = peers.iter().map(|peer| peer.ip().to_string()).collect();
        let http_port = peers.first().map_or(80, |peer| peer.port());
        // UEFI kernels find their initrd by this name; it must be that of the `initrd` line.
        let mut line = format!(
            "initrd=first-stage {} bootfabric.release={} bootfabric.address={}/{} bootfabric.mac=${{netX/mac}} \
             bootfabric.peers={}",
            self.cmdline,
            self.release,
            self.client,
            self.prefix,
            hosts.join(",")
        );
        if http_port != 80 {
            let _ = write!(line, " bootfabric.http-port={http_port}");
        }
        if self.swarm_port != 7744 {
            let _ = write!(line, " bootfabric.swarm-port={}", self.swarm_port);
        }
        line
    }
}

/// A script line for a client that cannot be given a release yet: it says why, waits and asks again.
pub(crate) fn wait_script(reason: &str, seconds: u32) -> String {
    format!(
        "#!ipxe\necho bootfabric: {}\nsleep {seconds}\nchain --replace http://${{next-server}}/boot.ipxe || \
         exit\n",
        printable(reason)
    )
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(120).collect()
}

#[cfg(test)]
mod tests {
    use fabric::id::Hash;

    use super::*;

    fn script(peers: usize) -> String {
        let peers = (1..=peers).map(|n| SocketAddrV4::new([10, 77, 0, u8::try_from(n).unwrap()].into(), 80));
        Script {
            release: ObjectId(Hash::of(b"release")),
            title: "debian 12\nboot".into(),
            cmdline: "console=ttyS0",
            client: [10, 77, 0, 30].into(),
            prefix: 24,
            peers: peers.collect(),
            swarm_port: 7744,
        }
        .render()
    }

    /// Runs the script's jumps with every load failing; returns the bases tried in `steps` loads.
    fn tried(text: &str, loads: usize) -> Vec<String> {
        let lines: Vec<_> = text.lines().collect();
        let label = |name: &str| lines.iter().position(|line| *line == format!(":{name}")).expect(name);
        let (mut at, mut base, mut next, mut seen) = (0, String::new(), String::new(), Vec::new());
        while seen.len() < loads {
            let line = lines[at];
            at += 1;
            if let Some(value) = line.strip_prefix("set base ") {
                base = value.into();
            } else if let Some(value) = line.strip_prefix("set next ") {
                next = value.into();
            } else if let Some(target) = line.strip_prefix("goto ") {
                at = label(target);
            } else if line.starts_with("kernel ") {
                seen.push(base.clone());
                at = label(&next);
            }
        }
        seen
    }

    #[test]
    fn every_peer_is_tried_in_turn_for_ever() {
        let seen = tried(&script(3), 20);
        for (n, base) in seen.iter().enumerate() {
            assert!(base.starts_with(&format!("http://10.77.0.{}:80/boot/", n % 3 + 1)), "{n}: {base}");
        }
        assert_eq!(tried(&script(1), 9).len(), 9);
    }

    #[test]
    fn the_kernel_line_fits_and_holds_what_the_first_stage_needs() {
        let text = script(9);
        let line = text.lines().find(|line| line.starts_with("kernel ")).unwrap();
        assert!(line.len() < 1024);
        assert!(line.contains("bootfabric.address=10.77.0.30/24"));
        assert!(
            line.contains("bootfabric.peers=10.77.0.1,10.77.0.2,10.77.0.3,10.77.0.4,10.77.0.5 "),
            "{line}"
        );
        assert!(text.lines().nth(1).unwrap().ends_with("debian 12boot"));
    }
}
