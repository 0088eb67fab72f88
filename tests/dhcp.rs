//! DHCP of several nodes on one switch, each a real program in a namespace of its own: next to a site's server, next to
//! another fabric, through deaths and splits, with clients from Debian's packages and with raw ones.

mod dhcp_lab;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dhcp_lab::*;
use netlab::pcap::{DhcpKind, DhcpMessage};
use netlab::{Host, Process, wait_until};
use nix::sys::signal::Signal;

#[test]
fn d7_five_nodes_give_one_offer_to_one_client_and_to_fifty_at_once() -> anyhow::Result<()> {
    let Some(link) = Link::new("five")? else { return Ok(()) };
    let nodes = link.nodes(&link.make_home("five", POOL)?, 5)?;
    let farm = Farm::new(&link.host("clients", CLIENTS)?)?;
    for n in 100..110 {
        farm.lease(&BTreeSet::from([n]))?;
    }
    let clients: BTreeSet<u8> = (0..50).collect();
    let leases = farm.lease(&clients)?;
    assert_eq!(distinct(leases.values()).len(), 50);
    assert!(leases.values().all(|(_, rounds)| *rounds == 1), "{leases:?}");
    // Late ones would come within the longest wait of a standby.
    assert!(farm.next(Instant::now() + RETRY).is_none(), "an answer nobody asked for");
    assert_eq!((link.count(DhcpKind::Discover)?, link.count(DhcpKind::Offer)?), (60, 60));
    let servers: BTreeSet<_> = leases.values().map(|(offer, _)| offer.server).collect();
    assert!(
        servers.len() > 1 && servers.iter().all(|server| nodes.iter().any(|node| node.address == *server))
    );
    Ok(())
}

#[test]
fn a_responder_killed_between_offer_and_request_costs_one_retry_and_no_address() -> anyhow::Result<()> {
    let Some(link) = Link::new("killed")? else { return Ok(()) };
    let nodes = link.nodes(&link.make_home("killed", POOL)?, 3)?;
    let farm = Farm::new(&link.host("clients", CLIENTS)?)?;
    let mut offers = BTreeMap::new();
    for n in 0..20 {
        farm.discover(n)?;
        let offer = farm.next(Instant::now() + PATIENCE).context("no offer")?;
        offers.insert(n, Offer { address: offer.yiaddr, server: offer.server_id().context("no server")? });
    }
    let dead = offers[&0].server;
    let node = nodes.iter().find(|node| node.address == dead).context("a node")?;
    node.process.kill()?;
    node.host.delete()?;
    let orphans: BTreeSet<u8> =
        offers.iter().filter(|(_, offer)| offer.server == dead).map(|(n, _)| *n).collect();
    for &n in &orphans {
        farm.request(n, offers[&n])?;
    }
    assert!(farm.next(Instant::now() + Duration::from_millis(500)).is_none(), "only the dead one was asked");
    let leases = farm.lease(&orphans)?;
    for (n, (lease, rounds)) in leases {
        assert_eq!((lease.address, rounds), (offers[&n].address, 1), "the next node names the same address");
        assert_ne!(lease.server, dead);
    }
    Ok(())
}

#[test]
fn after_a_split_duplicates_are_found_and_moved() -> anyhow::Result<()> {
    let Some(link) = Link::new("split")? else { return Ok(()) };
    // Hardly more addresses than clients: both sides come to use the same ones.
    let nodes = link.nodes(&link.make_home("split", "10.77.0.100-10.77.0.127")?, 4)?;
    let (here, there) = (link.host("here", CLIENTS)?, link.host("there", "10.77.3.251/22")?);
    let (one, other) = (Farm::new(&here)?, Farm::new(&there)?);
    let away = [nodes[2].host.port(), nodes[3].host.port(), there.port()];
    link.switch.split(&away)?;
    let mut leases = one.lease(&(0..12).collect())?;
    leases.append(&mut other.lease(&(100..112).collect())?);
    for side in [0..100, 100..200] {
        let here: Vec<_> = leases.iter().filter(|(n, _)| side.contains(*n)).map(|(_, lease)| lease).collect();
        assert_eq!(distinct(here.iter().copied()).len(), here.len(), "no address twice on one side");
    }
    let mut holders = BTreeMap::<Ipv4Addr, u32>::new();
    leases.values().for_each(|(offer, _)| *holders.entry(offer.address).or_default() += 1);
    let twice: BTreeSet<_> =
        holders.into_iter().filter(|(_, count)| *count > 1).map(|(address, _)| address).collect();
    ensure!(!twice.is_empty(), "the split made no duplicate");
    link.switch.heal()?;
    let found = |node: &Node| -> BTreeSet<Ipv4Addr> {
        let conflict = |event: &netlab::Event| event.is("dhcp") && event.text("stage") == Some("conflict");
        let events = node.host.events().all().into_iter().filter(|event| conflict(event));
        events.filter_map(|event| event.text("address")?.parse().ok()).collect()
    };
    wait_until("every node finds every duplicate", Duration::from_secs(120), || {
        nodes.iter().all(|node| found(node).is_superset(&twice)).then_some(())
    })?;
    // All renew; who is refused starts again.
    let mut refused = BTreeSet::new();
    for (&n, (offer, _)) in &leases {
        let farm = if n < 100 { &one } else { &other };
        farm.send(n, 3, offer.address, &[])?;
        let end = Instant::now() + PATIENCE;
        let answer = loop {
            let answer = farm.next(end).context("a renewal is not answered")?;
            if answer.xid == u32::from(n) {
                break answer;
            }
        };
        if answer.kind == DhcpKind::Nak {
            refused.insert(n);
        }
    }
    assert_eq!(refused.len(), twice.len(), "one of two is moved: {refused:?} of {leases:?}");
    for n in refused {
        let farm = if n < 100 { &one } else { &other };
        leases.append(&mut farm.lease(&BTreeSet::from([n]))?);
    }
    assert_eq!(distinct(leases.values()).len(), leases.len(), "{leases:?}");
    Ok(())
}

/// A site's DHCP server at 10.77.3.254, with addresses that are not the fabric's.
fn start_site(link: &Link, kea: bool) -> anyhow::Result<Host> {
    let host = link.host("site", "10.77.3.254/22")?;
    let directory = link.lab.directory();
    if kea {
        let config = directory.join("kea.json");
        let text = format!(
            r#"{{"Dhcp4": {{"interfaces-config": {{"interfaces": ["{}"]}}, "lease-database": {{"type": "memfile", "persist": false}},
            "subnet4": [{{"subnet": "10.77.0.0/22", "pools": [{{"pool": "10.77.3.241-10.77.3.249"}}]}}],
            "loggers": [{{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{{"output": "stderr"}}]}}]}}}}"#,
            host.interface()
        );
        std::fs::write(&config, text)?;
        let mut command = host.command("kea-dhcp4");
        command.env("KEA_PIDFILE_DIR", directory).env("KEA_LOCKFILE_DIR", "none").arg("-c").arg(config);
        host.spawn("kea", &mut command)?.wait_for_log("DHCP4_STARTED", PATIENCE)?;
    } else {
        let mut command = host.command("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--log-facility=-",
            "--conf-file=/dev/null",
            "--port=0",
            "--no-ping",
        ]);
        command.args(["--bind-interfaces", "--interface", host.interface()]);
        command.args(["--dhcp-range", "10.77.3.241,10.77.3.249,255.255.252.0,600"]);
        command.arg(format!("--dhcp-leasefile={}", directory.join("dnsmasq.leases").display()));
        host.spawn("dnsmasq", &mut command)?.wait_for_log("DHCP, IP range", PATIENCE)?;
    }
    Ok(host)
}

/// A PXE client gets an address from the site and a boot file from the node; a plain one nothing from the node.
fn check_beside_a_site(link: &Link, node: &Node, site: Ipv4Addr) -> anyhow::Result<()> {
    let farm = Farm::new(&link.host("clients", CLIENTS)?)?;
    let pxe = [&[60, 32][..], b"PXEClient:Arch:00007:UNDI:003000", &[93, 2, 0, 7, 97, 17], &[0; 17]].concat();
    farm.send(1, 1, Ipv4Addr::UNSPECIFIED, &pxe)?;
    let mut answers = BTreeMap::new();
    let end = Instant::now() + PATIENCE;
    while answers.len() < 2 {
        let answer = farm.next(end).with_context(|| format!("only {answers:?}"))?;
        // Others may still be answered.
        if answer.xid == 1 {
            answers.insert(answer.server_id().context("no server")?, answer);
        }
    }
    let (lease, file) = (&answers[&site], &answers[&node.address]);
    assert!(lease.yiaddr.octets()[3] >= 241 && lease.kind == DhcpKind::Offer);
    assert!(file.yiaddr.is_unspecified());
    assert_eq!((file.file.as_str(), file.siaddr), ("snponly.efi", node.address));
    assert_eq!(file.options.get(&60).map(Vec::as_slice), Some(&b"PXEClient"[..]));
    // Real clients: only the site speaks to them.
    let client = link.lab.host("udhcpc", &link.switch)?;
    let mut udhcpc = client.command("busybox");
    udhcpc.args(["udhcpc", "-i", client.interface(), "-n", "-q", "-f", "-s", "/bin/true"]);
    ensure!(client.spawn("udhcpc", &mut udhcpc)?.wait(PATIENCE)?.success());
    let trace = link.capture.trace()?;
    assert!(trace.dhcp_of(client.mac()).filter_map(|seen| seen.server_id()).all(|server| server == site));
    // Port 4011, as firmware asks it that was offered no file.
    let socket = link.host("firmware", "10.77.3.249/22")?.run_in(|| UdpSocket::bind("0.0.0.0:4011"))??;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = vec![0; 240];
    bytes[..4].copy_from_slice(&[1, 1, 6, 0]);
    bytes[12..16].copy_from_slice(&[10, 77, 3, 249]);
    bytes[28..34].copy_from_slice(&mac(1));
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend_from_slice(&[53, 1, 3]);
    bytes.extend_from_slice(&pxe);
    bytes.push(255);
    socket.send_to(&bytes, (node.address, 4011))?;
    let mut buffer = [0; 1500];
    let (length, from) = socket.recv_from(&mut buffer)?;
    let ack = DhcpMessage::parse(&buffer[..length]).context("no DHCP")?;
    assert_eq!((ack.kind, ack.file.as_str(), from.port()), (DhcpKind::Ack, "snponly.efi", 4011));
    Ok(())
}

#[test]
fn beside_dnsmasq_a_node_is_a_proxy() -> anyhow::Result<()> {
    let Some(link) = Link::new("dnsmasq")? else { return Ok(()) };
    start_site(&link, false)?;
    let node = link.start("node", 1, &link.make_home("dnsmasq", POOL)?, &[])?;
    node.wait_for_stage("yielded")?;
    check_beside_a_site(&link, &node, Ipv4Addr::new(10, 77, 3, 254))
}

#[test]
fn beside_kea_a_node_is_a_proxy() -> anyhow::Result<()> {
    let Some(link) = Link::new("kea")? else { return Ok(()) };
    start_site(&link, true)?;
    let node = link.start("node", 1, &link.make_home("kea", POOL)?, &[])?;
    node.wait_for_stage("yielded")?;
    check_beside_a_site(&link, &node, Ipv4Addr::new(10, 77, 3, 254))
}

#[test]
fn a_site_server_that_comes_later_is_yielded_to() -> anyhow::Result<()> {
    let Some(link) = Link::new("later")? else { return Ok(()) };
    let node = link.start("node", 1, &link.make_home("later", POOL)?, &[])?;
    let farm = Farm::new(&link.host("early", "10.77.3.252/22")?)?;
    farm.lease(&BTreeSet::from([77]))?;
    start_site(&link, false)?;
    // The server's OFFER to anybody shows that it is there.
    let yielded = || node.host.events().all().iter().any(|event| event.text("stage") == Some("yielded"));
    let mut asked = None;
    wait_until("the node yields", PATIENCE, || {
        // As often as a client asks: a server that is flooded answers nobody.
        if asked.is_none_or(|at: Instant| at.elapsed() > RETRY) {
            farm.discover(78).ok()?;
            asked = Some(Instant::now());
        }
        yielded().then_some(())
    })?;
    check_beside_a_site(&link, &node, Ipv4Addr::new(10, 77, 3, 254))
}

#[test]
fn who_asks_while_a_node_starts_gets_an_offer() -> anyhow::Result<()> {
    let Some(link) = Link::new("first")? else { return Ok(()) };
    let node = link.start("node", 1, &link.make_home("first", POOL)?, &[])?;
    let farm = Farm::new(&link.host("clients", CLIENTS)?)?;
    // Asked at once, answered when the node has listened for other servers.
    farm.discover(1)?;
    let offer = farm.next(Instant::now() + PATIENCE).context("no offer")?;
    assert_eq!(offer.server_id(), Some(node.address));
    assert_eq!(link.count(DhcpKind::Discover)?, 1);
    Ok(())
}

#[test]
fn two_fabrics_on_one_switch_tell_both_operators() -> anyhow::Result<()> {
    let Some(link) = Link::new("two")? else { return Ok(()) };
    let one = link.start("one", 1, &link.make_home("one", "10.77.0.16-10.77.1.239")?, &[])?;
    let two = link.start("two", 2, &link.make_home("two", "10.77.2.16-10.77.3.239")?, &[])?;
    one.wait_for_stage("other-fabric")?;
    two.wait_for_stage("other-fabric")?;
    let yielded =
        |node: &Node| node.host.events().all().iter().any(|event| event.text("stage") == Some("yielded"));
    assert!(!yielded(&one) && !yielded(&two), "neither is a site's server");
    Ok(())
}

#[test]
fn an_address_in_foreign_use_is_found_and_told_to_all_nodes() -> anyhow::Result<()> {
    let Some(link) = Link::new("foreign")? else { return Ok(()) };
    // One address, and somebody has it.
    let home = link.make_home("foreign", "10.77.0.100-10.77.0.101")?;
    let _squatter = link.host("squatter", "10.77.0.100/22")?;
    let nodes = link.nodes(&home, 2)?;
    wait_until("a node finds it", PATIENCE, || {
        let found = |event: &netlab::Event| {
            event.text("stage") == Some("foreign") && event.text("address") == Some("10.77.0.100")
        };
        nodes.iter().any(|node| node.host.events().all().iter().any(|event| found(event))).then_some(())
    })?;
    let farm = Farm::new(&link.host("clients", CLIENTS)?)?;
    let leases = farm.lease(&BTreeSet::from([1]))?;
    assert_eq!(leases[&1].0.address, Ipv4Addr::new(10, 77, 0, 101));
    Ok(())
}

/// Signals a client again and again: while it sets its address, it does not listen.
fn tell_until(what: &str, client: &Process, signal: Signal, heard: impl Fn() -> bool) -> anyhow::Result<()> {
    let mut told = None;
    wait_until(what, PATIENCE, || {
        if heard() {
            return Some(());
        }
        if told.is_none_or(|at: Instant| at.elapsed() > RETRY) {
            client.signal(signal).ok()?;
            told = Some(Instant::now());
        }
        None
    })?;
    Ok(())
}

#[test]
fn real_clients_get_renew_and_release_their_addresses() -> anyhow::Result<()> {
    let Some(link) = Link::new("clients")? else { return Ok(()) };
    let _nodes = link.nodes(&link.make_home("clients", POOL)?, 2)?;
    let count = |host: &Host, kind: DhcpKind| -> usize {
        let trace = link.capture.trace().unwrap_or_default();
        trace.dhcp_of(host.mac()).filter(|seen| seen.kind == kind).count()
    };
    let wait = |host: &Host, kind: DhcpKind, least: usize| {
        wait_until(&format!("{kind:?} of {}", host.name()), PATIENCE, || {
            (count(host, kind) >= least).then_some(())
        })
    };
    let script = link.lab.directory().join("udhcpc.sh");
    std::fs::write(
        &script,
        "#!/bin/sh\n[ -n \"$ip\" ] && ip addr replace $ip/$mask dev $interface\nexit 0\n",
    )?;
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;

    let host = link.lab.host("udhcpc", &link.switch)?;
    let mut command = host.command("busybox");
    let udhcpc =
        host.spawn("udhcpc", command.args(["udhcpc", "-f", "-R", "-i", "eth0", "-s"]).arg(&script))?;
    let obtained =
        || std::fs::read_to_string(udhcpc.log_path()).unwrap_or_default().matches(" obtained ").count();
    wait_until("udhcpc has its lease", PATIENCE, || (obtained() == 1).then_some(()))?;
    tell_until("udhcpc renews", &udhcpc, Signal::SIGUSR1, || obtained() >= 2)?;
    wait(&host, DhcpKind::Ack, 2)?;
    udhcpc.terminate()?;
    wait(&host, DhcpKind::Release, 1)?;

    let host = link.lab.host("dhclient", &link.switch)?;
    let file = |name: &str| link.lab.directory().join(name);
    let dhclient = |more: &[&str]| -> anyhow::Result<()> {
        let mut command = host.command("dhclient");
        command.args(["-4", "-1", "-cf", "/dev/null", "-sf"]).arg(&script);
        command
            .arg("-lf")
            .arg(file("dhclient.leases"))
            .arg("-pf")
            .arg(file("dhclient.pid"))
            .args(more)
            .arg("eth0");
        ensure!(host.spawn("dhclient", &mut command)?.wait(PATIENCE)?.success(), "dhclient failed");
        Ok(())
    };
    dhclient(&[])?;
    wait(&host, DhcpKind::Ack, 1)?;
    dhclient(&["-x"])?;
    // It remembers its lease: INIT-REBOOT.
    dhclient(&[])?;
    wait(&host, DhcpKind::Ack, 2)?;
    assert_eq!(count(&host, DhcpKind::Discover), 1);
    let address = link
        .capture
        .trace()?
        .dhcp_of(host.mac())
        .find(|seen| seen.kind == DhcpKind::Ack)
        .map(|seen| seen.yiaddr);
    host.add_address(format!("{}/22", address.context("no address")?).parse()?)?;
    dhclient(&["-r"])?;
    wait(&host, DhcpKind::Release, 1)?;

    let host = link.lab.host("dhcpcd", &link.switch)?;
    let mut command = host.command("unshare");
    // It keeps leases by the interface's name; those of other runs and of the machine are not this one's.
    let script =
        "mount -t tmpfs none /var/lib/dhcpcd && exec dhcpcd -4 -B -f /dev/null -c /bin/true --noarp -p eth0";
    let dhcpcd = host.spawn("dhcpcd", command.args(["--mount", "sh", "-c", script]))?;
    let log = || std::fs::read_to_string(dhcpcd.log_path()).unwrap_or_default();
    // Told earlier, it has nothing to release, though the ACK has passed.
    wait_until("dhcpcd has its lease", PATIENCE, || log().contains(": leased ").then_some(()))?;
    tell_until("dhcpcd gives it back", &dhcpcd, Signal::SIGALRM, || log().contains("received SIGALRM"))?;
    wait(&host, DhcpKind::Release, 1).with_context(log)?;
    Ok(())
}

/// Says how long; on an idle machine it is held to a second.
#[test]
fn the_first_offer_comes_soon_after_up() -> anyhow::Result<()> {
    let Some(link) = Link::new("soon")? else { return Ok(()) };
    let home = link.make_home("soon", POOL)?;
    let farm = Farm::new(&link.host("clients", CLIENTS)?)?;
    let host = link.host("node", "10.77.0.1/22")?;
    let mut up = host.command(env!("CARGO_BIN_EXE_bootfabric"));
    up.args(["up", "--interface", host.interface(), "--name", "node", "--fabric"]).arg(&home);
    up.arg("--state").arg(home.join("state")).arg("--events").arg(host.events_path());
    let began = Instant::now();
    let process = host.spawn("up", &mut up)?;
    let offer = loop {
        ensure!(began.elapsed() < PATIENCE, "no offer: {}", process.describe());
        farm.discover(1)?;
        if let Some(message) = farm.next(Instant::now() + Duration::from_millis(20)) {
            break message;
        }
    };
    let took = began.elapsed();
    println!("first OFFER {took:.3?} after the start of `up`");
    assert_eq!(offer.kind, DhcpKind::Offer);
    if std::env::var_os("BOOTFABRIC_MEASURE").is_some() {
        ensure!(took <= Duration::from_secs(1), "{took:?}");
    }
    Ok(())
}
