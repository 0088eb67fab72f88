//! The node's counters in Prometheus' text format (version 0.0.4), for `/metrics`.
//!
//! Counts only: no names, no addresses of clients. Names of metrics are an interface: add, never rename.

use std::fmt::Write as _;

use pxe::dhcp::event::Counters;
use pxe::http::HttpStats;
use pxe::tftp::TftpStats;

use super::view::View;

/// The format's media type.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A family of samples: what it counts, and each value with its label.
struct Family<'a> {
    name: &'a str,
    kind: &'a str,
    help: &'a str,
    /// Name of the label; empty for a single value without one.
    label: &'a str,
    samples: Vec<(&'a str, u64)>,
}

impl Family<'_> {
    fn write(&self, text: &mut String) {
        let Self { name, kind, help, label, samples } = self;
        let _ = writeln!(text, "# HELP bootfabric_{name} {help}\n# TYPE bootfabric_{name} {kind}");
        for (value, count) in samples {
            let _ = match *label {
                "" => writeln!(text, "bootfabric_{name} {count}"),
                label => writeln!(text, "bootfabric_{name}{{{label}=\"{value}\"}} {count}"),
            };
        }
    }
}

fn counter<'a>(name: &'a str, help: &'a str, label: &'a str, samples: &[(&'a str, u64)]) -> Family<'a> {
    Family { name, kind: "counter", help, label, samples: samples.to_vec() }
}

fn gauge<'a>(name: &'a str, help: &'a str, value: u64) -> Family<'a> {
    Family { name, kind: "gauge", help, label: "", samples: vec![("", value)] }
}

/// The counters of a node.
pub(super) async fn of(view: &View) -> String {
    let (http, tftp, dhcp) = view.counters().await;
    let mut families = vec![
        gauge("peers", "Other nodes in sight.", view.members().len() as u64),
        gauge("serves_boot", "Whether this node boots others.", view.serves_boot().into()),
    ];
    families.extend(http.map(http_families).into_iter().flatten());
    families.extend(tftp.map(tftp_families).into_iter().flatten());
    families.extend(dhcp.map(dhcp_families).into_iter().flatten());
    let mut text = String::new();
    for family in families {
        family.write(&mut text);
    }
    text
}

fn http_families(stats: HttpStats) -> Vec<Family<'static>> {
    let answers = [
        ("ok", stats.ok),
        ("not_modified", stats.not_modified),
        ("not_found", stats.not_found),
        ("not_held", stats.not_held),
        ("busy", stats.busy),
        ("other", stats.bad),
    ];
    let outcomes =
        [("complete", stats.complete), ("client_left", stats.client_left), ("failed", stats.failed)];
    vec![
        counter("http_connections_total", "HTTP connections accepted.", "", &[("", stats.connections)]),
        counter(
            "http_connections_refused_total",
            "HTTP connections above a bound.",
            "",
            &[("", stats.connections_refused)],
        ),
        counter("http_answers_total", "HTTP answers by status.", "status", &answers),
        counter("http_outcomes_total", "HTTP answers by how they ended.", "outcome", &outcomes),
        counter("http_sent_bytes_total", "Content bytes of files sent over HTTP.", "", &[("", stats.bytes)]),
        gauge("http_connections", "HTTP connections open.", stats.connections_open),
        gauge("http_downloads", "Large downloads under way.", stats.downloads),
        gauge("http_waiting", "Clients waiting for their turn to download.", stats.waiting),
    ]
}

fn tftp_families(stats: TftpStats) -> Vec<Family<'static>> {
    let outcomes = [
        ("complete", stats.complete),
        ("probe", stats.probes),
        ("client_left", stats.client_left),
        ("refused", stats.refused),
        ("failed", stats.failed),
    ];
    let unserved =
        [("repeated", stats.repeated), ("over_bound", stats.over_bound), ("malformed", stats.malformed)];
    vec![
        counter("tftp_requests_total", "TFTP requests received.", "", &[("", stats.requests)]),
        counter("tftp_transfers_total", "TFTP transfers by how they ended.", "outcome", &outcomes),
        counter("tftp_unserved_total", "TFTP datagrams that began no transfer.", "reason", &unserved),
        counter(
            "tftp_sent_bytes_total",
            "Bytes of files that TFTP clients acknowledged.",
            "",
            &[("", stats.bytes)],
        ),
        gauge("tftp_transfers", "TFTP transfers under way.", stats.active),
    ]
}

fn dhcp_families(counters: Counters) -> Vec<Family<'static>> {
    let received = [
        ("discover", counters.discovers),
        ("request", counters.requests),
        ("decline", counters.declines),
        ("release", counters.releases),
        ("inform", counters.informs),
        ("malformed", counters.malformed),
    ];
    let sent = [("offer", counters.offers), ("ack", counters.acks), ("nak", counters.naks)];
    let one = |count| [("", count)];
    vec![
        counter("dhcp_received_total", "DHCP packets received by type.", "type", &received),
        counter("dhcp_sent_total", "DHCP packets sent by type.", "type", &sent),
        counter(
            "dhcp_standby_answers_total",
            "Answers given for a node that was silent.",
            "",
            &one(counters.standby_answers),
        ),
        counter(
            "dhcp_unanswered_total",
            "Clients left without an answer by their own node.",
            "",
            &one(counters.unanswered),
        ),
        counter("dhcp_conflicts_total", "Addresses found with two holders.", "", &one(counters.conflicts)),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Reads the format as a scraper does: every sample belongs to a family that was announced before, and none twice.
    fn parse(text: &str) -> BTreeMap<String, u64> {
        let mut kinds = BTreeMap::new();
        let mut helped = std::collections::BTreeSet::new();
        let mut samples = BTreeMap::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').unwrap();
                assert!(!words.is_empty() && helped.insert(name.to_owned()), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(
                    helped.contains(name) && kinds.insert(name.to_owned(), kind.to_owned()).is_none(),
                    "{line}"
                );
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(name.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'), "{line}");
            } else {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                let name = sample.split('{').next().unwrap();
                assert!(kinds.contains_key(name), "{line}");
                if let Some((_, labels)) = sample.split_once('{') {
                    let (label, value) = labels.strip_suffix("\"}").unwrap().split_once("=\"").unwrap();
                    assert!(label.bytes().all(|c| c.is_ascii_lowercase()) && !value.is_empty(), "{line}");
                }
                assert!(samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{line}");
            }
        }
        samples
    }

    #[test]
    fn a_scraper_understands_it() {
        let http = HttpStats { ok: 3, bytes: u64::MAX, waiting: 2, ..HttpStats::default() };
        let tftp = TftpStats { probes: 4, ..TftpStats::default() };
        let dhcp = Counters { discovers: 5, ..Counters::default() };
        let mut text = String::new();
        for family in [http_families(http), tftp_families(tftp), dhcp_families(dhcp)].into_iter().flatten() {
            family.write(&mut text);
        }
        let samples = parse(&text);
        assert_eq!(samples["bootfabric_http_answers_total{status=\"ok\"}"], 3);
        assert_eq!(samples["bootfabric_http_sent_bytes_total"], u64::MAX);
        assert_eq!(samples["bootfabric_http_waiting"], 2);
        assert_eq!(samples["bootfabric_tftp_transfers_total{outcome=\"probe\"}"], 4);
        assert_eq!(samples["bootfabric_dhcp_received_total{type=\"discover\"}"], 5);
    }
}
