//! The iPXE boot script.
//!
//! Renders text from plain values; knows nothing of sockets or stores. The script names several peers, tries them in
//! turn for ever, and hands the first stage all it needs on the kernel line, so that Linux asks no DHCP server again.
//!
//! In the first round a busy peer says so at once, and the next one is asked. In the second a busy peer keeps the client
//! waiting for its turn (`?wait=`), and after it the script asks for a new one: in a crowd, many of those that were served
//! meanwhile serve by then themselves. Where nobody has one, further rounds follow, with pauses between them that grow and
//! differ between machines, and then the same question: another release may be current by then.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use fabric::id::{Hash, ObjectId};
use pxe::http::{LONGEST_WAIT, NO_PROGRESS};

/// Peers a script names: enough to survive several deaths, few enough for a kernel line of 2048 bytes.
pub(crate) const MAX_SCRIPT_PEERS: usize = 5;
/// Rounds over all peers. The pauses after them are 0, 1, 2, 4 and 8 s and as much again at most.
const ROUNDS: u32 = 5;
/// The first round in which peers are waited for. A new script is asked for after it, by a loader that knows `--timeout`; an older
/// one goes on to its own round.
const WAITING_ROUND: u32 = 1;
/// The round that does without `--timeout`: iPXE of before 2013 does not know it. Without it a peer that dies in the middle
/// of a file is waited for until somebody resets the machine.
const PLAIN_ROUND: u32 = 2;

/// The setting that holds the word for the router of the loader's own lease; unset if there is none.
const LEASED_GATEWAY: &str = "${via}";

/// What a script is made from.
#[derive(Debug, Clone)]
pub(crate) struct Script<'a> {
    /// The release to boot.
    pub release: ObjectId,
    /// What people call it.
    pub title: String,
    /// Kernel arguments of the release.
    pub cmdline: &'a str,
    /// Those of this machine, its groups and of all.
    pub more_args: &'a str,
    /// The name that the machine is known by.
    pub name: Option<&'a str>,
    /// The address the client holds.
    pub client: Ipv4Addr,
    /// Length of the subnet prefix.
    pub prefix: u8,
    /// The router of its network, if the fabric's settings name one; else the lease does, or nobody.
    pub gateway: Option<Ipv4Addr>,
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
        if self.gateway.is_none() {
            // A site's DHCP server may have named one. `clear` fails where there is nothing to clear.
            text.push_str("clear via ||\n");
            text.push_str("isset ${netX/gateway} && set via bootfabric.gateway=${netX/gateway} ||\n");
        }
        for round in 0..ROUNDS {
            self.round(&mut text, round, &peers);
        }
        ask_anew(&mut text, &peers);
        let _ = writeln!(text, "goto r{}p0", ROUNDS - 1);
        let wait = LONGEST_WAIT.as_secs();
        let _ = writeln!(text, ":load\nimgfree");
        let _ = writeln!(
            text,
            // UEFI kernels find their initrd by this name; it must be that of the `initrd` line.
            "kernel ${{opts}} ${{base}}/kernel${{ask}} initrd=first-stage {} || goto ${{next}}",
            self.kernel_line("${netX/mac}", LEASED_GATEWAY)
        );
        // Whoever has the kernel from a peer is the next there, and loses little by waiting.
        let _ = writeln!(
            text,
            "initrd ${{opts}} --name first-stage ${{base}}/first-stage?wait={wait} || goto ${{next}}"
        );
        let _ = writeln!(text, "boot || goto ${{next}}");
        text
    }

    /// One round over all peers and the pause after it.
    fn round(&self, text: &mut String, round: u32, peers: &[&SocketAddrV4]) {
        let _ = match round {
            // iPXE splits a line into words before it expands them: a setting is one word, and an empty one is still a word.
            PLAIN_ROUND => writeln!(text, "set opts --name=kernel"),
            _ => writeln!(text, "set opts --timeout={}", NO_PROGRESS.as_millis()),
        };
        if round == WAITING_ROUND {
            let _ = writeln!(text, "set ask ?wait={}", LONGEST_WAIT.as_secs());
        }
        for (n, peer) in peers.iter().enumerate() {
            let next =
                if n + 1 < peers.len() { format!("r{round}p{}", n + 1) } else { format!("r{round}end") };
            let _ = writeln!(text, ":r{round}p{n}\nset base http://{peer}/boot/{}", self.release);
            let _ = writeln!(text, "set next {next}\ngoto load");
        }
        let _ = writeln!(text, ":r{round}end");
        if let Some(least) = round.checked_sub(1) {
            let pause = pause(1 << least, self.client, round);
            let _ = writeln!(text, "echo No peer answered, trying again in {pause} s\nsleep {pause}");
        }
        if round == WAITING_ROUND {
            ask_anew(text, peers);
        }
    }

    /// What the kernel and the first stage of the machine with hardware address `mac` are told, the initrd's name apart.
    /// `leased` is the word that names the router where the settings do not: `bootfabric.gateway=10.77.0.1`, or empty.
    pub(crate) fn kernel_line(&self, mac: &str, leased: &str) -> String {
        let peers = self.peers.iter().take(MAX_SCRIPT_PEERS);
        let hosts: Vec<_> = peers.map(|peer| peer.ip().to_string()).collect();
        let http_port = self.peers.first().map_or(80, SocketAddrV4::port);
        let more = if self.more_args.is_empty() { String::new() } else { format!(" {}", self.more_args) };
        let mut line = format!(
            "{}{more} bootfabric.release={} bootfabric.address={}/{} bootfabric.mac={mac} bootfabric.peers={}",
            self.cmdline,
            self.release,
            self.client,
            self.prefix,
            hosts.join(",")
        );
        if !self.more_args.contains("bootfabric.gateway=") {
            let _ = match self.gateway {
                Some(gateway) => write!(line, " bootfabric.gateway={gateway}"),
                None if leased.is_empty() => Ok(()),
                None => write!(line, " {leased}"),
            };
        }
        if let Some(name) = self.name.filter(|_| !self.more_args.contains("bootfabric.name=")) {
            let _ = write!(line, " bootfabric.name={name}");
        }
        if http_port != 80 {
            let _ = write!(line, " bootfabric.http-port={http_port}");
        }
        if self.swarm_port != 7744 {
            let _ = write!(line, " bootfabric.swarm-port={}", self.swarm_port);
        }
        line
    }
}

/// Asks each peer in turn for a new script.
fn ask_anew(text: &mut String, peers: &[&SocketAddrV4]) {
    for peer in peers {
        let _ = writeln!(text, "chain --replace ${{opts}} http://{peer}/boot.ipxe ||");
    }
}

/// A script for a client that cannot be given a release yet: it says why, waits and asks `base` again, for ever.
pub(crate) fn wait_script(reason: &str, seconds: u32, base: &str) -> String {
    format!(
        "#!ipxe\necho bootfabric: {}\n:again\nsleep {seconds}\nchain --replace {base}/boot.ipxe || goto again\n",
        printable(reason)
    )
}

/// A script for a client of which its address alone is known: it asks `base` again and says who it is.
pub(crate) fn who_script(base: &str) -> String {
    format!(
        "#!ipxe\n:again\nchain --replace {base}/boot.ipxe?mac=${{netX/mac}}&uuid=${{uuid}} || sleep 2\ngoto again\n"
    )
}

/// From `least` seconds to twice that, evenly over machines: those that were powered on together come back apart.
fn pause(least: u32, client: Ipv4Addr, round: u32) -> u32 {
    let seed = [&client.octets()[..], &round.to_be_bytes()].concat();
    let [first, ..] = *Hash::of(&seed).as_bytes();
    least + u32::from(first) % (least + 1)
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(120).collect()
}

#[cfg(test)]
mod tests {
    use fabric::id::Hash;

    use super::*;

    fn script(peers: usize) -> String {
        make(peers).render()
    }

    fn make(peers: usize) -> Script<'static> {
        let peers = (1..=peers).map(|n| SocketAddrV4::new([10, 77, 0, u8::try_from(n).unwrap()].into(), 80));
        Script {
            release: ObjectId(Hash::of(b"release")),
            title: "debian 12\nboot".into(),
            cmdline: "console=ttyS0",
            more_args: "bootfabric.root=zram",
            name: Some("n1"),
            client: [10, 77, 0, 30].into(),
            prefix: 24,
            gateway: None,
            peers: peers.collect(),
            swarm_port: 7744,
        }
    }

    /// What a script does while every load fails.
    struct Run {
        /// What was loaded from: the URL as it would be asked for.
        tried: Vec<String>,
        /// Pauses, and after how many loads.
        pauses: Vec<(usize, u32)>,
        /// Scripts asked for, and after how many loads.
        chained: Vec<(usize, String)>,
    }

    /// Runs the script's jumps and settings with every load failing, for `loads` loads.
    fn run(text: &str, loads: usize) -> Run {
        let lines: Vec<_> = text.lines().collect();
        let label = |name: &str| lines.iter().position(|line| *line == format!(":{name}")).expect(name);
        let mut set = std::collections::BTreeMap::new();
        let mut run = Run { tried: Vec::new(), pauses: Vec::new(), chained: Vec::new() };
        let mut at = 0;
        while run.tried.len() < loads {
            let line = lines[at];
            at += 1;
            let expand = |text: &str| {
                set.iter().fold(text.to_owned(), |text, (name, value): (&String, &String)| {
                    text.replace(&format!("${{{name}}}"), value)
                })
            };
            match line.split_once(' ').unwrap_or((line, "")) {
                ("set", rest) => {
                    let (name, value) = rest.split_once(' ').unwrap();
                    set.insert(name.to_owned(), value.to_owned());
                }
                ("clear", name) => drop(set.remove(name)),
                ("goto", target) => at = label(target),
                ("sleep", seconds) => run.pauses.push((run.tried.len(), seconds.parse().unwrap())),
                ("chain", rest) => run.chained.push((run.tried.len(), expand(rest))),
                ("kernel", rest) => {
                    // iPXE splits before it expands, so a word stays one word; `ask` is part of a word.
                    assert!(set["opts"].split(' ').count() == 1 && !set["opts"].is_empty(), "{set:?}");
                    let rest = expand(rest).replace("${ask}", "");
                    run.tried.push(rest.split(" initrd=").next().unwrap().trim().to_owned());
                    at = label(&set["next"]);
                }
                _ => {}
            }
        }
        run
    }

    #[test]
    fn x4_every_peer_is_tried_in_turn_for_ever() {
        let ran = run(&script(3), 40);
        for (n, tried) in ran.tried.iter().enumerate() {
            assert!(tried.contains(&format!("http://10.77.0.{}:80/boot/", n % 3 + 1)), "{n}: {tried}");
        }
        assert_eq!(run(&script(1), 19).tried.len(), 19);
    }

    #[test]
    fn another_peer_is_asked_before_one_is_waited_for() {
        let ran = run(&script(3), 12);
        assert!(ran.tried[..3].iter().all(|tried| tried.ends_with("/kernel")), "{:?}", ran.tried);
        assert!(ran.tried[3..].iter().all(|tried| tried.ends_with("/kernel?wait=25")), "{:?}", ran.tried);
        assert_eq!(ran.pauses[0].0, 6, "no pause between asking and waiting");
    }

    #[test]
    fn silent_peers_are_given_up_and_old_loaders_are_not_left_out() {
        let ran = run(&script(1), 5);
        let timeouts = ran.tried.iter().map(|tried| tried.starts_with("--timeout=40000 http"));
        assert_eq!(timeouts.collect::<Vec<_>>(), [true, true, false, true, true]);
        assert!(ran.tried[2].starts_with("--name=kernel http"), "{:?}", ran.tried);
    }

    #[test]
    fn e9_pauses_grow_differ_and_end_with_a_new_script() {
        let ran = run(&script(2), 14);
        let lengths: Vec<_> = ran.pauses.iter().map(|(_, pause)| *pause).collect();
        for (length, least) in lengths.iter().zip([1, 2, 4, 8, 8]) {
            assert!((least..=2 * least).contains(length), "{lengths:?}");
        }
        let again = |n| format!("--replace --timeout=40000 http://10.77.0.{n}:80/boot.ipxe ||");
        // After the round in which peers are waited for, where others may serve by now, and after the last.
        let asked = [(4, again(1)), (4, again(2)), (10, again(1)), (10, again(2))];
        assert_eq!(ran.chained[..4], asked, "a newer release and newer peers are found");
        let pauses: std::collections::BTreeSet<_> =
            (0..100).map(|client| pause(8, [10, 77, 0, client].into(), 4)).collect();
        assert_eq!(pauses.into_iter().collect::<Vec<_>>(), (8..=16).collect::<Vec<_>>());
    }

    #[test]
    fn a_client_without_a_release_asks_for_ever() {
        let text = wait_script("no release here yet", 2, "http://10.77.0.1:8080");
        assert!(text.contains("chain --replace http://10.77.0.1:8080/boot.ipxe || goto again\n"), "{text}");
    }

    #[test]
    fn the_router_is_the_settings_else_the_lease_s_and_an_operator_overrules_both() {
        let line_of = |script: &Script<'_>| {
            let text = script.render();
            let line = text.lines().find(|line| line.starts_with("kernel ")).unwrap().to_owned();
            (line, text.contains("set via bootfabric.gateway=${netX/gateway} ||\n"))
        };
        let mut script = make(1);
        let (line, asked) = line_of(&script);
        assert!(asked && line.contains("bootfabric.peers=10.77.0.1 ${via} bootfabric.name=n1"), "{line}");
        assert!(!script.kernel_line("", "").contains("gateway"));
        let kept = script.kernel_line("", "bootfabric.gateway=10.77.0.8");
        assert!(kept.contains(" bootfabric.gateway=10.77.0.8 "), "{kept}");

        script.gateway = Some([10, 77, 0, 9].into());
        let (line, asked) = line_of(&script);
        assert!(!asked && line.contains(" bootfabric.gateway=10.77.0.9 ") && !line.contains("via"), "{line}");

        script.more_args = "bootfabric.gateway=0.0.0.0";
        assert_eq!(line_of(&script).0.matches("gateway").count(), 1);
    }

    #[test]
    fn the_kernel_line_fits_and_holds_what_the_first_stage_needs() {
        let text = script(9);
        let line = text.lines().find(|line| line.starts_with("kernel ")).unwrap();
        assert!(line.len() < 1024);
        assert!(line.contains("bootfabric.address=10.77.0.30/24"));
        assert!(line.contains(" console=ttyS0 bootfabric.root=zram bootfabric.release="), "{line}");
        assert!(line.contains(" bootfabric.name=n1"), "{line}");
        assert!(line.contains("bootfabric.mac=${netX/mac}"), "the card that loaded it");
        assert!(
            line.contains("bootfabric.peers=10.77.0.1,10.77.0.2,10.77.0.3,10.77.0.4,10.77.0.5 "),
            "{line}"
        );
        assert!(text.contains("--name first-stage ") && line.contains(" initrd=first-stage "));
        assert!(text.lines().nth(1).unwrap().ends_with("debian 12boot"));
    }
}
