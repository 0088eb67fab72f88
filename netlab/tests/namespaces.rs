//! The laboratory without machines: hosts, cables, splits, shapes, captures, events.

mod common;

use std::net::SocketAddrV4;
use std::time::Duration;

use common::{A, B, LONG, reaches, socket, two_hosts};
use netlab::{Error, Lab, LabOptions, LinkShape, Result, ready_or_skip, wait_until};

#[test]
fn hosts_hear_each_other() -> Result<()> {
    if !ready_or_skip()? {
        return Ok(());
    }
    let lab = Lab::new("hear")?;
    let switch = lab.switch("sw0")?;
    let (a, b) = two_hosts(&lab, &switch)?;
    reaches(&socket(&a), &socket(&b), B, "hello")?;
    let counters = a.port().counters()?;
    assert!(counters.from_node.packets > 0 && counters.to_node.packets > 0, "{counters:?}");
    lab.tear_down()
}

#[test]
fn a_cut_cable_carries_nothing_until_it_is_restored() -> Result<()> {
    if !ready_or_skip()? {
        return Ok(());
    }
    let lab = Lab::new("cut")?;
    let switch = lab.switch("sw0")?;
    let (a, b) = two_hosts(&lab, &switch)?;
    let (at_a, at_b) = (socket(&a), socket(&b));
    reaches(&at_a, &at_b, B, "before")?;
    b.port().down()?;
    at_a.send_to(b"lost", SocketAddrV4::new(B, 4000)).unwrap();
    b.port().up()?;
    // Frames of one sender keep their order, so what was lost would have come before this.
    let mut buffer = [0; 100];
    let heard = wait_until("the word after the cut", LONG, || {
        at_a.send_to(b"after", SocketAddrV4::new(B, 4000)).ok()?;
        let length = at_b.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned()).filter(|word| word != "before")
    })?;
    assert_eq!(heard, "after");
    let cuts: Vec<_> =
        lab.timeline().events().iter().filter_map(|event| event.name().map(str::to_owned)).collect();
    assert!(cuts.windows(2).any(|pair| pair == ["port-down", "port-up"]), "{cuts:?}");
    Ok(())
}

#[test]
fn a_split_switch_is_two_until_it_heals() -> Result<()> {
    if !ready_or_skip()? {
        return Ok(());
    }
    let lab = Lab::new("split")?;
    let switch = lab.switch("sw0")?;
    let (a, b) = two_hosts(&lab, &switch)?;
    let c = lab.host("c", &switch)?;
    c.add_address("10.77.0.3/24".parse().unwrap())?;
    let (at_a, at_b, at_c) = (socket(&a), socket(&b), socket(&c));
    reaches(&at_a, &at_b, B, "before")?;

    switch.split(&[b.port(), c.port()])?;
    assert!(matches!(switch.split(&[a.port()]), Err(Error::Name { .. })));
    reaches(&at_c, &at_b, B, "in the other half")?;
    at_a.send_to(b"lost", SocketAddrV4::new(B, 4000)).unwrap();
    c.delete()?;

    switch.heal()?;
    switch.heal()?;
    let mut buffer = [0; 100];
    let heard = wait_until("the word after the split", LONG, || {
        at_a.send_to(b"after", SocketAddrV4::new(B, 4000)).ok()?;
        let length = at_b.recv(&mut buffer).ok()?;
        let word = String::from_utf8_lossy(&buffer[..length]).into_owned();
        Some(word).filter(|word| word == "after" || word == "lost")
    })?;
    assert_eq!(heard, "after");
    Ok(())
}

#[test]
fn a_shaped_link_drops_what_exceeds_it_in_either_direction() -> Result<()> {
    const SENT: u64 = 500;
    const SIZE: u64 = 1000;
    if !ready_or_skip()? {
        return Ok(());
    }
    let lab = Lab::new("shape")?;
    let switch = lab.switch("sw0")?;
    let (a, b) = two_hosts(&lab, &switch)?;
    let (at_a, at_b) = (socket(&a), socket(&b));
    reaches(&at_a, &at_b, B, "hello")?;
    reaches(&at_b, &at_a, A, "hello")?;
    // At 64 kbit/s the whole load would take a minute: bucket and queue hold a small part of it, the rest must go.
    let slow = LinkShape { rate_bit: 64_000, burst_bytes: 4_000, queue_bytes: 20_000 };
    let passed = |from: &std::net::UdpSocket, to| -> Result<(u64, u64)> {
        let before = a.port().counters()?;
        for _ in 0..SENT {
            from.send_to(&[0; SIZE as usize], SocketAddrV4::new(to, 4000)).unwrap();
        }
        let after = a.port().counters()?;
        Ok((after.from_node.bytes - before.from_node.bytes, after.to_node.bytes - before.to_node.bytes))
    };
    a.port().shape(slow)?;
    assert!(passed(&at_a, B)?.0 < SENT * SIZE / 2);
    assert!(passed(&at_b, A)?.1 < SENT * SIZE / 2);
    // Changed and removed while it runs.
    a.port().shape_each(Some(slow), Some(LinkShape::rate(1_000_000_000)))?;
    assert!(passed(&at_a, B)?.0 >= SENT * SIZE);
    assert!(passed(&at_b, A)?.1 < SENT * SIZE / 2);
    a.port().unshape()?;
    a.port().unshape()?;
    assert!(passed(&at_b, A)?.1 >= SENT * SIZE);
    Ok(())
}

#[test]
fn a_capture_counts_who_sent_what() -> Result<()> {
    if !ready_or_skip()? {
        return Ok(());
    }
    let lab = Lab::new("capture")?;
    let switch = lab.switch("sw0")?;
    let (a, b) = two_hosts(&lab, &switch)?;
    let capture = switch.capture("udp", "udp")?;
    let cable = b.port().capture("cable", "")?;
    reaches(&socket(&a), &socket(&b), B, "hello")?;
    let seen = |trace: &netlab::pcap::Trace| {
        let bytes =
            trace.sum(|flow| flow.source == A && flow.destination == B && flow.destination_port == 4000);
        (bytes.payload >= 5).then_some(())
    };
    capture.wait_for("the datagram", LONG, seen)?;
    cable.wait_for("the datagram", LONG, seen)?;
    // What has passed is in a trace at once.
    let (from, before) = (socket(&a), capture.trace()?.frames);
    for sent in 1..=500 {
        from.send_to(b"more", SocketAddrV4::new(B, 4000)).unwrap();
        if sent % 50 == 0 {
            assert_eq!(capture.trace()?.frames, before + sent);
        }
    }
    let stats = capture.stop()?;
    assert!(stats.captured >= 1 && stats.dropped == 0, "{stats:?}");
    assert_eq!(capture.trace()?.frames, stats.captured);
    assert!(matches!(capture.wait_for("more", LONG, |_| None::<()>), Err(Error::InVain { .. })));

    let error = switch.capture("bad", "this is no filter").err().expect("tcpdump refuses it");
    assert!(error.to_string().contains("syntax error"), "{error}");
    Ok(())
}

#[test]
fn processes_and_events_belong_to_their_host() -> Result<()> {
    if !ready_or_skip()? {
        return Ok(());
    }
    let keep = tempfile::tempdir().unwrap();
    let lab = Lab::with_options("events", &LabOptions { keep: Some(keep.path().into()) })?;
    let switch = lab.switch("sw0")?;
    let host = lab.host("origin", &switch)?;
    let mut live = lab.timeline().subscribe();
    let script = r#"echo '{"event":"ready","interfaces":"'$(ls -m /proc/sys/net/ipv4/conf)'"}' >> "$1"; echo noise >> "$1"; sleep 1000"#;
    let process =
        host.spawn("agent", host.command("sh").args(["-c", script, "sh"]).arg(host.events_path()))?;
    let ready = host.events().wait_for_name("ready", LONG)?;
    assert!(ready.text("interfaces").is_some_and(|names| names.contains("eth0")), "{ready}");
    wait_until("the noise to be counted", LONG, || {
        lab.timeline().unreadable().contains_key("origin").then_some(())
    })?;
    let names: Vec<_> = std::iter::from_fn(|| live.next_within(Duration::ZERO))
        .map(|e| e.name().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["start", "ready"]);

    host.delete()?;
    assert!(!process.is_running() && !host.namespace().exists());
    assert!(host.run_in(|| ()).is_err() && host.command("true").spawn().is_err());
    host.delete()?;
    // The name is free again.
    let again = lab.host("origin", &switch)?;
    assert!(lab.host("origin", &switch).is_err());
    again.spawn("agent", &mut again.command("true"))?.wait(LONG)?;

    let namespaces = [switch.namespace().clone(), again.namespace().clone()];
    lab.tear_down()?;
    assert!(namespaces.iter().all(|namespace| !namespace.exists()));
    for file in ["timeline.jsonl", "origin.events", "origin.agent.log", "origin-2.agent.log"] {
        assert!(keep.path().join("events").join(file).exists(), "{file}");
    }
    Ok(())
}
