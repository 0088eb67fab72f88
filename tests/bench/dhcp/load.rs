//! `perfdhcp`, what it says, and what crossed the wire.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use netlab::pcap::DhcpKind;
use netlab::{Capture, Host};

/// One run of perfdhcp.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Run {
    discovers: f64,
    requests: f64,
    acks: f64,
    offer_ms: f64,
    ack_ms: f64,
}

/// Asks by broadcast for `seconds`, with so many exchanges per second of so many different clients.
pub(crate) fn perfdhcp(host: &Host, rate: u32, clients: u32, seconds: u32) -> Run {
    let output = host
        .command("perfdhcp")
        .args(["-4", "-B", "-l", host.interface(), "-W", "500000"])
        .args(["-r", &rate.to_string(), "-R", &clients.to_string(), "-p", &seconds.to_string()])
        .output()
        .expect("perfdhcp");
    let text = String::from_utf8_lossy(&output.stdout);
    let values = |name: &str| -> Vec<f64> {
        let values = text.lines().filter_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
        values.filter_map(|value| value.trim().trim_end_matches(" ms").parse().ok()).collect()
    };
    let (sent, received, delay) = (values("sent packets"), values("received packets"), values("avg delay"));
    let get = |values: &[f64], index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    assert!(sent.len() == 2, "perfdhcp: {text}{}", String::from_utf8_lossy(&output.stderr));
    Run {
        discovers: get(&sent, 0),
        requests: get(&sent, 1),
        acks: get(&received, 1),
        offer_ms: get(&delay, 0),
        ack_ms: get(&delay, 1),
    }
}

impl Run {
    /// Exchanges completed.
    pub(crate) fn done(&self) -> f64 {
        self.acks
    }

    pub(crate) fn sent(&self) -> f64 {
        self.discovers
    }

    /// Share of exchanges begun that did not end in an ACK. A NAK counts as lost.
    pub(crate) fn lost(&self) -> f64 {
        1.0 - self.acks / self.discovers
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offer_ms, ack_ms, .. } = self;
        let failed = self.requests - self.acks;
        write!(
            f,
            "OFFER {offer_ms:.3} ms, ACK {ack_ms:.3} ms, {:.2} % lost, {failed} REQUESTs failed",
            self.lost() * 100.0
        )
    }
}

/// What a capture shows of the servers.
pub(crate) struct Tally {
    /// Part of what was sent that the capture has: at high rates it misses some.
    seen: f64,
    discovers: usize,
    offers: usize,
    given_twice: usize,
}

impl Tally {
    /// Counts what the capture has of `sent` DISCOVERs and of what came of them.
    pub(crate) fn of(capture: &Capture, sent: f64) -> Self {
        capture.stop().expect("the capture");
        let trace = capture.trace().expect("the capture");
        let of = |kind| trace.dhcp.iter().filter(move |seen| seen.kind == kind);
        let mut holders = BTreeMap::<Ipv4Addr, std::collections::BTreeSet<_>>::new();
        for ack in of(DhcpKind::Ack) {
            holders.entry(ack.yiaddr).or_default().insert(ack.chaddr);
        }
        let discovers = of(DhcpKind::Discover).count();
        Self {
            seen: discovers as f64 / sent,
            discovers,
            offers: of(DhcpKind::Offer).count(),
            given_twice: holders.values().filter(|holders| holders.len() > 1).count(),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seen, discovers, offers, given_twice } = self;
        write!(
            f,
            "{offers} OFFERs for {discovers} DISCOVERs = {:.4}, {given_twice} addresses given to two clients, in a capture that has \
             {:.1} % of the DISCOVERs",
            *offers as f64 / *discovers as f64,
            seen * 100.0
        )
    }
}
